//! What a container runtime sees of the program.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

const PAUSE: &str = env!("CARGO_BIN_EXE_pause");

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the program has come to wait for signals, the only thing it sleeps for.
fn waits(child: &Child) -> bool {
    let path = format!("/proc/{}/stat", child.id());
    let stat = fs::read_to_string(path).expect("the program runs");
    stat.contains("(pause) S")
}

#[test]
fn it_ends_when_it_is_told_to() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut child = Command::new(PAUSE).spawn().unwrap();
        eventually("it waits", || waits(&child));
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        assert!(child.wait().unwrap().success(), "{signal}");
    }
}

#[test]
fn no_ended_process_is_left() {
    // The shell's children are those of the program that takes its place.
    let script = format!("sleep 0.1 & sleep 0.2 & exec {PAUSE}");
    let mut child = Command::new("sh").args(["-c", &script]).spawn().unwrap();
    let id = child.id();
    let children = || fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    eventually("it waits", || waits(&child));
    eventually("its children are gone", || children().trim().is_empty());
    kill(Pid::from_raw(id as i32), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}
