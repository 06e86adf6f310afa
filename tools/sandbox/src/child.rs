//! What runs between clone and exec.
//!
//! The caller may have many threads, any of which may hold the allocator's or
//! another lock at the moment of the clone, so the child must not allocate,
//! panic or call anything that could: it walks lists that the parent made and
//! does system calls. (Starting a copy of the own executable in a hidden mode
//! would lift that limit, but not in test binaries and other users of this
//! library, whose `main` is not ours.)
//!
//! The clone makes all namespaces at once and is process 1 of the new PID
//! namespace. It stays that: it starts the program as its child, reaps orphans,
//! passes signals on, reports how the program ended, and ends when the caller
//! does. A program that was process 1 itself would find its signals ignored and
//! its orphans unreaped.

use crate::plan::Op;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::{self, c_char, c_int, c_ulong};
use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use nix::unistd::Pid;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// What the child tells its parent, as a packet of two 32-bit numbers after the
/// kind; smaller than PIPE_BUF, so it is written whole or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Operation number `op` failed.
    Setup { op: u32, errno: i32 },
    /// The program could not be started.
    Exec { errno: i32 },
    /// The program ended with this wait status.
    Ended { status: i32 },
}

impl Message {
    pub(crate) const SIZE: usize = 12;

    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let (kind, a, b) = match self {
            Self::Setup { op, errno } => (1u32, op, errno),
            Self::Exec { errno } => (2, 0, errno),
            Self::Ended { status } => (3, 0, status),
        };
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&kind.to_ne_bytes());
        bytes[4..8].copy_from_slice(&a.to_ne_bytes());
        bytes[8..12].copy_from_slice(&b.to_ne_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let [k0, k1, k2, k3, a0, a1, a2, a3, b0, b1, b2, b3] = *bytes;
        let op = u32::from_ne_bytes([a0, a1, a2, a3]);
        let value = i32::from_ne_bytes([b0, b1, b2, b3]);
        match u32::from_ne_bytes([k0, k1, k2, k3]) {
            1 => Some(Self::Setup { op, errno: value }),
            2 => Some(Self::Exec { errno: value }),
            3 => Some(Self::Ended { status: value }),
            _ => None,
        }
    }
}

/// Descriptors of the program at or above this number are the set-up's own.
pub(crate) const FIRST_PRIVATE_FD: RawFd = 64;

/// Everything the child needs, ready to use.
pub(crate) struct Prepared {
    pub(crate) ops: Vec<Op>,
    /// Paths to try for the program, in order.
    pub(crate) candidates: Vec<CString>,
    /// NULL-terminated, pointing into strings that the parent keeps alive.
    pub(crate) argv: Vec<*const c_char>,
    /// NULL-terminated, as `argv`.
    pub(crate) envp: Vec<*const c_char>,
    /// Descriptor here → descriptor in the program.
    pub(crate) fds: Vec<(RawFd, RawFd)>,
    /// As many places as `fds` has entries.
    pub(crate) scratch: Vec<RawFd>,
    /// Sorted numbers of all descriptors that the child needs.
    pub(crate) keep: Vec<RawFd>,
    /// Takes [`Message::Setup`] and [`Message::Exec`]; closed when the program runs.
    pub(crate) ready: RawFd,
    /// Takes [`Message::Ended`].
    pub(crate) status: RawFd,
    /// Hangs up when the caller's process has ended.
    pub(crate) lifeline: RawFd,
    /// Whether to take away the right to mount.
    pub(crate) confine: bool,
    /// Whether to leave the caller's terminal.
    pub(crate) own_session: bool,
}

/// New namespaces of every kind but the network's.
const NAMESPACES: c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// Clones the calling thread into new namespaces; the child never returns.
pub(crate) fn clone_into(prepared: &mut Prepared, share_network: bool) -> Result<c_int, Errno> {
    let network = if share_network { 0 } else { libc::CLONE_NEWNET };
    clone_undisturbed(NAMESPACES | network, || process_one(prepared))
}

/// Like [`clone_into`], in the network namespace `network`, which belongs to the user
/// namespace `user`.
///
/// A process that has entered a user namespace cannot go back, so a child goes there,
/// and the sandbox is the child's sibling: it has this process for its parent, as any
/// other sandbox.
pub(crate) fn clone_beside(
    prepared: &mut Prepared,
    user: &OwnedFd,
    network: &OwnedFd,
) -> Result<c_int, Errno> {
    let (mut read, write) = {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        (File::from(read), write)
    };
    let guide = clone_undisturbed(0, || {
        let entered = nix::sched::setns(user, CloneFlags::CLONE_NEWUSER)
            .and_then(|()| nix::sched::setns(network, CloneFlags::CLONE_NEWNET));
        let cloned = entered.and_then(|()| {
            let flags = NAMESPACES | libc::CLONE_PARENT;
            clone_undisturbed(flags, || process_one(prepared))
        });
        // A process number, or an error's number with its sign turned.
        let answer = cloned.unwrap_or_else(|errno| -(errno as c_int));
        let bytes = answer.to_ne_bytes();
        // SAFETY: the buffer is valid for its length; a parent that reads nothing
        // takes that for a failure. Nothing of the parent's may run on the way out.
        unsafe {
            libc::write(write.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
            libc::_exit(0)
        }
    })?;
    drop(write);
    let mut answer = [0; size_of::<c_int>()];
    let read = read.read_exact(&mut answer);
    nix::sys::wait::waitpid(Pid::from_raw(guide), None)?;
    // Nothing to read means that the guide was killed.
    read.map_err(|_| Errno::EINTR)?;
    match c_int::from_ne_bytes(answer) {
        pid @ 1.. => Ok(pid),
        errno => Err(Errno::from_raw(-errno)),
    }
}

/// Clones the calling thread with `flags`, as a fork does; the child runs `child`,
/// which must keep to system calls.
///
/// All signals are blocked meanwhile, so no handler of the caller's runs in the
/// child.
fn clone_undisturbed(flags: c_int, child: impl FnOnce() -> Infallible) -> Result<c_int, Errno> {
    let flags = flags | libc::SIGCHLD;
    // SAFETY: the sets are initialised by sigfillset and pthread_sigmask before
    // use. The clone has no CLONE_VM and no own stack, so it behaves as fork; the
    // callers' closures keep to system calls and never return.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let pid = libc::syscall(libc::SYS_clone, flags as c_ulong, 0, 0, 0, 0);
        if pid == 0 {
            child();
        }
        let result = Errno::result(pid);
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        result.map(|pid| pid as c_int)
    }
}

fn process_one(prepared: &mut Prepared) -> Infallible {
    close_others(&prepared.keep);
    if prepared.own_session {
        let _ = nix::unistd::setsid();
    }
    reset_signals();
    // SAFETY: plain system call.
    unsafe { libc::umask(0o022) };
    for (index, op) in prepared.ops.iter().enumerate() {
        if let Err(errno) = perform(op) {
            fail(
                prepared.ready,
                Message::Setup {
                    op: index as u32,
                    errno: errno as i32,
                },
            );
        }
    }
    if prepared.confine
        && let Err(errno) = give_up_mounting()
    {
        let op = prepared.ops.len() as u32;
        fail(
            prepared.ready,
            Message::Setup {
                op,
                errno: errno as i32,
            },
        );
    }
    // SAFETY: as in `clone_into`: a fork whose child keeps to system calls.
    let program = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD as c_ulong, 0, 0, 0, 0) };
    match program {
        0 => exec(prepared),
        pid if pid > 0 => supervise(prepared, pid as c_int),
        _ => fail(
            prepared.ready,
            Message::Exec {
                errno: Errno::last_raw(),
            },
        ),
    }
}

/// Closes what the parent had open but did not mean for us, above all other
/// sandboxes' lifelines, which must hang up when the parent ends.
fn close_others(keep: &[RawFd]) {
    let mut next = 0;
    for fd in keep {
        if *fd > next {
            close_range(next, *fd - 1, 0);
        }
        next = *fd + 1;
    }
    close_range(next, RawFd::MAX, 0);
}

fn close_range(first: RawFd, last: RawFd, flags: c_int) {
    // SAFETY: closes or marks descriptors of this process, which has a copy of
    // its own of the table; nothing here owns one of them by value.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
}

fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: sets the default action; numbers that libc keeps to itself or
        // that cannot be set are refused, which is as good.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

fn fail(fd: RawFd, message: Message) -> ! {
    tell(fd, message);
    // SAFETY: ends the process without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

fn tell(fd: RawFd, message: Message) {
    let bytes = message.to_bytes();
    // SAFETY: the buffer is valid for its length. When the parent is gone nobody
    // is left to be told, so the result does not matter.
    unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
}

fn perform(op: &Op) -> Result<(), Errno> {
    const NOTHING: Option<&CStr> = None;
    let existing_is_fine = |result: Result<(), Errno>| match result {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    };
    let mount =
        |from: Option<&CStr>, to: &CStr, kind: Option<&CStr>, flags, data: Option<&CStr>| {
            nix::mount::mount(from, to, kind, flags, data)
        };
    match op {
        Op::Write { path, text } => {
            // SAFETY: NUL-terminated path, valid buffer, descriptor closed below.
            unsafe {
                let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                Errno::result(fd)?;
                let bytes = text.as_bytes();
                let result = Errno::result(libc::write(fd, bytes.as_ptr().cast(), bytes.len()));
                libc::close(fd);
                result.map(drop)
            }
        }
        Op::MakePrivate => mount(
            NOTHING,
            c"/",
            NOTHING,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            NOTHING,
        ),
        Op::Tmpfs { path, options } => mount(
            Some(c"tmpfs"),
            path,
            Some(c"tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some(options),
        ),
        Op::Mkdir { path } => {
            // SAFETY: NUL-terminated path.
            let made = unsafe { libc::mkdir(path.as_ptr(), 0o755) };
            existing_is_fine(Errno::result(made).map(drop))
        }
        Op::Touch { path } => {
            // SAFETY: NUL-terminated path; the descriptor is closed again.
            unsafe {
                let flags = libc::O_RDONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
                let fd = libc::open(path.as_ptr(), flags, 0o644);
                existing_is_fine(Errno::result(fd).map(|fd| {
                    libc::close(fd);
                }))
            }
        }
        Op::Symlink { target, path } => {
            // SAFETY: NUL-terminated paths.
            let made = unsafe { libc::symlink(target.as_ptr(), path.as_ptr()) };
            Errno::result(made).map(drop)
        }
        // Always recursive: the kernel does not let us uncover what the caller's
        // own mounts cover.
        Op::Bind { from, to } => mount(
            Some(from),
            to,
            NOTHING,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            NOTHING,
        ),
        Op::Restrict {
            path,
            read_only,
            devices,
            recursive,
        } => restrict(path, *read_only, *devices, *recursive),
        Op::Proc { path, fallback } => {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            match mount(Some(c"proc"), path, Some(c"proc"), flags, NOTHING) {
                // A container that covers parts of its /proc may not mount a
                // whole one. Its own works too, it only shows more processes.
                Err(Errno::EPERM) => mount(
                    Some(fallback),
                    path,
                    NOTHING,
                    MsFlags::MS_BIND | MsFlags::MS_REC,
                    NOTHING,
                ),
                other => other,
            }
        }
        Op::Devpts { path } => mount(
            Some(c"devpts"),
            path,
            Some(c"devpts"),
            MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
            Some(c"newinstance,ptmxmode=0666,mode=0620"),
        ),
        Op::Pivot { root, old } => {
            nix::unistd::chdir(root.as_c_str())?;
            if root == old {
                // The old root lands on top of the new one and is taken off again.
                nix::unistd::pivot_root(c".", c".")?;
                nix::mount::umount2(c".", MntFlags::MNT_DETACH)?;
            } else {
                nix::unistd::pivot_root(c".", old.as_c_str())?;
            }
            nix::unistd::chdir(c"/")
        }
        Op::Hostname { name } => {
            // SAFETY: valid buffer of the given length.
            let set = unsafe { libc::sethostname(name.as_ptr(), name.as_bytes().len() as _) };
            Errno::result(set).map(drop)
        }
        Op::LoopbackUp => loopback_up(),
        Op::Chdir { path } => nix::unistd::chdir(path.as_c_str()),
    }
}

/// `mount_setattr`, since a remount would have to repeat each flag that the
/// caller's mount has and could not reach the mounts below.
fn restrict(path: &CStr, read_only: bool, devices: bool, recursive: bool) -> Result<(), Errno> {
    let mut set = libc::MOUNT_ATTR_NOSUID;
    if read_only {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    if !devices {
        set |= libc::MOUNT_ATTR_NODEV;
    }
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: NUL-terminated path, a structure of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}

fn loopback_up() -> Result<(), Errno> {
    // SAFETY: `request` is a plain structure for which zeros are valid; the name
    // fits; the descriptor is closed again.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        Errno::result(fd)?;
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as c_char;
        request.ifr_name[1] = b'o' as c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as _;
        let result = Errno::result(libc::ioctl(fd, libc::SIOCSIFFLAGS, &request));
        libc::close(fd);
        result.map(drop)
    }
}

/// Takes CAP_SYS_ADMIN from this process and all that come after it, so that no
/// step can make the toolchain writable again. (In a user namespace of its own a
/// step finds the mounts locked.)
fn give_up_mounting() -> Result<(), Errno> {
    const CAP_SYS_ADMIN: u32 = 21;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Sets {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let mut header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let mut sets = [Sets::default(); 2];
    // SAFETY: the structures have the layout that this version of capget and
    // capset defines; prctl gets plain numbers.
    unsafe {
        Errno::result(libc::prctl(
            libc::PR_CAPBSET_DROP,
            c_ulong::from(CAP_SYS_ADMIN),
            0,
            0,
            0,
        ))?;
        Errno::result(libc::syscall(
            libc::SYS_capget,
            &mut header,
            sets.as_mut_ptr(),
        ))?;
        let bit = !(1 << CAP_SYS_ADMIN);
        sets[0].effective &= bit;
        sets[0].permitted &= bit;
        sets[0].inheritable &= bit;
        Errno::result(libc::syscall(libc::SYS_capset, &mut header, sets.as_ptr()))?;
    }
    Ok(())
}

fn exec(prepared: &mut Prepared) -> ! {
    // SAFETY: descriptors are moved out of the way first so that no target is a
    // source still needed; argv and envp are NULL-terminated and point to strings
    // that live in this process's copy of the parent's memory.
    unsafe {
        let ready = libc::fcntl(prepared.ready, libc::F_DUPFD_CLOEXEC, FIRST_PRIVATE_FD);
        for (place, (from, _)) in prepared.scratch.iter_mut().zip(&prepared.fds) {
            *place = libc::fcntl(*from, libc::F_DUPFD_CLOEXEC, FIRST_PRIVATE_FD);
        }
        close_range(0, FIRST_PRIVATE_FD - 1, libc::CLOSE_RANGE_CLOEXEC as c_int);
        for (place, (_, to)) in prepared.scratch.iter().zip(&prepared.fds) {
            if libc::dup2(*place, *to) < 0 {
                fail(
                    ready,
                    Message::Exec {
                        errno: Errno::last_raw(),
                    },
                );
            }
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        let mut errno = Errno::ENOENT as i32;
        for candidate in &prepared.candidates {
            libc::execve(
                candidate.as_ptr(),
                prepared.argv.as_ptr(),
                prepared.envp.as_ptr(),
            );
            // "Not here" is the least telling of the errors on the way.
            let this = Errno::last_raw();
            if errno == Errno::ENOENT as i32 || this == Errno::EACCES as i32 {
                errno = this;
            }
        }
        fail(ready, Message::Exec { errno })
    }
}

/// Process 1 from now on. All signals are blocked and read from a descriptor.
fn supervise(prepared: &Prepared, program: c_int) -> ! {
    // SAFETY: system calls on valid buffers only; see each.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        let signals = libc::signalfd(-1, &all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        // The program's end of pipes must be the program's alone, and `ready`
        // tells the parent by closing that the program runs.
        let mut keep = [prepared.status, prepared.lifeline, signals];
        keep.sort_unstable();
        close_others(&keep);
        loop {
            let mut polled = [
                libc::pollfd {
                    fd: signals,
                    events: libc::POLLIN,
                    revents: 0,
                },
                libc::pollfd {
                    fd: prepared.lifeline,
                    events: libc::POLLIN,
                    revents: 0,
                },
            ];
            libc::poll(polled.as_mut_ptr(), 2, -1);
            if polled[1].revents != 0 {
                libc::_exit(137);
            }
            let mut info: libc::signalfd_siginfo = std::mem::zeroed();
            let size = size_of::<libc::signalfd_siginfo>();
            while libc::read(signals, (&raw mut info).cast(), size) == size as isize {
                // What the terminal sends goes to the program anyway.
                let from_kernel = info.ssi_code == libc::SI_KERNEL;
                if info.ssi_signo != libc::SIGCHLD as u32 && !from_kernel {
                    libc::kill(program, info.ssi_signo as c_int);
                }
            }
            loop {
                let mut status = 0;
                let pid = libc::waitpid(-1, &mut status, libc::WNOHANG);
                if pid == program {
                    tell(prepared.status, Message::Ended { status });
                    // What it left behind is killed by the kernel with us.
                    libc::_exit(0);
                }
                if pid <= 0 {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_pipe() {
        for message in [
            Message::Setup { op: 7, errno: 13 },
            Message::Exec { errno: 2 },
            Message::Ended { status: 9 },
        ] {
            assert_eq!(Message::from_bytes(&message.to_bytes()), Some(message));
        }
        assert_eq!(Message::from_bytes(&[0; Message::SIZE]), None);
    }
}
