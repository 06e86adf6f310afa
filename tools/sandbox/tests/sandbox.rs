//! Sandboxes that really run, with the machine's own `/` as the toolchain.

#![allow(clippy::unwrap_used)]

use sandbox::{Group, Network, Output, Sandbox, Stdio};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

fn host() -> Sandbox {
    Sandbox::new(Path::new("/")).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
}

fn shell(sandbox: &Sandbox, script: &str) -> Output {
    sandbox.command("sh", ["-c", script]).output().unwrap()
}

/// Runs `script` and compares its standard output; it must succeed.
fn check(sandbox: &Sandbox, script: &str, expected: &str) {
    let output = shell(sandbox, script);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{script}: {:?}: {stderr}",
        output.status
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        expected,
        "{script}: {stderr}"
    );
}

/// Runs `script`, which must fail and say `expected` on standard error.
fn check_refused(sandbox: &Sandbox, script: &str, expected: &str) {
    let output = shell(sandbox, script);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{script} succeeded");
    assert!(
        stderr.to_lowercase().contains(expected),
        "{script}: {stderr}"
    );
}

#[test]
fn programs_see_a_machine_of_their_own() {
    let sandbox = host()
        .hostname("builder")
        .env("A", "b c")
        .working_dir("/tmp");
    check(
        &sandbox,
        "hostname; pwd; id -u; umask",
        "builder\n/tmp\n0\n0022\n",
    );
    // The shell's own additions aside, nothing of the test's environment is there.
    check(
        &sandbox,
        "env | grep -v -e ^PWD= -e ^SHLVL= -e ^_= | sort",
        "A=b c\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n",
    );
    check(
        &sandbox,
        "echo x > /dev/null && head -c 3 /dev/zero | wc -c",
        "3\n",
    );
    check(
        &sandbox,
        "echo fd > /tmp/x; cat < /dev/fd/0 < /tmp/x; ls /run; ls -d /dev/shm",
        "fd\n/dev/shm\n",
    );
    // Process 1 is the sandbox's own, the program its only child.
    check(
        &sandbox,
        "echo $$; ls -d /proc/[0-9]* | wc -l | grep -q '^[2-5]$' && echo few",
        "2\nfew\n",
    );
}

#[test]
fn only_outputs_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in"), folder.path().join("out"));
    fs::create_dir(&input).unwrap();
    fs::create_dir(&output).unwrap();
    fs::write(input.join("text"), "given\n").unwrap();
    let sandbox = host()
        .read_only(&input, "/work/deep/in")
        .writable(&output, "/out")
        .read_only(input.join("text"), "/etc/not-there-before");
    check(
        &sandbox,
        "cat /work/deep/in/text /etc/not-there-before; cat /work/deep/in/text > /out/copy",
        "given\ngiven\n",
    );
    assert_eq!(fs::read_to_string(output.join("copy")).unwrap(), "given\n");
    for path in [
        "/x",
        "/usr/x",
        "/etc/x",
        "/work/x",
        "/work/deep/in/x",
        "/etc/not-there-before",
    ] {
        check_refused(&sandbox, &format!("echo x > {path}"), "read-only");
    }
    check_refused(
        &sandbox,
        "mount -o remount,bind,rw /usr",
        "permission denied",
    );
    check_refused(&sandbox, "mount -t tmpfs none /tmp", "permission denied");
    assert!(!input.join("x").exists());
}

#[test]
fn the_network_is_what_was_asked_for() {
    let connect = |address: std::net::SocketAddr| {
        format!(
            "exec 3<>/dev/tcp/{}/{} && echo connected",
            address.ip(),
            address.port()
        )
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let script = connect(listener.local_addr().unwrap());
    let bash = |sandbox: Sandbox| sandbox.command("bash", ["-c", &script]).output().unwrap();
    assert!(
        !bash(host()).status.success(),
        "the caller's loopback is reachable"
    );
    assert!(!bash(host().network(Network::Own)).status.success());
    assert!(bash(host().network(Network::Host)).status.success());
    check(&host(), "tail -n +3 /proc/net/dev | wc -l", "1\n");
    check_refused(
        &host(),
        "cat < /dev/null; ls /sys/class/net",
        "no such file",
    );
}

#[test]
fn an_own_network_is_the_programs_to_rule() {
    let own = host().network(Network::Own).device("/dev/net/tun");
    check(
        &own,
        "mount -t tmpfs none /mnt && echo x > /mnt/x && cat /mnt/x",
        "x\n",
    );
    // 127.0.0.0/8 is there as soon as loopback is up.
    check(
        &own,
        "grep -c '127.0.0.0' /proc/net/fib_trie | grep -qv '^0' && echo up",
        "up\n",
    );
    check(
        &own,
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start > /dev/null; echo 0 > /proc/sys/net/ipv4/ip_forward && echo may",
        "may\n",
    );
}

#[test]
fn exit_codes_and_signals_are_told() {
    for (script, code, signal) in [
        ("exit 0", Some(0), None),
        ("exit 7", Some(7), None),
        ("kill -TERM $$", None, Some(15)),
        ("kill -KILL $$", None, Some(9)),
        ("sleep 1000 & exit 3", Some(3), None),
        // An orphan is reaped and not taken for the program.
        ("(sh -c 'exit 9' &) ; sleep 0.1; exit 4", Some(4), None),
    ] {
        let status = shell(&host(), script).status;
        assert_eq!((status.code(), status.signal()), (code, signal), "{script}");
    }
}

#[test]
fn what_cannot_be_started_is_explained() {
    let error = |sandbox: Sandbox, program: &str| {
        let error = sandbox.command(program, [""; 0]).spawn().unwrap_err();
        format!("{error:#}")
    };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("plain"), "no program").unwrap();
    for (text, parts) in [
        (
            error(host(), "no-such-program"),
            ["no-such-program", "ENOENT"],
        ),
        (
            error(host().read_only(folder.path(), "/x"), "/x/plain"),
            ["/x/plain", "EACCES"],
        ),
        (
            error(host().working_dir("/not/there"), "true"),
            ["/not/there", "ENOENT"],
        ),
        (
            error(Sandbox::new(Path::new("/not/there")), "true"),
            ["/not/there", "No such file"],
        ),
        (
            error(host().read_only("/not/there", "/in"), "true"),
            ["/not/there", "/in"],
        ),
        (
            error(
                host()
                    .read_only(folder.path(), "/x")
                    .read_only("/etc", "/x/y"),
                "true",
            ),
            ["/x/y", "must exist"],
        ),
    ] {
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn streams_lead_where_they_were_sent() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    fs::write(&log, "before\n").unwrap();
    let status = host()
        .command("sh", ["-c", "echo out; echo err >&2"])
        .status_to_log(&log)
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::read_to_string(&log).unwrap(), "before\nout\nerr\n");

    let mut child = host()
        .command("cat", [""; 0])
        .stdin(Stdio::Piped)
        .stdout(Stdio::Piped)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"through").unwrap();
    drop(stdin);
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "through");
    assert!(child.wait().unwrap().success());
    assert_eq!(
        child.try_wait().unwrap().and_then(|status| status.code()),
        Some(0)
    );
}

#[test]
fn descriptors_and_sockets_can_be_handed_in() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), "by number\n").unwrap();
    let file = fs::File::open(folder.path().join("secret")).unwrap();
    let output = host()
        .command("sh", ["-c", "cat <&9"])
        .pass_fd(file.into(), 9)
        .output()
        .unwrap();
    assert_eq!(
        output.stdout,
        b"by number\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
    let script = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/x/socket'); s.send(b'hello')";
    let sandbox = host().writable(folder.path(), "/run/x");
    if Path::new("/usr/bin/python3").exists() {
        let output = sandbox.command("python3", ["-c", script]).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut text = String::new();
        listener
            .accept()
            .unwrap()
            .0
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "hello");
    } else {
        check(&sandbox, "test -S /run/x/socket && echo there", "there\n");
    }
}

/// A program that writes to its pipe after having started another that holds it.
const NEVER_ENDING: &str = "sleep 1000 & echo started; wait";

/// Waits until nothing holds the other end of `pipe`.
fn wait_for_end(mut pipe: fs::File) {
    let start = Instant::now();
    let reader = std::thread::spawn(move || pipe.read_to_end(&mut Vec::new()));
    while !reader.is_finished() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "something still holds the pipe"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn dropping_a_child_kills_all_that_it_started() {
    let mut child = host()
        .command("sh", ["-c", NEVER_ENDING])
        .stdout(Stdio::Piped)
        .spawn()
        .unwrap();
    let mut pipe = child.stdout.take().unwrap();
    pipe.read_exact(&mut [0; 8]).unwrap();
    drop(child);
    wait_for_end(pipe);
}

#[test]
fn a_thread_that_ends_takes_no_child_along() {
    let mut child = std::thread::spawn(|| {
        host()
            .command("sh", ["-c", "sleep 0.2; exit 5"])
            .spawn()
            .unwrap()
    })
    .join()
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn a_signal_reaches_the_program() {
    let script = "trap 'exit 6' TERM; echo ready; while :; do sleep 0.01; done";
    let mut child = host()
        .command("sh", ["-c", script])
        .stdout(Stdio::Piped)
        .spawn()
        .unwrap();
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 5])
        .unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    child.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(6));
}

#[test]
fn a_cancelled_group_ends_and_starts_nothing() {
    let group = Group::new();
    let _guard = group.enter();
    let mut child = host().command("sleep", ["1000"]).spawn().unwrap();
    let canceller = group.clone();
    std::thread::spawn(move || canceller.cancel())
        .join()
        .unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let error = host().command("true", [""; 0]).spawn().unwrap_err();
    assert!(format!("{error:#}").contains("cancelled"), "{error:#}");
    drop(_guard);
    assert!(
        host()
            .command("true", [""; 0])
            .spawn()
            .unwrap()
            .wait()
            .unwrap()
            .success()
    );
}

#[test]
fn processor_time_is_counted() {
    let script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
    let mut child = host().command("sh", ["-c", script]).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(
        child.cpu_time() > Duration::from_millis(20),
        "{:?}",
        child.cpu_time()
    );
}

#[test]
fn a_sandbox_runs_inside_a_sandbox() {
    // As QEMU's network namespace inside the emulator's toolchain does.
    let own = host().network(Network::Own);
    check(
        &own,
        "unshare --user --map-root-user --mount --pid --fork sh -c 'echo inner'",
        "inner\n",
    );
}

#[test]
fn a_sandbox_joins_the_network_of_another() {
    let mut first = host()
        .network(Network::Own)
        .command("sleep", ["100"])
        .spawn()
        .unwrap();
    let network = Network::Of(first.pid());
    let namespace = fs::read_link(format!("/proc/{}/ns/net", first.pid())).unwrap();
    assert_ne!(namespace, fs::read_link("/proc/self/ns/net").unwrap());
    // Root as everywhere, yet not the one who made the network and may change it.
    check(
        &host().network(network),
        "readlink /proc/self/ns/net; id -u; echo 0 2> /dev/null > /proc/sys/net/ipv4/ip_forward || echo no",
        &format!("{}\n0\nno\n", namespace.display()),
    );
    first.kill();
    first.wait().unwrap();
    let error = host()
        .network(network)
        .command("true", [""; 0])
        .spawn()
        .unwrap_err();
    assert!(
        format!("{error:#}").contains("has that sandbox ended"),
        "{error:#}"
    );
}
