//! Commands in a sandbox: starting them, waiting for them, ending them.

use crate::child::{self, FIRST_PRIVATE_FD, Message, Prepared};
use crate::living::{Group, is_shut_down, living};
use crate::plan::{self, c};
use crate::why::{self, Switches};
use crate::{Network, Sandbox, set_variable};
use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

/// Where a standard stream of the program leads.
#[derive(Debug, Default)]
pub enum Stdio {
    /// Nowhere.
    #[default]
    Null,
    /// To the caller's. A program with an inherited standard input stays on the
    /// caller's terminal and gets its signals; others get a session of their own.
    Inherit,
    /// To a pipe that [`SandboxChild`] has the other end of.
    Piped,
    /// To this file.
    File(File),
}

/// A command to run in a sandbox.
#[derive(Debug)]
pub struct SandboxCommand {
    sandbox: Sandbox,
    program: OsString,
    args: Vec<OsString>,
    stdin: Stdio,
    stdout: Stdio,
    stderr: Stdio,
    passed: Vec<(OwnedFd, RawFd)>,
}

/// How a command ended and what it wrote.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl SandboxCommand {
    pub(crate) fn new(sandbox: Sandbox, program: &OsStr) -> Self {
        Self {
            sandbox,
            program: program.to_os_string(),
            args: Vec::new(),
            stdin: Stdio::Null,
            stdout: Stdio::Null,
            stderr: Stdio::Null,
            passed: Vec::new(),
        }
    }

    /// Appends arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_os_string()));
        self
    }

    /// Sets a variable of this command's environment.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        set_variable(&mut self.sandbox.environment, key.as_ref(), value.as_ref());
        self
    }

    /// Where standard input comes from; nowhere if not called.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.stdin = stdin;
        self
    }

    /// Where standard output goes; nowhere if not called.
    #[must_use]
    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.stdout = stdout;
        self
    }

    /// Where standard error goes; nowhere if not called.
    #[must_use]
    pub fn stderr(mut self, stderr: Stdio) -> Self {
        self.stderr = stderr;
        self
    }

    /// Gives the program an open descriptor under the number `number` (3 to 63).
    #[must_use]
    pub fn pass_fd(mut self, fd: OwnedFd, number: RawFd) -> Self {
        self.passed.push((fd, number));
        self
    }

    /// The caller's folders and files that the command may write to.
    pub fn outputs(&self) -> impl Iterator<Item = &Path> {
        self.sandbox
            .binds
            .iter()
            .filter(|bind| bind.writable)
            .map(|bind| bind.host.as_path())
    }

    /// Runs the command to its end and keeps what it wrote.
    pub fn output(self) -> Result<Output> {
        self.stdout(Stdio::Piped)
            .stderr(Stdio::Piped)
            .spawn()?
            .communicate(b"")
    }

    /// Runs the command to its end; what it writes is appended to the file `log`.
    pub fn status_to_log(self, log: &Path) -> Result<ExitStatus> {
        let open = || format!("cannot open the log {}", log.display());
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(open)?;
        let copy = file.try_clone().with_context(open)?;
        self.stdout(Stdio::File(file))
            .stderr(Stdio::File(copy))
            .spawn()?
            .wait()
    }

    /// Starts the command; when this returns, the program itself is running.
    pub fn spawn(mut self) -> Result<SandboxChild> {
        let name = self.program.to_string_lossy().into_owned();
        self.start()
            .with_context(|| format!("cannot run {name} in a sandbox"))
    }

    fn start(&mut self) -> Result<SandboxChild> {
        if self.sandbox.network == Network::Host {
            share_network_settings(&mut self.sandbox);
        }
        let ops = plan::operations(
            &self.sandbox,
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        )?;
        let own_session = !matches!(self.stdin, Stdio::Inherit);
        let (stdin, stdin_end) = stream(&mut self.stdin, 0)?;
        let (stdout, stdout_end) = stream(&mut self.stdout, 1)?;
        let (stderr, stderr_end) = stream(&mut self.stderr, 2)?;
        let (ready_read, ready_write) = pipe()?;
        let (status_read, status_write) = pipe()?;
        let (lifeline_read, lifeline_write) = pipe()?;

        let mut fds = vec![(stdin.fd(), 0), (stdout.fd(), 1), (stderr.fd(), 2)];
        for (fd, number) in &self.passed {
            if !(3..FIRST_PRIVATE_FD).contains(number) {
                bail!("a descriptor cannot be passed as number {number}: use 3 to 63");
            }
            fds.push((fd.as_raw_fd(), *number));
        }
        let mut keep: Vec<RawFd> = fds.iter().map(|(from, _)| *from).collect();
        keep.extend([&ready_write, &status_write, &lifeline_read].map(AsRawFd::as_raw_fd));
        keep.sort_unstable();
        keep.dedup();

        let argv = std::iter::once(&self.program).chain(&self.args);
        let argv: Vec<CString> = argv.map(c).collect::<Result<_>>()?;
        let envp: Vec<CString> = self
            .sandbox
            .environment
            .iter()
            .map(|(key, value)| c([key.as_os_str(), value].join(OsStr::new("="))))
            .collect::<Result<_>>()?;
        let pointers = |strings: &[CString]| {
            strings
                .iter()
                .map(|s| s.as_ptr())
                .chain([std::ptr::null()])
                .collect()
        };
        let mut prepared = Prepared {
            ops,
            candidates: self.candidates()?,
            argv: pointers(&argv),
            envp: pointers(&envp),
            scratch: vec![-1; fds.len()],
            fds,
            keep,
            ready: ready_write.as_raw_fd(),
            status: status_write.as_raw_fd(),
            lifeline: lifeline_read.as_raw_fd(),
            confine: self.sandbox.network != Network::Own,
            own_session,
        };
        let other = match self.sandbox.network {
            Network::Of(pid) => Some(OtherNetwork::of(pid)?),
            Network::None | Network::Host | Network::Own => None,
        };

        let group = Group::current();
        let pid = {
            let mut living = living();
            if is_shut_down() || group.as_ref().is_some_and(Group::is_cancelled) {
                bail!("the work that it belongs to was cancelled");
            }
            let cloned = match (&other, self.sandbox.network) {
                (Some(other), _) => child::clone_beside(&mut prepared, &other.user, &other.network),
                (None, Network::Host) => child::clone_into(&mut prepared, true),
                (None, _) => child::clone_into(&mut prepared, false),
            };
            let pid = cloned.map_err(|errno| {
                let advice = why::clone_refused(errno, Switches::read(Path::new("/proc/sys")));
                anyhow!(errno).context(format!("cannot make namespaces: {advice}"))
            })?;
            living.insert(pid, group);
            pid
        };
        let mut child = SandboxChild {
            name: self.program.to_string_lossy().into_owned(),
            stdin: stdin_end,
            stdout: stdout_end,
            stderr: stderr_end,
            pid: Pid::from_raw(pid),
            status: File::from(status_read),
            _lifeline: lifeline_write,
            ended: None,
            cpu_time: Duration::ZERO,
        };
        drop((
            ready_write,
            status_write,
            lifeline_read,
            stdin,
            stdout,
            stderr,
        ));
        self.passed.clear();
        match read_message(&mut File::from(ready_read))? {
            None => Ok(child),
            Some(message) => {
                child.kill();
                Err(explain(message, &prepared, &self.program))
            }
        }
    }

    /// Paths that the program may have, in the order of the sandbox's `PATH`.
    fn candidates(&self) -> Result<Vec<CString>> {
        if self.program.as_bytes().contains(&b'/') {
            return Ok(vec![c(&self.program)?]);
        }
        let path = self
            .sandbox
            .environment
            .iter()
            .find(|(key, _)| key == "PATH");
        let path = path.map_or(OsStr::new("/usr/sbin:/usr/bin:/sbin:/bin"), |(_, value)| {
            value
        });
        env::split_paths(path)
            .map(|folder| c(folder.join(&self.program)))
            .collect()
    }
}

fn explain(message: Message, prepared: &Prepared, program: &OsStr) -> anyhow::Error {
    match message {
        Message::Setup { op, errno } => {
            let errno = Errno::from_raw(errno);
            let Some(op) = prepared.ops.get(op as usize) else {
                return anyhow!(errno).context("cannot give up the right to mount");
            };
            let switches = Switches::read(Path::new("/proc/sys"));
            let error = anyhow!(errno);
            match why::setup_refused(op, errno, switches) {
                Some(advice) => error.context(format!("cannot {op}: {advice}")),
                None => error.context(format!("cannot {op}")),
            }
        }
        Message::Exec { errno } => anyhow!(Errno::from_raw(errno)).context(format!(
            "cannot start {} as seen inside",
            program.to_string_lossy()
        )),
        Message::Ended { .. } => anyhow!("the sandbox ended before the program ran"),
    }
}

/// The namespaces of another sandbox that [`Network::Of`] needs.
struct OtherNetwork {
    /// Owns the network, so whoever enters that must be in here.
    user: OwnedFd,
    network: OwnedFd,
}

impl OtherNetwork {
    fn of(pid: i32) -> Result<Self> {
        let open = |kind: &str| {
            let path = format!("/proc/{pid}/ns/{kind}");
            let file = File::open(&path).with_context(|| {
                format!("cannot open {path}, the network to be shared: has that sandbox ended?")
            })?;
            anyhow::Ok(OwnedFd::from(file))
        };
        Ok(Self {
            user: open("user")?,
            network: open("net")?,
        })
    }
}

/// Lets downloads work as they do for the caller: resolver, proxies, and the
/// certificate authorities that the caller trusts.
fn share_network_settings(sandbox: &mut Sandbox) {
    let mut show = |host: &Path, guest: &str| {
        if host.exists()
            && !sandbox
                .binds
                .iter()
                .any(|bind| bind.guest == Path::new(guest))
        {
            let (host, guest) = (host.to_path_buf(), PathBuf::from(guest));
            sandbox.binds.push(crate::Bind {
                host,
                guest,
                writable: false,
            });
            return true;
        }
        false
    };
    for file in ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"] {
        show(Path::new(file), file);
    }
    let mut variables = Vec::new();
    let bundle = env::var_os("SSL_CERT_FILE")
        .map(PathBuf::from)
        .into_iter()
        .chain(
            [
                "/etc/ssl/certs/ca-certificates.crt",
                "/etc/pki/tls/certs/ca-bundle.crt",
                "/etc/ssl/ca-bundle.pem",
                "/etc/ssl/cert.pem",
            ]
            .map(PathBuf::from),
        );
    const BUNDLE: &str = "/run/host-certificates.crt";
    const FOLDER: &str = "/run/host-certificates";
    if let Some(bundle) = bundle.into_iter().find(|path| path.is_file())
        && show(&bundle, BUNDLE)
    {
        variables.push(("SSL_CERT_FILE".into(), BUNDLE.into()));
    }
    if let Some(folder) = env::var_os("SSL_CERT_DIR")
        && show(Path::new(&folder), FOLDER)
    {
        variables.push(("SSL_CERT_DIR".into(), FOLDER.into()));
    }
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        for name in [name.to_string(), name.to_uppercase()] {
            if let Some(value) = env::var_os(&name) {
                variables.push((OsString::from(name), value));
            }
        }
    }
    for (key, value) in variables {
        if !sandbox
            .environment
            .iter()
            .any(|(existing, _)| *existing == key)
        {
            sandbox.environment.push((key, value));
        }
    }
}

/// A stream's end for the program.
enum End {
    Ours(RawFd),
    Theirs(OwnedFd),
}

impl End {
    fn fd(&self) -> RawFd {
        match self {
            Self::Ours(fd) => *fd,
            Self::Theirs(fd) => fd.as_raw_fd(),
        }
    }
}

/// The program's end of stream `number`, and ours if there is one.
fn stream(stdio: &mut Stdio, number: RawFd) -> Result<(End, Option<File>)> {
    Ok(match std::mem::take(stdio) {
        Stdio::Inherit => (End::Ours(number), None),
        Stdio::File(file) => (End::Theirs(file.into()), None),
        Stdio::Null => {
            let file = OpenOptions::new()
                .read(number == 0)
                .write(number != 0)
                .open("/dev/null");
            (
                End::Theirs(file.context("cannot open /dev/null")?.into()),
                None,
            )
        }
        Stdio::Piped => {
            let (read, write) = pipe()?;
            let (theirs, ours) = if number == 0 {
                (read, write)
            } else {
                (write, read)
            };
            (End::Theirs(theirs), Some(ours.into()))
        }
    })
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")
}

/// One message, or nothing when the other end was closed without.
fn read_message(pipe: &mut File) -> Result<Option<Message>> {
    let mut bytes = [0; Message::SIZE];
    match pipe.read_exact(&mut bytes) {
        Ok(()) => Ok(Message::from_bytes(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error).context("cannot read from the sandbox's first process"),
    }
}

/// A running command. Dropping it kills everything in its sandbox.
#[derive(Debug)]
pub struct SandboxChild {
    /// Writes to the program's standard input, if that is [`Stdio::Piped`].
    pub stdin: Option<File>,
    /// Reads the program's standard output, if that is [`Stdio::Piped`].
    pub stdout: Option<File>,
    /// Reads the program's standard error, if that is [`Stdio::Piped`].
    pub stderr: Option<File>,
    name: String,
    pid: Pid,
    status: File,
    /// Its closing, by whatever way this process ends, is what ends the sandbox.
    _lifeline: OwnedFd,
    ended: Option<ExitStatus>,
    cpu_time: Duration,
}

impl SandboxChild {
    /// Writes `input` to the program, whose three streams are piped, and keeps what it
    /// wrote itself until its end. A program that does not want all of the input may
    /// end before.
    pub fn communicate(&mut self, input: &[u8]) -> Result<Output> {
        let (stdin, stdout, stderr) = (self.stdin.take(), self.stdout.take(), self.stderr.take());
        let read = |file: Option<File>| -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            if let Some(mut file) = file {
                file.read_to_end(&mut bytes)?;
            }
            Ok(bytes)
        };
        let (written, stdout, stderr) = thread::scope(|scope| {
            let writer = scope.spawn(|| match stdin {
                Some(mut stdin) => stdin.write_all(input),
                None => Ok(()),
            });
            let other = scope.spawn(|| read(stderr));
            let stdout = read(stdout);
            let panicked = || io::Error::other("the thread panicked");
            let written = writer.join().unwrap_or_else(|_| Err(panicked()));
            let stderr = other.join().unwrap_or_else(|_| Err(panicked()));
            (written, stdout, stderr)
        });
        let status = self.wait()?;
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(error).with_context(|| format!("cannot write to {}", self.name));
            }
            _ => {}
        }
        let reading = || format!("cannot read the output of {}", self.name);
        Ok(Output {
            status,
            stdout: stdout.with_context(reading)?,
            stderr: stderr.with_context(reading)?,
        })
    }

    /// Waits for the program's end. Further calls return the same again.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.stdin = None;
        if self.ended.is_none() {
            let told = read_message(&mut self.status)?;
            self.reap(told, false);
        }
        self.ended
            .with_context(|| format!("cannot learn how {} ended", self.name))
    }

    /// How the program ended, or `None` while it runs.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let mut polled = [nix::poll::PollFd::new(
                std::os::fd::AsFd::as_fd(&self.status),
                nix::poll::PollFlags::POLLIN,
            )];
            let events = nix::poll::poll(&mut polled, nix::poll::PollTimeout::ZERO);
            match events {
                Ok(0) | Err(Errno::EINTR) => return Ok(None),
                Ok(_) => {}
                Err(errno) => return Err(errno).context("cannot poll the sandbox"),
            }
            return self.wait().map(Some);
        }
        Ok(self.ended)
    }

    /// Kills everything in the sandbox and waits until it is gone.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            // It may have ended just now; it stays ours until reaped below.
            let _ = kill(self.pid, Signal::SIGKILL);
            self.reap(None, true);
        }
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        kill(self.pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Process 1 of the sandbox, as the caller sees it.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// CPU time that the sandbox's processes have used so far, in user and kernel
    /// mode. After the end: of all that were waited for.
    pub fn cpu_time(&self) -> Duration {
        if self.ended.is_some() {
            self.cpu_time
        } else {
            tree_cpu_time(self.pid.as_raw())
        }
    }

    fn reap(&mut self, told: Option<Message>, killed: bool) {
        if !killed {
            self.cpu_time = tree_cpu_time(self.pid.as_raw());
        }
        // Waits without reaping, so that the table below never holds a pid that
        // could be another process's by now.
        let wait = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while let Err(Errno::EINTR) =
            nix::sys::wait::waitid(nix::sys::wait::Id::Pid(self.pid), wait)
        {}
        let own = tree_cpu_time(self.pid.as_raw());
        self.cpu_time = self.cpu_time.max(own);
        let mut living = living();
        living.remove(&self.pid.as_raw());
        let own_status = waitpid(self.pid, None);
        drop(living);
        let raw = match (told, own_status) {
            (Some(Message::Ended { status }), _) => status,
            (_, Ok(WaitStatus::Exited(_, code))) => code << 8,
            (_, Ok(WaitStatus::Signaled(_, signal, _))) => signal as i32,
            // Only when somebody else has reaped our children.
            _ => Signal::SIGKILL as i32,
        };
        self.ended = Some(ExitStatus::from_raw(raw));
    }
}

impl Drop for SandboxChild {
    fn drop(&mut self) {
        self.kill();
    }
}

/// User and system time of `root`, its descendants, and those that they reaped.
fn tree_cpu_time(root: i32) -> Duration {
    struct Process {
        pid: i32,
        parent: i32,
        ticks: u64,
    }
    let Ok(entries) = fs::read_dir("/proc") else {
        return Duration::ZERO;
    };
    let mut processes: Vec<Process> = entries
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name, in parentheses, may itself have any character.
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
            // user, system, and the same two of waited-for children
            let ticks = (11..=14).filter_map(number).sum();
            Some(Process {
                pid,
                parent: fields.get(1)?.parse().ok()?,
                ticks,
            })
        })
        .collect();
    let mut tree = vec![root];
    let mut ticks = 0;
    while let Some(pid) = tree.pop() {
        processes.retain(|process| {
            if process.pid == pid {
                ticks += process.ticks;
            } else if process.parent == pid {
                tree.push(process.pid);
            }
            process.pid != pid
        });
    }
    // SAFETY: asks for a constant of the system.
    let per_second = unsafe { nix::libc::sysconf(nix::libc::_SC_CLK_TCK) }.max(1) as u64;
    Duration::from_millis(ticks * 1000 / per_second)
}
