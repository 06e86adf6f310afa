//! How far an update is: the states, what leads from one to another, and how that is kept.
//!
//! Nothing here touches the disk. What a state says about the disk is not believed after
//! a restart: [`Record::reconcile`] holds it against what is really there.

use std::collections::BTreeMap;

use api_types::{
    SlotStatus, UpdateCommand, UpdateCommandResult, UpdateImage, UpdateState, UpdateStatus,
};
use boot_slots::entry::Entry;
use serde::{Deserialize, Serialize};
use update_metadata::Version;

/// How far an update is.
///
/// ```text
///          refresh finds one         prepare              activate
///   Idle ───────────────────> Available ───────> Staged ───────────> Ready
///    ^                            ^                 ^  deactivate      │
///    │ refresh finds none         │                 └──────────────────┤
///    ├────────────────────────────┘                                    │ reboot
///    │                  the new image is blessed, or given up          │
///    └─────────────────────────────────────────────────────────────────┘
/// ```
///
/// Refreshing is allowed in every state; in `Staged` and `Ready` it changes what is known
/// about the repository and not what is staged. Preparing is allowed in `Staged`, too: what
/// is chosen then takes the place of what was staged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum State {
    /// There is nothing to install.
    Idle,
    /// An update can be prepared.
    Available,
    /// An image lies in the other slot, whole and verified, and does not boot.
    Staged {
        /// It.
        image: StagedImage,
    },
    /// The image in the other slot boots next, on trial; or it is running and has not
    /// proved itself yet.
    Ready {
        /// It.
        image: StagedImage,
    },
}

/// What was put into the other slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedImage {
    /// Its version.
    pub version: Version,
    /// Its root hash.
    pub root_hash: String,
}

/// Why a command is not begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another one is at work.
    #[error("another update command is at work")]
    Busy,
    /// The state does not allow it.
    #[error("not allowed: {0}")]
    State(String),
    /// There is nothing that it could be done with.
    #[error("there is no {0}")]
    Nothing(&'static str),
}

impl Refusal {
    /// The status that the API answers with.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Busy => 423,
            Self::State(_) => 409,
            Self::Nothing(_) => 404,
        }
    }
}

impl State {
    /// What was staged.
    pub fn staged(&self) -> Option<&StagedImage> {
        match self {
            Self::Idle | Self::Available => None,
            Self::Staged { image } | Self::Ready { image } => Some(image),
        }
    }

    fn name(&self) -> UpdateState {
        match self {
            Self::Idle => UpdateState::Idle,
            Self::Available => UpdateState::Available,
            Self::Staged { .. } => UpdateState::Staged,
            Self::Ready { .. } => UpdateState::Ready,
        }
    }
}

/// What runs and what lies on the disk.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The image that runs.
    pub running: UpdateImage,
    /// Whether it completed a boot.
    pub is_blessed: bool,
    /// Images that the boot loader knows, in the order in which they boot.
    pub entries: Vec<Entry>,
    /// The first half of the root hash of the image in the other slot, in hex.
    pub other_slot: Option<String>,
    /// The kernel's name for this boot.
    pub boot_id: String,
    /// What the last boot that was given up complained of, and its version.
    pub complaint: Option<(String, String)>,
}

impl Facts {
    fn tries_left(&self, version: &Version) -> Option<bool> {
        let version = version.to_string();
        let mut entries = (self.entries.iter()).filter(|entry| entry.version == version);
        entries.next().map(|entry| !entry.tries.is_exhausted())
    }

    fn holds(&self, image: &StagedImage) -> bool {
        let uuid = |id: &String| image.root_hash.starts_with(id.as_str());
        self.other_slot.as_ref().is_some_and(uuid)
    }

    fn boots_next(&self, version: &str) -> bool {
        (self.entries.first()).is_some_and(|entry| entry.version == version)
    }
}

/// What is kept on the state partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// How far an update is.
    #[serde(flatten)]
    pub state: State,
    /// The boot in which the state became `Ready`.
    #[serde(default)]
    pub ready_in_boot: Option<String>,
    /// Versions of the last refresh, newest first.
    #[serde(default)]
    pub available: Vec<Version>,
    /// What the last refresh chose.
    #[serde(default)]
    pub chosen: Option<Version>,
    /// Versions that did not boot here, and why.
    #[serde(default)]
    pub given_up: BTreeMap<String, String>,
    /// What was done last.
    #[serde(default)]
    pub last: Option<UpdateCommandResult>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            state: State::Idle,
            ready_in_boot: None,
            available: Vec::new(),
            chosen: None,
            given_up: BTreeMap::new(),
            last: None,
        }
    }
}

/// What became of an update between two looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It runs and has proved itself.
    Done(Version),
    /// It did not complete a boot.
    GivenUp(Version, String),
    /// It is not there any more, for this reason.
    Lost(Version, &'static str),
}

impl Record {
    /// Holds the state against what is there, and says what became of an update.
    pub fn reconcile(&mut self, facts: &Facts) -> Option<Outcome> {
        let image = self.state.staged()?.clone();
        let version = image.version.clone();
        if version.to_string() == facts.running.version {
            if !facts.is_blessed {
                return None;
            }
            self.given_up.remove(&version.to_string());
            self.forget();
            return Some(Outcome::Done(version));
        }
        let rebooted = self.ready_in_boot.as_ref() != Some(&facts.boot_id);
        match facts.tries_left(&version) {
            None => {
                self.forget();
                Some(Outcome::Lost(version, "its kernel image is gone"))
            }
            Some(false) if matches!(self.state, State::Ready { .. }) && rebooted => {
                let why = match &facts.complaint {
                    Some((complained, why)) if *complained == version.to_string() => why.clone(),
                    _ => "its boots ended before it could say why".to_string(),
                };
                self.given_up.insert(version.to_string(), why.clone());
                self.forget();
                Some(Outcome::GivenUp(version, why))
            }
            _ if !facts.holds(&image) => {
                self.forget();
                Some(Outcome::Lost(version, "its slot holds something else"))
            }
            _ => None,
        }
    }

    /// There is nothing staged any more.
    fn forget(&mut self) {
        self.ready_in_boot = None;
        self.chosen = None;
        self.state = State::Idle;
    }

    /// Takes what a refresh found.
    pub fn refreshed(&mut self, available: Vec<Version>, chosen: Option<Version>) {
        self.available = available;
        if self.state.staged().is_none() {
            self.state = match chosen {
                Some(_) => State::Available,
                None => State::Idle,
            };
        }
        self.chosen = chosen;
    }

    /// A refresh found nothing out.
    pub fn refresh_failed(&mut self) {
        if self.state.staged().is_none() {
            self.state = State::Idle;
            self.chosen = None;
        }
    }

    /// Whether `command` may begin.
    pub fn admit(&self, command: UpdateCommand, facts: &Facts) -> Result<(), Refusal> {
        let refuse = |why: &str| Err(Refusal::State(why.to_string()));
        match (command, &self.state) {
            (UpdateCommand::Refresh, _) => Ok(()),
            (UpdateCommand::Prepare, State::Idle) => match self.chosen {
                Some(_) => refuse("there is no update to prepare"),
                None => Err(Refusal::Nothing("update to prepare")),
            },
            (UpdateCommand::Prepare, State::Ready { image }) => {
                let version = &image.version;
                refuse(&format!(
                    "version {version} is to boot next: cancel it first"
                ))
            }
            (UpdateCommand::Prepare, _) if self.chosen.is_none() => {
                Err(Refusal::Nothing("update to prepare"))
            }
            (UpdateCommand::Prepare, _) if !facts.is_blessed => refuse(
                "what runs has not completed its boot, and the other slot holds what it would \
                 fall back to",
            ),
            (UpdateCommand::Prepare, _) => Ok(()),
            (UpdateCommand::Activate, State::Staged { .. }) => Ok(()),
            (UpdateCommand::Activate, State::Ready { image }) => refuse(&format!(
                "version {} is to boot next already",
                image.version
            )),
            (UpdateCommand::Activate, _) => Err(Refusal::Nothing("prepared update")),
            (UpdateCommand::Deactivate, State::Ready { image })
                if image.version.to_string() == facts.running.version =>
            {
                refuse("the update is running")
            }
            (UpdateCommand::Deactivate, State::Ready { .. }) => Ok(()),
            (UpdateCommand::Deactivate, State::Staged { .. }) => {
                refuse("no update is to boot next")
            }
            (UpdateCommand::Deactivate, _) => Err(Refusal::Nothing("prepared update")),
        }
    }

    /// What the API tells.
    pub fn status(&self, facts: &Facts) -> UpdateStatus {
        let image = |version: &Version| UpdateImage {
            version: version.to_string(),
            ..facts.running.clone()
        };
        let slot = |image: UpdateImage| SlotStatus {
            next_to_boot: facts.boots_next(&image.version),
            image,
        };
        let staged = (self.state.staged())
            .filter(|staged| staged.version.to_string() != facts.running.version);
        UpdateStatus {
            update_state: self.state.name(),
            available_updates: self.available.iter().map(Version::to_string).collect(),
            chosen_update: self.chosen.as_ref().map(image),
            active_partition: Some(slot(facts.running.clone())),
            staging_partition: staged.map(|staged| slot(image(&staged.version))),
            most_recent_command: self.last.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.to_string().try_into().unwrap()
    }

    fn staged(text: &str) -> StagedImage {
        StagedImage {
            version: version(text),
            root_hash: format!("{text}-first-half-and-second"),
        }
    }

    /// A host that runs 1.0.0, with these images on its ESP and this version in the
    /// other slot.
    fn facts(entries: &[&str], other: &str) -> Facts {
        Facts {
            running: UpdateImage {
                arch: "x86_64".into(),
                version: "1.0.0".into(),
                variant: "v".into(),
            },
            is_blessed: true,
            entries: entries
                .iter()
                .map(|name| Entry::parse(name).unwrap())
                .collect(),
            other_slot: Some(format!("{other}-first-half")),
            boot_id: "second".into(),
            complaint: Some(("2.0.0".into(), "failed: a.service".into())),
        }
    }

    fn ready() -> Record {
        Record {
            state: State::Ready {
                image: staged("2.0.0"),
            },
            ready_in_boot: Some("first".into()),
            chosen: Some(version("2.0.0")),
            ..Record::default()
        }
    }

    #[test]
    fn what_becomes_of_an_update() {
        let given_up = || Outcome::GivenUp(version("2.0.0"), "failed: a.service".into());
        let gone = |why| Outcome::Lost(version("2.0.0"), why);
        for (entries, other, outcome) in [
            (
                &["bulkhead_2.0.0+3.efi", "bulkhead_1.0.0.efi"][..],
                "2.0.0",
                None,
            ),
            (
                &["bulkhead_1.0.0.efi", "bulkhead_2.0.0+0-3.efi"],
                "2.0.0",
                Some(given_up()),
            ),
            (
                &["bulkhead_1.0.0.efi"],
                "2.0.0",
                Some(gone("its kernel image is gone")),
            ),
            (
                &["bulkhead_2.0.0+3.efi", "bulkhead_1.0.0.efi"],
                "1.5.0",
                Some(gone("its slot holds something else")),
            ),
        ] {
            let mut record = ready();
            let facts = facts(entries, other);
            assert_eq!(record.reconcile(&facts), outcome, "{entries:?}");
            assert_eq!(record.state.staged().is_none(), outcome.is_some());
            let is_given_up = record.given_up.contains_key("2.0.0");
            assert_eq!(is_given_up, outcome == Some(given_up()));
        }
    }

    #[test]
    fn a_version_is_given_up_only_after_a_boot() {
        let facts = facts(&["bulkhead_1.0.0.efi", "bulkhead_2.0.0+0-3.efi"], "2.0.0");
        let mut record = Record {
            ready_in_boot: Some("second".into()),
            ..ready()
        };
        assert_eq!(record.reconcile(&facts), None);
        let mut staged_only = Record {
            state: State::Staged {
                image: staged("2.0.0"),
            },
            ..ready()
        };
        assert_eq!(staged_only.reconcile(&facts), None);
    }

    #[test]
    fn an_update_is_done_once_it_is_blessed() {
        let mut facts = facts(&["bulkhead_2.0.0+2-1.efi", "bulkhead_1.0.0.efi"], "1.0.0");
        facts.running.version = "2.0.0".into();
        facts.is_blessed = false;
        let mut record = ready();
        record.given_up.insert("2.0.0".into(), "earlier".into());
        assert_eq!(record.reconcile(&facts), None);
        let refused = record.admit(UpdateCommand::Deactivate, &facts).unwrap_err();
        assert_eq!(refused.http_status(), 409);
        facts.is_blessed = true;
        assert_eq!(
            record.reconcile(&facts),
            Some(Outcome::Done(version("2.0.0")))
        );
        assert_eq!(record, Record::default());
    }

    #[test]
    fn who_may_do_what() {
        use UpdateCommand::{Activate, Deactivate, Prepare, Refresh};
        let facts = facts(&["bulkhead_1.0.0.efi"], "2.0.0");
        let with = |state, chosen: Option<&str>| Record {
            state,
            chosen: chosen.map(version),
            ..Record::default()
        };
        let available = with(State::Available, Some("2.0.0"));
        let staged_one = with(
            State::Staged {
                image: staged("2.0.0"),
            },
            Some("2.0.0"),
        );
        for (record, prepare, activate, deactivate) in [
            (Record::default(), Some(404), Some(404), Some(404)),
            (available.clone(), None, Some(404), Some(404)),
            (staged_one.clone(), None, None, Some(409)),
            (
                with(staged_one.state.clone(), None),
                Some(404),
                None,
                Some(409),
            ),
            (ready(), Some(409), Some(409), None),
        ] {
            let refused = |command| record.admit(command, &facts).err().map(|r| r.http_status());
            let all = [Refresh, Prepare, Activate, Deactivate].map(refused);
            assert_eq!(all, [None, prepare, activate, deactivate], "{record:?}");
        }
        let on_trial = Facts {
            is_blessed: false,
            ..facts
        };
        let refused = available.admit(Prepare, &on_trial).unwrap_err();
        assert_eq!(
            refused.http_status(),
            409,
            "the fallback is not overwritten"
        );
    }

    #[test]
    fn the_status_tells_both_slots() {
        let facts = facts(&["bulkhead_2.0.0+3.efi", "bulkhead_1.0.0.efi"], "2.0.0");
        let status = ready().status(&facts);
        let next = |slot: Option<SlotStatus>| slot.map(|s| (s.image.version, s.next_to_boot));
        assert_eq!(status.update_state, UpdateState::Ready);
        assert_eq!(next(status.active_partition), Some(("1.0.0".into(), false)));
        assert_eq!(next(status.staging_partition), Some(("2.0.0".into(), true)));
    }

    #[test]
    fn a_refresh_leaves_what_is_staged() {
        let mut record = ready();
        record.refreshed(vec![version("3.0.0")], Some(version("3.0.0")));
        record.refresh_failed();
        assert_eq!(record.state, ready().state);
        let mut record = Record::default();
        record.refreshed(vec![version("3.0.0")], Some(version("3.0.0")));
        assert_eq!(record.state, State::Available);
        record.refresh_failed();
        assert_eq!((record.state, record.chosen), (State::Idle, None));
    }

    #[test]
    fn a_record_survives_the_disk() {
        for record in [Record::default(), ready()] {
            let json = serde_json::to_vec(&record).unwrap();
            assert_eq!(serde_json::from_slice::<Record>(&json).unwrap(), record);
        }
    }
}
