//! What a catalog may say, what a template may do, and what writing replaces.

#![allow(clippy::unwrap_used, reason = "a test")]

use config_templates::{Catalog, Os, check, render};
use serde_json::{Value, json};
use settings::Document;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use tempfile::TempDir;

/// A catalog of files that have only a name, a template, settings and a format.
fn catalog(files: &[(&str, &str, &str)]) -> String {
    files
        .iter()
        .map(|(name, settings, format)| {
            format!(
                "[[config-file]]\nname = \"{name}\"\npath = \"/etc/sub/{name}\"\n\
                 template = \"/templates/{name}\"\nsettings = [{settings}]\nformat = \"{format}\"\n\
                 restart = [\"{name}.service\", \"shared.service\"]\nreload = [\"shared.service\", \"also.service\"]\n"
            )
        })
        .collect()
}

fn root(templates: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("templates")).unwrap();
    for (name, text) in templates {
        fs::write(root.path().join("templates").join(name), text).unwrap();
    }
    root
}

fn document(tree: Value) -> Document {
    Document::from_value(&tree).unwrap()
}

/// Renders one template that reads all settings, as text.
fn rendered(template: &str, format: &str, settings: Value) -> Result<String, String> {
    let root = root(&[("x", template)]);
    let all = r#""motd", "ntp", "network", "dns", "kernel", "pki""#;
    let catalog = Catalog::parse(&catalog(&[("x", all, format)])).unwrap();
    render(
        &catalog.files,
        root.path(),
        &document(settings),
        &Os::default(),
    )
    .map(|rendered| rendered.files()[0].text.clone())
    .map_err(|error| format!("{error:#}"))
}

#[test]
fn templates() {
    for (template, settings, expected) in [
        ("plain\n", json!({}), "plain\n"),
        ("{{ settings.motd }}", json!({"motd": "<&\"'>"}), "<&\"'>"),
        ("{{ settings.motd | default('-') }}", json!({}), "-"),
        (
            "{% if settings.network.hostname is defined %}x{% endif %}",
            json!({}),
            "",
        ),
        (
            "{{ settings.ntp | tojson }}",
            json!({"ntp": {"options": ["a"]}}),
            r#"{"options":["a"]}"#,
        ),
        (
            "{{ settings.kernel.sysctl['a.b'] }}",
            json!({"kernel": {"sysctl": {"a.b": "c"}}}),
            "c",
        ),
        (
            "{% for name, bundle in settings.pki | items %}{{ name }}{% endfor %}",
            json!({}),
            "",
        ),
        ("{{ 'aGk=' | base64_decode }}", json!({}), "hi"),
        ("{{ os.arch }}", json!({}), ""),
    ] {
        assert_eq!(
            rendered(template, "text", settings).as_deref(),
            Ok(expected),
            "{template}"
        );
    }
}

#[test]
fn faulty_templates_say_which_file_and_why() {
    for (template, format, reason) in [
        (
            "a\n{{ settings.motd }}",
            "text",
            "undefined value (in /templates/x:2)",
        ),
        ("{{ settings.nothing.x }}", "text", "undefined value"),
        ("{{ nothing }}", "text", "undefined value"),
        ("{% if %}", "text", "syntax error"),
        ("{{ 'x' | nothing }}", "text", "unknown filter"),
        ("{{ '!' | base64_decode }}", "text", "not base64"),
        ("a = ", "toml", "not valid as toml: line 1"),
        ("a = 1\nb = [", "toml", "not valid as toml: line 2"),
        ("{\"a\": }", "json", "not valid as json"),
        (
            "A=b\n1=c",
            "env",
            "not valid as env: line 2 is not NAME=value",
        ),
        ("A=b\nnothing", "env", "not valid as env: line 2"),
        ("a\u{1b}b", "text", "the control character U+001B"),
    ] {
        let error = rendered(template, format, json!({})).unwrap_err();
        assert!(
            error.starts_with("render /etc/sub/x (x): "),
            "{template}: {error}"
        );
        assert!(error.contains(reason), "{template}: {error}");
    }
    for (template, format) in [
        ("a = 1\n[b]\n", "toml"),
        ("", "toml"),
        ("{\"a\": [1]}", "json"),
        ("# comment\n\nA_1=b=c\n", "env"),
        ("\u{1b}", "none"),
    ] {
        assert!(rendered(template, format, json!({})).is_ok(), "{template}");
    }
}

#[test]
fn a_template_sees_what_it_declares_and_nothing_else() {
    let settings = document(json!({"motd": "m", "ntp": {"options": ["o"], "time-servers": ["t"]}}));
    for (declared, template, expected) in [
        (r#""motd""#, "{{ settings.motd }}", Some("m")),
        (
            r#""ntp""#,
            "{{ settings.ntp.options[0] }}{{ settings.ntp['time-servers'][0] }}",
            Some("ot"),
        ),
        (
            r#""ntp.options""#,
            "{{ settings.ntp.options[0] }}",
            Some("o"),
        ),
        (
            r#""ntp.options""#,
            "{{ settings.ntp['time-servers'][0] }}",
            None,
        ),
        (r#""ntp.options""#, "{{ settings.motd }}", None),
        (r#""motd""#, "{{ settings.ntp }}", None),
    ] {
        let root = root(&[("x", template)]);
        let catalog = Catalog::parse(&catalog(&[("x", declared, "text")])).unwrap();
        let rendered = render(&catalog.files, root.path(), &settings, &Os::default());
        let text = rendered
            .ok()
            .map(|rendered| rendered.files()[0].text.clone());
        assert_eq!(text.as_deref(), expected, "{declared} {template}");
    }
}

#[test]
fn only_what_differs_is_replaced_and_units_are_named_once() {
    let root = root(&[("a", "{{ settings.motd }}"), ("b", "constant")]);
    let catalog =
        Catalog::parse(&catalog(&[("a", r#""motd""#, "text"), ("b", "", "text")])).unwrap();
    let apply = |motd: &str| {
        let settings = document(json!({ "motd": motd }));
        let rendered = render(&catalog.files, root.path(), &settings, &Os::default()).unwrap();
        let mut failed = Vec::new();
        let replaced = rendered.write(root.path(), &mut failed);
        assert!(failed.is_empty(), "{failed:?}");
        replaced
    };
    let inode = |name: &str| {
        fs::metadata(root.path().join("etc/sub").join(name))
            .unwrap()
            .ino()
    };

    let replaced = apply("one");
    assert_eq!(replaced.files, ["a", "b"]);
    assert_eq!(
        replaced.restart,
        ["a.service", "shared.service", "b.service"]
    );
    assert_eq!(
        replaced.reload,
        ["also.service"],
        "a restart includes a reload"
    );
    let (a, b) = (inode("a"), inode("b"));

    assert_eq!(apply("one"), Default::default());
    assert_eq!((inode("a"), inode("b")), (a, b));

    let replaced = apply("two");
    assert_eq!(replaced.files, ["a"]);
    assert_eq!(replaced.restart, ["a.service", "shared.service"]);
    assert_eq!(inode("b"), b);

    // Permissions count too.
    let path = root.path().join("etc/sub/b");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(apply("two").files, ["b"]);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o644
    );
}

#[test]
fn a_folder_has_the_files_that_its_template_names_and_no_others() {
    let template = "{% for host in settings.dns['name-servers'] | default([]) %}\n\
                    {{ file('sub/' ~ host) }}\naddress = '{{ host }}'\n{% endfor %}";
    let root = root(&[("x", template)]);
    let catalog = Catalog::parse(&format!(
        "{}folder = true\n",
        catalog(&[("x", r#""dns""#, "toml")])
    ))
    .unwrap();
    let folder = root.path().join("etc/sub/x");
    let apply = |hosts: &[&str]| {
        let settings = document(json!({"dns": {"name-servers": hosts}}));
        let rendered = render(&catalog.files, root.path(), &settings, &Os::default())?;
        let mut failed = Vec::new();
        let replaced = rendered.write(root.path(), &mut failed);
        assert!(failed.is_empty(), "{failed:?}");
        anyhow::Ok(replaced)
    };
    let replaced = apply(&["192.0.2.1", "192.0.2.2"]).unwrap();
    assert_eq!(replaced.files, ["x"], "a folder is one file of the catalog");
    assert_eq!(
        replaced.paths,
        ["/etc/sub/x/sub/192.0.2.1", "/etc/sub/x/sub/192.0.2.2"]
    );
    let text = fs::read_to_string(folder.join("sub/192.0.2.1")).unwrap();
    assert_eq!(text, "address = '192.0.2.1'\n");
    assert_eq!(
        apply(&["192.0.2.2", "192.0.2.1"]).unwrap(),
        Default::default()
    );

    let replaced = apply(&["192.0.2.2"]).unwrap();
    assert_eq!(replaced.paths, ["/etc/sub/x/sub/192.0.2.1"]);
    assert_eq!(replaced.restart, ["x.service", "shared.service"]);
    assert!(!folder.join("sub/192.0.2.1").exists());
    assert!(folder.join("sub/192.0.2.2").exists());

    let error = apply(&["192.0.2.2", "192.0.2.2"]).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("the file sub/192.0.2.2 twice"), "{error}");
}

#[test]
fn a_template_in_toml_becomes_json_with_settings_laid_over_it() {
    let root = root(&[("x", "maxPods = 110\n[featureGates]\nA = false\nB = true\n")]);
    let text =
        catalog(&[("x", "", "json")]) + "from = \"toml\"\noverlay = \"kubelet-configuration\"\n";
    let catalog = Catalog::parse(&text).unwrap();
    let settings = json!({"kubelet-configuration": {
        "featureGates": {"A": true, "C": true}, "nodeStatusMaxImages": 7,
    }});
    let rendered = render(
        &catalog.files,
        root.path(),
        &document(settings),
        &Os::default(),
    );
    let value: Value = serde_json::from_str(&rendered.unwrap().files()[0].text).unwrap();
    assert_eq!(
        value,
        json!({
            "featureGates": {"A": true, "B": true, "C": true},
            "maxPods": 110,
            "nodeStatusMaxImages": 7,
        })
    );
    let key = "kubelet-configuration.nodeStatusMaxImages".parse().unwrap();
    assert_eq!(catalog.affected_by(&[key]).count(), 1);
}

#[test]
fn a_file_that_cannot_be_written_does_not_keep_the_others_from_it() {
    let root = root(&[("a", "a"), ("b", "b")]);
    fs::create_dir_all(root.path().join("etc/sub/a/in-the-way")).unwrap();
    let catalog = Catalog::parse(&catalog(&[("a", "", "text"), ("b", "", "text")])).unwrap();
    let rendered = render(
        &catalog.files,
        root.path(),
        &Document::default(),
        &Os::default(),
    )
    .unwrap();
    let mut failed = Vec::new();
    assert_eq!(rendered.write(root.path(), &mut failed).files, ["b"]);
    assert_eq!(failed.len(), 1);
    assert!(
        format!("{:#}", failed[0]).contains("config file \"a\""),
        "{:#}",
        failed[0]
    );
}

#[test]
fn faulty_catalogs() {
    let entry = |more: &str| {
        format!(
            "[[config-file]]\nname = \"x\"\npath = \"/etc/x\"\ntemplate = \"/t/x\"\n\
             settings = [\"motd\"]\nformat = \"text\"\n{more}"
        )
    };
    assert!(Catalog::parse("").unwrap().files.is_empty());
    assert_eq!(
        Catalog::parse(&entry("mode = \"0600\""))
            .unwrap()
            .files
            .len(),
        1
    );
    for (text, reason) in [
        (entry("unknown = 1"), "unknown field"),
        (entry("mode = \"rw\""), "is not an octal number"),
        (entry("mode = \"7777\""), "is not an octal number"),
        (entry(&entry("")), "two config files are named \"x\""),
        (
            entry(&entry("").replace("name = \"x\"", "name = \"y\"")),
            "two config files have the path",
        ),
        (entry("").replace("/etc/x", "etc/x"), "not an absolute path"),
        (entry("").replace("/t/x", "/t/../x"), "not an absolute path"),
        (
            entry("").replace("motd", "mtod"),
            "settings.mtod is not a setting",
        ),
        (entry("").replace("\"text\"", "\"yaml\""), "unknown variant"),
        (
            entry("from = \"toml\""),
            "only TOML and JSON can be turned into each other",
        ),
        (
            entry("overlay = \"kubelet-configuration\""),
            "settings.kubelet-configuration cannot be laid over it",
        ),
        (
            entry("overlay = \"kubelet\"").replace("\"text\"", "\"toml\""),
            "settings.kubelet is not a setting",
        ),
        ("x".to_string(), "parse the list of config files"),
    ] {
        let error = format!("{:#}", Catalog::parse(&text).unwrap_err());
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn the_build_checks_all_templates_with_the_defaults_and_with_everything_set() {
    let root = root(&[("x", "a = 1\n{% if settings.motd == 'odd' %}=\n{% endif %}")]);
    let catalog = catalog(&[("x", r#""motd", "dns""#, "toml")]);
    let os = Os::default();
    check(&catalog, root.path(), "", &os).unwrap();
    let error = format!(
        "{:#}",
        check(&catalog, root.path(), "[settings]\nmotd = 'odd'", &os).unwrap_err()
    );
    assert!(error.contains("not valid as toml: line 2"), "{error}");
    // Unset by default, so that only the second document reaches it.
    fs::write(
        root.path().join("templates/x"),
        "a = 1\n{% if settings.dns['name-servers'] is defined %}=\n{% endif %}",
    )
    .unwrap();
    let error = format!("{:#}", check(&catalog, root.path(), "", &os).unwrap_err());
    assert!(
        error.contains("every setting set to its example"),
        "{error}"
    );
    let error = format!(
        "{:#}",
        check(&catalog, root.path(), "[settings]\nmotd = 1", &os).unwrap_err()
    );
    assert!(
        error.contains("settings defaults: line 2: settings.motd"),
        "{error}"
    );
    let error = format!(
        "{:#}",
        check(&catalog, &root.path().join("none"), "", &os).unwrap_err()
    );
    assert!(error.contains("read the template"), "{error}");
}
