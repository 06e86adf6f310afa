//! How the guest's instructions are executed: by the processor (KVM) where a
//! guest really runs under it, else translated (TCG).

use crate::emulator::{Emulator, RUN, Start};
use crate::machine::LOG;
use crate::platform::Platform;
use anyhow::{Context, Result};
use boot_slots::layout::Architecture;
use sandbox::Network;
use std::fmt;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How the guest's instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceleration {
    /// By the processor.
    Kvm,
    /// Translated, on several threads.
    Tcg,
}

impl fmt::Display for Acceleration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Tcg => "software emulation (TCG)",
        })
    }
}

const KVM_DEVICE: &str = "/dev/kvm";
/// How long the probe's guest may take to print something.
const PROBE_TIME: Duration = Duration::from_secs(3);

impl Acceleration {
    /// Devices of the workstation that the emulator needs.
    pub(crate) fn devices(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &[KVM_DEVICE],
            Self::Tcg => &[],
        }
    }

    pub(crate) fn arguments(self, platform: &Platform) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", platform.processor],
        }
    }

    /// The best that works here. That /dev/kvm opens says little: some machines
    /// have one that runs special guests only. So the firmware is started under
    /// it, which has to print something in time.
    pub fn detect(emulator: &Emulator, scratch: &Path) -> Result<(Self, String)> {
        if emulator.architecture() != Architecture::current() {
            let reason = "the workstation's processor is of another architecture";
            return Ok((Self::Tcg, reason.to_string()));
        }
        if !Path::new(KVM_DEVICE).exists() {
            return Ok((Self::Tcg, format!("there is no {KVM_DEVICE}")));
        }
        if let Err(error) = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(KVM_DEVICE)
        {
            return Ok((Self::Tcg, format!("{KVM_DEVICE} does not open: {error}")));
        }
        Ok(match probe(emulator, scratch)? {
            Probe::Printed => (Self::Kvm, format!("a guest runs under {KVM_DEVICE}")),
            Probe::Ended => (
                Self::Tcg,
                format!("the emulator does not run under {KVM_DEVICE}"),
            ),
            Probe::Silent => (Self::Tcg, format!("no guest runs under {KVM_DEVICE}")),
        })
    }
}

enum Probe {
    Printed,
    Ended,
    Silent,
}

fn probe(emulator: &Emulator, scratch: &Path) -> Result<Probe> {
    let folder = scratch.join("kvm-probe");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let serial = folder.join("serial");
    fs::write(&serial, b"").with_context(|| format!("cannot write {}", serial.display()))?;
    let platform = emulator.platform();
    let mut arguments: Vec<String> = Vec::new();
    arguments.extend(
        [
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-m",
            "256M",
        ]
        .map(String::from),
    );
    let kvm = Acceleration::Kvm.arguments(platform);
    arguments.extend(platform.machine.iter().chain(&kvm).map(ToString::to_string));
    arguments.extend([
        "-drive".to_string(),
        format!(
            "if=pflash,unit=0,format=raw,readonly=on,file={}",
            platform.firmware
        ),
        "-chardev".to_string(),
        format!("file,id=serial,path={RUN}/serial"),
        "-serial".to_string(),
        "chardev:serial".to_string(),
    ]);
    let mut child = emulator.spawn(Start {
        folder: &folder,
        readable: &[],
        devices: Acceleration::Kvm.devices(),
        network: Network::None,
        program: platform.program,
        environment: &[],
        log: LOG,
        arguments: arguments.into_iter().map(Into::into).collect(),
    })?;
    let started = Instant::now();
    let result = loop {
        let printed = fs::metadata(&serial)
            .with_context(|| format!("cannot look at {}", serial.display()))?
            .len()
            > 0;
        if printed {
            break Probe::Printed;
        }
        if child
            .try_wait()
            .context("cannot ask for the probe's state")?
            .is_some()
        {
            break Probe::Ended;
        }
        if started.elapsed() > PROBE_TIME {
            break Probe::Silent;
        }
        thread::sleep(Duration::from_millis(20));
    };
    child.kill();
    Ok(result)
}
