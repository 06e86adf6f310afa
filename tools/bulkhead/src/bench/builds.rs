//! Builds: from nothing, of what is built already, and after a change.
//!
//! They happen in a copy of the project, so that its outputs and whatever is being
//! edited stay as they are.

use super::Row;
use crate::diff::Image;
use anyhow::{Context, Result, ensure};
use buildsys::image::verify::copy_inputs;
use buildsys::project::Project;
use buildsys::{signals, store};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use test_vm::process::ended_children;

/// The host program that is changed, as a developer of the host would.
const CHANGED: &str = "sources/apiserver/src/main.rs";
/// A little more data, which moves what lies behind it in the program.
const CHANGE: &str = "\n#[used]\nstatic CHANGED: [u8; 64] = [0xa5; 64];\n";

/// Measures in `folder`; with `cold`, from nothing, too.
pub fn measure(project: &Project, variant: &str, folder: &Path, cold: bool) -> Result<Vec<Row>> {
    let copy = folder.join("project");
    fs::create_dir_all(&copy).with_context(|| format!("cannot create {}", copy.display()))?;
    copy_inputs(project, &copy)?;
    let tool = std::env::current_exe().context("cannot tell where this program lies")?;
    let build = |what: &str| {
        let mut command = Command::new(&tool);
        command
            .args(["build", "--locked", "--variant", variant])
            .current_dir(&copy);
        if cold {
            command.env("XDG_CACHE_HOME", folder.join("cache"));
        }
        row(what, command)
    };

    let mut rows = Vec::new();
    if cold {
        rows.push(row(
            "build: the tool, from nothing",
            tool_build(project, folder),
        )?);
    }
    let first = build("build: image, from nothing")?;
    if cold {
        rows.push(first);
    }
    rows.push(build("build: nothing changed")?);
    let built = copy
        .join("build/images")
        .join(format!("{variant}-x86_64/latest"));
    let old = Image::read(&built)?;
    change(&copy.join(CHANGED))?;
    rows.push(build("build: one line of apiserver")?);
    let new = Image::read(&built)?;
    rows.push(Row::size(
        "update: one line of apiserver",
        old.fetched_for(&new),
    ));
    rows.push(Row::size("update: everything", new.size()));
    store::remove_tree(&copy)?;
    Ok(rows)
}

/// The tool compiled with no outputs of an earlier time.
fn tool_build(project: &Project, folder: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command
        .args(["build", "--locked", "--package", "bulkhead"])
        .current_dir(&project.root)
        .env("CARGO_TARGET_DIR", folder.join("target"));
    command
}

fn change(path: &Path) -> Result<()> {
    OpenOptions::new()
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(CHANGE.as_bytes()))
        .with_context(|| format!("cannot change {}", path.display()))
}

/// Runs a command to its end and says what it and everything it waited for took.
fn row(what: &str, mut command: Command) -> Result<Row> {
    eprintln!("{what} …");
    let (cpu, started) = (ended_children(), Instant::now());
    let status = command
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    signals::check()?;
    ensure!(status.success(), "{what}: {status}");
    let wall = started.elapsed().as_secs_f64();
    Ok(Row::time(what, ended_children() - cpu, wall))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_takes_is_counted() {
        let mut busy = Command::new("sh");
        busy.args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"]);
        let busy = row("busy", busy).expect("a shell");
        let mut idle = Command::new("sleep");
        idle.arg("0.2");
        let idle = row("idle", idle).expect("sleep");
        assert!(busy.cpu > idle.cpu, "{busy:?} {idle:?}");
        assert!(idle.wall >= Some(0.2));
        let error = row("fails", Command::new("false")).expect_err("false");
        assert!(error.to_string().contains("fails"), "{error}");
    }

    #[test]
    fn the_changed_file_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        assert!(root.join(CHANGED).is_file());
    }
}
