//! What the images of the admin and control containers do. One static program, which goes
//! by the name that it is called by, or by its first argument:
//!
//! | name | what |
//! |---|---|
//! | `admin` | lets in by SSH whom the user data names |
//! | `control` | waits, for what is run in the container |
//! | `sheltie` | a shell in the namespaces of the host |
//! | `sudo` | runs a command: everybody is root here already |
//! | `enable-admin-container`, `disable-admin-container` | set `host-containers.admin.enabled` |
//! | `enter-admin-container` | enables it, and opens a shell in it |
//!
//! [`admin`] has something to decide. What the host gives to containers is the business of
//! the crate `host-containers`.

mod admin;
mod host;
mod sheltie;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use std::collections::VecDeque;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

const OWN_NAME: &str = "access-containers";

fn main() -> ExitCode {
    let mut arguments: VecDeque<String> = std::env::args().collect();
    let mut name = arguments.pop_front().unwrap_or_default();
    if let Some((_, file)) = name.rsplit_once('/') {
        name = file.to_string();
    }
    if name == OWN_NAME {
        name = arguments.pop_front().unwrap_or_default();
    }
    let arguments = Vec::from(arguments);
    if name == "sheltie" {
        return sheltie::run(&arguments);
    }
    sysutil::main_with(&name, || match name.as_str() {
        "admin" => admin::run(),
        "control" => wait_for_end(),
        "sudo" => {
            let (program, arguments) = of_sudo(&arguments)?;
            Err(exec(Command::new(program).args(arguments)))
        }
        "enable-admin-container" => host::set_admin(true),
        "disable-admin-container" => host::set_admin(false),
        "enter-admin-container" => host::enter_admin(),
        _ => bail!("there is nothing to be done by the name of {name:?}"),
    })
}

/// The program that `sudo` is to run, and its arguments. Everybody is root here, whose
/// environment stays, so that of its options only those for a shell mean something.
fn of_sudo(arguments: &[String]) -> Result<(&str, &[String])> {
    const SHELL: &str = "/bin/bash";
    let mut rest = arguments;
    let mut shell = false;
    while let [option, more @ ..] = rest
        && option.starts_with('-')
    {
        rest = more;
        match option.as_str() {
            "-i" | "-s" => shell = true,
            "-E" | "-H" | "-n" | "-S" => {}
            "--" => break,
            _ => bail!("the option {option} of sudo is not known here; you are root already"),
        }
    }
    match rest {
        [] if shell => Ok((SHELL, rest)),
        [program, arguments @ ..] => Ok((program, arguments)),
        [] => bail!("usage: sudo COMMAND…"),
    }
}

/// Waits until somebody asks for the end.
fn wait_for_end() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    // A first process gets no signal that it does not wait for.
    signals.thread_block().context("cannot hold signals back")?;
    signals.wait().context("cannot wait for signals").map(drop)
}

/// Becomes another program; returns only with the reason why not.
fn exec(command: &mut Command) -> anyhow::Error {
    let error = command.exec();
    let program = command.get_program().to_string_lossy().into_owned();
    anyhow::Error::from(error).context(format!("cannot run {program}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_passes_over_its_options() {
        let check = |arguments: &[&str], expected: Option<(&str, &[&str])>| {
            let arguments: Vec<String> = arguments.iter().map(|a| a.to_string()).collect();
            let found = of_sudo(&arguments).ok();
            let found = found.map(|(program, arguments)| (program, arguments.to_vec()));
            let expected = expected.map(|(program, arguments)| {
                (program, arguments.iter().map(|a| a.to_string()).collect())
            });
            assert_eq!(found, expected, "{arguments:?}");
        };
        check(&["sheltie"], Some(("sheltie", &[])));
        check(&["-E", "ls", "-l"], Some(("ls", &["-l"])));
        check(&["--", "-x"], Some(("-x", &[])));
        check(&["-i"], Some(("/bin/bash", &[])));
        check(&["-i", "ls"], Some(("ls", &[])));
        check(&["-u", "somebody", "ls"], None);
        check(&[], None);
    }
}
