//! What machines of one architecture have that those of another have not: the program
//! that emulates them, and the firmware.

use boot_slots::layout::Architecture;

/// A kind of machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Platform {
    /// The emulator's program.
    pub program: &'static str,
    /// The machine, as options of that program.
    pub machine: &'static [&'static str],
    /// The processor that is emulated, where it cannot be the workstation's own.
    pub processor: &'static str,
    /// Code of the firmware, which checks signatures when its variables say so.
    pub firmware: &'static str,
    /// Its variables before any key is known.
    pub variables: &'static str,
}

const X86_64: Platform = Platform {
    program: "qemu-system-x86_64",
    // The firmware keeps its variables where only its own code, running in system
    // management mode, can write: without that Secure Boot is a show.
    machine: &[
        "-machine",
        "q35,smm=on",
        "-global",
        "driver=cfi.pflash01,property=secure,value=on",
    ],
    processor: "max",
    firmware: "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
    variables: "/usr/share/OVMF/OVMF_VARS_4M.fd",
};

const AARCH64: Platform = Platform {
    program: "qemu-system-aarch64",
    machine: &["-machine", "virt,gic-version=3"],
    // One without the signing of pointers, which newer ones have and emulators are slow at.
    processor: "neoverse-n1",
    firmware: "/usr/share/AAVMF/AAVMF_CODE.secboot.fd",
    variables: "/usr/share/AAVMF/AAVMF_VARS.fd",
};

impl Platform {
    /// That of an architecture.
    pub fn of(architecture: Architecture) -> &'static Self {
        match architecture {
            Architecture::X86_64 => &X86_64,
            Architecture::Aarch64 => &AARCH64,
        }
    }
}
