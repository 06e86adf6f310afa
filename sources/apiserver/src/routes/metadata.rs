//! `/metadata`: what is known about settings.

use super::inventory::services_of;
use super::keys;
use crate::app::App;
use crate::http::{Answer, Reply, Request};
use api_types::{GeneratorMetadata, SettingMetadata, SettingSource, SettingsMetadata};
use config_templates::ConfigFile;
use serde_json::{Map, Value};
use settings::{Document, Key, Schema};
use settings_store::{Layers, Strength};
use std::collections::{BTreeMap, BTreeSet};

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

/// `GET /metadata/settings` (ours): what is known about the settings or tables that the
/// request names, or about every setting. Secrets are not shown.
pub async fn settings(app: &App, request: &Request) -> Reply {
    let schema = app.host.schema();
    let keys = match keys(request)? {
        Some(keys) => keys,
        None => every_setting(&schema),
    };
    if let Some(unknown) = keys.iter().find(|key| !schema.knows(key)) {
        let mut text = format!("{unknown} is not a setting");
        if let Some(meant) = schema.nearest(unknown) {
            text.push_str(&format!("; did you mean {meant}?"));
        }
        return Err(Answer::text(404, text));
    }
    let layers = app.store.lock().await.layers();
    let effective = layers.effective();
    let known: SettingsMetadata = keys
        .into_iter()
        .filter_map(|key| {
            let metadata = describe(app, &schema, &layers, &effective, &key)?;
            Some((key.to_string(), metadata))
        })
        .collect();
    Ok(Answer::json(&known))
}

/// The declared settings, those in tables whose keys the user chooses as that table.
fn every_setting(schema: &Schema) -> Vec<Key> {
    fn walk(schema: &Schema, at: &mut Key, found: &mut Vec<Key>) {
        match schema {
            Schema::Table { fields, .. } => {
                for field in fields.iter() {
                    at.push(field.name);
                    walk(&field.schema, at, found);
                    at.pop();
                }
            }
            _ => found.push(at.clone()),
        }
    }
    let mut found = Vec::new();
    walk(schema, &mut Key::root(), &mut found);
    found
}

fn describe(
    app: &App,
    schema: &Schema,
    layers: &Layers,
    effective: &Document,
    key: &Key,
) -> Option<SettingMetadata> {
    let field = schema.field(key);
    let at = schema.at(key)?;
    let doc = match (field, at) {
        (Some(field), _) => field.doc,
        (None, Schema::Table { doc, .. }) => doc,
        (None, _) => "",
    };
    let source = [
        (&layers.user, SettingSource::User),
        (&layers.generated, SettingSource::Generated),
        (&layers.defaults, SettingSource::Default),
    ]
    .into_iter()
    .find(|(layer, _)| layer.get(key).is_some())
    .map_or(SettingSource::Unset, |(_, source)| source);
    let files = app.host.catalog().affected_by(std::slice::from_ref(key));
    let files: Vec<&ConfigFile> = files.collect();
    let services: BTreeSet<String> = files
        .iter()
        .flat_map(|file| services_of(file))
        .filter_map(|(name, command)| command.map(|_| name))
        .collect();
    Some(SettingMetadata {
        doc: lines(doc),
        kind: kind(at).to_string(),
        what: what(at),
        choices: match at {
            Schema::Scalar { choices, .. } => {
                choices.map(|choices| choices.iter().map(|word| word.to_string()).collect())
            }
            _ => None,
        },
        default: schema.shown(&layers.defaults, key),
        generated: field.and_then(|field| field.generated).map(str::to_string),
        value: schema.shown(effective, key),
        source,
        configuration_files: files.iter().map(|file| file.name.clone()).collect(),
        services: services.into_iter().collect(),
    })
}

/// A doc comment without the space at the start of its lines.
fn lines(doc: &str) -> String {
    let lines: Vec<&str> = doc.lines().map(str::trim).collect();
    lines.join("\n").trim().to_string()
}

fn kind(schema: &Schema) -> &'static str {
    match schema {
        Schema::Table { .. } | Schema::Map { .. } => "table",
        Schema::List(_) | Schema::Pair(_) => "list",
        Schema::Either(forms) => kind(&forms.0),
        Schema::Scalar { kind, .. } => kind,
    }
}

/// What is accepted, as a noun.
fn what(schema: &Schema) -> String {
    match schema {
        Schema::Table { .. } => "a table of settings".into(),
        Schema::Map { key, value, .. } => {
            format!("a table; its keys: {key}; its values: {}", what(value))
        }
        Schema::List(item) => format!("a list; its items: {}", what(item)),
        Schema::Pair(pair) => format!("a list of two: {}, and {}", what(&pair.0), what(&pair.1)),
        Schema::Either(forms) => format!("{}; or {}", what(&forms.0), what(&forms.1)),
        Schema::Scalar { what, .. } => what.to_string(),
    }
}

/// `GET /v2/metadata/setting-generators`. All of ours are weak: they run again at each
/// boot and give way to what the user sets.
pub fn setting_generators_with_strength(app: &App) -> Reply {
    let generators: BTreeMap<String, GeneratorMetadata> = app
        .host
        .schema()
        .generators()
        .into_iter()
        .map(|generator| {
            let metadata = GeneratorMetadata {
                command: generator.name.to_string(),
                strength: Strength::Weak.to_string(),
            };
            (generator.key.to_string(), metadata)
        })
        .collect();
    Ok(Answer::json(&generators))
}

/// `GET /metadata/setting-generators`. Ours run inside the server, so what
/// stands for a command line is the generator's name.
pub fn setting_generators(app: &App) -> Reply {
    let generators: Map<String, Value> = app
        .host
        .schema()
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
