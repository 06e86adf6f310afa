//! `settings.kernel`.

use crate::model::group;
use crate::types::{SingleLine, choice_type, name_type};
use std::collections::BTreeMap;

group! {
    /// The Linux kernel at run time.
    pub struct Kernel {
        /// Kernel lockdown. It can be raised at run time and lowered by a reboot.
        "lockdown" => lockdown: Lockdown, default "integrity";
        /// Kernel modules by name. A module with an entry is blocked unless the
        /// entry allows it.
        "modules" => modules: BTreeMap<ModuleName, Module>;
        /// Kernel parameters by name. The values are texts, and a name with a
        /// dot in it is quoted.
        "sysctl" => sysctl: BTreeMap<SysctlName, SingleLine>;
    }
}

group! {
    /// What may happen to a kernel module.
    pub struct Module {
        /// Whether it may be loaded.
        "allowed" => allowed: bool;
        /// Whether it is loaded at boot, if it is allowed.
        "autoload" => autoload: bool;
    }
}

choice_type! {
    /// Mode of the kernel's lockdown.
    Lockdown {
        /// No lockdown.
        None = "none",
        /// User space cannot change the running kernel.
        Integrity = "integrity",
        /// Nor read secrets out of it.
        Confidentiality = "confidentiality",
    }
}

name_type! {
    /// Name of a kernel module.
    ModuleName, "a module name of letters, digits, '-' and '_', at most 56 long",
    |name| (1..=56).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
}

name_type! {
    /// Name of a kernel parameter.
    SysctlName,
    "a kernel parameter of letters, digits, '.', '/', '-' and '_', at most 128 long, without '..' and without '.' or '/' in front",
    |name| (1..=128).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"./_-".contains(&c))
        && !name.contains("..")
        && !name.starts_with(['.', '/'])
}
