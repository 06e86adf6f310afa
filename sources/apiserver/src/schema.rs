//! Schemas of what travels over the socket (JSON Schema, as OpenAPI 3.1 has it), for
//! `docs/reference`. Tests hold real answers against them.

use serde_json::{Value, json};

fn table(properties: Value, optional: &[&str]) -> Value {
    let names = properties
        .as_object()
        .map(|properties| properties.keys())
        .into_iter()
        .flatten();
    let required: Vec<&String> = names
        .filter(|name| !optional.contains(&name.as_str()))
        .collect();
    json!({
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": false,
    })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn by_name(value: Value) -> Value {
    json!({ "type": "object", "additionalProperties": value })
}

/// A tree of settings; what may be in it says `GET /metadata/settings`.
pub(crate) fn settings() -> Value {
    json!({ "type": "object" })
}

pub(crate) fn texts() -> Value {
    list(text())
}

pub(crate) fn text_by_name() -> Value {
    by_name(text())
}

pub(crate) fn lists_of_texts() -> Value {
    by_name(texts())
}

pub(crate) fn everything() -> Value {
    let properties = json!({
        "settings": settings(),
        "os": os(),
        "services": services(),
        "configuration-files": configuration_files(),
    });
    table(
        properties,
        &["settings", "os", "services", "configuration-files"],
    )
}

pub(crate) fn key_pairs() -> Value {
    table(json!({ "request_payload": texts() }), &[])
}

/// A prefix may leave out any of it.
pub(crate) fn os() -> Value {
    let names = [
        "pretty_name",
        "variant_id",
        "version_id",
        "build_id",
        "arch",
    ];
    let properties = names.map(|name| (name.to_string(), text()));
    table(Value::Object(properties.into_iter().collect()), &names)
}

pub(crate) fn services() -> Value {
    let names = ["configuration-files", "restart-commands"];
    by_name(table(
        json!({ "configuration-files": texts(), "restart-commands": texts() }),
        &names,
    ))
}

pub(crate) fn configuration_files() -> Value {
    let names = ["path", "template-path", "mode"];
    by_name(table(
        json!({ "path": text(), "template-path": text(), "mode": text() }),
        &names,
    ))
}

/// The keys; or what was done, for whoever waited.
pub(crate) fn changed() -> Value {
    let done = json!({
        "changed": texts(),
        "files": texts(),
        "restarted": texts(),
        "reloaded": texts(),
        "failures": texts(),
    });
    json!({ "oneOf": [texts(), table(done, &[])] })
}

pub(crate) fn changes() -> Value {
    list(table(
        json!({ "key": text(), "value": true, "default": true }),
        &[],
    ))
}

pub(crate) fn history() -> Value {
    list(table(
        json!({
            "id": { "type": "integer" },
            "time": { "type": ["string", "null"], "format": "date-time" },
            "origin": { "enum": ["user-data", "api", "rollback"] },
            "keys": texts(),
        }),
        &[],
    ))
}

pub(crate) fn transaction_with_strength() -> Value {
    let strength = table(json!({ "strength": { "enum": ["strong", "weak"] } }), &[]);
    table(
        json!({ "settings": settings(), "metadata": by_name(strength) }),
        &[],
    )
}

pub(crate) fn generators() -> Value {
    by_name(table(
        json!({ "command": text(), "strength": { "enum": ["strong", "weak"] } }),
        &[],
    ))
}

pub(crate) fn settings_metadata() -> Value {
    by_name(table(
        json!({
            "doc": text(),
            "kind": { "enum": ["string", "boolean", "integer", "number", "list", "table"] },
            "what": text(),
            "choices": texts(),
            "default": true,
            "generated": text(),
            "value": true,
            "source": { "enum": ["default", "generated", "user", "unset"] },
            "configuration-files": texts(),
            "services": texts(),
        }),
        &["choices", "default", "generated", "value"],
    ))
}

pub(crate) fn reports() -> Value {
    list(table(json!({ "name": text(), "description": text() }), &[]))
}

pub(crate) fn support_bundle() -> Value {
    table(
        json!({ "path": text(), "bytes": { "type": "integer" } }),
        &[],
    )
}

pub(crate) fn user_data_check() -> Value {
    let fault = table(
        json!({
            "key": text(),
            "line": { "type": ["integer", "null"] },
            "reason": text(),
            "suggestion": text(),
            "severity": { "enum": ["fatal", "skipped"] },
        }),
        &["suggestion"],
    );
    table(json!({ "faults": list(fault) }), &[])
}

pub(crate) fn update_status() -> Value {
    let or_none = |schema: Value| json!({ "anyOf": [schema, { "type": "null" }] });
    let image = || {
        table(
            json!({ "arch": text(), "version": text(), "variant": text() }),
            &[],
        )
    };
    let slot = || {
        table(
            json!({ "image": image(), "next_to_boot": { "type": "boolean" } }),
            &[],
        )
    };
    let command = table(
        json!({
            "cmd_type": { "enum": ["refresh", "prepare", "activate", "deactivate"] },
            "cmd_status": { "enum": ["Success", "Failed", "Unknown"] },
            "timestamp": text(),
            "exit_status": { "type": ["integer", "null"] },
            "stderr": { "type": ["string", "null"] },
        }),
        &[],
    );
    table(
        json!({
            "update_state": { "enum": ["Idle", "Available", "Staged", "Ready"] },
            "available_updates": texts(),
            "chosen_update": or_none(image()),
            "active_partition": or_none(slot()),
            "staging_partition": or_none(slot()),
            "most_recent_command": or_none(command),
            "given_up": text_by_name(),
        }),
        &["given_up"],
    )
}

pub(crate) fn ephemeral_storage_init() -> Value {
    let or_none = |schema: Value| json!({ "anyOf": [schema, { "type": "null" }] });
    let flag = || json!({ "type": "boolean" });
    let preference = table(
        json!({ "ephemeral_disk": flag(), "ebs_volume": flag() }),
        &[],
    );
    table(
        json!({
            "filesystem": { "enum": ["Xfs", "Ext4", null] },
            "disks": or_none(texts()),
            "ebs_volumes": or_none(texts()),
            "prefer": or_none(list(preference)),
        }),
        &["filesystem", "disks", "ebs_volumes", "prefer"],
    )
}

pub(crate) fn ephemeral_storage_bind() -> Value {
    table(json!({ "targets": texts() }), &[])
}
