//! A virtual machine: how it is put together, and what can be done with it.

use crate::accel::Acceleration;
use crate::cluster;
use crate::console::{Follower, Line};
use crate::ec2;
use crate::emulator::{Emulator, IMAGE, RUN, Start};
use crate::network::TestNetwork;
use crate::probe::PROBE_PORT;
use crate::qmp::{Event, Qmp};
use crate::services::{self, Services};
use crate::wire::{self, Wire};
use crate::{process, socket};
use anyhow::{Context, Result, bail};
use sandbox::{Network, SandboxChild};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// TCP port inside the guest at which the dev door leads to the API.
pub const DOOR_PORT: u16 = 7274;

/// Name of what the emulator itself says, without `.log`.
pub(crate) const LOG: &str = "qemu";
const CONSOLE: &str = "console.log";
const CONTROL: &str = "qmp.sock";
const API: &str = "api.sock";
const PROBE: &str = "probe.sock";

/// How often the console is looked at.
const CONSOLE_PERIOD: Duration = Duration::from_millis(20);
/// Processor seconds after which the power button is pressed again.
const POWER_BUTTON_PERIOD: f64 = 8.0;
/// How long the emulator may take until it listens.
const START_TIME: Duration = Duration::from_secs(60);
/// A wait gives up when the clock has gone on this many times further than the
/// processor seconds it was given: then the guest sleeps and nothing will come.
const WALL_FACTOR: f64 = 6.0;

/// The limit on the clock that goes with `budget` processor seconds. On a loaded
/// workstation a guest gets its share of the processors only.
fn wall_limit(budget: f64) -> f64 {
    let load = fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_ascii_whitespace().next()?.parse::<f64>().ok())
        .unwrap_or(0.0);
    let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    budget * WALL_FACTOR * (load / processors as f64).max(1.0)
}

/// What the machine boots from.
#[derive(Clone, Debug)]
pub enum Disk {
    /// The image's own disk, below a layer of the run's folder that takes the
    /// writes; a size in bytes makes the machine see a bigger disk.
    Overlay {
        /// Size of the disk that the machine sees.
        size: Option<u64>,
    },
    /// A raw file in the run's folder, by name.
    Raw(String),
    /// A raw file in the run's folder, each write to which is also recorded in a
    /// second file that [`write_log`](crate::write_log) reads.
    Recorded {
        /// Name of the raw file.
        disk: String,
        /// Name of the log.
        log: String,
    },
    /// A raw file in the run's folder that fails at two of its sectors, as a disk does that
    /// wears out.
    Failing {
        /// Name of the raw file.
        disk: String,
        /// The first write to it fails.
        unwritable: u64,
        /// Each read of it fails.
        unreadable: u64,
    },
}

/// A disk beside the one that the machine boots from.
#[derive(Clone, Debug)]
pub struct ExtraDisk {
    /// A raw file in the run's folder, by name.
    pub file: String,
    /// What it says that its serial number is, by which the host may know what it is for.
    pub serial: Option<&'static str>,
}

impl From<&str> for ExtraDisk {
    fn from(file: &str) -> Self {
        Self {
            file: file.to_string(),
            serial: None,
        }
    }
}

/// What the machine's network card leads to.
#[derive(Clone, Debug)]
pub enum Reach {
    /// A network of its own, on which only the test's services answer.
    Isolated,
    /// A test's network, which others are in, too.
    Shared {
        /// The network.
        network: Arc<TestNetwork>,
        /// Which of its machines this is, from 0 on.
        index: u8,
    },
    /// Everything that the workstation reaches.
    Workstation,
}

impl Reach {
    /// Which of several machines in one network this is.
    fn index(&self) -> u8 {
        match self {
            Self::Shared { index, .. } => *index,
            Self::Isolated | Self::Workstation => 0,
        }
    }

    /// One line for people.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Isolated | Self::Shared { .. } => {
                "the emulator's user network, isolated from the workstation's"
            }
            Self::Workstation => "the emulator's user network, through the workstation's",
        }
    }
}

/// A machine to be started. Fields may be set freely before [`start`](Self::start).
#[derive(Clone, Debug)]
pub struct Builder {
    /// Folder of the image: `disk.img` and what lies beside it.
    pub image: PathBuf,
    /// Folder that takes the machine's files: console, sockets, disks.
    pub run: PathBuf,
    /// The store of firmware variables; made by [`crate::firmware`]. A copy of it
    /// is written to, unless the run's folder has one already.
    pub variables: PathBuf,
    /// How the guest's instructions are executed.
    pub acceleration: Acceleration,
    /// Memory in MiB.
    pub memory: u32,
    /// Number of processors.
    pub cpus: u32,
    /// What the machine boots from.
    pub disk: Disk,
    /// Further disks.
    pub extra_disks: Vec<ExtraDisk>,
    /// A disc in its CD drive: a file in the run's folder, by name.
    pub disc: Option<String>,
    /// What its network card leads to.
    pub reach: Reach,
    /// Number of network cards. Several are plugged into one Ethernet segment, and so
    /// is the test: see [`Machine::wire`].
    pub cards: usize,
    /// Whether a second card leads to the other machines of a shared network, and to
    /// nothing else.
    pub neighbours: bool,
    /// Further ports of loopback, in the machine's network, that lead into the guest:
    /// (outside, inside).
    pub forwards: Vec<(u16, u16)>,
    /// What the machine's clock says at power-on, such as `1970-01-01T00:00:00`; the
    /// workstation's time if it is not given.
    pub clock: Option<&'static str>,
    /// User data, given to the guest by the firmware's configuration device.
    pub user_data: Option<Vec<u8>>,
    /// What answers on the network, unless that is the workstation's.
    pub services: Services,
    /// The program that runs [`services`] when given its arguments; see
    /// [`services::run`].
    pub helper: Vec<OsString>,
    /// Start from the state that [`Machine::save`] left in the run's folder.
    pub restore: bool,
}

impl Builder {
    /// A machine with 2 GiB of memory and two processors that boots `image`.
    pub fn new(image: &Path, run: &Path, variables: &Path, acceleration: Acceleration) -> Self {
        Self {
            image: image.to_path_buf(),
            run: run.to_path_buf(),
            variables: variables.to_path_buf(),
            acceleration,
            memory: 2048,
            cpus: 2,
            disk: Disk::Overlay { size: None },
            extra_disks: Vec::new(),
            disc: None,
            reach: Reach::Isolated,
            cards: 1,
            neighbours: false,
            forwards: Vec::new(),
            clock: None,
            user_data: None,
            services: Services::default(),
            helper: services::helper_of_this_program(),
            restore: false,
        }
    }

    /// Powers the machine on.
    pub fn start(&self, emulator: &Emulator) -> Result<Machine> {
        fs::create_dir_all(&self.run)
            .with_context(|| format!("cannot create {}", self.run.display()))?;
        for name in [CONTROL, API, PROBE, wire::EMULATOR] {
            socket::remove_if_there(&self.run.join(name))?;
        }
        self.prepare_files(emulator)?;
        let wire = match self.cards {
            1 => None,
            _ => Some(Wire::open(&self.run)?),
        };
        let follower = Follower::open(&self.run.join(CONSOLE))
            .with_context(|| format!("cannot read {}", self.run.join(CONSOLE).display()))?;
        let started = Instant::now();
        let image = self
            .image
            .canonicalize()
            .with_context(|| format!("cannot find the image's folder {}", self.image.display()))?;
        let mut child = emulator.spawn(Start {
            folder: &self.run,
            readable: &[(&image, IMAGE.to_string())],
            devices: self.acceleration.devices(),
            network: match &self.reach {
                Reach::Isolated => Network::Own,
                Reach::Shared { network, .. } => network.network(),
                Reach::Workstation => Network::Host,
            },
            program: emulator.platform().program,
            environment: &[],
            log: LOG,
            arguments: self.arguments(emulator)?,
        })?;
        let shared = Arc::new(Shared::default());
        let qmp = connect(&mut child, &self.run, &shared)?;
        if let Some(wire) = &wire {
            wire.connect(&self.run)?;
        }
        let pid =
            process::find_below(child.pid().unsigned_abs(), "qemu-system").with_context(|| {
                format!(
                    "cannot find the emulator among the processes below {}",
                    child.pid()
                )
            })?;
        let watcher = {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("console".to_string())
                .spawn(move || watch(follower, pid, started, &shared))
                .context("cannot start the thread that watches the console")?
        };
        let mut machine = Machine {
            child,
            qmp,
            shared,
            watcher: Some(watcher),
            run: self.run.clone(),
            cursor: 0,
            services: None,
            wire,
            emulator: emulator.clone(),
        };
        let forwards = match self.reach {
            Reach::Isolated | Reach::Shared { .. } => {
                let [door, probe] = self.outside_ports();
                vec![(self.run.join(API), door), (self.run.join(PROBE), probe)]
            }
            Reach::Workstation => vec![(self.run.join(API), machine.forwarded_port()?)],
        };
        machine.services = Some(services::start(&services::Start {
            helper: &self.helper,
            join: match &self.reach {
                Reach::Isolated => Some(pid),
                Reach::Shared { network, .. } => Some(network.pid()),
                Reach::Workstation => None,
            },
            folder: &self.run,
            forwards: &forwards,
            services: &self.services,
        })?);
        if self.restore {
            machine.qmp.execute(
                "migrate-incoming",
                json!({"uri": format!("file:{RUN}/{STATE}")}),
            )?;
            machine.wait_for_migration()?;
            machine.qmp.execute("cont", json!({}))?;
        }
        Ok(machine)
    }

    /// Makes the files that the machine's devices need.
    fn prepare_files(&self, emulator: &Emulator) -> Result<()> {
        let variables = self.run.join(VARIABLES);
        if !variables.exists() {
            fs::copy(&self.variables, &variables).with_context(|| {
                format!(
                    "cannot copy {} to {}",
                    self.variables.display(),
                    variables.display()
                )
            })?;
        }
        // What earlier machines of this folder printed stays: it is part of the story.
        let console = self.run.join(CONSOLE);
        File::options()
            .create(true)
            .append(true)
            .open(&console)
            .and_then(|mut file| writeln!(file, "\n---- power on ----"))
            .with_context(|| format!("cannot write {}", console.display()))?;
        if let Some(user_data) = &self.user_data {
            let path = self.run.join(USER_DATA);
            fs::write(&path, user_data)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        match &self.disk {
            Disk::Overlay { size } => {
                if !self.run.join(OVERLAY).exists() {
                    let size = size.map(|size| size.to_string());
                    let backing = format!("{IMAGE}/disk.img");
                    let mut arguments = vec![
                        "create", "-q", "-f", "qcow2", "-F", "raw", "-b", &backing, OVERLAY,
                    ];
                    arguments.extend(size.as_deref());
                    let image = self.image.canonicalize().with_context(|| {
                        format!("cannot find the image's folder {}", self.image.display())
                    })?;
                    emulator.run_with(&self.run, &[(&image, IMAGE)], "qemu-img", &arguments)?;
                }
            }
            Disk::Raw(_) | Disk::Failing { .. } => {}
            Disk::Recorded { log, .. } => {
                let path = self.run.join(log);
                fs::write(&path, b"")
                    .with_context(|| format!("cannot create {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// The ports of loopback that lead to the dev door and to the probe.
    fn outside_ports(&self) -> [u16; 2] {
        let offset = 10 * u16::from(self.reach.index());
        [DOOR_PORT + offset, PROBE_PORT + offset]
    }

    fn arguments(&self, emulator: &Emulator) -> Result<Vec<OsString>> {
        let platform = emulator.platform();
        let code = platform.firmware;
        emulator.file(code)?;
        let mut arguments = Arguments::default();
        arguments.flag("-nodefaults").flag("-no-user-config");
        arguments
            .option("-name", "bulkhead")
            .option("-display", "none");
        let acceleration = self.acceleration.arguments(platform);
        for argument in platform.machine.iter().chain(&acceleration) {
            arguments.flag(*argument);
        }
        arguments.option("-smp", self.cpus.to_string());
        arguments.option("-m", format!("{}M", self.memory));
        arguments.option(
            "-drive",
            format!("if=pflash,unit=0,format=raw,readonly=on,file={code}"),
        );
        arguments.option(
            "-drive",
            format!("if=pflash,unit=1,format=raw,file={RUN}/{VARIABLES}"),
        );
        arguments.option(
            "-chardev",
            format!("file,id=console,path={RUN}/{CONSOLE},append=on"),
        );
        arguments.option("-serial", "chardev:console");
        arguments.option(
            "-chardev",
            format!("socket,id=control,path={RUN}/{CONTROL},server=on,wait=off"),
        );
        arguments.option("-mon", "chardev=control,mode=control");
        arguments.option("-device", "virtio-rng-pci");
        // The emulator's own cache must pass flushes on, or a power cut could not
        // be told from a clean end.
        match &self.disk {
            Disk::Overlay { .. } => {
                arguments.drive(
                    "disk",
                    &format!("driver=qcow2,file.driver=file,file.filename={RUN}/{OVERLAY}"),
                );
            }
            Disk::Raw(name) => {
                arguments.drive(
                    "disk",
                    &format!("driver=raw,file.driver=file,file.filename={RUN}/{name}"),
                );
            }
            Disk::Recorded { disk, log } => {
                arguments.drive(
                    "disk",
                    &format!(
                        "driver=blklogwrites,log-sector-size=512,log-super-update-interval=1,\
                     file.driver=raw,file.file.driver=file,file.file.filename={RUN}/{disk},\
                     log.driver=file,log.filename={RUN}/{log}"
                    ),
                );
            }
            Disk::Failing {
                disk,
                unwritable,
                unreadable,
            } => {
                let fault = |number, kind, sector, once| {
                    let fault = format!("inject-error.{number}");
                    format!(
                        "{fault}.event=none,{fault}.iotype={kind},{fault}.sector={sector},\
                         {fault}.once={once},{fault}.errno=5"
                    )
                };
                arguments.drive(
                    "disk",
                    &format!(
                        "driver=blkdebug,{},{},image.driver=raw,image.file.driver=file,\
                         image.file.filename={RUN}/{disk}",
                        fault(0, "write", unwritable, "on"),
                        fault(1, "read", unreadable, "off"),
                    ),
                );
            }
        }
        arguments.option(
            "-device",
            match (&self.services.metadata, &self.disk) {
                // As the volumes of an instance are.
                (Some(_), _) => "nvme,serial=vol0,drive=disk,bootindex=0",
                // Requests are merged up to as many pieces as one write may have, and the
                // recorder adds one of its own: such a write fails.
                (None, Disk::Recorded { .. }) => {
                    "virtio-blk-pci,drive=disk,bootindex=0,request-merging=off"
                }
                (None, _) => "virtio-blk-pci,drive=disk,bootindex=0",
            },
        );
        for (index, disk) in self.extra_disks.iter().enumerate() {
            let id = format!("extra{index}");
            let ExtraDisk { file, serial } = disk;
            arguments.drive(
                &id,
                &format!("driver=raw,file.driver=file,file.filename={RUN}/{file}"),
            );
            let serial = serial.map(|serial| format!(",serial={serial}"));
            let serial = serial.unwrap_or_default();
            let device = match self.services.metadata {
                Some(_) => format!("nvme,serial=vol{},drive={id}", index + 1),
                None => format!("virtio-blk-pci,drive={id}{serial}"),
            };
            arguments.option("-device", device);
        }
        if let Some(name) = &self.disc {
            arguments.drive(
                "disc",
                &format!("driver=raw,read-only=on,file.driver=file,file.filename={RUN}/{name}"),
            );
            // At the SATA controller that the machine has.
            arguments.option("-device", "ide-cd,drive=disc");
        }
        let mut forwards = match self.reach {
            Reach::Isolated | Reach::Shared { .. } => {
                let [door, probe] = self.outside_ports();
                vec![(door, DOOR_PORT), (probe, PROBE_PORT)]
            }
            // Any free port; which one is asked for later.
            Reach::Workstation => vec![(0, DOOR_PORT)],
        };
        // Machines of one network need addresses of their own; the emulator's default is
        // that of the first one.
        let addresses = match &self.reach {
            Reach::Shared { index, .. } => {
                format!(
                    ",net=10.0.0.0/16,host={},dhcpstart={}",
                    cluster::GATEWAY,
                    cluster::node_address(*index)
                )
            }
            Reach::Isolated | Reach::Workstation => String::new(),
        };
        forwards.extend(&self.forwards);
        let forwards: String = forwards
            .iter()
            .map(|(outside, inside)| format!(",hostfwd=tcp:127.0.0.1:{outside}-:{inside}"))
            .collect();
        arguments.option("-netdev", format!("user,id=net{addresses}{forwards}"));
        if self.cards == 1 {
            arguments.card(0, "net");
        } else {
            arguments.plug("net");
            arguments.option(
                "-netdev",
                format!(
                    "dgram,id=wire,local.type=unix,local.path={RUN}/{},\
                     remote.type=unix,remote.path={RUN}/{}",
                    wire::EMULATOR,
                    wire::TEST
                ),
            );
            arguments.plug("wire");
            for card in 0..self.cards {
                let port = format!("port{card}");
                arguments.option("-netdev", format!("hubport,id={port},hubid=0"));
                arguments.card(card, &port);
            }
        }
        if self.neighbours {
            arguments.option(
                "-netdev",
                format!("socket,id=neighbours,mcast={NEIGHBOURS},localaddr=127.0.0.1"),
            );
            let address = cluster::neighbour_address(self.reach.index());
            arguments.option(
                "-device",
                format!("virtio-net-pci,netdev=neighbours,mac={address},romfile="),
            );
        }
        if let Some(clock) = self.clock {
            arguments.option("-rtc", format!("base={clock}"));
        }
        if self.services.metadata.is_some() {
            arguments.option("-smbios", format!("type=1,manufacturer={}", ec2::VENDOR));
        }
        if self.user_data.is_some() {
            arguments.option(
                "-fw_cfg",
                format!("name=opt/bulkhead/user-data,file={RUN}/{USER_DATA}"),
            );
        }
        if self.restore {
            arguments.option("-incoming", "defer");
        }
        Ok(arguments.0)
    }
}

/// The emulator's name of a network card.
fn card(index: usize) -> String {
    format!("card{index}")
}

/// Where machines of one network meet: each frame of one is sent to all others.
const NEIGHBOURS: &str = "230.0.0.1:7300";

const VARIABLES: &str = "variables.fd";
const OVERLAY: &str = "disk.qcow2";
const USER_DATA: &str = "user-data";
const STATE: &str = "machine.state";

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn flag(&mut self, argument: impl Into<OsString>) -> &mut Self {
        self.0.push(argument.into());
        self
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.flag(name).flag(value)
    }

    fn drive(&mut self, id: &str, driver: &str) -> &mut Self {
        self.option(
            "-blockdev",
            format!("node-name={id},discard=unmap,{driver}"),
        )
    }

    /// A network card at the end `netdev`.
    fn card(&mut self, index: usize, netdev: &str) -> &mut Self {
        // No boot from the network, so no option ROM that the firmware would load.
        self.option(
            "-device",
            format!("virtio-net-pci,id={},netdev={netdev},romfile=", card(index)),
        )
    }

    /// Plugs the end `netdev` into the segment.
    fn plug(&mut self, netdev: &str) -> &mut Self {
        self.option(
            "-netdev",
            format!("hubport,id={netdev}-port,hubid=0,netdev={netdev}"),
        )
    }
}

/// What the threads that watch the machine have seen.
#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Seen {
    lines: Vec<Line>,
    partial: String,
    cpu: f64,
    wall: f64,
    resets: u32,
    shutdown: Option<String>,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        // The state is valid after each single change, so a panic of another
        // thread while it held the lock does not spoil it.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the console until the emulator ends.
fn watch(mut follower: Follower, pid: u32, started: Instant, shared: &Shared) {
    loop {
        // Asked for before the console is read, so that what a process wrote
        // before it ended is read in the last round.
        let stopping = shared.stop.load(Ordering::Acquire);
        let cpu = process::cpu_seconds(pid);
        let wall = started.elapsed().as_secs_f64();
        let mut seen = shared.lock();
        let cpu_now = cpu.unwrap_or(seen.cpu).max(seen.cpu);
        let lines = &mut seen.lines;
        // A console that cannot be read ends here like one whose emulator ended:
        // whoever waits for a line is told that none came.
        let read = follower.poll(|text| {
            lines.push(Line {
                text,
                cpu: cpu_now,
                wall,
            })
        });
        seen.partial = follower.partial();
        seen.cpu = cpu_now;
        seen.wall = wall;
        let ended = cpu.is_none() || stopping || read.is_err();
        seen.ended |= ended;
        drop(seen);
        shared.changed.notify_all();
        if ended {
            return;
        }
        thread::sleep(CONSOLE_PERIOD);
    }
}

fn connect(child: &mut SandboxChild, run: &Path, shared: &Arc<Shared>) -> Result<Qmp> {
    let started = Instant::now();
    let stream = loop {
        if let Ok(stream) = socket::connect(&run.join(CONTROL)) {
            break stream;
        }
        if let Some(status) = child
            .try_wait()
            .context("cannot ask for the emulator's state")?
        {
            bail!("the emulator did not start ({status}): {}", last_words(run));
        }
        if started.elapsed() > START_TIME {
            bail!(
                "the emulator did not listen at {}: {}",
                run.join(CONTROL).display(),
                last_words(run)
            );
        }
        thread::sleep(Duration::from_millis(10));
    };
    let shared = Arc::clone(shared);
    Qmp::start(stream, move |event| {
        let mut seen = shared.lock();
        match event {
            Event::Reset => seen.resets += 1,
            Event::Shutdown(reason) => seen.shutdown = Some(reason),
            Event::Other(_) => {}
        }
        drop(seen);
        shared.changed.notify_all();
    })
}

fn last_words(run: &Path) -> String {
    let log = run.join(format!("{LOG}.log"));
    match fs::read_to_string(&log) {
        Ok(text) if !text.trim().is_empty() => text.trim().to_string(),
        _ => format!("it said nothing in {}", log.display()),
    }
}

/// A machine that runs. Dropped, it is gone at once, as in a power cut.
#[derive(Debug)]
pub struct Machine {
    child: SandboxChild,
    qmp: Qmp,
    shared: Arc<Shared>,
    watcher: Option<thread::JoinHandle<()>>,
    run: PathBuf,
    /// Index of the first console line that no wait has passed yet.
    cursor: usize,
    services: Option<services::Running>,
    wire: Option<Wire>,
    emulator: Emulator,
}

/// What to wait for on the console, and for how long.
#[derive(Clone, Debug)]
pub struct Wait<'a> {
    patterns: Vec<&'a str>,
    budget: f64,
    resets: bool,
}

impl<'a> Wait<'a> {
    /// Wait for a line that contains `pattern`, for `budget` processor seconds of
    /// the emulator.
    pub fn line(pattern: &'a str, budget: f64) -> Self {
        Self {
            patterns: vec![pattern],
            budget,
            resets: false,
        }
    }

    /// Be content with a line that contains `pattern`, too.
    pub fn or(mut self, pattern: &'a str) -> Self {
        self.patterns.push(pattern);
        self
    }

    /// The machine may reset meanwhile; otherwise that ends the wait.
    pub fn across_resets(mut self) -> Self {
        self.resets = true;
        self
    }
}

impl Machine {
    /// Waits for a line after those that earlier waits have passed.
    pub fn wait(&mut self, wait: &Wait<'_>) -> Result<Line> {
        let mut seen = self.shared.lock();
        let (cpu_start, wall_start, resets) = (seen.cpu, Instant::now(), seen.resets);
        let wanted = || wait.patterns.join("\" or \"");
        loop {
            let matches = |text: &str| wait.patterns.iter().any(|pattern| text.contains(pattern));
            if let Some(offset) = seen.lines[self.cursor..]
                .iter()
                .position(|line| matches(&line.text))
            {
                self.cursor += offset + 1;
                return Ok(seen.lines[self.cursor - 1].clone());
            }
            let failure = if seen.ended {
                let reason = seen.shutdown.as_deref().unwrap_or("none");
                Some(format!("the emulator ended (shutdown: {reason})"))
            } else if !wait.resets && seen.resets > resets {
                Some("the machine was reset".to_string())
            } else if seen.cpu - cpu_start > wait.budget {
                Some(format!("{:.0} CPU seconds have passed", wait.budget))
            } else if wall_start.elapsed().as_secs_f64() > wall_limit(wait.budget) {
                Some(format!(
                    "{:.0} seconds have passed",
                    wall_start.elapsed().as_secs_f64()
                ))
            } else {
                None
            };
            if let Some(failure) = failure {
                bail!(
                    "waited on the console for \"{}\", but {failure}; the last lines are:\n{}",
                    wanted(),
                    tail(&seen)
                );
            }
            seen = self
                .shared
                .changed
                .wait_timeout(seen, Duration::from_millis(200))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for a line with `pattern` on a machine that must not reset meanwhile.
    pub fn wait_for(&mut self, pattern: &str, budget: f64) -> Result<Line> {
        self.wait(&Wait::line(pattern, budget))
    }

    /// Lets `budget` processor seconds pass at most until `check` is true, looking
    /// after each 200 ms.
    pub fn wait_until(
        &self,
        what: &str,
        budget: f64,
        mut check: impl FnMut() -> bool,
    ) -> Result<()> {
        let (cpu_start, started) = (self.cpu_seconds(), Instant::now());
        while !check() {
            if self.has_ended() {
                bail!(
                    "waited until {what}, but the emulator ended; the last lines are:\n{}",
                    tail(&self.shared.lock())
                );
            }
            let cpu = self.cpu_seconds() - cpu_start;
            let wall = started.elapsed().as_secs_f64();
            if cpu > budget || wall > wall_limit(budget) {
                bail!(
                    "waited until {what}, but {cpu:.0} CPU seconds ({wall:.0} on the clock) have passed; the last lines are:\n{}",
                    tail(&self.shared.lock())
                );
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// All console lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.shared.lock().lines.clone()
    }

    /// The console lines from the `from`th on, and what has come of the next one.
    pub fn lines_from(&self, from: usize) -> (Vec<Line>, String) {
        let seen = self.shared.lock();
        (
            seen.lines.get(from..).unwrap_or_default().to_vec(),
            seen.partial.clone(),
        )
    }

    /// Waits from here on for lines that are printed from now on.
    pub fn skip_to_now(&mut self) {
        self.cursor = self.shared.lock().lines.len();
    }

    /// Waits from here on consider the whole console again.
    pub fn rewind(&mut self) {
        self.cursor = 0;
    }

    /// How often the machine was reset.
    pub fn resets(&self) -> u32 {
        self.shared.lock().resets
    }

    /// Processor seconds that the emulator has used.
    pub fn cpu_seconds(&self) -> f64 {
        self.shared.lock().cpu
    }

    /// Seconds on the clock since power-on.
    pub fn wall_seconds(&self) -> f64 {
        self.shared.lock().wall
    }

    /// True when the machine was powered off or its emulator ended.
    pub fn has_ended(&self) -> bool {
        self.shared.lock().ended
    }

    /// Where the guest's API is available on the workstation, when it has a dev door.
    pub fn api_socket(&self) -> PathBuf {
        self.run.join(API)
    }

    /// Where tests look inside the guest, when it has a dev door and is isolated.
    pub fn probe_socket(&self) -> PathBuf {
        self.run.join(PROBE)
    }

    /// The console's file.
    pub fn console_log(&self) -> PathBuf {
        self.run.join(CONSOLE)
    }

    /// Presses the power button until the guest has powered the machine off. As a
    /// person would, it presses again when nothing happens: a guest that has only
    /// just come up may not listen yet.
    pub fn power_off(&mut self, budget: f64) -> Result<()> {
        let mut left = budget;
        while left > POWER_BUTTON_PERIOD {
            if let Err(error) = self.request_power_off() {
                // It may have powered off since it was looked at last.
                return self.wait_for_end(POWER_BUTTON_PERIOD).map_err(|_| error);
            }
            if self.wait_for_end(POWER_BUTTON_PERIOD).is_ok() {
                return Ok(());
            }
            left -= POWER_BUTTON_PERIOD;
        }
        self.request_power_off()?;
        self.wait_for_end(left)
    }

    /// Presses the power button.
    pub fn request_power_off(&mut self) -> Result<()> {
        self.qmp.execute("system_powerdown", json!({})).map(drop)
    }

    /// Waits until the guest has powered the machine off.
    pub fn wait_for_end(&mut self, budget: f64) -> Result<()> {
        let (cpu_start, started) = (self.cpu_seconds(), Instant::now());
        while !self.has_ended() {
            if self.cpu_seconds() - cpu_start > budget
                || started.elapsed().as_secs_f64() > wall_limit(budget)
            {
                bail!(
                    "the machine did not power off within {budget:.0} CPU seconds; the last lines are:\n{}",
                    tail(&self.shared.lock())
                );
            }
            thread::sleep(CONSOLE_PERIOD);
        }
        self.child.wait().context("cannot wait for the emulator")?;
        Ok(())
    }

    /// Ends the emulator in an orderly way, without the guest's knowing.
    pub fn quit(mut self) -> Result<()> {
        // The connection may close before the answer is read.
        if let Err(error) = self.qmp.execute("quit", json!({}))
            && !self.has_ended()
            && self.child.try_wait().ok().flatten().is_none()
        {
            return Err(error);
        }
        self.child.wait().context("cannot wait for the emulator")?;
        Ok(())
    }

    /// Cuts the power: the emulator is killed.
    pub fn cut_power(mut self) {
        self.child.kill();
    }

    /// Presses the reset button.
    pub fn reset(&mut self) -> Result<()> {
        self.qmp.execute("system_reset", json!({})).map(drop)
    }

    /// The test's plug in the Ethernet segment of a machine with several cards.
    pub fn wire(&self) -> Result<&Wire> {
        self.wire
            .as_ref()
            .context("a machine with one network card has no Ethernet segment")
    }

    /// Plugs the cable of a network card in or out. Cards are counted from 0.
    pub fn set_link(&mut self, index: usize, up: bool) -> Result<()> {
        let arguments = json!({"name": card(index), "up": up});
        self.qmp.execute("set_link", arguments).map(drop)
    }

    /// Stops the machine and writes its state into the run's folder, from which
    /// [`Builder::restore`] goes on. The disks belong to the state: whoever copies
    /// the folder has a machine of its own.
    pub fn save(mut self) -> Result<()> {
        self.qmp.execute("stop", json!({}))?;
        self.qmp.execute(
            "migrate-set-parameters",
            json!({"max-bandwidth": 8_u64 << 30}),
        )?;
        self.qmp
            .execute("migrate", json!({"uri": format!("file:{RUN}/{STATE}")}))?;
        self.wait_for_migration()?;
        self.quit()
    }

    fn wait_for_migration(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            let answer = self.qmp.execute("query-migrate", json!({}))?;
            match answer.get("status").and_then(Value::as_str) {
                Some("completed") => return Ok(()),
                Some("failed") => bail!("the machine's state could not be moved: {answer}"),
                _ if started.elapsed() > START_TIME * 5 => {
                    bail!("the machine's state took too long to be moved: {answer}")
                }
                _ => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// The port of the workstation that leads to the guest's dev door.
    fn forwarded_port(&mut self) -> Result<u16> {
        let answer = self.qmp.execute(
            "human-monitor-command",
            json!({"command-line": "info usernet"}),
        )?;
        let text = answer.as_str().unwrap_or_default();
        parse_forwarded_port(text)
            .with_context(|| format!("the emulator names no forwarded port: {text}"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.child.kill();
        self.shared.stop.store(true, Ordering::Release);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
        self.emulator.spend(self.cpu_seconds());
    }
}

fn tail(seen: &Seen) -> String {
    let start = seen.lines.len().saturating_sub(15);
    let mut text: Vec<&str> = seen.lines[start..]
        .iter()
        .map(|line| line.text.as_str())
        .collect();
    if !seen.partial.is_empty() {
        text.push(&seen.partial);
    }
    text.iter().map(|line| format!("    {line}\n")).collect()
}

/// Finds the port that leads to the dev door in the table that `info usernet` prints.
fn parse_forwarded_port(text: &str) -> Option<u16> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields[..] {
            ["TCP[HOST_FORWARD]", _, _, port, _, inside, ..] if inside.parse() == Ok(DOOR_PORT) => {
                port.parse().ok()
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_forwarded_port() {
        let table = "Hub -1 (net):\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n  TCP[HOST_FORWARD]  12       127.0.0.1 40000       10.0.2.15 10250     0     0\n  TCP[HOST_FORWARD]  13       127.0.0.1 41641       10.0.2.15  7274     0     0\n";
        assert_eq!(parse_forwarded_port(table), Some(41641));
        assert_eq!(parse_forwarded_port(""), None);
        assert_eq!(
            parse_forwarded_port("  TCP[HOST_FORWARD]  13       127.0.0.1 x"),
            None
        );
    }
}
