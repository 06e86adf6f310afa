//! Builds that are killed, interrupted, or run out of space.
//!
//! The tests need a process to kill, so this executable is both: called with
//! `build FOLDER` it builds a small graph of sandboxed steps into a store there.

use anyhow::{Context, Result, bail, ensure};
use buildsys::executor::{JobContext, Node, execute};
use buildsys::progress::Progress;
use buildsys::signals;
use buildsys::store::{Entry, Key, KeyBuilder, Store};
use sandbox::{Network, Sandbox};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const KILLS: u32 = 100;
const PLENTY: u64 = 1 << 40;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["build", folder] => build(Path::new(folder), 2),
        ["build-in-turn", folder] => build(Path::new(folder), 1),
        ["--list", ..] => {
            TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
            Ok(())
        }
        _ => TESTS.iter().try_for_each(|(name, test)| {
            // The harness's way to choose tests by a part of their name.
            let chosen = |word: &&str| !word.starts_with('-') && !name.contains(*word);
            if !words.iter().any(chosen) {
                test().with_context(|| format!("test {name} failed"))?;
                println!("test {name} ... ok");
            }
            Ok(())
        }),
    };
    match (result, signals::interrupted()) {
        (Ok(()), _) => ExitCode::SUCCESS,
        (Err(_), Some(interrupted)) => ExitCode::from(interrupted.exit_code() as u8),
        (Err(error), None) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

type Test = fn() -> Result<()>;

const TESTS: [(&str, Test); 4] = [
    (
        "two_builds_at_once_share_their_work",
        two_builds_at_once_share_their_work,
    ),
    (
        "a_killed_build_is_as_if_it_had_not_been",
        a_killed_build_is_as_if_it_had_not_been,
    ),
    (
        "a_signal_ends_a_build_and_leaves_nothing",
        a_signal_ends_a_build_and_leaves_nothing,
    ),
    (
        "a_full_disk_is_told_and_leaves_nothing",
        a_full_disk_is_told_and_leaves_nothing,
    ),
];

/// Builds three entries, the last of them from the others, so many at a time.
fn build(folder: &Path, jobs: usize) -> Result<()> {
    signals::install()?;
    let store = Store::open(&folder.join("store"), PLENTY)?;
    let made: Mutex<BTreeMap<&str, Entry>> = Mutex::new(BTreeMap::new());
    let job = |name: &'static str, inputs: &'static [&'static str]| {
        let (store, made) = (&store, &made);
        move |context: &JobContext| -> Result<()> {
            let inputs: Vec<Entry> = {
                let made = made.lock().map_err(|_| anyhow::anyhow!("a job panicked"))?;
                inputs
                    .iter()
                    .filter_map(|input| made.get(input).cloned())
                    .collect()
            };
            let mut key = KeyBuilder::new("test").field("name", name);
            for input in &inputs {
                key = key.key("input", input.key());
            }
            let entry = store.build(&key.finish(), |staging| {
                step(context, name, &inputs, staging)
            })?;
            made.lock()
                .map_err(|_| anyhow::anyhow!("a job panicked"))?
                .insert(name, entry);
            Ok(())
        }
    };
    let node = |name: &'static str, depends: Vec<usize>, inputs: &'static [&'static str]| Node {
        name: name.to_string(),
        depends,
        job: Box::new(job(name, inputs)),
    };
    let graph = vec![
        node("left", vec![], &[]),
        node("right", vec![], &[]),
        node("sum", vec![0, 1], &["left", "right"]),
    ];
    execute(graph, jobs, &folder.join("logs"), &Progress::silent())
}

/// Writes some files by a shell in a sandbox, and takes a moment over it.
fn step(context: &JobContext, name: &str, inputs: &[Entry], staging: &Path) -> Result<()> {
    let steps = context.log().with_file_name("steps");
    fs::create_dir_all(steps.with_file_name(""))?;
    fs::File::options()
        .create(true)
        .append(true)
        .open(&steps)?
        .write_all(b"step\n")?;
    let mut sandbox = Sandbox::new(Path::new("/"))
        .env("PATH", "/usr/bin:/bin")
        .writable(staging, "/out");
    for (index, input) in inputs.iter().enumerate() {
        sandbox = sandbox.read_only(input.path(), format!("/in/{index}"));
    }
    let script = format!(
        "set -e; mkdir /out/sub; for n in 1 2 3 4 5 6 7 8; do \
           echo {name} $n > /out/sub/$n; head -c 20000 /dev/zero >> /out/sub/$n; done; \
         for input in /in/*/all; do test ! -e $input || cat $input; done > /out/before; \
         cat /out/before /out/sub/* > /out/all; chmod 555 /out/sub; sleep 0.02"
    );
    context.run(
        &format!("make {name}"),
        sandbox.command("sh", ["-c", &script]),
    )
}

/// Starts `build` on `folder`. Everything that it starts holds the pipe of its
/// standard error, so the pipe's end is the end of all of it.
fn start(folder: &Path) -> Result<Child> {
    Command::new(std::env::current_exe()?)
        .arg("build")
        .arg(folder)
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the victim")
}

fn wait_for_silence(child: &mut Child) -> Result<String> {
    let mut pipe = child.stderr.take().context("no pipe")?;
    let begin = Instant::now();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).map(|_| text)
    });
    while !reader.is_finished() {
        ensure!(
            begin.elapsed() < Duration::from_secs(30),
            "something outlived the build"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reader panicked"))?
        .context("cannot read")
}

/// Every finished entry and the hash of what is in it.
fn entries(folder: &Path) -> Result<BTreeMap<String, Key>> {
    let mut found = BTreeMap::new();
    let path = folder.join("store/entries");
    if path.exists() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            found.insert(
                name,
                KeyBuilder::new("tree")
                    .tree("entry", &entry.path())?
                    .finish(),
            );
        }
    }
    Ok(found)
}

fn leftovers(folder: &Path) -> Result<usize> {
    Ok(fs::read_dir(folder.join("store/staging"))?.count())
}

fn two_builds_at_once_share_their_work() -> Result<()> {
    for _ in 0..5 {
        let folder = tempfile::tempdir()?;
        let mut builds = [start(folder.path())?, start(folder.path())?];
        for build in &mut builds {
            let said = wait_for_silence(build)?;
            ensure!(build.wait()?.success(), "one of two builds failed: {said}");
        }
        let steps = fs::read_to_string(folder.path().join("logs/steps"))?
            .lines()
            .count();
        ensure!(steps == 3, "two builds of three entries took {steps} steps");
        ensure!(entries(folder.path())?.len() == 3 && leftovers(folder.path())? == 0);
    }
    Ok(())
}

fn a_killed_build_is_as_if_it_had_not_been() -> Result<()> {
    let (clean, victim) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let begin = Instant::now();
    build_to_the_end(clean.path())?;
    let whole = begin.elapsed();
    let expected = entries(clean.path())?;
    ensure!(
        expected.len() == 3,
        "a clean build makes {} entries",
        expected.len()
    );

    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut killed = 0;
    for round in 0..KILLS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let mut child = start(victim.path())?;
        std::thread::sleep(whole.mul_f64((random % 1000) as f64 / 1000.0));
        child.kill()?;
        if child.wait()?.code().is_none() {
            killed += 1;
        }
        wait_for_silence(&mut child)?;
        for (name, key) in entries(victim.path())? {
            ensure!(
                expected.get(&name) == Some(&key),
                "round {round}: {name} is not complete"
            );
        }
        // So that there is always something left to be killed in.
        if entries(victim.path())?.len() == expected.len() {
            Store::open(&victim.path().join("store"), PLENTY)?.clear()?;
        }
    }
    ensure!(
        killed > KILLS / 2,
        "only {killed} of {KILLS} builds were killed before their end"
    );
    build_to_the_end(victim.path())?;
    ensure!(
        entries(victim.path())? == expected,
        "the build after the kills differs"
    );
    ensure!(
        leftovers(victim.path())? == 0,
        "the kills have left something in staging"
    );
    Ok(())
}

fn build_to_the_end(folder: &Path) -> Result<()> {
    let mut child = start(folder)?;
    let said = wait_for_silence(&mut child)?;
    ensure!(child.wait()?.success(), "the build failed: {said}");
    Ok(())
}

fn a_signal_ends_a_build_and_leaves_nothing() -> Result<()> {
    let begin = Instant::now();
    build_to_the_end(tempfile::tempdir()?.path())?;
    let whole = begin.elapsed();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut interrupted = 0;
        for part in 1..10 {
            let folder = tempfile::tempdir()?;
            let mut child = start(folder.path())?;
            let begin = Instant::now();
            let store = folder.path().join("store/staging");
            // Before it has set its handlers the signal just kills it.
            while !store.exists() && begin.elapsed() < whole * 10 {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(whole.mul_f64(f64::from(part) / 12.0));
            Command::new("kill")
                .args(["-s", signal, &child.id().to_string()])
                .status()?;
            wait_for_silence(&mut child)?;
            match child.wait()?.code() {
                Some(0) => {}
                found if found == Some(code) => interrupted += 1,
                found => bail!("SIG{signal} gave the exit status {found:?}"),
            }
            ensure!(
                leftovers(folder.path())? == 0,
                "SIG{signal} left something in staging"
            );
        }
        ensure!(interrupted > 0, "SIG{signal} came too late each time");
    }
    Ok(())
}

/// In a sandbox of its own, since a small disk must be mounted.
fn a_full_disk_is_told_and_leaves_nothing() -> Result<()> {
    let executable = std::env::current_exe()?;
    // A file that can go again takes the space: a mount can be made larger by root only.
    // One at a time, or what one leaves is cleared before the other looks for the reason.
    let script = "set -e; mount -t tmpfs -o size=4m none /mnt; \
        head -c 3700000 /dev/zero > /mnt/taken; \
        if /run/build build-in-turn /mnt/b; then echo it succeeded; exit 1; fi; \
        count() { echo \"$1: $(ls /mnt/b/store/$1 | wc -l)\"; }; \
        count staging; count entries; \
        rm /mnt/taken; /run/build build /mnt/b; count entries";
    let output = Sandbox::new(Path::new("/"))
        .network(Network::Own)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .read_only(&executable, "/run/build")
        .command("sh", ["-c", script])
        .output()?;
    let (said, complained) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(output.status.success(), "{said}{complained}");
    ensure!(
        complained
            .to_lowercase()
            .contains("no space left on device"),
        "it said: {complained}"
    );
    let counted: Vec<&str> = said.lines().collect();
    let &[staging, when_full, afterwards] = counted.as_slice() else {
        bail!("not three counts: {said}");
    };
    ensure!(staging == "staging: 0", "something was left: {said}");
    ensure!(when_full != "entries: 3", "all entries fitted: {said}");
    ensure!(
        afterwards == "entries: 3",
        "it was not built afterwards: {said}"
    );
    Ok(())
}
