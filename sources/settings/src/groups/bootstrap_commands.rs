//! `settings.bootstrap-commands`.

use crate::model::group;
use crate::types::{Argument, Identifier, RunMode};
use crate::{Faults, Key, Model, Schema};
use serde_json::Value;
use std::collections::BTreeMap;

/// Bootstrap commands by name, which is also their order.
pub type BootstrapCommands = BTreeMap<Identifier, BootstrapCommand>;

group! {
    /// Calls of `apiclient` at boot, before bootstrap containers.
    pub struct BootstrapCommand {
        /// The calls, one after the other, each as a list of words that begins
        /// with `apiclient`. There is no shell.
        "commands" => commands: Vec<ApiclientCall>,
            example "[[\"apiclient\", \"ephemeral-storage\", \"init\"]]", secret true;
        /// When they are made; unset is `off`. Once all have succeeded, `once` becomes `off`.
        "mode" => mode: RunMode;
        /// Whether the boot stops if one fails.
        "essential" => essential: bool;
    }
}

/// A call of `apiclient`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiclientCall(Vec<Argument>);

impl ApiclientCall {
    /// The words, the first of which is `apiclient`.
    pub fn words(&self) -> &[Argument] {
        &self.0
    }
}

impl Model for ApiclientCall {
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self> {
        let words = Vec::<Argument>::read(value, at, faults)?;
        if words.first().map(Argument::as_str) != Some("apiclient") {
            faults.add(at, "the first word of a command must be \"apiclient\"");
            return None;
        }
        Some(Self(words))
    }

    fn write(&self) -> Value {
        self.0.write()
    }

    fn schema() -> Schema {
        Vec::<Argument>::schema()
    }
}
