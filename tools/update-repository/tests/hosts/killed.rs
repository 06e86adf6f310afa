//! An updater that is killed at any point.
//!
//! The process that is killed is this program once more, which runs [`victim`] alone: the
//! update's commands one after the other, against a host whose disk is files. What a kill
//! leaves is what the next one begins with.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api_types::UpdateCommand::{self, Activate, Deactivate, Prepare, Refresh};
use api_types::UpdateState;
use boot_slots::verity::RootHash;
use hyper_util::client::proxy::matcher::Matcher;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use test_vm::files::Manner;
use updater::commands::Host;

use crate::fixture::{Files, Fixture, connector};

/// How often it is killed.
const KILLS: u32 = 200;
/// One run in so many is left to come to its end.
const LEFT_ALONE: u32 = 20;
/// Where the host is that the victim updates, and the root hash of what it runs.
const FOLDER: &str = "BULKHEAD_TEST_HOST";
const RUNNING: &str = "BULKHEAD_TEST_ROOT_HASH";
const COMMANDS: [UpdateCommand; 4] = [Deactivate, Refresh, Prepare, Activate];

#[test]
#[ignore = "it is run, and killed, by the test below"]
fn victim() {
    let folder = PathBuf::from(env::var_os(FOLDER).unwrap());
    let root_hash: RootHash = env::var(RUNNING).unwrap().parse().unwrap();
    let disk = folder.join("disk");
    let host = Host {
        root: folder.join("host"),
        disk: Files(&disk),
        connector: connector(&folder, Matcher::builder()),
        version: "1.0.0".to_string(),
        root_hash,
        has_right_clock: true,
    };
    for command in COMMANDS {
        // What the state does not allow is refused.
        let _ = host.run(command, |_| Ok(())).unwrap();
    }
}

fn start(fixture: &Fixture) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "killed::victim"])
        .env(FOLDER, fixture.folder.path())
        .env(RUNNING, fixture.running.root_hash.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Starts a victim, and kills it after a while; says whether that was before its end.
fn run(fixture: &Fixture, kill_after: Option<Duration>) -> bool {
    let mut child = start(fixture);
    if let Some(after) = kill_after {
        std::thread::sleep(after);
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    assert!(kill_after.is_some() || status.success(), "{status}");
    !status.success()
}

#[test]
fn a_command_that_is_told_to_stop_says_so() {
    let fixture = Fixture::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    fixture.look_at(&format!("http://{}", silent.local_addr().unwrap()));
    let mut child = start(&fixture);
    let (_connection, _) = silent.accept().unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    let last = fixture.status().most_recent_command.unwrap();
    assert_eq!(last.cmd_type, Refresh);
    let error = last.stderr.unwrap();
    assert!(error.contains("stopped before it was done"), "{error}");
}

#[test]
fn a_kill_at_any_point_leaves_no_half_of_a_slot() {
    let fixture = Fixture::new();
    let new = fixture.release("2.0.0", 500..1_100);
    let _server = fixture.serve(Manner::Ranges);
    let timed = || {
        let started = Instant::now();
        run(&fixture, None);
        started.elapsed()
    };
    // What is in place is not put there again, which takes less.
    let (mut whole_run, mut short_run) = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        fixture.forget_update();
        whole_run = whole_run.min(timed());
        short_run = short_run.min(timed());
    }
    fixture.forget_update();
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut random = u64::from(seed.subsec_nanos()) | 1;
    println!("seed {random}, a run takes {whole_run:?}, and {short_run:?} once it is prepared");

    let (mut killed, mut seen) = (0, BTreeSet::new());
    for number in 0..KILLS {
        // Xorshift: any spread will do.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let is_prepared = fixture.bootable().contains("2.0.0");
        let takes = match is_prepared {
            true => short_run,
            false => whole_run,
        };
        let after = takes.mul_f64((random % 1_000) as f64 / 1_000.0);
        killed += u32::from(run(&fixture, Some(after)));

        assert!(fixture.slot_a_is_whole(), "run {number}");
        let images = fixture.bootable();
        assert!(images.contains("1.0.0"), "run {number}: {images:?}");
        let is_empty = fixture.slot_b_is_empty();
        if images.contains("2.0.0") || !is_empty {
            assert!(
                fixture.slot_b_holds(&new),
                "run {number}, killed after {after:?}, of {images:?}"
            );
        }
        seen.insert((images.contains("2.0.0"), is_empty));
        if is_prepared {
            fixture.forget_update();
        }
        if number % LEFT_ALONE == 0 {
            run(&fixture, None);
            assert_eq!(fixture.status().update_state, UpdateState::Ready);
            assert!(fixture.slot_b_holds(&new));
            fixture.forget_update();
        }
    }
    println!("{killed} of {KILLS} were killed before their end; seen: {seen:?}");
    assert!(killed > KILLS / 2, "{killed}");
    for state in [(true, false), (false, true)] {
        assert!(seen.contains(&state), "{seen:?}");
    }
    let folder = fixture.folder.path().join("disk/esp");
    let left = fs::read_dir(folder.join(boot_slots::bless::FOLDER)).unwrap();
    assert!(left.count() <= 3, "what kills leave behind piles up");
}
