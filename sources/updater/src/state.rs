//! How far an update is: the states, what leads from one to another, and what is kept.
//!
//! ```text
//!          refresh finds one         prepare              activate
//!   Idle ───────────────────> Available ───────> Staged ───────────> Ready
//!    ^                         ^    ^               │ ^  deactivate    │
//!    │ refresh finds none      │    └───────────────┤ └────────────────┤
//!    ├─────────────────────────┘  recalled, or lost │                  │ reboot
//!    │                                              │                  │
//!    └──────────────────────────────────────────────┴──────────────────┘
//!                     the new image is blessed, or given up
//! ```
//!
//! - `Idle`: there is nothing to install.
//! - `Available`: an update can be prepared.
//! - `Staged`: an image lies in the other slot, whole and verified, and does not boot.
//! - `Ready`: that image boots next, on trial; or it is running and has not proved itself yet.
//!
//! Refreshing is allowed in every state. Preparing is allowed in `Staged`, too: what is chosen
//! then takes the place of what was staged.
//!
//! Nothing here touches the disk. What was staged is kept, and held against the disk by
//! [`Record::reconcile`]. Whether it boots next is not kept but seen in the order in which the
//! boot loader takes images, so that a cut of power cannot come between the two.

use std::collections::BTreeMap;

use api_types::{
    SlotStatus, UpdateCommand, UpdateCommandResult, UpdateImage, UpdateState, UpdateStatus,
};
use boot_slots::entry::Entry;
use serde::{Deserialize, Serialize};
use update_metadata::Version;

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
    /// There is nothing that could be prepared.
    #[error("there is no update to prepare")]
    Nothing,
}

impl Refusal {
    /// The status that the API answers with.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Busy => 423,
            Self::State(_) => 409,
            Self::Nothing => 404,
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
    /// What the last boot that was given up complained of, and its version.
    pub complaint: Option<(String, String)>,
}

impl Facts {
    /// Whether the image of a version has used up its tries; nothing if there is none. A cut in
    /// a rename may have left it a second name, which nobody counts on.
    fn has_failed(&self, version: &str) -> Option<bool> {
        let names = (self.entries.iter()).filter(|entry| entry.version == version);
        let tries: Vec<_> = names.map(|entry| entry.tries).collect();
        let is_over = || tries.iter().all(|tries| tries.is_exhausted());
        let has_failed = || tries.iter().any(|tries| tries.has_failed());
        (!tries.is_empty()).then(|| is_over() && has_failed())
    }

    fn runs(&self, version: &Version) -> bool {
        version.to_string() == self.running.version
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What lies in the other slot, whole and verified, or runs from there on trial.
    #[serde(default)]
    pub staged: Option<StagedImage>,
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
    /// How far an update is.
    pub fn state(&self, facts: &Facts) -> UpdateState {
        match &self.staged {
            Some(StagedImage { version, .. })
                if facts.runs(version) || facts.boots_next(&version.to_string()) =>
            {
                UpdateState::Ready
            }
            Some(_) => UpdateState::Staged,
            None if self.chosen.is_some() => UpdateState::Available,
            None => UpdateState::Idle,
        }
    }

    /// Holds what is kept against what is there, and says what became of an update.
    pub fn reconcile(&mut self, facts: &Facts) -> Option<Outcome> {
        self.chosen.take_if(|version| facts.runs(version));
        let image = self.staged.as_ref()?;
        let version = image.version.clone();
        let name = version.to_string();
        if facts.runs(&version) {
            if !facts.is_blessed {
                return None;
            }
            self.given_up.remove(&name);
            self.forget();
            return Some(Outcome::Done(version));
        }
        match facts.has_failed(&name) {
            None => {
                self.forget();
                Some(Outcome::Lost(version, "its kernel image is gone"))
            }
            Some(true) => {
                let why = match &facts.complaint {
                    Some((complained, why)) if *complained == name => why.clone(),
                    _ => "its boots ended before it could say why".to_string(),
                };
                self.given_up.insert(name, why.clone());
                self.forget();
                Some(Outcome::GivenUp(version, why))
            }
            _ if !facts.holds(image) => {
                self.forget();
                Some(Outcome::Lost(version, "its slot holds something else"))
            }
            _ => None,
        }
    }

    /// There is nothing staged any more.
    fn forget(&mut self) {
        self.staged = None;
        self.chosen = None;
    }

    /// What is staged and does not run yet.
    pub fn waiting(&self, facts: &Facts) -> Option<&StagedImage> {
        let staged = self.staged.as_ref();
        staged.filter(|image| !facts.runs(&image.version))
    }

    /// Takes what a refresh found.
    pub fn refreshed(&mut self, available: Vec<Version>, chosen: Option<Version>) {
        self.available = available;
        self.chosen = chosen;
    }

    /// A refresh found nothing out.
    pub fn refresh_failed(&mut self) {
        if self.staged.is_none() {
            self.chosen = None;
        }
    }

    /// Whether `command` may begin.
    pub fn admit(&self, command: UpdateCommand, facts: &Facts) -> Result<(), Refusal> {
        use UpdateCommand::{Activate, Deactivate, Prepare, Refresh};
        use UpdateState::{Available, Idle, Ready, Staged};
        let refuse = |why: String| Err(Refusal::State(why));
        let staged = match &self.staged {
            Some(image) => image.version.to_string(),
            None => String::new(),
        };
        match (command, self.state(facts)) {
            (Refresh, _) => Ok(()),
            (Prepare, Idle) => refuse("no update was found: look for updates first".into()),
            (Activate | Deactivate, Idle | Available) => refuse("no update is prepared".into()),
            (Deactivate, Staged) => refuse("no update is to boot next".into()),
            (_, Ready) if staged == facts.running.version => refuse(format!(
                "version {staged} runs, and has not completed its boot"
            )),
            (Prepare, Ready) => {
                refuse(format!("version {staged} is to boot next: cancel it first"))
            }
            (Activate, Ready) => refuse(format!("version {staged} is to boot next already")),
            (Prepare, Available | Staged) if self.chosen.is_none() => Err(Refusal::Nothing),
            (Prepare, Available | Staged) if !facts.is_blessed => refuse(
                "what runs has not completed its boot, and the other slot holds what it would \
                 fall back to"
                    .into(),
            ),
            (Prepare, Available | Staged) | (Activate, Staged) | (Deactivate, Ready) => Ok(()),
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
        let staged = self.waiting(facts);
        UpdateStatus {
            update_state: self.state(facts),
            available_updates: self.available.iter().map(Version::to_string).collect(),
            chosen_update: self.chosen.as_ref().map(image),
            active_partition: Some(slot(facts.running.clone())),
            staging_partition: staged.map(|staged| slot(image(&staged.version))),
            most_recent_command: self.last.clone(),
            given_up: self.given_up.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot_slots::entry::in_boot_order;

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
            entries: in_boot_order(entries),
            other_slot: Some(format!("{other}-first-half")),
            complaint: Some(("2.0.0".into(), "failed: a.service".into())),
        }
    }

    /// A host that has put 2.0.0 into its other slot.
    fn staged_record() -> Record {
        Record {
            staged: Some(staged("2.0.0")),
            chosen: Some(version("2.0.0")),
            ..Record::default()
        }
    }

    const READY: &[&str] = &["bulkhead_2.0.0+3.efi", "bulkhead_1.0.0.efi"];

    #[test]
    fn what_becomes_of_an_update() {
        let given_up = || Outcome::GivenUp(version("2.0.0"), "failed: a.service".into());
        let gone = |why| Outcome::Lost(version("2.0.0"), why);
        for (entries, other, outcome) in [
            (READY, "2.0.0", None),
            (
                &["bulkhead_1.0.0.efi", "bulkhead_2.0.0+0-3.efi"],
                "2.0.0",
                Some(given_up()),
            ),
            (
                &[
                    "bulkhead_1.0.0.efi",
                    "bulkhead_2.0.0+0-3.efi",
                    "bulkhead_2.0.0+0.efi",
                ],
                "2.0.0",
                Some(given_up()),
            ),
            (
                &["bulkhead_1.0.0.efi"],
                "2.0.0",
                Some(gone("its kernel image is gone")),
            ),
            (READY, "1.5.0", Some(gone("its slot holds something else"))),
        ] {
            let mut record = staged_record();
            let facts = facts(entries, other);
            assert_eq!(record.reconcile(&facts), outcome, "{entries:?}");
            assert_eq!(record.staged.is_none(), outcome.is_some());
            let why = record.given_up.get("2.0.0").map(String::as_str);
            let is_given_up = outcome == Some(given_up());
            assert_eq!(why, is_given_up.then_some("failed: a.service"));
            assert_eq!(record.status(&facts).given_up, record.given_up);
        }
    }

    /// Whatever a cut leaves on the ESP: names of the new image and of the running one.
    #[test]
    fn the_boot_order_says_whether_an_update_is_ready() {
        for (entries, state) in [
            (
                &["bulkhead_1.0.0.efi", "bulkhead_2.0.0+0.efi"][..],
                UpdateState::Staged,
            ),
            (READY, UpdateState::Ready),
            (
                &[
                    "bulkhead_2.0.0+3.efi",
                    "bulkhead_1.0.0.efi",
                    "bulkhead_2.0.0+0.efi",
                ],
                UpdateState::Ready,
            ),
            (
                &["bulkhead_2.0.0+2-1.efi", "bulkhead_1.0.0.efi"],
                UpdateState::Ready,
            ),
        ] {
            let mut record = staged_record();
            let facts = facts(entries, "2.0.0");
            assert_eq!(record.reconcile(&facts), None, "{entries:?}");
            assert_eq!(record.state(&facts), state, "{entries:?}");
            let staging = record.status(&facts).staging_partition.unwrap();
            assert_eq!(staging.next_to_boot, state == UpdateState::Ready);
        }
    }

    /// An older version comes first only once the running one has stood back.
    #[test]
    fn a_downgrade_that_was_cut_short_is_not_ready() {
        let record = Record {
            staged: Some(staged("0.9.0")),
            ..Record::default()
        };
        let half = facts(&["bulkhead_1.0.0+0.efi", "bulkhead_0.9.0+0.efi"], "0.9.0");
        assert_eq!(record.state(&half), UpdateState::Staged);
        let whole = facts(&["bulkhead_0.9.0+3.efi", "bulkhead_1.0.0+0.efi"], "0.9.0");
        assert_eq!(record.state(&whole), UpdateState::Ready);
    }

    #[test]
    fn an_update_is_done_once_it_is_blessed() {
        let mut facts = facts(&["bulkhead_2.0.0+2-1.efi", "bulkhead_1.0.0.efi"], "1.0.0");
        facts.running.version = "2.0.0".into();
        facts.is_blessed = false;
        let mut record = staged_record();
        record.given_up.insert("2.0.0".into(), "earlier".into());
        assert_eq!(record.reconcile(&facts), None);
        assert_eq!(record.state(&facts), UpdateState::Ready);
        for command in [
            UpdateCommand::Prepare,
            UpdateCommand::Activate,
            UpdateCommand::Deactivate,
        ] {
            let refused = record.admit(command, &facts).unwrap_err();
            assert_eq!(refused.http_status(), 409);
        }
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
        let waiting: &[&str] = &["bulkhead_1.0.0.efi", "bulkhead_2.0.0+0.efi"];
        let available = Record {
            chosen: Some(version("2.0.0")),
            ..Record::default()
        };
        let nothing_chosen = Record {
            chosen: None,
            ..staged_record()
        };
        for (record, entries, prepare, activate, deactivate) in [
            (Record::default(), waiting, Some(409), Some(409), Some(409)),
            (available.clone(), waiting, None, Some(409), Some(409)),
            (staged_record(), waiting, None, None, Some(409)),
            (nothing_chosen, waiting, Some(404), None, Some(409)),
            (staged_record(), READY, Some(409), Some(409), None),
        ] {
            let facts = facts(entries, "2.0.0");
            let refused = |command| record.admit(command, &facts).err().map(|r| r.http_status());
            let all = [Refresh, Prepare, Activate, Deactivate].map(refused);
            assert_eq!(all, [None, prepare, activate, deactivate], "{record:?}");
        }
        let on_trial = Facts {
            is_blessed: false,
            ..facts(waiting, "2.0.0")
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
        let facts = facts(READY, "2.0.0");
        let status = staged_record().status(&facts);
        let next = |slot: Option<SlotStatus>| slot.map(|s| (s.image.version, s.next_to_boot));
        assert_eq!(status.update_state, UpdateState::Ready);
        assert_eq!(next(status.active_partition), Some(("1.0.0".into(), false)));
        assert_eq!(next(status.staging_partition), Some(("2.0.0".into(), true)));
    }

    #[test]
    fn a_refresh_leaves_what_is_staged() {
        let facts = facts(READY, "2.0.0");
        let mut record = staged_record();
        record.refreshed(vec![version("3.0.0")], Some(version("3.0.0")));
        record.refresh_failed();
        assert_eq!(record.state(&facts), UpdateState::Ready);
        let mut record = Record::default();
        record.refreshed(vec![version("3.0.0")], Some(version("3.0.0")));
        assert_eq!(record.state(&facts), UpdateState::Available);
        record.refresh_failed();
        assert_eq!(record.state(&facts), UpdateState::Idle);
    }

    #[test]
    fn a_record_survives_the_disk() {
        for record in [Record::default(), staged_record()] {
            let json = serde_json::to_vec(&record).unwrap();
            assert_eq!(serde_json::from_slice::<Record>(&json).unwrap(), record);
        }
    }
}
