//! Why a machine refuses namespaces, in words that name the switch to set.

use crate::plan::Op;
use nix::errno::Errno;
use std::fs;
use std::path::Path;

const USERNS_CLONE: &str = "kernel.unprivileged_userns_clone";
const MAX_USER_NAMESPACES: &str = "user.max_user_namespaces";
const APPARMOR: &str = "kernel.apparmor_restrict_unprivileged_userns";

/// The kernel's settings that matter, `None` where it has no such switch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Switches {
    userns_clone: Option<u64>,
    max_user_namespaces: Option<u64>,
    apparmor_restricts: Option<u64>,
}

impl Switches {
    /// Reads them below `proc`, which is `/proc/sys`.
    pub(crate) fn read(proc: &Path) -> Self {
        let value = |name: &str| {
            let text = fs::read_to_string(proc.join(name.replace('.', "/"))).ok()?;
            text.trim().parse().ok()
        };
        Self {
            userns_clone: value(USERNS_CLONE),
            max_user_namespaces: value(MAX_USER_NAMESPACES),
            apparmor_restricts: value(APPARMOR),
        }
    }
}

/// What to do when the clone itself failed.
pub(crate) fn clone_refused(errno: Errno, switches: Switches) -> String {
    if switches.max_user_namespaces == Some(0) {
        return switch_off(MAX_USER_NAMESPACES, "0", "15000");
    }
    if switches.userns_clone == Some(0) {
        return switch_off(USERNS_CLONE, "0", "1");
    }
    match errno {
        Errno::ENOSPC | Errno::EUSERS => format!(
            "all of the user namespaces that {MAX_USER_NAMESPACES} allows are in use, or they are \
             nested too deep: end other sandboxes or raise it with `sysctl -w`"
        ),
        Errno::EINVAL => "this kernel lacks a kind of namespace: it needs user, mount, PID, \
                          network, IPC and UTS namespaces (CONFIG_USER_NS and the like)"
            .to_string(),
        Errno::EPERM => match switches.apparmor_restricts {
            Some(value) if value != 0 => apparmor(),
            _ => "the system call is refused to this process: inside a container its seccomp \
                  profile must allow user namespaces (docker: --security-opt seccomp=unconfined), \
                  and a chroot cannot make them at all"
                .to_string(),
        },
        Errno::EAGAIN => "too many processes: raise the limit (ulimit -u)".to_string(),
        _ => "unexpected refusal by the kernel".to_string(),
    }
}

/// What to do when operation `op` of the set-up failed.
pub(crate) fn setup_refused(op: &Op, errno: Errno, switches: Switches) -> Option<String> {
    let refused = matches!(errno, Errno::EPERM | Errno::EACCES);
    match op {
        Op::Write { .. } | Op::MakePrivate | Op::Tmpfs { .. } if refused => {
            Some(match switches.apparmor_restricts {
                Some(value) if value != 0 => apparmor(),
                _ => "a security module lets user namespaces be made but not used: allow them \
                      for this program"
                    .to_string(),
            })
        }
        Op::Restrict { .. } if errno == Errno::ENOSYS => {
            Some("the kernel is older than Linux 5.12".to_string())
        }
        Op::Mkdir { .. } | Op::Touch { .. } if errno == Errno::EROFS => Some(
            "a mount point inside a folder that is bound read-only must exist there".to_string(),
        ),
        _ => None,
    }
}

fn switch_off(name: &str, value: &str, wanted: &str) -> String {
    format!(
        "unprivileged user namespaces are switched off by {name}={value}: set it with \
         `sudo sysctl -w {name}={wanted}` and keep it in /etc/sysctl.d/"
    )
}

fn apparmor() -> String {
    format!(
        "AppArmor takes the rights inside user namespaces away by {APPARMOR}=1: set it with \
         `sudo sysctl -w {APPARMOR}=0`, or give the program a profile with `userns,`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_that_applies_is_named() {
        let off = |switches: Switches| clone_refused(Errno::EPERM, switches);
        let none = Switches::default();
        for (text, expected) in [
            (
                off(Switches {
                    userns_clone: Some(0),
                    ..none
                }),
                "sysctl -w kernel.unprivileged_userns_clone=1",
            ),
            (
                off(Switches {
                    max_user_namespaces: Some(0),
                    ..none
                }),
                "sysctl -w user.max_user_namespaces=15000",
            ),
            (
                off(Switches {
                    apparmor_restricts: Some(1),
                    ..none
                }),
                "kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (
                off(Switches {
                    apparmor_restricts: Some(0),
                    ..none
                }),
                "seccomp",
            ),
            (off(none), "seccomp"),
            (
                clone_refused(Errno::ENOSPC, none),
                "user.max_user_namespaces",
            ),
            (clone_refused(Errno::EINVAL, none), "CONFIG_USER_NS"),
        ] {
            assert!(text.contains(expected), "{text}");
        }
        let restricted = Switches {
            apparmor_restricts: Some(1),
            ..none
        };
        let text = setup_refused(&Op::MakePrivate, Errno::EACCES, restricted).unwrap();
        assert!(text.contains("AppArmor"), "{text}");
        assert_eq!(
            setup_refused(&Op::MakePrivate, Errno::ENOMEM, restricted),
            None
        );
    }

    #[test]
    fn switches_are_read_where_the_kernel_has_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("user")).unwrap();
        fs::write(folder.path().join("user/max_user_namespaces"), "0\n").unwrap();
        let switches = Switches::read(folder.path());
        assert_eq!(switches.max_user_namespaces, Some(0));
        assert_eq!(switches.userns_clone, None);
    }
}
