//! What a node keeps for the container runtime and kubelet. Launchers reckon the
//! same way before a node is there: with other numbers on the node they would
//! plan pods that never fit.

/// CPU time that is kept on a machine with `cpus` processors, as Kubernetes writes
/// it: 6 % of the first, 1 % of the second, 0.5 % of the third and fourth, 0.25 %
/// of each further one.
pub(crate) fn cpu(cpus: u32) -> String {
    // In tenths of a thousandth of a processor.
    let share = |cpu: u32| match cpu {
        0 => 600,
        1 => 100,
        2 | 3 => 50,
        _ => 25,
    };
    let first: u32 = (0..cpus.min(4)).map(share).sum();
    let rest = cpus.saturating_sub(4).saturating_mul(25);
    format!("{}m", first.saturating_add(rest) / 10)
}

/// Memory that is kept on a node for `pods` pods, as Kubernetes writes it.
pub(crate) fn memory(pods: u32) -> String {
    format!("{}Mi", 255 + 11 * u64::from(pods))
}

/// Disk that is kept on a node whose data lies on a file system of `size` bytes: a
/// gibibyte. kubelet does not start where it has less than it keeps, so of a small
/// disk it is a tenth; 0 stands for a size that nobody knows.
pub(crate) fn storage(size: u64) -> String {
    const ENOUGH: u64 = 10 << 30;
    match size {
        0 | ENOUGH.. => "1Gi".to_string(),
        size => format!("{}Mi", (size / 10) >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors() {
        for (cpus, expected) in [
            (0, "0m"),
            (1, "60m"),
            (2, "70m"),
            (3, "75m"),
            (4, "80m"),
            // Half a thousandth is not kept.
            (5, "82m"),
            (8, "90m"),
            (16, "110m"),
            (64, "230m"),
            (192, "550m"),
        ] {
            assert_eq!(cpu(cpus), expected, "{cpus}");
        }
    }

    #[test]
    fn pods() {
        for (pods, expected) in [(0, "255Mi"), (29, "574Mi"), (58, "893Mi"), (110, "1465Mi")] {
            assert_eq!(memory(pods), expected, "{pods}");
        }
    }

    #[test]
    fn disks() {
        for (size, expected) in [
            (0, "1Gi"),
            (1 << 20, "0Mi"),
            (510_873_600, "48Mi"),
            ((10 << 30) - 1, "1023Mi"),
            (10 << 30, "1Gi"),
            (u64::MAX, "1Gi"),
        ] {
            assert_eq!(storage(size), expected, "{size}");
        }
    }
}
