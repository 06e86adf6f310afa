//! `bulkhead fuzz`: parsers of foreign bytes under libFuzzer.

use anyhow::{Context, Result, bail, ensure};
use buildsys::project::Project;
use buildsys::signals;
use std::ffi::OsString;
use std::fs::{self, File};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// Run fuzz targets, or list them: every parser of foreign bytes under libFuzzer.
///
/// Without arguments the targets are listed, one a line. New inputs that reach new
/// code are kept in build/fuzz, and so is an input that breaks a promise. Needs a
/// C++ compiler; any toolchain of Rust will do.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Targets to run
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Run every target
    #[arg(long, conflicts_with = "targets")]
    all: bool,
    /// Run each target for so many seconds
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u32,
}

/// The crate with the targets, below the project.
const CRATE: &str = "tests/fuzz";
/// Its program.
const PROGRAM: &str = "fuzz";
/// Environment variable that tells it which target to run.
const CHOICE: &str = "FUZZ_TARGET";
/// Inputs longer than this find nothing that shorter ones do not.
const LONGEST: &str = "-max_len=65536";
/// Seconds that one input may take.
const PATIENCE: &str = "-timeout=10";

/// What has code report the paths that it takes to libFuzzer. The switches are
/// those of LLVM's SanitizerCoverage pass, and no sanitizer is among them: memory
/// errors are impossible in safe code, so the counters are all that is wanted and
/// no nightly compiler is needed.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // One unit: a counter's section must not be dropped with the code around it.
    "-Ccodegen-units=1",
];

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let project = Project::find()?;
    let source = project.root.join(CRATE);
    let folder = project.build_dir().join(PROGRAM);
    let program = compile(&source, &project.cache_dir().join(PROGRAM))?;
    let all = list(&program)?;
    let chosen = match (args.all, args.targets.is_empty()) {
        (true, _) => all,
        (false, true) => {
            all.iter().for_each(|name| println!("{name}"));
            return Ok(());
        }
        (false, false) => {
            for name in &args.targets {
                ensure!(
                    all.contains(name),
                    "there is no target {name:?}; `bulkhead fuzz` lists them"
                );
            }
            args.targets
        }
    };
    let fuzz = |target: &str| fuzz(&program, &source, &folder, target, args.seconds);
    let broken = run_side_by_side(&chosen, fuzz)?;
    println!(
        "{} passed, {} failed",
        chosen.len() - broken.len(),
        broken.len()
    );
    ensure!(
        broken.is_empty(),
        "a promise was broken in {}",
        broken.join(", ")
    );
    Ok(())
}

/// Runs all of `targets`, as many at once as there are processors, and says which
/// of them broke a promise.
fn run_side_by_side(
    targets: &[String],
    fuzz: impl Fn(&str) -> Result<()> + Sync,
) -> Result<Vec<String>> {
    let waiting = Mutex::new(targets.iter());
    let broken = Mutex::new(Vec::new());
    let work = || {
        // The lock is not held while a target runs.
        let next = || lock(&waiting).next();
        while let Some(target) = next() {
            if signals::interrupted().is_some() {
                return;
            }
            match fuzz(target) {
                Ok(()) => eprintln!("pass  {target}"),
                Err(error) => {
                    eprintln!("FAIL  {target}: {error:#}");
                    lock(&broken).push(target.clone());
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(work);
        }
    });
    signals::check()?;
    Ok(broken.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Compiles the program with coverage counters and says where it lies.
fn compile(source: &Path, target: &Path) -> Result<PathBuf> {
    // With a target named, build scripts and procedural macros go without counters.
    let host = host()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let status = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--target",
            &host,
        ])
        .arg("--manifest-path")
        .arg(source.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\u{1f}"))
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the fuzz targets could not be compiled");
    Ok(target.join(host).join("release").join(PROGRAM))
}

/// The compiler's own platform.
fn host() -> Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run rustc")?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_string)
        .context("rustc does not say which platform it is for")
}

fn list(program: &Path) -> Result<Vec<String>> {
    let output = Command::new(program)
        .env_remove(CHOICE)
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(
        output.status.success(),
        "{} does not list its targets",
        program.display()
    );
    let text = String::from_utf8(output.stdout).context("a target's name is not text")?;
    Ok(text.lines().map(str::to_string).collect())
}

fn fuzz(program: &Path, source: &Path, folder: &Path, target: &str, seconds: u32) -> Result<()> {
    let found = folder.join("corpus").join(target);
    let artifacts = folder.join("broken").join(target);
    for folder in [&found, &artifacts] {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let log = folder.join(format!("{target}.log"));
    let output = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    let mut command = Command::new(program);
    command
        .arg(format!("-max_total_time={seconds}"))
        .args([LONGEST, PATIENCE])
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        // New inputs go to the first folder; the saved ones are only read.
        .arg(&found)
        .env(CHOICE, target)
        .stdout(Stdio::null())
        .stderr(output);
    let saved = source.join("corpus").join(target);
    if saved.is_dir() {
        command.arg(&saved);
    }
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !status.success() {
        bail!(
            "{}; log: {}; the input lies in {}, and `{CHOICE}={target} {} FILE` repeats it",
            cause(&log).unwrap_or_else(|| status.to_string()),
            log.display(),
            artifacts.display(),
            program.display()
        );
    }
    Ok(())
}

/// The panic's message, or libFuzzer's own complaint.
fn cause(log: &Path) -> Option<String> {
    let text = fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text
        .lines()
        .skip_while(|line| !line.contains("panicked at") && !line.contains("ERROR: libFuzzer"));
    let place = lines.next()?;
    let message = lines.next().unwrap_or_default();
    Some(format!("{} {message}", place.trim()))
}
