//! Downloads: archives into the user's cache, each verified while it arrives.
//!
//! A file is known by its SHA-256 before it is asked for, so it does not matter
//! who serves it. A download that was cut off goes on where it stopped, in this
//! run or the next one.

use crate::lock::LockedArchive;
use crate::mirror::Mirrors;
use crate::progress::Progress;
use crate::project::Project;
use crate::signals;
use anyhow::{Context, Result, anyhow, bail};
use deb::digest::Sha256Digest;
use deb::release::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;
use ureq::http::StatusCode;

/// Downloads at a time. Mirrors limit what one connection gets; more than this
/// they consider rude.
const PARALLEL: usize = 8;
/// Times that a file is asked for without a byte arriving.
const ATTEMPTS: u32 = 4;
/// Silence after which a connection is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// Time to a connection; also what a firewall that drops everything costs.
const CONNECT: Duration = Duration::from_secs(10);
/// The dated archive is a last resort, and many cannot reach it.
const CONNECT_DATED: Duration = Duration::from_secs(4);
/// Larger than any signed index.
const MAX_SMALL: u64 = 16 << 20;

/// Downloads what the lock names.
pub struct Fetcher {
    mirrors: Mirrors,
    cache: PathBuf,
    progress: Progress,
    /// When each suite was published that the lock was made from; with these the
    /// dated archive can be asked.
    published: BTreeMap<String, Timestamp>,
    dated_is_unreachable: AtomicBool,
    /// Pause before the second attempt; it doubles with each further one.
    pause: Duration,
    agent: OnceLock<ureq::Agent>,
}

/// What became of the archives asked for.
#[derive(Debug, Default)]
pub struct Fetched<'a> {
    /// Files of those that there are, in the order asked for.
    pub paths: Vec<PathBuf>,
    /// Those that no mirror has any more.
    pub dropped: Vec<&'a LockedArchive>,
}

impl Fetcher {
    /// A fetcher from the project's mirrors into the user's cache. It connects
    /// only when something is asked for that the cache lacks.
    pub fn new(project: &Project, progress: &Progress) -> Result<Self> {
        Ok(Self::from_mirrors(project, Mirrors::of(project)?, progress))
    }

    /// The same with mirrors given.
    pub fn from_mirrors(project: &Project, mirrors: Mirrors, progress: &Progress) -> Self {
        Self {
            mirrors,
            cache: project.cache_dir(),
            progress: progress.clone(),
            published: BTreeMap::new(),
            dated_is_unreachable: AtomicBool::new(false),
            pause: Duration::from_millis(500),
            agent: OnceLock::new(),
        }
    }

    /// Lets the dated archive be asked for what the mirrors lack, as it was when
    /// the suites were `published`.
    pub fn asking_dated_archive(mut self, published: BTreeMap<String, Timestamp>) -> Self {
        self.published = published;
        self
    }

    /// With another pause between attempts; tests do not want to wait.
    pub fn pausing(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Where files come from.
    pub fn mirrors(&self) -> &Mirrors {
        &self.mirrors
    }

    /// Where an archive lies in the cache once it is there.
    pub fn archive_path(&self, archive: &LockedArchive) -> PathBuf {
        self.cache
            .join("archives")
            .join(format!("{}.deb", archive.sha256))
    }

    /// Makes sure that all archives are in the cache, and gives their paths in
    /// the order asked for. One that the mirrors dropped is an error here;
    /// [`crate::lock::fetch_locked`] knows what to do about that.
    pub fn fetch_all(&self, archives: &[&LockedArchive]) -> Result<Vec<PathBuf>> {
        let fetched = self.fetch_present(archives)?;
        match fetched.dropped.first() {
            None => Ok(fetched.paths),
            Some(archive) => bail!(
                "no mirror has {} any more ({} of {}); run `bulkhead lock update {}` to lock what they offer now",
                archive.path,
                archive.name,
                self.mirrors.origin(),
                archive.source,
            ),
        }
    }

    /// The same, but tells which archives the mirrors have dropped.
    pub fn fetch_present<'a>(&self, archives: &[&'a LockedArchive]) -> Result<Fetched<'a>> {
        let downloads: Vec<Download> = archives
            .iter()
            .map(|archive| self.download_of(archive))
            .collect();
        let outcomes = self.run_all(&downloads)?;
        let mut fetched = Fetched::default();
        for (outcome, (archive, download)) in
            outcomes.into_iter().zip(archives.iter().zip(downloads))
        {
            match outcome {
                Outcome::There => fetched.paths.push(download.file),
                Outcome::Dropped => fetched.dropped.push(archive),
            }
        }
        Ok(fetched)
    }

    /// Downloads an index file, whose size and digest the signed index gave.
    pub(crate) fn fetch_index(
        &self,
        suite: &str,
        paths: &[String],
        size: u64,
        sha256: Sha256Digest,
    ) -> Result<PathBuf> {
        let bases = self.mirrors.bases(suite);
        let download = Download {
            name: paths.last().cloned().unwrap_or_default(),
            file: self.cache.join("indexes").join(sha256.to_string()),
            addresses: bases
                .iter()
                .flat_map(|base| paths.iter().map(move |path| format!("{base}/{path}")))
                .collect(),
            dated: None,
            size,
            sha256,
        };
        match self.run_all(std::slice::from_ref(&download))?[..] {
            [Outcome::There] => Ok(download.file),
            _ => bail!(
                "no mirror of {} has {}, which its own signed index names",
                self.mirrors.origin(),
                download.name
            ),
        }
    }

    /// Reads a file whose content is not known beforehand; `None` when the
    /// server has no such file.
    pub(crate) fn fetch_small(&self, address: &str) -> Result<Option<Vec<u8>>> {
        self.retrying(address, |_| {
            let mut response = self
                .agent()?
                .get(address)
                .call()
                .map_err(|error| (error.into(), Retry::Yes))?;
            match Answer::of(response.status()) {
                Answer::Whole | Answer::Part => {}
                Answer::NotThere => return Ok(None),
                Answer::Failure(retry) => return Err((refused(response.status()), retry)),
            }
            let mut content = Vec::new();
            response
                .body_mut()
                .as_reader()
                .take(MAX_SMALL + 1)
                .read_to_end(&mut content)
                .map_err(|error| (error.into(), Retry::Yes))?;
            if content.len() as u64 > MAX_SMALL {
                return Err((anyhow!("it is longer than {MAX_SMALL} bytes"), Retry::No));
            }
            Ok(Some(content))
        })
    }

    fn download_of(&self, archive: &LockedArchive) -> Download {
        let published = archive
            .published
            .or(self.published.get(&archive.suite).copied());
        let dated = published.and_then(|published| {
            self.mirrors
                .dated_base(&archive.suite, &published.compact())
        });
        Download {
            name: archive
                .path
                .rsplit('/')
                .next()
                .unwrap_or(&archive.path)
                .to_string(),
            file: self.archive_path(archive),
            addresses: self
                .mirrors
                .bases(&archive.suite)
                .iter()
                .map(|base| format!("{base}/{}", archive.path))
                .collect(),
            dated: dated.map(|base| format!("{base}/{}", archive.path)),
            size: archive.size,
            sha256: archive.sha256,
        }
    }

    fn run_all(&self, downloads: &[Download]) -> Result<Vec<Outcome>> {
        // Large ones first, so that none is left over when the others are done.
        let mut order: Vec<usize> = (0..downloads.len()).collect();
        order.sort_by_key(|index| std::cmp::Reverse(downloads[*index].size));
        let meter = Meter::new(&self.progress, downloads);
        let outcomes: Vec<OnceLock<Outcome>> = downloads.iter().map(|_| OnceLock::new()).collect();
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let failure: Mutex<Option<anyhow::Error>> = Mutex::new(None);
        let work = || {
            while !failed.load(Ordering::Relaxed) {
                let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    break;
                };
                match self.run(&downloads[index], &meter, &failed) {
                    Ok(outcome) => {
                        let _ = outcomes[index].set(outcome);
                    }
                    Err(error) => {
                        failed.store(true, Ordering::Relaxed);
                        failure
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .get_or_insert(error);
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..PARALLEL.min(downloads.len()) {
                scope.spawn(work);
            }
            work();
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        meter.finish();
        outcomes
            .into_iter()
            .map(|outcome| {
                outcome
                    .into_inner()
                    .context("a download ended without a result")
            })
            .collect()
    }

    /// Brings one file into the cache.
    fn run(&self, download: &Download, meter: &Meter, stop: &AtomicBool) -> Result<Outcome> {
        if download.is_in_cache()? {
            meter.found(download);
            return Ok(Outcome::There);
        }
        let folder = download.file.parent().context("the cache has no folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut part = Part::open(&download.part())?;
        // Another build may have finished it while we waited for the lock.
        if download.is_in_cache()? {
            part.remove()?;
            meter.found(download);
            return Ok(Outcome::There);
        }
        let mut failures = Vec::new();
        for address in &download.addresses {
            match self.download(address, download, &mut part, meter, stop) {
                Ok(true) => return Ok(Outcome::There),
                Ok(false) => {}
                Err(error) => failures.push(error),
            }
            signals::check()?;
        }
        if let Some(error) = failures
            .into_iter()
            .reduce(|all, error| all.context(format!("{error:#}")))
        {
            return Err(error.context(format!("cannot download {}", download.name)));
        }
        if let Some(address) = &download.dated
            && !self.dated_is_unreachable.load(Ordering::Relaxed)
        {
            match self.download(address, download, &mut part, meter, stop) {
                Ok(true) => return Ok(Outcome::There),
                Ok(false) => {}
                Err(error) => {
                    signals::check()?;
                    if !self.dated_is_unreachable.swap(true, Ordering::Relaxed) {
                        self.progress.message(format!(
                            "the dated archive does not help: {:#}",
                            error.context(format!("cannot download {}", download.name))
                        ));
                    }
                }
            }
        }
        part.remove()?;
        Ok(Outcome::Dropped)
    }

    /// Downloads from one address; `false` when there is no such file.
    fn download(
        &self,
        address: &str,
        download: &Download,
        part: &mut Part,
        meter: &Meter,
        stop: &AtomicBool,
    ) -> Result<bool> {
        let is_dated = download.dated.as_deref() == Some(address);
        let found = self.retrying_while(
            address,
            |_| self.attempt(address, is_dated, download, part, meter, stop),
            if is_dated { 1 } else { ATTEMPTS },
        )?;
        if found {
            part.publish(&download.file)?;
            meter.done(download);
        }
        Ok(found)
    }

    fn attempt(
        &self,
        address: &str,
        is_dated: bool,
        download: &Download,
        part: &mut Part,
        meter: &Meter,
        stop: &AtomicBool,
    ) -> std::result::Result<bool, Failure> {
        let local = |error: anyhow::Error| (error, Retry::No);
        if part.length > download.size {
            part.restart(meter).map_err(local)?;
        }
        if part.length < download.size || download.size == 0 {
            let mut request = self.agent()?.get(address);
            if part.length > 0 {
                request = request.header("Range", format!("bytes={}-", part.length));
            }
            if is_dated {
                request = request
                    .config()
                    .timeout_connect(Some(CONNECT_DATED))
                    .build();
            }
            let mut response = request.call().map_err(|error| (error.into(), Retry::Yes))?;
            match Answer::of(response.status()) {
                Answer::Part if resumes_at(&response, part.length) => {}
                Answer::Part => {
                    part.restart(meter).map_err(local)?;
                    return Err((anyhow!("it sent another part than asked for"), Retry::Yes));
                }
                Answer::Whole => part.restart(meter).map_err(local)?,
                Answer::NotThere => return Ok(false),
                // The file ends where the part that we have does, or before.
                Answer::Failure(_) if response.status() == StatusCode::RANGE_NOT_SATISFIABLE => {
                    let error = download.cut_at(part.length);
                    part.restart(meter).map_err(local)?;
                    return Err((error, Retry::Yes));
                }
                Answer::Failure(retry) => return Err((refused(response.status()), retry)),
            }
            let mut reader = response.body_mut().as_reader();
            part.append_from(&mut reader, download.size, meter, stop)
                .map_err(|error| (error, part.retry()))?;
            if part.length < download.size {
                return Err((download.cut_at(part.length), part.retry()));
            }
        }
        let found = part.digest();
        if part.length != download.size || found != download.sha256 {
            let length = part.length;
            part.restart(meter).map_err(local)?;
            if length != download.size {
                return Err((
                    anyhow!(
                        "it is longer than the {} bytes that it should have",
                        download.size
                    ),
                    Retry::No,
                ));
            }
            return Err((
                anyhow!(
                    "its SHA-256 is {found}, but it should be {}",
                    download.sha256
                ),
                Retry::Once,
            ));
        }
        Ok(true)
    }

    fn retrying<T>(
        &self,
        address: &str,
        attempt: impl FnMut(u32) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        self.retrying_while(address, attempt, ATTEMPTS)
    }

    fn retrying_while<T>(
        &self,
        address: &str,
        mut attempt: impl FnMut(u32) -> std::result::Result<T, Failure>,
        attempts: u32,
    ) -> Result<T> {
        let mut failed: u32 = 0;
        loop {
            let (error, retry) = match attempt(failed) {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            signals::check()?;
            failed = match retry {
                Retry::Progressed => 1,
                Retry::Yes => failed + 1,
                Retry::Once => (failed + 1).max(attempts - 1),
                Retry::No => attempts,
            };
            if failed >= attempts {
                return Err(error.context(format!("cannot fetch {address}")));
            }
            thread::sleep(self.pause * 2_u32.pow(failed - 1));
        }
    }

    /// The HTTP client, made when it is first needed.
    fn agent(&self) -> std::result::Result<&ureq::Agent, Failure> {
        if let Some(agent) = self.agent.get() {
            return Ok(agent);
        }
        let agent = make_agent(&self.mirrors).map_err(|error| (error, Retry::No))?;
        Ok(self.agent.get_or_init(|| agent))
    }
}

/// An error and whether trying again may help.
type Failure = (anyhow::Error, Retry);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    /// A part arrived, so going on is worthwhile however often.
    Progressed,
    Yes,
    /// A damaged file may be one in a cache on the way; a second time it is not.
    Once,
    No,
}

/// What a status code means for us.
enum Answer {
    Whole,
    Part,
    NotThere,
    Failure(Retry),
}

impl Answer {
    fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            200 => Self::Whole,
            206 => Self::Part,
            404 | 410 => Self::NotThere,
            408 | 416 | 425 | 429 | 500..=599 => Self::Failure(Retry::Yes),
            _ => Self::Failure(Retry::No),
        }
    }
}

fn refused(status: StatusCode) -> anyhow::Error {
    anyhow!("the server answered {status}")
}

fn resumes_at(response: &ureq::http::Response<ureq::Body>, start: u64) -> bool {
    response
        .headers()
        .get("Content-Range")
        .and_then(|range| range.to_str().ok())
        .and_then(|range| range.trim().strip_prefix("bytes "))
        .and_then(|range| range.split('-').next())
        .is_some_and(|found| found.trim().parse() == Ok(start))
}

/// A client with the platform's certificates and the environment's proxy.
fn make_agent(mirrors: &Mirrors) -> Result<ureq::Agent> {
    let mut config = ureq::Agent::config_builder()
        .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .max_redirects(5)
        .max_idle_connections_per_host(PARALLEL)
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE));
    if mirrors.are_on_this_machine() {
        config = config.proxy(None);
    } else {
        // Redirects may lead to https from anywhere.
        let native = rustls_native_certs::load_native_certs();
        if let (true, Some(error)) = (native.certs.is_empty(), native.errors.first()) {
            bail!(
                "cannot load the platform's certificates, see SSL_CERT_FILE and SSL_CERT_DIR: {error}"
            );
        }
        let roots: Vec<_> = native
            .certs
            .iter()
            .map(|certificate| ureq::tls::Certificate::from_der(certificate).to_owned())
            .collect();
        config = config.tls_config(
            ureq::tls::TlsConfig::builder()
                .provider(ureq::tls::TlsProvider::Rustls)
                .unversioned_rustls_crypto_provider(Arc::new(
                    rustls::crypto::ring::default_provider(),
                ))
                .root_certs(ureq::tls::RootCerts::Specific(Arc::new(roots)))
                .build(),
        );
    }
    Ok(config.build().new_agent())
}

enum Outcome {
    There,
    Dropped,
}

/// A file to be had.
struct Download {
    /// What messages call it.
    name: String,
    /// Where it goes.
    file: PathBuf,
    /// Where it may be had, in order.
    addresses: Vec<String>,
    /// Where it may be had when it is in none of those places.
    dated: Option<String>,
    size: u64,
    sha256: Sha256Digest,
}

impl Download {
    fn part(&self) -> PathBuf {
        self.file.with_file_name(format!("{}.part", self.sha256))
    }

    fn cut_at(&self, length: u64) -> anyhow::Error {
        anyhow!("it ends after {length} of {} bytes", self.size)
    }

    /// Whether the file is there and whole. A damaged one is removed: discs fail,
    /// and what is built from this must be what the lock says.
    fn is_in_cache(&self) -> Result<bool> {
        let read = || -> io::Result<Option<Sha256Digest>> {
            let mut file = match File::open(&self.file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            let mut hasher = Sha256::new();
            hash_all(&mut file, &mut hasher)?;
            Ok(Some(Sha256Digest::from_hasher(hasher)))
        };
        let found = read().with_context(|| format!("cannot read {}", self.file.display()))?;
        match found {
            None => Ok(false),
            Some(digest) if digest == self.sha256 => Ok(true),
            Some(_) => {
                fs::remove_file(&self.file).with_context(|| {
                    format!("cannot remove the damaged {}", self.file.display())
                })?;
                Ok(false)
            }
        }
    }
}

fn hash_all(reader: &mut impl Read, hasher: &mut Sha256) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 17];
    let mut length = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(length),
            read => {
                hasher.update(&buffer[..read]);
                length += read as u64;
            }
        }
    }
}

/// A file that is arriving, locked against other builds that want the same.
struct Part {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    length: u64,
    /// How far it ever was.
    furthest: u64,
}

impl Part {
    fn open(path: &Path) -> Result<Self> {
        let open = || -> io::Result<Self> {
            loop {
                let mut file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(path)?;
                file.lock()?;
                // Who held the lock before has renamed or removed the file.
                if !is_same_file(&file, path)? {
                    continue;
                }
                let mut hasher = Sha256::new();
                let length = hash_all(&mut file, &mut hasher)?;
                return Ok(Self {
                    path: path.to_path_buf(),
                    file,
                    hasher,
                    length,
                    furthest: length,
                });
            }
        };
        open().with_context(|| format!("cannot open {}", path.display()))
    }

    /// Drops what has arrived.
    fn restart(&mut self, meter: &Meter) -> Result<()> {
        meter.lost(self.length);
        self.hasher = Sha256::new();
        self.length = 0;
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)).map(|_| ()))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Writes what `reader` gives, up to one byte more than `size`.
    fn append_from(
        &mut self,
        reader: &mut impl Read,
        size: u64,
        meter: &Meter,
        stop: &AtomicBool,
    ) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            signals::check()?;
            if stop.load(Ordering::Relaxed) {
                bail!("another download failed");
            }
            let room = usize::try_from(size + 1 - self.length).unwrap_or(usize::MAX);
            if room == 0 {
                return Ok(());
            }
            let room = room.min(buffer.len());
            let read = reader.read(&mut buffer[..room])?;
            if read == 0 {
                return Ok(());
            }
            self.file
                .write_all(&buffer[..read])
                .with_context(|| format!("cannot write {}", self.path.display()))?;
            self.hasher.update(&buffer[..read]);
            self.length += read as u64;
            meter.arrived(read as u64);
        }
    }

    /// Whether asking again may help after a download broke off. A file that the
    /// mirror itself has cut never gets further.
    fn retry(&mut self) -> Retry {
        if self.length > self.furthest {
            self.furthest = self.length;
            return Retry::Progressed;
        }
        Retry::Yes
    }

    fn digest(&self) -> Sha256Digest {
        Sha256Digest::from_hasher(self.hasher.clone())
    }

    fn publish(&mut self, file: &Path) -> Result<()> {
        fs::rename(&self.path, file).with_context(|| {
            format!(
                "cannot rename {} to {}",
                self.path.display(),
                file.display()
            )
        })
    }

    fn remove(&self) -> Result<()> {
        fs::remove_file(&self.path)
            .with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

fn is_same_file(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Counts what has arrived, for whoever waits for it.
struct Meter<'a> {
    progress: &'a Progress,
    task: Mutex<Option<crate::progress::Task>>,
    arrived: AtomicU64,
    files: AtomicUsize,
    found_bytes: AtomicU64,
    total_bytes: u64,
    total_files: usize,
}

impl<'a> Meter<'a> {
    fn new(progress: &'a Progress, downloads: &[Download]) -> Self {
        Self {
            progress,
            task: Mutex::new(None),
            arrived: AtomicU64::new(0),
            files: AtomicUsize::new(0),
            found_bytes: AtomicU64::new(0),
            total_bytes: downloads.iter().map(|download| download.size).sum(),
            total_files: downloads.len(),
        }
    }

    /// It was in the cache already.
    fn found(&self, download: &Download) {
        self.found_bytes.fetch_add(download.size, Ordering::Relaxed);
    }

    fn arrived(&self, bytes: u64) {
        let arrived = self.arrived.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let there = arrived + self.found_bytes.load(Ordering::Relaxed);
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        task.get_or_insert_with(|| self.progress.start("downloading"))
            .note(format!(
                "{} of {} ({} files)",
                megabytes(there),
                megabytes(self.total_bytes),
                self.total_files
            ));
    }

    fn lost(&self, bytes: u64) {
        let _ = self
            .arrived
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |arrived| {
                Some(arrived.saturating_sub(bytes))
            });
    }

    fn done(&self, _: &Download) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    fn finish(self) {
        let files = self.files.into_inner();
        if let Some(task) = self
            .task
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            && files > 1
        {
            task.finish(format!(
                "downloaded {files} files, {}",
                megabytes(self.arrived.into_inner())
            ));
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

#[cfg(test)]
pub(crate) mod server;
#[cfg(test)]
pub(crate) mod tests;
