//! `/settings`: what holds, and changes to it within transactions.

use super::{keys, prefix, refusal, strength, transaction};
use crate::app::App;
use crate::http::{Answer, Reply, Request};
use api_types::SettingChange;
use serde_json::{Map, Value};
use settings::{Document, Key};
use settings_store::Layers;

/// `GET /settings`.
pub async fn get(app: &App, request: &Request) -> Reply {
    let keys = keys(request)?;
    let prefix = prefix(request, "settings")?;
    let settings = app.store.lock().await.effective();
    if let Some(keys) = keys {
        if let Some(missing) = keys.iter().find(|key| settings.get(key).is_none()) {
            return Err(Answer::text(404, format!("{missing} is not set")));
        }
        let chosen = settings.filter(|key| keys.iter().any(|wanted| key.is_within(wanted)));
        return Ok(Answer::json(chosen.tree()));
    }
    Ok(Answer::json(
        with_prefix(settings, prefix.as_deref()).tree(),
    ))
}

/// The settings whose dotted name begins with `prefix`.
pub fn with_prefix(settings: Document, prefix: Option<&str>) -> Document {
    match prefix {
        None => settings,
        Some(prefix) => settings.filter(|key| key.to_string().starts_with(prefix)),
    }
}

/// `GET /settings/changes` (ours): what the user set, against what would hold
/// otherwise, without secrets.
pub async fn changes(app: &App) -> Reply {
    let schema = app.host.schema();
    let Layers {
        mut defaults,
        generated,
        user,
    } = app.store.lock().await.layers();
    defaults.merge(&generated);
    let changes: Vec<SettingChange> = user
        .keys()
        .into_iter()
        .map(|key| SettingChange {
            value: schema.shown(&user, &key).unwrap_or_default(),
            default: schema.shown(&defaults, &key),
            key: key.to_string(),
        })
        .collect();
    Ok(Answer::json(&changes))
}

/// `PATCH /settings`.
pub async fn patch(app: &App, request: &Request) -> Reply {
    let strength = strength(request)?;
    let tree: Value = serde_json::from_slice(&request.body)
        .map_err(|error| Answer::text(400, format!("the body is not JSON: {error}")))?;
    let mut store = app.store.lock().await;
    store
        .set(transaction(request), &tree, strength)
        .map_err(refusal)?;
    Ok(Answer::done())
}

/// `PATCH /settings/keypair`.
pub async fn patch_key_pairs(app: &App, request: &Request) -> Reply {
    let strength = strength(request)?;
    let pairs: api_types::KeyPairs = serde_json::from_slice(&request.body).map_err(|error| {
        Answer::text(
            400,
            format!("the body is not {{\"request_payload\":[…]}}: {error}"),
        )
    })?;
    let mut tree = Value::Object(Map::new());
    for (n, pair) in pairs.request_payload.iter().enumerate() {
        // What has no key may be a secret, so it is not repeated.
        let (key, text) = pair.split_once('=').ok_or_else(|| {
            let reason = format!("pair {} is not of the form key=value", n + 1);
            Answer::text(400, reason)
        })?;
        let key: Key = key
            .trim()
            .parse()
            .map_err(|error| Answer::text(400, format!("{error}")))?;
        settings::lay_over(&mut tree, &Document::single(&key, typed(text)));
    }
    let mut store = app.store.lock().await;
    store
        .set(transaction(request), &tree, strength)
        .map_err(refusal)?;
    Ok(Answer::done())
}

/// The type of a bare text, guessed without regard to the setting, as clients
/// have come to rely on: boolean, integer, other number, text.
fn typed(text: &str) -> Value {
    if let Ok(flag) = text.parse::<bool>() {
        return flag.into();
    }
    if let Ok(number) = text.parse::<u64>() {
        return number.into();
    }
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    let number = text.parse().ok().and_then(serde_json::Number::from_f64);
    number.map_or_else(|| text.into(), Value::Number)
}

/// `DELETE /settings?keys=…` (ours): the settings lose what the user gave them.
pub async fn unset(app: &App, request: &Request) -> Reply {
    let keys = keys(request)?.ok_or_else(|| Answer::text(400, "parameter keys is missing"))?;
    let schema = app.host.schema();
    let keys: Vec<Key> = keys.iter().map(|key| schema.canonical(key)).collect();
    let mut store = app.store.lock().await;
    store.unset(transaction(request), &keys).map_err(refusal)?;
    Ok(Answer::done())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_of_bare_texts() {
        for (text, expected) in [
            ("true", json!(true)),
            ("True", json!("True")),
            ("42", json!(42)),
            ("-1", json!(-1)),
            ("1e3", json!(1000.0)),
            ("1.5", json!(1.5)),
            ("nan", json!("nan")),
            ("inf", json!("inf")),
            ("", json!("")),
            (" 1", json!(" 1")),
            ("0x10", json!("0x10")),
            ("[1]", json!("[1]")),
        ] {
            assert_eq!(typed(text), expected, "{text}");
        }
    }
}
