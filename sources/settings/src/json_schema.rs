//! The schema as JSON Schema (draft 2020-12), for editors and other programs
//! that check or complete user data.

use crate::{Document, Field, Schema};
use serde_json::{Map, Value, json};

impl Schema {
    /// The schema of a user-data document, with its outer table `settings`. A
    /// setting's default is the one in `defaults`.
    pub fn document_schema(&self, title: &str, defaults: &Document) -> Value {
        let mut settings = self.json_schema();
        set_default(&mut settings, &defaults.to_value());
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": title,
            "type": "object",
            "properties": { "settings": settings },
            "required": ["settings"],
        })
    }

    /// The schema of this place.
    pub fn json_schema(&self) -> Value {
        match self {
            Self::Table {
                doc,
                fields,
                others,
            } => {
                let mut properties = Map::new();
                for field in fields.iter() {
                    let schema = field.json_schema();
                    if let Some(alias) = field.alias {
                        properties.insert(alias.to_string(), schema.clone());
                    }
                    properties.insert(field.name.to_string(), schema);
                }
                let others = match others.as_deref() {
                    Some(Self::Map { value, .. }) => value.json_schema(),
                    _ => Value::Bool(false),
                };
                json!({
                    "type": "object",
                    "description": paragraph(doc),
                    "properties": properties,
                    "additionalProperties": others,
                })
            }
            Self::Map { key, value, .. } => json!({
                "type": "object",
                "description": format!("Keys: {key}."),
                "additionalProperties": value.json_schema(),
            }),
            Self::List(item) => json!({ "type": "array", "items": item.json_schema() }),
            Self::Pair(pair) => json!({
                "type": "array",
                "prefixItems": [pair.0.json_schema(), pair.1.json_schema()],
                "items": false,
                "minItems": 2,
            }),
            Self::Either(forms) => {
                json!({ "anyOf": [forms.0.json_schema(), forms.1.json_schema()] })
            }
            Self::Scalar {
                kind: "boolean",
                choices: Some(choices),
                ..
            } => {
                let flags: Vec<bool> = choices.iter().map(|word| *word == "true").collect();
                json!({ "enum": flags })
            }
            Self::Scalar {
                choices: Some(choices),
                ..
            } => json!({ "enum": choices }),
            Self::Scalar {
                kind,
                what,
                pattern,
                range,
                ..
            } => {
                let mut schema = json!({ "type": kind, "description": what });
                if let Some(pattern) = pattern {
                    schema["pattern"] = (*pattern).into();
                }
                if let Some((least, greatest)) = range {
                    schema["minimum"] = (*least).into();
                    schema["maximum"] = (*greatest).into();
                }
                schema
            }
        }
    }
}

impl Field {
    fn json_schema(&self) -> Value {
        let mut schema = self.schema.json_schema();
        // A setting's own words come first, then what its type says.
        let mut description = paragraph(self.doc);
        if let (Schema::Map { .. } | Schema::Scalar { choices: None, .. }, Some(what)) =
            (&self.schema, schema["description"].as_str())
        {
            let (words, what) = (
                description.trim_end_matches('.'),
                what.trim_end_matches('.'),
            );
            description = format!("{words} ({what}).");
        }
        schema["description"] = description.into();
        if let Some(default) = &self.default {
            schema["default"] = default.clone();
        }
        schema
    }
}

/// Puts a default, or those within a table, into the schema of its place.
fn set_default(schema: &mut Value, default: &Value) {
    match (schema.get_mut("properties"), default) {
        (Some(Value::Object(properties)), Value::Object(defaults)) => {
            for (name, default) in defaults {
                if let Some(schema) = properties.get_mut(name) {
                    set_default(schema, default);
                }
            }
        }
        _ => {
            if let Value::Object(schema) = schema {
                schema.insert("default".into(), default.clone());
            }
        }
    }
}

/// A doc comment as one line.
fn paragraph(doc: &str) -> String {
    let lines: Vec<&str> = doc.lines().map(str::trim).collect();
    lines.join(" ").trim().to_string()
}
