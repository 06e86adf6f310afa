//! A process that is killed takes its sandboxes along.
//!
//! The test needs a process to kill, so this executable is both: called with an
//! argument it is the victim.

use sandbox::{Sandbox, Stdio};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("victim") => victim(),
        // The harness asks for the list of tests with an option.
        Some("--list") => println!("a_killed_parent_takes_its_sandboxes_along: test"),
        _ => a_killed_parent_takes_its_sandboxes_along(),
    }
}

fn victim() {
    let sandbox = Sandbox::new(Path::new("/")).env("PATH", "/usr/bin:/bin");
    let script = "setsid sleep 1000 & (sleep 1000 &) ; echo started; wait";
    let mut child = sandbox
        .command("sh", ["-c", script])
        .stdout(Stdio::Inherit)
        .spawn()
        .expect("spawn");
    child.wait().expect("wait");
}

fn a_killed_parent_takes_its_sandboxes_along() {
    let start = || -> Child {
        Command::new(std::env::current_exe().expect("own path"))
            .arg("victim")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("victim")
    };
    // Once when everything runs.
    let mut parent = start();
    let mut pipe = parent.stdout.take().expect("pipe");
    pipe.read_exact(&mut [0; 8]).expect("started");
    parent.kill().expect("kill");
    parent.wait().expect("wait");
    wait_for_end(pipe);
    // And in the midst of the set-up, at many points.
    for delay in 0..60 {
        let mut parent = start();
        let pipe = parent.stdout.take().expect("pipe");
        std::thread::sleep(Duration::from_micros(delay * 300));
        parent.kill().expect("kill");
        parent.wait().expect("wait");
        wait_for_end(pipe);
    }
    println!("test a_killed_parent_takes_its_sandboxes_along ... ok");
}

/// Everything in a sandbox holds the pipe, so it ends when the last has gone.
fn wait_for_end(mut pipe: impl Read + Send + 'static) {
    let start = Instant::now();
    let reader = std::thread::spawn(move || pipe.read_to_end(&mut Vec::new()));
    while !reader.is_finished() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "something survived its parent"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}
