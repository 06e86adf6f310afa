//! User data: the settings document that a platform hands to a new machine.
//!
//! Each platform is one module under [`sources`], behind the trait [`Source`]:
//! it finds the bytes, nothing else. [`gather`] asks all of them, and
//! [`document`] turns bytes into settings: size, gzip, formats that are not
//! ours, TOML, the model. A document with a fault is refused as a whole; the
//! others are put on top of each other, later ones over earlier ones.
//!
//! To add a platform, write its module and name it in [`sources::all`]. When
//! user data is looked at and what happens to it is decided in
//! `settings-agent`.

pub mod document;
mod fat;
#[doc(hidden)]
pub mod properties;
pub mod sources;

use api_types::{Outcome, UserDataFault, UserDataReport, UserDataSource};
use settings::{Document, Faults};
use std::path::Path;

/// A place where a platform puts user data.
pub trait Source {
    /// The kind of place, for people.
    fn name(&self) -> &'static str;

    /// Where exactly, below the root.
    fn location(&self) -> String;

    /// What lies there, or `None` if there is nothing. No more than `limit`
    /// and one byte are read, so that too much can be told from just enough.
    /// `root` is the root of the file system.
    fn read(&self, root: &Path, limit: usize) -> anyhow::Result<Option<Vec<u8>>>;
}

/// The settings that all sources together ask for, and what became of each.
pub fn gather(sources: &[Box<dyn Source>], root: &Path) -> (Document, UserDataReport) {
    let mut settings = Document::default();
    let mut report = UserDataReport {
        looked_at: true,
        sources: Vec::new(),
    };
    for source in sources {
        let verdict = match source.read(root, settings::limits::DOCUMENT_BYTES) {
            Ok(None) => continue,
            Ok(Some(bytes)) => document::read(bytes),
            Err(error) => Err(Faults::one(
                settings::Key::root(),
                format!("cannot be read: {error:#}"),
            )),
        };
        let (outcome, faults) = match verdict {
            Ok(None) => (Outcome::Empty, Vec::new()),
            Ok(Some(document)) => {
                settings.merge(&document);
                (Outcome::Accepted, Vec::new())
            }
            Err(faults) => (Outcome::Refused, list(&faults)),
        };
        report.sources.push(UserDataSource {
            name: source.name().to_string(),
            location: source.location(),
            outcome,
            faults,
        });
    }
    (settings, report)
}

fn list(faults: &Faults) -> Vec<UserDataFault> {
    let mut list: Vec<UserDataFault> = faults
        .iter()
        .map(|fault| UserDataFault {
            key: fault.key.to_string(),
            line: fault.line,
            reason: fault.reason.clone(),
        })
        .collect();
    if faults.untold() > 0 {
        list.push(UserDataFault {
            key: "settings".into(),
            line: None,
            reason: format!("and {} more faults", faults.untold()),
        });
    }
    list
}
