//! A security agent, for tests: while it runs, nobody reads the kernel's log.
//!
//! It does what such agents do on a host whose kernel takes no modules: it finds a hook
//! of the security modules in the kernel's description of its own types, loads an eBPF
//! program for it, and attaches that. No image has it.

mod bpf;
mod btf;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use std::fs;
use std::process::ExitCode;

/// What the kernel says of its types.
const TYPES: &str = "/sys/kernel/btf/vmlinux";
/// The hook at which programs are asked when somebody wants the kernel's log.
const HOOK: &str = "bpf_lsm_syslog";

fn main() -> ExitCode {
    match guard() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn guard() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block().context("cannot block signals")?;
    let types = fs::read(TYPES).with_context(|| format!("cannot read {TYPES}"))?;
    let hook = btf::function(&types, HOOK)
        .with_context(|| format!("{TYPES} cannot be understood"))?
        .with_context(|| format!("the kernel has no hook {HOOK}"))?;
    let program = bpf::load_refusal(hook).context("the kernel does not take the program")?;
    // Attached as long as this is open.
    let _link = bpf::attach(&program).context("the program cannot be attached")?;
    println!("the kernel's log is guarded");
    signals.wait().context("cannot wait for a signal")?;
    Ok(())
}
