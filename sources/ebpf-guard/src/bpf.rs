//! The system call `bpf`, for programs at the hooks of security modules.

use nix::errno::Errno;
use nix::libc;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

// Numbers of the kernel's <linux/bpf.h>.
const PROG_LOAD: libc::c_long = 5;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const PROG_TYPE_LSM: u32 = 29;
const ATTACH_LSM_MAC: u32 = 27;

/// The kernel has helpers for programs under its own licence only.
const LICENSE: &CStr = c"GPL";

/// `r0 = -1; exit`: the hook's answer is EPERM.
const REFUSAL: [u64; 2] = [
    instruction(0xb7, -1), // BPF_ALU64 | BPF_MOV | BPF_K
    instruction(0x95, 0),  // BPF_JMP | BPF_EXIT
];

const fn instruction(code: u8, immediate: i32) -> u64 {
    code as u64 | (immediate as u32 as u64) << 32
}

/// The part of `union bpf_attr` that loading a program takes.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface_index: u32,
    attach_type: u32,
    types: u32,
    function_size: u32,
    functions: u64,
    function_count: u32,
    line_size: u32,
    lines: u64,
    line_count: u32,
    attach_function: u32,
}

/// The part of it that attaching one takes.
#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    name: u64,
    program: u32,
    padding: u32,
}

/// Loads a program that refuses whatever the hook asks about. `hook` is the number of
/// its function among the kernel's types.
pub(crate) fn load_refusal(hook: u32) -> nix::Result<OwnedFd> {
    let attributes = LoadAttributes {
        program_type: PROG_TYPE_LSM,
        instruction_count: REFUSAL.len() as u32,
        instructions: REFUSAL.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        attach_type: ATTACH_LSM_MAC,
        attach_function: hook,
        ..LoadAttributes::default()
    };
    call(PROG_LOAD, &attributes)
}

/// Attaches a program to the hook that it was loaded for, until what is returned is
/// dropped.
pub(crate) fn attach(program: &OwnedFd) -> nix::Result<OwnedFd> {
    let attributes = AttachAttributes {
        program: program.as_raw_fd() as u32,
        ..AttachAttributes::default()
    };
    call(RAW_TRACEPOINT_OPEN, &attributes)
}

fn call<T>(command: libc::c_long, attributes: &T) -> nix::Result<OwnedFd> {
    // SAFETY: `attributes` is a prefix of `union bpf_attr` of the size that is given, which
    // the kernel reads and does not keep; what it points to lives as long as the process.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    let descriptor = Errno::result(result)?;
    // SAFETY: both commands return a descriptor that is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn instructions_are_encoded_as_the_kernel_reads_them() {
        assert_eq!(
            REFUSAL[0].to_le_bytes(),
            [0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]
        );
        assert_eq!(REFUSAL[1].to_le_bytes(), [0x95, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn fields_lie_where_the_kernel_has_them() {
        assert_eq!(offset_of!(LoadAttributes, attach_type), 68);
        assert_eq!(offset_of!(LoadAttributes, attach_function), 108);
        assert_eq!(offset_of!(AttachAttributes, program), 8);
    }
}
