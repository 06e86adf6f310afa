//! The reference page of settings is made from the model. With
//! `UPDATE_EXPECT=1` it is written anew.

use expect_test::expect_file;
use settings::{Document, Field, Key, Model, Schema, Scope, Settings};
use std::fmt::Write;

const HEAD: &str = "# Settings\n\n\
    Made from the model in `sources/settings`; `UPDATE_EXPECT=1 cargo test -p settings` writes\n\
    it anew. A part in angle brackets stands for a name of your choice; one with a dot in it\n\
    is quoted, as in `settings.kernel.sysctl.\"vm.swappiness\"`. Defaults can differ between\n\
    variants: `apiclient get settings` shows what holds.\n";

#[test]
fn the_reference_page_is_up_to_date() {
    let mut page = String::from(HEAD);
    let schema = Settings::schema();
    let Schema::Table { fields, .. } = &schema else {
        panic!("settings are a table");
    };
    for group in fields.iter() {
        let _ = write!(
            page,
            "\n## settings.{}\n\n{}\n",
            group.name,
            text(group.doc)
        );
        let at = Place::of(group);
        match &group.schema {
            Schema::Table { .. } | Schema::Map { .. } if group.example.is_none() => {
                if let Some(scope) = variants(at.scope) {
                    let _ = write!(page, "\n{scope}\n");
                }
                describe(&group.schema, &at, &mut page);
            }
            _ => facts(group, &at, &mut page),
        }
    }
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/reference/settings.md"
    );
    expect_file![path].assert_eq(&page);
    assert_examples_are_good(&page);
}

/// Checks that the model takes each example of the page, and that it sets
/// something.
fn assert_examples_are_good(page: &str) {
    let mut count = 0;
    for block in page.split("```toml\n").skip(1) {
        let (example, _) = block.split_once("```").expect("the block's end");
        let document = Document::from_toml(example)
            .unwrap_or_else(|faults| panic!("{example}{faults}"))
            .unwrap_or_default();
        assert!(!document.is_empty(), "{example}");
        let (name, _) = example.split_once(" = ").expect(example);
        let key: Key = name.parse().expect(name);
        let schema = Settings::schema();
        assert!(schema.knows(&key), "{key}");
        count += 1;
    }
    assert!(count > 200, "{count} examples were found");
}

/// Where a setting is, and which variants have it.
struct Place {
    shown: String,
    example: Key,
    scope: Scope,
}

impl Place {
    fn of(group: &Field) -> Self {
        Self {
            shown: format!("settings.{}", group.name),
            example: Key::from_parts([group.name]),
            scope: group.scope,
        }
    }

    fn below(&self, part: &str, example: &str, scope: Scope) -> Self {
        Self {
            shown: format!("{}.{part}", self.shown),
            example: self.example.child(example),
            scope: match scope {
                Scope::All => self.scope,
                narrower => narrower,
            },
        }
    }
}

fn describe(schema: &Schema, at: &Place, page: &mut String) {
    match schema {
        Schema::Table { fields, others, .. } => {
            for field in fields.iter() {
                let at = at.below(field.name, field.name, field.scope);
                // What has an example of its own is written as a whole.
                if field.example.is_some() || !has_settings(&field.schema) {
                    let _ = write!(page, "\n### `{}`\n\n{}\n", at.shown, text(field.doc));
                    facts(field, &at, page);
                } else {
                    describe(&field.schema, &at, page);
                }
            }
            if let Some(others) = others {
                describe(others, at, page);
            }
        }
        Schema::Map { value, example, .. } => {
            describe(value, &at.below("<name>", example, Scope::All), page)
        }
        _ => panic!("{} has no settings of its own", at.shown),
    }
}

/// True if there are settings with names of their own below.
fn has_settings(schema: &Schema) -> bool {
    match schema {
        Schema::Table { .. } => true,
        Schema::Map { value, .. } => has_settings(value),
        _ => false,
    }
}

fn facts(field: &Field, at: &Place, page: &mut String) {
    let mut facts = vec![kind(&field.schema)];
    if let Some(alias) = field.alias {
        facts.push(format!("Also taken as `{alias}`."));
    }
    if let Some(default) = &field.default {
        facts.push(format!("Default: `{default}`."));
    }
    if let Some(generator) = field.generated {
        facts.push(format!(
            "While it is unset, the host generates it (`{generator}`)."
        ));
    }
    if field.secret {
        facts.push("A secret: no report, difference or log shows it.".to_string());
    }
    facts.extend(variants(at.scope));
    let example = field.example();
    let _ = write!(
        page,
        "\n{}\n\n```toml\n{} = {example}\n```\n",
        facts.join(" "),
        at.example
    );
}

fn variants(scope: Scope) -> Option<String> {
    (scope != Scope::All).then(|| format!("Only in {}.", scope.words()))
}

fn kind(schema: &Schema) -> String {
    fn words(schema: &Schema) -> String {
        match schema {
            Schema::List(item) => format!("a list, each item {}", words(item)),
            Schema::Pair(pair) => {
                format!("a list of two: {}, and {}", words(&pair.0), words(&pair.1))
            }
            Schema::Either(forms) => format!("{}; or {}", words(&forms.0), words(&forms.1)),
            Schema::Scalar {
                kind: "boolean",
                choices: Some(choices),
                ..
            } => format!("`{}`", choices.join("` or `")),
            Schema::Scalar {
                choices: Some(choices),
                ..
            } => choices
                .iter()
                .map(|choice| format!("`\"{choice}\"`"))
                .collect::<Vec<_>>()
                .join(" or "),
            Schema::Scalar { what, .. } => what.to_string(),
            Schema::Table { fields, .. } => {
                let names: Vec<_> = fields
                    .iter()
                    .map(|field| {
                        let scope = match field.scope {
                            Scope::All => String::new(),
                            scope => format!("; only in {}", scope.words()),
                        };
                        format!("`{}` ({}{scope})", field.name, words(&field.schema))
                    })
                    .collect();
                format!("a table of {}", names.join(", "))
            }
            Schema::Map { key, value, .. } => {
                format!("a table; its keys: {key}; its values: {}", words(value))
            }
        }
    }
    let mut text = words(schema);
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    format!("{text}.")
}

fn text(doc: &str) -> String {
    let lines: Vec<&str> = doc.lines().map(str::trim).collect();
    lines.join("\n").trim().to_string()
}
