//! Bad documents, made for every setting there is: each is refused, by an error
//! that names the setting.

use settings::{Document, Faults, Key, Model, Schema, Settings, limits, properties};
use std::collections::BTreeSet;

/// Settings whose texts may have more than one line, since they are never
/// rendered without quotes.
const MULTI_LINE: &[&str] = &[
    "settings.motd",
    "settings.host-containers.my-name.command",
    "settings.bootstrap-containers.my-name.command",
    "settings.bootstrap-commands.my-name.commands",
];

/// Settings that take a quote in a text, so that templates have to quote them.
const FREE_TEXTS: &[&str] = &[
    "settings.aws.profile",
    "settings.aws.region",
    "settings.boot.init.log_buf_len",
    "settings.boot.kernel.log_buf_len",
    "settings.bootstrap-commands.my-name.commands",
    "settings.bootstrap-containers.my-name.command",
    "settings.cloudformation.logical-resource-id",
    "settings.cloudformation.stack-name",
    "settings.host-containers.my-name.command",
    "settings.kernel.sysctl.\"vm.max_map_count\"",
    "settings.kubernetes.allowed-unsafe-sysctls",
    "settings.kubernetes.container-runtime-endpoint",
    "settings.kubernetes.credential-providers.my-name.environment.AWS_PROFILE",
    "settings.kubernetes.credential-providers.my-name.image-patterns",
    "settings.kubernetes.pod-infra-container-image",
    "settings.measurement.excluded-settings",
    "settings.motd",
    "settings.network.no-proxy",
    "settings.ntp.options",
];

/// Values that are refused, in TOML.
fn bad_values(schema: &Schema, is_multi_line: bool) -> Vec<String> {
    let own = |values: &[&str]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut values = own(&["1979-05-27"]);
    match schema {
        Schema::Scalar {
            kind,
            choices,
            range,
            ..
        } => match (*kind, choices) {
            (_, Some(choices)) => {
                values.extend(own(&["\"no-such-word\"", "1", "[]"]));
                let first = choices.iter().find(|choice| !choice.is_empty());
                values.extend(first.map(|word| format!("\"{word}\\n\"")));
            }
            ("string", _) => {
                let texts = ["\"a\\u0000b\"", "\"a\\u001b[1mb\"", "\"a\\u0085b\""];
                // Only a motd may be coloured.
                let is_motd =
                    matches!(schema, Schema::Scalar { what, .. } if what.contains("64 KiB"));
                if !is_motd {
                    values.extend(own(&texts));
                }
                values.extend(own(&["7", "7.0", "true", "[[]]"]));
                if !is_multi_line {
                    values.extend(own(&["\"a\\nb\"", "\"\"\"a\r\nb\"\"\"", "\"a\\rb\""]));
                }
            }
            ("boolean", _) => values.extend(own(&["1", "\"true\"", "\"\"", "[true]"])),
            ("number", _) => values.extend(own(&["2.5", "-1", "\"0.5\"", "nan", "inf"])),
            ("integer", _) => {
                values.extend(own(&[
                    "5.0",
                    "\"x\"",
                    "true",
                    "99999999999999999999",
                    "[1]",
                ]));
                let (least, greatest) = range.expect("whole numbers have a range");
                values.extend(least.checked_sub(1).map(|number| number.to_string()));
                values.extend(greatest.checked_add(1).map(|number| number.to_string()));
            }
            other => panic!("a kind of scalar that is not known here: {other:?}"),
        },
        Schema::List(item) => {
            values.extend(own(&["7", "\"text\"", "{ a = 1 }"]));
            let good = item.example();
            for bad in bad_values(item, is_multi_line) {
                values.push(format!("[{bad}]"));
                values.push(format!("[{good}, {bad}]"));
            }
        }
        Schema::Pair(pair) => {
            values.extend(own(&["[]", "[1]", "\"text\"", "{}"]));
            let (first, second) = (pair.0.example(), pair.1.example());
            values.push(format!("[{first}, {second}, {second}]"));
            values.extend(
                bad_values(&pair.0, is_multi_line)
                    .iter()
                    .map(|bad| format!("[{bad}, {second}]")),
            );
            values.extend(
                bad_values(&pair.1, is_multi_line)
                    .iter()
                    .map(|bad| format!("[{first}, {bad}]")),
            );
        }
        Schema::Either(forms) => {
            values.extend(own(&[
                "true",
                "1.5",
                "\"a\\nb\"",
                "\"a\\u0000b\"",
                "\"\"",
                "[[]]",
            ]));
            if let Schema::List(item) = &forms.0 {
                values.extend(
                    bad_values(item, is_multi_line)
                        .iter()
                        .map(|bad| format!("[{bad}]")),
                );
            }
        }
        // Only within lists: elsewhere their fields are settings.
        Schema::Table { fields, .. } => {
            values.extend(own(&["7", "{ no-such-key = 1 }"]));
            for field in fields.iter() {
                let bad = bad_values(&field.schema, is_multi_line);
                values.extend(
                    bad.iter()
                        .map(|bad| format!("{{ {} = {bad} }}", field.name)),
                );
            }
        }
        Schema::Map { .. } => {}
    }
    values
}

fn refused(text: &str) -> Faults {
    match Document::from_toml(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(faults) => faults,
    }
}

/// Refuses `text` by a fault of `key` or of what lies below it, on one line.
fn refused_for(text: &str, key: &Key) {
    let faults = refused(text);
    assert!(
        faults.iter().all(|fault| fault.key.touches(key)),
        "{text}: {faults}"
    );
    assert!(
        faults.iter().all(|fault| fault.line == Some(1)),
        "{text}: {faults}"
    );
    let said = faults.to_string();
    assert!(said.contains(&key.to_string()), "{text}: {said}");
    let is_plain = |c: char| c == '\n' || !c.is_control();
    assert!(said.chars().all(is_plain), "{text}: {said:?}");
}

#[test]
fn bad_values_are_refused_in_every_setting() {
    let mut documents = 0;
    for (key, schema, _) in properties::all_settings() {
        let is_multi_line = MULTI_LINE.contains(&key.to_string().as_str());
        for value in bad_values(&schema, is_multi_line) {
            refused_for(&format!("{key} = {value}"), &key);
            documents += 1;
        }
        // Nor is anything below a setting.
        refused_for(&format!("{key}.no-such-key = 1"), &key);
        documents += 1;
    }
    assert!(documents > 1500, "{documents} documents");
}

#[test]
fn good_values_are_taken_in_every_setting() {
    let quoted = "\"it's\"";
    let mut free = BTreeSet::new();
    for (key, schema, example) in properties::all_settings() {
        let is_half = key
            .parts()
            .last()
            .is_some_and(|part| matches!(part.as_str(), "hard-limit" | "soft-limit"));
        let text = format!("{key} = {example}");
        assert_eq!(Document::from_toml(&text).is_ok(), !is_half, "{text}");
        let fields = match &schema {
            Schema::Either(forms) => match &forms.0 {
                Schema::List(item) => item.as_ref().clone(),
                form => form.clone(),
            },
            Schema::List(item) => match item.as_ref() {
                Schema::List(words) => Schema::List(words.clone()),
                item => item.clone(),
            },
            schema => schema.clone(),
        };
        let field = match &fields {
            Schema::Table { fields, .. } => fields.first().map(|field| field.name),
            _ => None,
        };
        let forms = [
            quoted.to_string(),
            format!("[{quoted}]"),
            format!("[[\"apiclient\", {quoted}]]"),
            format!("[{{ {} = {quoted} }}]", field.unwrap_or("x")),
        ];
        let is_taken = |form: &String| Document::from_toml(&format!("{key} = {form}")).is_ok();
        // Templates never see these: they are merged into what was rendered, as data.
        let is_merged = key.parts()[0].ends_with("-configuration");
        if !is_merged && forms.iter().any(is_taken) {
            free.insert(key.to_string());
        }
    }
    let expected: BTreeSet<String> = FREE_TEXTS.iter().map(ToString::to_string).collect();
    assert_eq!(free, expected);
}

/// Calls `check` with the key of each table and what it is.
fn tables(schema: &Schema, at: &Key, check: &mut dyn FnMut(&Key, &Schema)) {
    match schema {
        Schema::Table { fields, others, .. } => {
            check(at, schema);
            for field in fields.iter() {
                tables(&field.schema, &at.child(field.name), check);
            }
            if let Some(others) = others {
                tables(others, at, check);
            }
        }
        Schema::Map { example, value, .. } => {
            check(at, schema);
            tables(value, &at.child(example), check);
        }
        _ => {}
    }
}

#[test]
fn bad_names_and_tables_are_refused_everywhere() {
    let mut documents = 0;
    tables(&Settings::schema(), &Key::root(), &mut |at, schema| {
        for value in ["1", "'text'", "[]", "true"] {
            refused_for(&format!("{at} = {value}"), at);
            documents += 1;
        }
        let (names, value) = match schema {
            Schema::Map { value, .. } => (
                vec![
                    "\"\"",
                    "\"a b\\nc\"",
                    "\"\\u0000\"",
                    "\"\u{e4}\"",
                    "'\"'",
                    "\"a\\\\b\"",
                ],
                value.example(),
            ),
            _ => (
                vec!["no-such-key", "\"a\\nb\"", "\"\"", "'\"'", "\"\\u001b[1m\""],
                "1".into(),
            ),
        };
        for name in names {
            refused_for(&format!("{at}.{name} = {value}"), at);
            documents += 1;
        }
        // One letter wrong, and the right key is named.
        if let Schema::Table {
            fields,
            others: None,
            ..
        } = schema
        {
            for field in fields.iter().filter(|field| field.name.len() > 3) {
                let wrong = format!("{}x", field.name);
                let known = |name: &str| fields.iter().any(|field| field.name == name);
                if !known(&wrong) {
                    let said = refused(&format!("{} = 1", at.child(&wrong))).to_string();
                    let right = format!("did you mean {}?", at.child(field.name));
                    assert!(said.contains(&right), "{said}");
                    documents += 1;
                }
            }
        }
    });
    assert!(documents > 600, "{documents} documents");
}

#[test]
fn odd_documents_are_refused() {
    let large = format!("[settings]\n#{}", "x".repeat(limits::DOCUMENT_BYTES));
    let exact = format!("[settings]\n#{}", "x".repeat(limits::DOCUMENT_BYTES - 12));
    assert_eq!(exact.len(), limits::DOCUMENT_BYTES);
    assert_eq!(Document::from_toml(&exact), Ok(Some(Document::default())));
    let nested = |open: &str, close: &str, depth: usize| {
        format!(
            "settings.motd = {}{}",
            open.repeat(depth),
            close.repeat(depth)
        )
    };
    let deep_key = format!("settings{} = 1", ".a".repeat(50_000));
    let many = (0..20_000)
        .map(|n| format!("k{n} = ''\n"))
        .collect::<String>();
    for (text, reason) in [
        (large, "at most 2097152 are taken"),
        (nested("[", "]", 60_000), "not TOML"),
        (nested("{ a = ", "}", 60_000), "not TOML"),
        (nested("[", "]", 50), "settings.motd: expected a text"),
        (deep_key, "settings"),
        (
            format!("[settings.kernel.sysctl]\n{many}"),
            "at most 10000 are taken",
        ),
        (
            format!("settings.ntp.options = [{}]", "'',".repeat(20_000)),
            "at most 10000 are taken",
        ),
        (
            "[settings]\nmotd = 'a'\nmotd = 'b'".into(),
            "motd is there twice",
        ),
        (
            "[settings]\nmotd = 'a'\n\"motd\" = 'b'".into(),
            "is there twice",
        ),
        (
            "[settings.ntp]\n[settings.ntp]".into(),
            "[settings.ntp] is there twice",
        ),
        (
            "[settings.kubernetes]\nmax-pods = 1\n[settings.kubernetes]\nmax-pods = 2".into(),
            "is there twice",
        ),
        ("settings = { ntp = {} }\n[settings.ntp]".into(), "not TOML"),
        ("[[settings]]".into(), "expected a table, got a list"),
        ("settings = []".into(), "expected a table, got a list"),
        (
            "[Settings]\nmotd = 'a'".into(),
            "no top-level table [settings]",
        ),
        ("motd = 'a'".into(), "no top-level table [settings]"),
        ("{\"settings\": {}}".into(), "not TOML"),
        ("settings:\n  motd: a".into(), "not TOML"),
        (
            "[settings]\nmotd = \"\\q\"".into(),
            "line 2: settings: not TOML",
        ),
        (
            "[settings]\nmotd = 'a' 'b'".into(),
            "line 2: settings: not TOML",
        ),
        ("[settings]\nmotd = \"a\nb\"".into(), "settings: not TOML"),
        (
            "[settings]\nmotd = '\u{0}'".into(),
            "line 2: settings: not TOML",
        ),
        ("\u{feff}\u{feff}[settings]".into(), "not TOML"),
    ] {
        let said = refused(&text).to_string();
        assert!(
            said.contains(reason),
            "{}: {said}",
            &text[..text.len().min(80)]
        );
    }
}
