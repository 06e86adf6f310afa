//! The bulkhead command line: one module per verb.
//!
//! Results go to standard output, everything else to standard error. Exit codes:
//! 0 done, 1 failed, 2 wrong usage, 130 and 143 ended by a signal. `check` fails
//! on a fault, and takes a file that it cannot read for wrong usage.

mod ami;
mod bench;
mod build;
mod check;
mod clean;
mod conformance;
mod diff;
mod fuzz;
mod image;
mod image_choice;
mod inspect;
mod keys;
mod lock;
mod output;
mod repo;
mod run;
mod scenario;
mod verify;
mod vm;

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

/// Builds Bulkhead images, boots them, and looks after what they are made from.
#[derive(Parser)]
#[command(name = "bulkhead", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build an image, or find that nothing has changed.
    Build(build::Args),
    /// Say what is wrong with a document of user data.
    Check(check::Args),
    /// Resolve Bulkhead.lock anew and show what changed.
    Lock(lock::Args),
    /// Show what an image or a Debian package holds.
    Inspect(inspect::Args),
    /// Compare two images, and say what an update from one to the other fetches.
    Diff(diff::Args),
    /// Build the image again elsewhere and compare bit by bit.
    Verify(verify::Args),
    /// Build or push an image for host containers.
    Image(image::Args),
    /// Show the signing keys, or make new ones.
    Keys(keys::Args),
    /// Boot a variant's dev twin in QEMU.
    Run(run::Args),
    /// List or run the tests that boot images.
    Scenario(scenario::Args),
    /// Show how an image would be uploaded and registered as an AMI.
    Ami(ami::Args),
    /// Make and extend a repository that hosts are updated from.
    Repo(repo::Args),
    /// Run Kubernetes' own tests against a node.
    Conformance(conformance::Args),
    /// Measure a boot and the image.
    Bench(bench::Args),
    /// Run the fuzz targets, or list them.
    Fuzz(fuzz::Args),
    /// Remove what a build can make again.
    Clean(clean::Args),
}

fn main() -> ExitCode {
    // The helper of a virtual machine is this program once more; it has to enter
    // its namespace before there is any other thread.
    let mut arguments = std::env::args_os().skip(1);
    if arguments
        .next()
        .is_some_and(|first| first == test_vm::services::HELPER_ARGUMENT)
    {
        let done = test_vm::services::run(
            &arguments.collect::<Vec<_>>(),
            scenarios::serve_files_over_tls,
        );
        return exit_code(done.map(|()| ExitCode::SUCCESS));
    }
    let cli = Cli::parse_from(without_separator(std::env::args_os().collect()));
    let run = || {
        let done = match cli.verb {
            // Its exit status tells more than whether it failed.
            Verb::Check(args) => return Ok(check::run(&args)),
            Verb::Build(args) => build::run(args),
            Verb::Lock(args) => lock::run(args),
            Verb::Inspect(args) => inspect::run(args),
            Verb::Diff(args) => diff::run(args),
            Verb::Verify(args) => verify::run(args),
            Verb::Image(args) => image::run(args),
            Verb::Keys(args) => keys::run(args),
            Verb::Run(args) => run::run(args),
            Verb::Scenario(args) => scenario::run(args),
            Verb::Ami(args) => ami::run(args),
            Verb::Repo(args) => repo::run(args),
            Verb::Conformance(args) => conformance::run(args),
            Verb::Bench(args) => bench::run(args),
            Verb::Fuzz(args) => fuzz::run(args),
            Verb::Clean(args) => clean::run(args),
        };
        done.map(|()| ExitCode::SUCCESS)
    };
    exit_code(buildsys::signals::install().and_then(|()| run()))
}

/// cargo-make hands on the `--` that stands before the tool's own arguments.
fn without_separator(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(2).is_some_and(|argument| argument == "--") {
        arguments.remove(2);
    }
    arguments
}

fn exit_code(done: anyhow::Result<ExitCode>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(error) => {
            if let Some(interrupted) = buildsys::signals::interrupted() {
                eprintln!("interrupted");
                return ExitCode::from(u8::try_from(interrupted.exit_code()).unwrap_or(1));
            }
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
