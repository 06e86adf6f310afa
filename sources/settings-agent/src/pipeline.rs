//! From power-on to rendered files.

use crate::generators::{self, Machine};
use crate::host::{Host, layout};
use anyhow::{Context, Result};
use api_types::{Outcome, Severity, UserDataReport, UserDataSource};
use early_boot::ec2::Metadata;
use early_boot::{Gathered, Source};
use settings::{Document, Platform, Variant};
use settings_store::files::{Files, Folder};
use settings_store::{Opened, Release, Store};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The store of a machine that has come up.
pub struct Booted {
    /// Its settings.
    pub store: Store<Folder>,
}

/// Brings settings up: populate from user data, generate, commit, apply.
///
/// User data may stop the boot. Then a mark says so, on which
/// `preconfigured.target` insists that it is not there, and settings are brought up
/// without it, so that the API can be asked.
///
/// On EC2 `metadata` is asked for what the user has not set.
pub fn boot(host: &Host, sources: &[Box<dyn Source>], metadata: &Metadata) -> Result<Booted> {
    let mut store = open_store(host)?;
    let user_data = populate(host, &store, sources)?;
    let generated = generate(host, &store, user_data.as_ref(), metadata)?;
    if let Err(error) = store.commit_boot(user_data.as_ref(), generated) {
        host.alarm(&format!(
            "settings of this boot were not stored: {:#}",
            anyhow::Error::from(error)
        ));
    }
    host.render_all(&store.effective());
    Ok(Booted { store })
}

/// What became of user data: in this boot, or in the one that took it.
pub fn user_data_report(root: &Path) -> Result<UserDataReport> {
    read_report(&root.join(layout::USER_DATA_REPORT))
}

fn read_report(path: &Path) -> Result<UserDataReport> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))
}

fn open_store(host: &Host) -> Result<Store<Folder>> {
    let path = host.root().join(layout::STORE);
    let folder = match Folder::new(&path) {
        Ok(folder) => folder,
        Err(error) => {
            host.alarm(&format!(
                "no settings can be stored in {}: {error}; changes will not outlast this boot",
                path.display()
            ));
            let path = host.root().join(layout::VOLATILE_STORE);
            Folder::new(&path).with_context(|| format!("make {}", path.display()))?
        }
    };
    let release = Release::new(host.defaults().clone(), host.variant().copied());
    let Opened { store, complaints } = Store::open(folder, release);
    for complaint in complaints {
        host.alarm(&complaint);
    }
    Ok(store)
}

/// What user data asks for, or `None` if it was taken before or has to be looked
/// at again.
///
/// It is taken once in a machine's life. What stopped a boot is looked at again at
/// the next one: correcting it and rebooting is enough. Unless somebody has set
/// something since, who thereby takes over: user data never undoes a change.
fn populate<F: Files>(
    host: &Host,
    store: &Store<F>,
    sources: &[Box<dyn Source>],
) -> Result<Option<Document>> {
    let mark = host.root().join(layout::STOPPED_BY_USER_DATA);
    if mark.exists() {
        // The server was started once more in a boot that stays stopped.
        return Ok(None);
    }
    if store.user_data_done() {
        keep_earlier_report(host)?;
        return Ok(None);
    }
    if !store.layers().user.is_empty() {
        keep_earlier_report(host)?;
        return Ok(Some(Document::default()));
    }
    let patience: Duration = sources.iter().map(|source| source.patience()).sum();
    if !patience.is_zero() {
        sysutil::notify::extend_timeout(patience + MARGIN)?;
    }
    let Gathered { settings, report } = early_boot::gather(
        sources,
        host.root(),
        host.variant(),
        host.defaults(),
        &|settings| host.cannot_do(settings),
    );
    tell(host, &report);
    keep_report(host, &report)?;
    if report.stopped {
        sysutil::fs::write_atomic(&mark, b"", 0o644)?;
        return Ok(None);
    }
    Ok(Some(settings))
}

/// How long everything takes besides waiting for a platform.
const MARGIN: Duration = Duration::from_secs(120);

/// Makes what became of user data at an earlier boot, as far as that is still
/// known, this boot's report, unless this boot has one.
fn keep_earlier_report(host: &Host) -> Result<()> {
    if host.root().join(layout::USER_DATA_REPORT).exists() {
        return Ok(());
    }
    let path = host.root().join(layout::KEPT_USER_DATA_REPORT);
    let earlier = read_report(&path).unwrap_or_else(|error| {
        tracing::debug!("nothing is known of the user data of earlier boots: {error:#}");
        UserDataReport::default()
    });
    let report = match earlier.stopped {
        false => UserDataReport {
            looked_at: false,
            ..earlier
        },
        // What was set since took the place of what could not be taken then.
        true => UserDataReport::default(),
    };
    write_report(host, layout::USER_DATA_REPORT, &report)
}

/// Writes this boot's report, for the API and for later boots.
fn keep_report(host: &Host, report: &UserDataReport) -> Result<()> {
    write_report(host, layout::USER_DATA_REPORT, report)?;
    if let Err(error) = write_report(host, layout::KEPT_USER_DATA_REPORT, report) {
        tracing::warn!("later boots will not know of this report: {error:#}");
    }
    Ok(())
}

fn write_report(host: &Host, path: &str, report: &UserDataReport) -> Result<()> {
    let json = serde_json::to_vec(report).context("write the report on user data")?;
    let path = host.root().join(path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    sysutil::fs::write_atomic(&path, &json, 0o600)
}

/// Says on the console and in the journal what became of user data.
fn tell(host: &Host, report: &UserDataReport) {
    for source in &report.sources {
        let place = format!("user data from {} ({})", source.name, source.location);
        match source.outcome {
            Outcome::Accepted => tracing::info!("{place}: accepted"),
            Outcome::Empty => tracing::info!("{place}: empty"),
            Outcome::InPart => {
                host.alarm(&format!("{place} has faults, which are skipped:"));
                tell_faults(host, source);
            }
            Outcome::Refused => {
                host.alarm(&format!("{place} is refused:"));
                tell_faults(host, source);
            }
        }
    }
    if report.stopped {
        host.alarm(
            "user data stops this boot: correct it and restart, or set what is needed by the \
             API and restart; `apiclient report user-data` says all this again",
        );
    }
}

/// The faults of a source, those first that stop the boot.
fn tell_faults(host: &Host, source: &UserDataSource) {
    for severity in [Severity::Fatal, Severity::Skipped] {
        let faults = source.faults.iter();
        for fault in faults.filter(|fault| fault.severity == severity) {
            for line in fault.to_string().lines() {
                host.alarm(&format!("user data: {line}"));
            }
        }
    }
}

fn generate<F: Files>(
    host: &Host,
    store: &Store<F>,
    user_data: Option<&Document>,
    metadata: &Metadata,
) -> Result<Document> {
    let mut layers = store.layers();
    if let Some(user_data) = user_data {
        layers.user.merge(user_data);
    }
    let platform = host.variant().map(Variant::platform);
    if platform == Some(Platform::Aws) && metadata.is_expected() {
        sysutil::notify::extend_timeout(metadata.patience() + MARGIN)?;
    }
    let generated = generators::generate(&Machine {
        root: host.root().to_path_buf(),
        variant: host.variant().copied(),
        defaults: layers.defaults,
        user: layers.user,
        before: layers.generated,
        metadata: metadata.clone(),
    });
    for line in generated.failures_told() {
        host.alarm(&line);
    }
    Ok(generated.settings)
}
