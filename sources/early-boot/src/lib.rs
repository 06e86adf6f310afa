//! User data: the settings document that a platform hands to a new machine.
//!
//! Each platform is one module under [`sources`], behind the trait [`Source`]: it
//! finds the bytes, nothing else. [`document`] turns bytes into settings and
//! faults: size, gzip, formats that are not ours, TOML, the model, the variant.
//! [`policy`] says what each fault costs. [`gather`] asks the sources, judges what
//! they hold, and puts it on top of each other, later ones over earlier ones;
//! [`check`] judges one document, anywhere.
//!
//! To add a platform, write its module and name it in [`sources::of`]. When user
//! data is looked at and what a fault then means for the boot is decided in
//! `settings-agent`.

mod block;
mod dmi;
pub mod document;
pub mod ec2;
mod encoding;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod fat;
mod iso9660;
mod link;
mod ovf;
pub mod policy;
#[doc(hidden)]
pub mod properties;
mod rpci;
pub mod sources;

use api_types::{Outcome, UserDataFault, UserDataReport, UserDataSource};
use document::Judged;
use policy::{Policy, Stated};
use settings::{Document, Faults, Key, Variant, limits};
use std::path::Path;
use std::time::Duration;

/// A place where a platform puts user data.
pub trait Source {
    /// The kind of place, for people.
    fn name(&self) -> &'static str;

    /// Where exactly, below the root.
    fn location(&self) -> String;

    /// How long it may wait for its platform.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// What lies there, or `None` if there is nothing. No more than `limit`
    /// and one byte are read, so that too much can be told from just enough.
    /// `root` is the root of the file system. An encoding that the place adds is
    /// undone; gzip is not.
    fn read(&self, root: &Path, limit: usize) -> anyhow::Result<Option<Vec<u8>>>;
}

/// What user data asks for.
pub struct Gathered {
    /// The settings of all sources together. Nothing if the boot is stopped.
    pub settings: Document,
    /// What became of each source.
    pub report: UserDataReport,
}

/// Asks all sources and judges what they hold as user data of `variant` on a
/// machine of which `cannot_do` says what of sound settings it cannot follow. The
/// policy is that of `defaults` until a source says otherwise, and one for all.
pub fn gather(
    sources: &[Box<dyn Source>],
    root: &Path,
    variant: Option<&Variant>,
    defaults: &Document,
    cannot_do: &dyn Fn(&Document) -> Faults,
) -> Gathered {
    let read: Vec<_> = sources
        .iter()
        .filter_map(|source| Some((source, read(source.as_ref(), root)?)))
        .collect();
    let policy = read
        .iter()
        .map(|(_, read)| match read {
            Ok(Some(read)) => read.policy(),
            Ok(None) => Stated::Nothing,
            Err(_) => Stated::Unclear,
        })
        .fold(Policy::of(defaults), Policy::then);
    let mut settings = Document::default();
    let mut report = UserDataReport {
        looked_at: true,
        ..UserDataReport::default()
    };
    for (source, read) in read {
        let (outcome, faults) = match read {
            Ok(None) => (Outcome::Empty, Vec::new()),
            Ok(Some(read)) => {
                // What earlier sources ask for has been found to be possible; what is
                // too much with them is this one's fault.
                let together = |document: &Document| {
                    let mut together = settings.clone();
                    together.merge(document);
                    cannot_do(&together)
                };
                let judged = read.judge(policy, variant, &together);
                settings.merge(&judged.document);
                (outcome(&judged), judged.faults)
            }
            Err(faults) => (Outcome::Refused, document::told(&faults, policy)),
        };
        report.stopped |= outcome == Outcome::Refused;
        report.sources.push(UserDataSource {
            name: source.name().to_string(),
            location: source.location(),
            outcome,
            faults,
        });
    }
    if report.stopped {
        settings = Document::default();
    }
    Gathered { settings, report }
}

/// What a source holds, if it holds anything.
fn read(source: &dyn Source, root: &Path) -> Option<Result<Option<document::Unjudged>, Faults>> {
    match source.read(root, limits::DOCUMENT_BYTES) {
        Ok(None) => None,
        Ok(Some(bytes)) => Some(document::read(bytes)),
        Err(error) => Some(Err(Faults::one(
            Key::root(),
            format!("cannot be read: {error:#}"),
        ))),
    }
}

fn outcome(judged: &Judged) -> Outcome {
    if judged.is_fatal() {
        Outcome::Refused
    } else if judged.faults.is_empty() {
        Outcome::Accepted
    } else {
        Outcome::InPart
    }
}

/// A document that was checked.
#[derive(Debug, PartialEq)]
pub struct Checked {
    /// What a host would take of it. `None` if it says nothing or stops the boot.
    pub document: Option<Document>,
    /// What is wrong with it, and what each fault costs at first boot.
    pub faults: Vec<UserDataFault>,
}

/// Checks a document as user data of `variant`: plain, in gzip, and either of them
/// in base64, as which it travels to a platform.
pub fn check(bytes: Vec<u8>, variant: &Variant) -> Checked {
    check_for(bytes, Some(variant))
}

/// As [`check`], on a host of a variant that may be one that nobody knows.
pub fn check_for(bytes: Vec<u8>, variant: Option<&Variant>) -> Checked {
    let bytes = encoding::guess_base64(&bytes).unwrap_or(bytes);
    let read = match document::read(bytes) {
        Ok(Some(read)) => read,
        Ok(None) => {
            return Checked {
                document: None,
                faults: Vec::new(),
            };
        }
        Err(faults) => {
            return Checked {
                document: None,
                faults: document::told(&faults, Policy::Strict),
            };
        }
    };
    let policy = Policy::Lenient.then(read.policy());
    // A document is checked for hosts other than the one that checks it.
    let judged = read.judge(policy, variant, &|_| Faults::default());
    Checked {
        document: (!judged.is_fatal()).then_some(judged.document),
        faults: judged.faults,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    struct Given(&'static str, Result<&'static str, &'static str>);

    impl Source for Given {
        fn name(&self) -> &'static str {
            self.0
        }

        fn location(&self) -> String {
            "given".into()
        }

        fn read(&self, _: &Path, _: usize) -> anyhow::Result<Option<Vec<u8>>> {
            match self.1 {
                Ok("none") => Ok(None),
                Ok(text) => Ok(Some(text.into())),
                Err(reason) => bail!("{reason}"),
            }
        }
    }

    fn gathered(texts: &[Result<&'static str, &'static str>], defaults: &str) -> Gathered {
        let names = ["first", "second", "third"];
        let sources: Vec<Box<dyn Source>> = names
            .iter()
            .zip(texts)
            .map(|(name, text)| Box::new(Given(name, *text)) as Box<dyn Source>)
            .collect();
        let defaults = Document::from_toml(defaults)
            .expect("valid")
            .unwrap_or_default();
        let variant = Variant::parse("metal-core").ok();
        // More than two kernel parameters are too much for it.
        let cannot_do = |settings: &Document| {
            let key = Key::from_parts(["boot", "kernel"]);
            let parameters = settings.get(&key).and_then(|table| table.as_object());
            match parameters {
                Some(parameters) if parameters.len() > 2 => Faults::one(key, "too much for it"),
                _ => Faults::default(),
            }
        };
        gather(
            &sources,
            Path::new("/"),
            variant.as_ref(),
            &defaults,
            &cannot_do,
        )
    }

    #[test]
    fn what_the_machine_cannot_do_costs_the_document_that_asks_for_it_its_setting() {
        const TWO: &str = "[settings.boot.kernel]\na = []\nb = []";
        const THIRD: &str = "[settings]\nmotd = 'x'\n\n[settings.boot]\n\
                             reboot-to-reconcile = true\nkernel-parameters = { c = [] }";
        let gathered = gathered(&[Ok(TWO), Ok(THIRD)], "");
        assert_eq!(
            gathered.settings.to_value(),
            serde_json::json!({
                "motd": "x",
                "boot": {"kernel": {"a": [], "b": []}, "reboot-to-reconcile": true},
            })
        );
        assert_eq!(
            gathered.report.to_string(),
            "first (given): accepted\n\
             second (given): accepted in part\n  \
             line 6: settings.boot.kernel: too much for it [skipped]\n"
        );
        assert!(!gathered.report.stopped);
    }

    #[test]
    fn later_sources_win_key_by_key() {
        let gathered = gathered(
            &[
                Ok("[settings]\nmotd = 'a'\nntp.options = ['a', 'b']\nkernel.sysctl.a = '1'"),
                Ok("none"),
                Ok("[settings]\nntp.options = ['c']\nkernel.sysctl.b = '2'"),
            ],
            "",
        );
        assert_eq!(
            gathered.settings.to_value(),
            serde_json::json!({
                "motd": "a",
                "ntp": {"options": ["c"]},
                "kernel": {"sysctl": {"a": "1", "b": "2"}},
            })
        );
        assert_eq!(
            gathered.report.to_string(),
            "first (given): accepted\nthird (given): accepted\n"
        );
    }

    #[test]
    fn a_fault_costs_its_setting_or_the_boot() {
        const MOTD: &str = "[settings]\nmotd = 'x'\nmtod = 'y'\n";
        const STRICT: &str = "[settings]\nuser-data-policy = 'strict'";
        const UNCLEAR: &str = "[settings]\nuser-data-policy = 1";
        for (sources, defaults, outcomes, stopped) in [
            (&[Ok(MOTD)][..], "", "InPart", false),
            (&[Ok(" "), Ok(MOTD)], "", "Empty InPart", false),
            // One policy for all, whoever says so.
            (&[Ok(MOTD)], STRICT, "Refused", true),
            (&[Ok(MOTD), Ok(STRICT)], "", "Refused Accepted", true),
            (&[Ok(STRICT), Ok(MOTD)], "", "Accepted Refused", true),
            (
                &[Ok(MOTD), Ok("[settings]\nuser-data-policy = 'lenient'")],
                STRICT,
                "InPart Accepted",
                false,
            ),
            (&[Ok(MOTD), Ok(UNCLEAR)], "", "Refused Refused", true),
            // A fault that decides something, or a document that cannot be read.
            (
                &[Ok("[settings]\npki.a.b = 1"), Ok(" ")],
                "",
                "Refused Empty",
                true,
            ),
            (&[Ok("[settings]"), Ok("x")], "", "Accepted Refused", true),
            (
                &[Err("broken"), Ok("[settings]")],
                "",
                "Refused Accepted",
                true,
            ),
        ] {
            let gathered = gathered(sources, defaults);
            let seen: Vec<String> = gathered
                .report
                .sources
                .iter()
                .map(|source| format!("{:?}", source.outcome))
                .collect();
            assert_eq!(seen.join(" "), outcomes, "{sources:?}");
            assert_eq!(gathered.report.stopped, stopped, "{sources:?}");
            let taken = gathered.settings.to_value().get("motd").is_some();
            assert_eq!(
                taken,
                !stopped && sources.contains(&Ok(MOTD)),
                "{sources:?}"
            );
        }
    }

    #[test]
    fn what_stops_a_boot_is_reported() {
        let gathered = gathered(&[Err("no such device"), Ok("[settings]\nmtod = 1")], "");
        assert_eq!(
            gathered.report.to_string(),
            "user data stops this boot, and none of it was taken\n\
             first (given): refused as a whole\n\
             \x20 settings: cannot be read: no such device [fatal]\n\
             second (given): refused as a whole\n\
             \x20 line 2: settings.mtod: unknown key; did you mean settings.motd? [fatal]\n"
        );
    }

    #[test]
    fn documents_are_checked_in_every_encoding() {
        let variant = Variant::parse("metal-core").expect("a variant");
        let checked = |text: &str| check(text.into(), &variant);
        let good = checked("[settings]\nmotd = 'x'");
        assert!(good.document.is_some() && good.faults.is_empty());
        assert_eq!(checked("W3NldHRpbmdzXQptb3RkID0gJ3gnCg=="), good);
        assert_eq!(checked(" ").document, None);
        for (text, takes, faults) in [
            ("[settings]\nmtod = 1", true, "settings.mtod: unknown key"),
            (
                "[settings]\nmtod = 1\nuser-data-policy = 'strict'",
                false,
                "did you mean settings.motd? [fatal]",
            ),
            (
                "[settings.pki]\na = 1",
                false,
                "settings.pki.a: expected a table",
            ),
            ("settings = ", false, "not TOML"),
            ("IyEvYmluL3NoCg==", false, "user data is a script"),
        ] {
            let checked = checked(text);
            assert_eq!(checked.document.is_some(), takes, "{text}");
            let told = checked.faults[0].to_string();
            assert!(told.contains(faults), "{told}");
        }
    }
}
