//! A shell in the namespaces of the host, which has none of its own.
//!
//! The shell and its small programs are the container's. They are found below
//! `/proc/PID/root`, where PID is a process that stays in the container meanwhile: this
//! one, which starts itself once more to enter the namespaces.

use crate::exec;
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

/// Namespaces of process 1, in the order in which they are entered. Processes are seen
/// already.
const NAMESPACES: [(&str, CloneFlags); 5] = [
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("net", CloneFlags::CLONE_NEWNET),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("mnt", CloneFlags::CLONE_NEWNS),
];
/// First argument of the process that enters them; the second is who stays.
const ENTER: &str = "--in-the-host";
const SHELL: &str = "usr/bin/busybox";

/// Runs a shell with `arguments`, such as `-c` and a command, or the program that they
/// name; its exit status.
pub fn run(arguments: &[String]) -> ExitCode {
    if let [first, process, rest @ ..] = arguments
        && first == ENTER
    {
        return sysutil::main_with("sheltie", || enter(process, rest));
    }
    let mut status = ExitCode::FAILURE;
    let done = sysutil::main_with("sheltie", || {
        status = stay(arguments)?;
        Ok(())
    });
    if done == ExitCode::SUCCESS {
        status
    } else {
        done
    }
}

fn stay(arguments: &[String]) -> Result<ExitCode> {
    let own = std::process::id().to_string();
    let mut child = Command::new("/proc/self/exe");
    let child = std::os::unix::process::CommandExt::arg0(&mut child, "sheltie");
    let mut child = child
        .args([ENTER, &own])
        .args(of_shell(arguments))
        .spawn()
        .context("cannot start another process")?;
    // Keys that interrupt are the shell's business.
    let mut keys = SigSet::empty();
    keys.add(Signal::SIGINT);
    keys.add(Signal::SIGQUIT);
    keys.thread_block().context("cannot hold signals back")?;
    let status = child.wait().context("cannot wait for the shell")?;
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    let code = code.and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// What the shell is told, so that it runs a program which is named without an option.
fn of_shell(arguments: &[String]) -> Vec<&str> {
    let arguments = arguments.iter().map(String::as_str);
    let is_program = arguments
        .clone()
        .next()
        .is_some_and(|a| !a.starts_with('-'));
    let run: &[&str] = if is_program {
        &["-c", "exec \"$@\"", "sheltie"]
    } else {
        &[]
    };
    run.iter().copied().chain(arguments).collect()
}

/// Enters the namespaces of process 1, and becomes a shell that has the programs of the
/// host, and of the container of `process` besides.
fn enter(process: &str, arguments: &[String]) -> Result<()> {
    let mut namespaces = Vec::new();
    for (name, kind) in NAMESPACES {
        let path = format!("/proc/1/ns/{name}");
        let file = File::open(&path).with_context(|| {
            format!("cannot open {path}: only a container with superpowers may enter the host")
        })?;
        namespaces.push((path, file, kind));
    }
    for (path, file, kind) in namespaces {
        setns(file, kind).with_context(|| format!("cannot enter {path}"))?;
    }
    std::env::set_current_dir("/").context("cannot go to the root of the host")?;
    let container = format!("/proc/{process}/root");
    let path = format!("/usr/bin:/usr/sbin:{container}/usr/bin:{container}/usr/sbin");
    Err(exec(
        Command::new(format!("{container}/{SHELL}"))
            .arg("sh")
            .args(arguments)
            .env("PATH", path)
            .env("PS1", "[host]# "),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_run_by_its_name() {
        let check = |arguments: &[&str], expected: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|a| a.to_string()).collect();
            assert_eq!(of_shell(&arguments), expected);
        };
        check(&[], &[]);
        check(&["-c", "ls /"], &["-c", "ls /"]);
        check(
            &["journalctl", "-u", "kubelet"],
            &[
                "-c",
                "exec \"$@\"",
                "sheltie",
                "journalctl",
                "-u",
                "kubelet",
            ],
        );
    }
}
