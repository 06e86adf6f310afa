//! `/metadata`: what is known about settings.

use super::inventory::services_of;
use super::keys;
use crate::app::App;
use crate::http::{Answer, Reply, Request};
use serde_json::{Map, Value};
use settings::{Model, Settings};
use std::collections::BTreeSet;

/// `GET /metadata/affected-services`.
pub fn affected_services(app: &App, request: &Request) -> Reply {
    let keys = keys(request)?.ok_or_else(|| Answer::text(400, "parameter keys is missing"))?;
    let mut affected = Map::new();
    for key in keys {
        let services: BTreeSet<String> = app
            .host
            .catalog()
            .affected_by(std::slice::from_ref(&key))
            .flat_map(services_of)
            .map(|(name, _)| name)
            .collect();
        if !services.is_empty() {
            affected.insert(key.to_string(), services.into_iter().collect());
        }
    }
    Ok(Answer::json(&affected))
}

/// `GET /metadata/setting-generators`. Ours run inside the server, so what
/// stands for a command line is the generator's name.
pub fn setting_generators() -> Reply {
    let generators: Map<String, Value> = Settings::schema()
        .generators()
        .into_iter()
        .map(|generator| (generator.key.to_string(), generator.name.into()))
        .collect();
    Ok(Answer::json(&generators))
}

/// `GET /metadata/templates`: settings made from other settings by a template.
/// There are none; generators took their place.
pub fn templates(request: &Request) -> Reply {
    keys(request)?.ok_or_else(|| Answer::text(400, "parameter keys is missing"))?;
    Ok(Answer::json(&Map::new()))
}
