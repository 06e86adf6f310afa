//! `complete-key`: names of settings, for completion scripts.

use crate::cli::{Command, Hint, Operands, Subcommand};
use crate::context::Context;
use anyhow::Result;
use serde_json::Value;

/// `complete-key`.
pub const SUBCOMMAND: Subcommand = Subcommand {
    name: "complete-key",
    summary: "list the settings whose names begin with a text",
    forms: &["complete-key [PREFIX]"],
    about: &[
        "For completion scripts. With a PREFIX that begins with settings. names are listed in \
         full, else without it.",
    ],
    examples: &["complete-key ntp."],
    flags: &[],
    operands: Operands::One(Hint::Key),
    ours: true,
    hidden: true,
    parse: |matches| {
        Ok(Box::new(CompleteKey {
            prefix: matches.operands()?.pop().unwrap_or_default(),
        }))
    },
};

const ROOT: &str = "settings.";

#[derive(Debug)]
struct CompleteKey {
    prefix: String,
}

impl Command for CompleteKey {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        // A server that does not describe its settings still shows those that
        // have a value.
        let keys = match context.get_json("/metadata/settings") {
            Ok(Value::Object(described)) => described.into_iter().map(|(key, _)| key).collect(),
            _ => {
                let mut keys = Vec::new();
                let all = context.get_json("/settings")?;
                collect(&all, "settings", &mut keys);
                keys
            }
        };
        for name in matching(&keys, &self.prefix) {
            writeln!(context.out, "{name}")?;
        }
        Ok(0)
    }
}

fn collect(value: &Value, name: &str, keys: &mut Vec<String>) {
    match value {
        Value::Object(table) => {
            for (part, value) in table {
                collect(value, &format!("{name}.{part}"), keys);
            }
        }
        _ => keys.push(name.to_string()),
    }
}

/// The keys that begin with a text. Those with a part that is quoted, or that
/// the user makes up, are not for a shell to complete.
fn matching<'k>(keys: &'k [String], prefix: &str) -> Vec<&'k str> {
    let plain = |key: &&str| {
        key.bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
    };
    let short = |key: &'k String| {
        if prefix.starts_with(ROOT) {
            Some(key.as_str())
        } else {
            key.strip_prefix(ROOT)
        }
    };
    let names = keys.iter().filter_map(short).filter(plain);
    names.filter(|name| name.starts_with(prefix)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names() {
        let mut keys = vec![
            "settings.map.<name>".to_string(),
            "settings.map.\"a.b\"".to_string(),
        ];
        let tree = json!({"motd": "x", "ntp": {"options": [], "time-servers": ["a"]}});
        collect(&tree, "settings", &mut keys);
        for (prefix, expected) in [
            ("", &["motd", "ntp.options", "ntp.time-servers"][..]),
            ("ntp.t", &["ntp.time-servers"]),
            ("settings.m", &["settings.motd"]),
            ("map", &[]),
            ("x", &[]),
        ] {
            assert_eq!(matching(&keys, prefix), expected, "{prefix}");
        }
    }
}
