//! From power-on to rendered files.

use crate::generators;
use crate::host::{Host, layout};
use anyhow::{Context, Result};
use api_types::{Outcome, UserDataReport};
use early_boot::Source;
use settings::Document;
use settings_store::files::{Files, Folder};
use settings_store::{Opened, Release, Store};
use std::fs;
use std::path::Path;

/// The store of a machine that has come up.
pub struct Booted {
    /// Its settings.
    pub store: Store<Folder>,
}

/// Brings settings up: populate from user data, generate, commit, apply.
pub fn boot(host: &Host, sources: &[Box<dyn Source>]) -> Result<Booted> {
    let mut store = open_store(host)?;
    let user_data = populate(host, &store, sources)?;
    let generated = generate(host, &store, user_data.as_ref());
    if let Err(error) = store.commit_boot(user_data.as_ref(), generated) {
        host.alarm(&format!(
            "settings of this boot were not stored: {:#}",
            anyhow::Error::from(error)
        ));
    }
    host.render_all(&store.effective());
    Ok(Booted { store })
}

/// What became of user data in this boot.
pub fn user_data_report(root: &Path) -> Result<UserDataReport> {
    let path = root.join(layout::USER_DATA_REPORT);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
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
/// It is taken once in a machine's life. A document that was refused is looked
/// at again at the next boot, unless somebody has set something since:
/// correcting the document and rebooting is enough, and never undoes a change.
fn populate<F: Files>(
    host: &Host,
    store: &Store<F>,
    sources: &[Box<dyn Source>],
) -> Result<Option<Document>> {
    let mut taken = None;
    let mut report = UserDataReport::default();
    if !store.user_data_done() {
        let settings;
        (settings, report) = early_boot::gather(sources, host.root());
        let refused = tell(host, &report);
        if !refused || !settings.is_empty() || !store.layers().user.is_empty() {
            taken = Some(settings);
        }
    }
    let path = host.root().join(layout::USER_DATA_REPORT);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let json = serde_json::to_vec(&report).context("write the report on user data")?;
    sysutil::fs::write_atomic(&path, &json, 0o600)?;
    Ok(taken)
}

/// Says on the console and in the journal what became of user data, and
/// whether some of it was refused.
fn tell(host: &Host, report: &UserDataReport) -> bool {
    let mut refused = false;
    for source in &report.sources {
        let place = format!("user data from {} ({})", source.name, source.location);
        match source.outcome {
            Outcome::Accepted => tracing::info!("{place}: accepted"),
            Outcome::Empty => tracing::info!("{place}: empty"),
            Outcome::Refused => {
                refused = true;
                host.alarm(&format!(
                    "{place} was refused as a whole; booting without it"
                ));
                for fault in &source.faults {
                    for line in fault.to_string().lines() {
                        host.alarm(&format!("user data: {line}"));
                    }
                }
            }
        }
    }
    refused
}

fn generate<F: Files>(host: &Host, store: &Store<F>, user_data: Option<&Document>) -> Document {
    let mut layers = store.layers();
    if let Some(user_data) = user_data {
        layers.user.merge(user_data);
    }
    generators::generate(host.root(), &layers.user, &layers.generated)
}
