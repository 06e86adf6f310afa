//! What the firmware says about itself in its variables.

use std::path::Path;

/// Secure Boot's state, of the vendor EFI_GLOBAL_VARIABLE.
const SECURE_BOOT: &str =
    "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Whether the firmware starts signed programs only. `root` is the root of the
/// file system; a machine without EFI starts anything.
pub fn is_secure_boot(root: &Path) -> bool {
    // Four bytes of attributes come before the value.
    match crate::fs::read_limited(&root.join(SECURE_BOOT), 16) {
        Ok(bytes) => bytes.get(4) == Some(&1),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_one_is_on() {
        let root = tempfile::tempdir().expect("folder");
        assert!(!is_secure_boot(root.path()));
        let variable = root.path().join(SECURE_BOOT);
        std::fs::create_dir_all(variable.parent().expect("parent")).expect("folder");
        for (bytes, expected) in [
            (&[6, 0, 0, 0, 1][..], true),
            (&[6, 0, 0, 0, 0], false),
            (&[1], false),
            (&[], false),
        ] {
            std::fs::write(&variable, bytes).expect("file");
            assert_eq!(is_secure_boot(root.path()), expected, "{bytes:?}");
        }
    }
}
