//! The I/O port by which a machine of VMware talks to its hypervisor.
//!
//! The hypervisor watches for one instruction, `in` from one port, and takes it for a
//! call, with arguments and answers in registers. It answers programs without any
//! rights, too. Anywhere else the instruction kills the program that executes it, so
//! only a [`Port`] does, which there is on machines of VMware alone.

/// What the registers hold at a call, and after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// EBX: an argument; a result.
    pub b: u32,
    /// ECX: what is called, with a status in its upper half afterwards.
    pub c: u32,
    /// EDX: the port, with a channel in its upper half.
    pub d: u32,
    /// ESI: half of a channel's cookie.
    pub si: u32,
    /// EDI: the other half.
    pub di: u32,
}

/// The port of this machine.
#[derive(Debug)]
pub struct Port(());

impl Port {
    /// The number of the port.
    pub const NUMBER: u32 = 0x5658;

    /// The port, if this is a machine of VMware by what its processor says.
    pub fn open() -> Option<Self> {
        (processor::hypervisor() == Some(*b"VMwareVMware")).then_some(Self(()))
    }

    /// Calls the hypervisor.
    pub fn call(&mut self, registers: Registers) -> Registers {
        processor::call(registers)
    }
}

#[cfg(target_arch = "x86_64")]
mod processor {
    use super::Registers;
    use std::arch::asm;
    use std::arch::x86_64::__cpuid;

    /// Without it in EAX the port is any other.
    const MAGIC: u32 = 0x564d_5868;
    const FEATURES: u32 = 1;
    const FEATURE_HYPERVISOR: u32 = 1 << 31;
    const HYPERVISOR: u32 = 0x4000_0000;

    /// The signature of the hypervisor that the processor says it is run by.
    #[allow(
        unused_unsafe,
        reason = "asking the processor is safe in newer releases of Rust"
    )]
    pub(super) fn hypervisor() -> Option<[u8; 12]> {
        // SAFETY: every x86-64 processor has CPUID and its leaf 1.
        let features = unsafe { __cpuid(FEATURES) };
        if features.ecx & FEATURE_HYPERVISOR == 0 {
            return None;
        }
        // SAFETY: the leaf exists wherever the bit says that there is a hypervisor.
        let leaf = unsafe { __cpuid(HYPERVISOR) };
        let mut signature = [0; 12];
        for (word, value) in signature
            .chunks_exact_mut(4)
            .zip([leaf.ebx, leaf.ecx, leaf.edx])
        {
            word.copy_from_slice(&value.to_le_bytes());
        }
        Some(signature)
    }

    pub(super) fn call(registers: Registers) -> Registers {
        let Registers { b, c, d, si, di } = registers;
        let mut after = registers;
        let argument = u64::from(b);
        let result: u64;
        // SAFETY: the hypervisor takes the instruction for a call and changes no memory
        // and no registers but these. RBX, which the compiler keeps for itself, is put
        // back. There is a `Port` only where the hypervisor answers.
        unsafe {
            asm!(
                "xchg {b}, rbx",
                "in eax, dx",
                "xchg {b}, rbx",
                b = inout(reg) argument => result,
                inout("eax") MAGIC => _,
                inout("ecx") c => after.c,
                inout("edx") d => after.d,
                inout("esi") si => after.si,
                inout("edi") di => after.di,
                options(nostack),
            );
        }
        // EBX is the lower half.
        after.b = result as u32;
        after
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod processor {
    use super::Registers;

    pub(super) fn hypervisor() -> Option<[u8; 12]> {
        None
    }

    pub(super) fn call(registers: Registers) -> Registers {
        registers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_port_where_the_firmware_names_another_maker() {
        let vendor = std::fs::read_to_string("/sys/class/dmi/id/sys_vendor");
        if !vendor.is_ok_and(|vendor| vendor.starts_with("VMware")) {
            assert!(Port::open().is_none());
        }
    }
}
