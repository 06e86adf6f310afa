//! What the host has: `/os`, `/services`, `/configuration-files`, and `/`, which
//! is all of it with the settings.

use super::settings::with_prefix;
use super::{nonempty, prefix};
use crate::app::App;
use crate::http::{Answer, Reply, Request};
use api_types::{ConfigurationFile, ConfigurationFiles, Service, Services};
use config_templates::ConfigFile;
use serde::Serialize;
use serde_json::{Map, Value};
use settings_agent::units;

/// `GET /`.
pub async fn everything(app: &App, request: &Request) -> Reply {
    // Here a prefix is a whole one: nothing is implied.
    let prefix = prefix(request, "")?;
    let prefix = prefix.as_deref();
    let settings = app.store.lock().await.effective();
    let mut all = Map::new();
    let parts = [
        (
            "settings",
            Value::Object(with_prefix(settings, prefix).tree().clone()),
        ),
        ("os", starting_with(app.host.os(), "os", prefix)),
        (
            "services",
            starting_with(&list_services(app), "services", prefix),
        ),
        (
            "configuration-files",
            starting_with(&list_files(app), "configuration-files", prefix),
        ),
    ];
    for (name, part) in parts {
        let is_empty = part.as_object().is_none_or(Map::is_empty);
        if prefix.is_none() || !is_empty {
            all.insert(name.to_string(), part);
        }
    }
    Ok(Answer::json(&all))
}

/// `GET /os`.
pub fn os(app: &App, request: &Request) -> Reply {
    let prefix = prefix(request, "os")?;
    Ok(Answer::json(&starting_with(
        app.host.os(),
        "os",
        prefix.as_deref(),
    )))
}

/// `GET /services`.
pub fn services(app: &App, request: &Request) -> Reply {
    choose(request, "services", list_services(app))
}

/// `GET /configuration-files`.
pub fn configuration_files(app: &App, request: &Request) -> Reply {
    choose(request, "configuration-files", list_files(app))
}

/// The services that have to do with `file`. A file without a unit is looked
/// after by a service of its own name that does nothing.
pub fn services_of(file: &ConfigFile) -> Vec<(String, Option<String>)> {
    let restart = file.restart.iter().map(|unit| (unit, true));
    let reload = file.reload.iter().map(|unit| (unit, false));
    let services: Vec<_> = restart
        .chain(reload)
        .map(|(unit, restart)| {
            let name = unit.strip_suffix(".service").unwrap_or(unit);
            (name.to_string(), Some(units::command(restart, unit)))
        })
        .collect();
    if services.is_empty() {
        vec![(file.name.clone(), None)]
    } else {
        services
    }
}

fn list_services(app: &App) -> Services {
    let mut services = Services::new();
    for file in &app.host.catalog().files {
        for (name, command) in services_of(file) {
            let service: &mut Service = services.entry(name).or_default();
            service.configuration_files.push(file.name.clone());
            if let Some(command) = command
                && !service.restart_commands.contains(&command)
            {
                service.restart_commands.push(command);
            }
        }
    }
    services
}

fn list_files(app: &App) -> ConfigurationFiles {
    let files = app.host.catalog().files.iter();
    files
        .map(|file| {
            let entry = ConfigurationFile {
                path: file.path.clone(),
                template_path: file.template.clone(),
                mode: (file.mode != "0644").then(|| file.mode.clone()),
            };
            (file.name.clone(), entry)
        })
        .collect()
}

/// Those of `all` that the request names, by name or by prefix.
fn choose(
    request: &Request,
    what: &str,
    all: std::collections::BTreeMap<String, impl Serialize>,
) -> Reply {
    if let Some(names) = nonempty(request, "names")? {
        let mut chosen = Map::new();
        for name in names.split(',') {
            let entry = all
                .get(name)
                .ok_or_else(|| Answer::text(404, format!("{what} has no entry {name:?}")))?;
            let entry = serde_json::to_value(entry)
                .map_err(|error| Answer::text(500, format!("cannot write JSON: {error}")))?;
            chosen.insert(name.to_string(), entry);
        }
        return Ok(Answer::json(&chosen));
    }
    let prefix = prefix(request, what)?;
    Ok(Answer::json(&starting_with(&all, what, prefix.as_deref())))
}

/// The parts of `value`, which is called `name`, whose dotted names begin with
/// `prefix`.
fn starting_with(value: &impl Serialize, name: &str, prefix: Option<&str>) -> Value {
    fn keep(value: Value, name: &str, prefix: &str) -> Option<Value> {
        match value {
            _ if name.starts_with(prefix) => Some(value),
            Value::Object(table) => {
                let kept: Map<String, Value> = table
                    .into_iter()
                    .filter_map(|(key, value)| {
                        let value = keep(value, &format!("{name}.{key}"), prefix)?;
                        Some((key, value))
                    })
                    .collect();
                (!kept.is_empty()).then_some(Value::Object(kept))
            }
            _ => None,
        }
    }
    let value = serde_json::to_value(value).unwrap_or_default();
    match prefix {
        None => value,
        Some(prefix) => keep(value, name, prefix).unwrap_or_else(|| Value::Object(Map::new())),
    }
}
