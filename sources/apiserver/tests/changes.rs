//! Changes of settings: waiting for them, the history, the way back, what is known.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::Machine;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

async fn json_of(machine: &Machine, method: &str, uri: &str, body: &str) -> Value {
    let answer = machine.send(method, uri, body).await;
    assert_eq!(answer.status, 200, "{method} {uri}: {}", answer.body_text());
    serde_json::from_slice(&answer.body).unwrap()
}

async fn set(machine: &Machine, body: &str) {
    assert_eq!(machine.ask("PATCH", "/settings", body).await, "204");
}

const APPLY: &str = "/tx/commit_and_apply?wait=true";

#[tokio::test]
async fn whoever_waits_learns_what_was_done() {
    let machine = Machine::new();
    set(&machine, r#"{"motd":"Hi"}"#).await;
    let answer = json_of(&machine, "POST", APPLY, "").await;
    assert_eq!(
        answer,
        json!({
            "changed": ["settings.motd"],
            "files": ["/etc/motd"],
            "restarted": [],
            "reloaded": [],
            "failures": [],
        })
    );
    assert_eq!(machine.read("etc/motd"), "Hi\n");

    set(
        &machine,
        r#"{"ntp":{"time-servers":["a"]},"network":{"hosts":[["10.0.0.1",["x"]]]}}"#,
    )
    .await;
    let answer = json_of(&machine, "POST", APPLY, "").await;
    assert_eq!(
        answer,
        json!({
            "changed": ["settings.network.hosts", "settings.ntp.time-servers"],
            "files": ["/etc/chrony.conf", "/etc/hosts"],
            // A unit that is restarted need not be reloaded as well.
            "restarted": ["resolver.service", "chronyd.service"],
            "reloaded": [],
            "failures": [],
        })
    );
    assert_eq!(
        machine.units.take(),
        ["restart resolver.service", "restart chronyd.service"]
    );

    // The same again is a change, but nothing reads anything new.
    set(&machine, r#"{"ntp":{"time-servers":["a"]}}"#).await;
    let answer = json_of(&machine, "POST", APPLY, "").await;
    assert_eq!(answer["changed"], json!(["settings.ntp.time-servers"]));
    assert_eq!(answer["files"], json!([]));
    assert_eq!(machine.units.take(), Vec::<String>::new());

    // A setting that no file reads.
    set(&machine, r#"{"kernel":{"lockdown":"none"}}"#).await;
    let answer = json_of(&machine, "POST", APPLY, "").await;
    assert_eq!(answer["changed"], json!(["settings.kernel.lockdown"]));
    assert_eq!(answer["files"], json!([]));
}

#[tokio::test]
async fn whoever_waits_learns_what_failed() {
    let machine = Machine::new();
    machine.units.units_fail.store(true, Ordering::Relaxed);
    set(&machine, r#"{"ntp":{"time-servers":["a"]}}"#).await;
    let answer = json_of(&machine, "POST", APPLY, "").await;
    assert_eq!(answer["files"], json!(["/etc/chrony.conf"]));
    assert_eq!(answer["reloaded"], json!([]));
    assert_eq!(
        answer["failures"],
        json!(["reload chronyd.service: no such unit"])
    );
    machine.units.units_fail.store(false, Ordering::Relaxed);

    // A template that cannot be rendered leaves all files of the change as they are.
    let templates = machine.folder.path().join("usr/share/bulkhead/templates");
    std::fs::write(templates.join("host/motd"), "{{ settings.nothing }}").unwrap();
    set(&machine, r#"{"motd":"new","ntp":{"time-servers":["b"]}}"#).await;
    let answer = json_of(&machine, "POST", APPLY, "").await;
    assert_eq!(answer["files"], json!([]));
    let failure = answer["failures"][0].as_str().unwrap();
    assert!(
        failure.starts_with("render /etc/motd (motd): "),
        "{failure}"
    );
    assert_eq!(machine.read("etc/chrony.conf"), "pool a\n");
    // It is stored all the same.
    let settings = json_of(&machine, "GET", "/settings?keys=motd", "").await;
    assert_eq!(settings, json!({"motd": "new"}));

    assert_eq!(
        machine
            .ask("POST", "/tx/commit_and_apply?wait=true", "")
            .await,
        "422 transaction \"default\" holds no changes"
    );
    assert_eq!(
        machine.ask("POST", "/tx/commit_and_apply?wait=1", "").await,
        "400 invalid wait \"1\": use true or false"
    );
}

#[tokio::test]
async fn without_waiting_nothing_is_applied_yet() {
    let machine = Machine::new();
    for uri in ["/tx/commit_and_apply", "/tx/commit_and_apply?wait=false"] {
        set(&machine, &format!(r#"{{"motd":"{uri}"}}"#)).await;
        let answer = json_of(&machine, "POST", uri, "").await;
        assert_eq!(answer, json!(["settings.motd"]));
        assert_ne!(machine.read("etc/motd"), format!("{uri}\n"));
        machine.app.apply_wanted().await;
        assert_eq!(machine.read("etc/motd"), format!("{uri}\n"));
    }
}

#[tokio::test]
async fn what_the_user_set_against_what_would_hold_otherwise() {
    let machine = Machine::with_user_data(&["[settings.network]\nhostname = 'node-1'"]);
    set(
        &machine,
        r#"{"motd":"Hi","ntp":{"options":["x"]},"dns":{"name-servers":["10.0.0.2"]}}"#,
    )
    .await;
    json_of(&machine, "POST", "/tx/commit", "").await;
    assert_eq!(
        json_of(&machine, "GET", "/settings/changes", "").await,
        json!([
            {"key": "settings.dns.name-servers", "value": ["10.0.0.2"], "default": null},
            {"key": "settings.motd", "value": "Hi", "default": "Hello"},
            {"key": "settings.network.hostname", "value": "node-1", "default": null},
            {"key": "settings.ntp.options", "value": ["x"], "default": ["iburst"]},
        ])
    );
}

#[tokio::test]
async fn history_and_rollback() {
    let machine = Machine::with_user_data(&["[settings]\nmotd = 'user data'"]);
    set(&machine, r#"{"motd":"one"}"#).await;
    json_of(&machine, "POST", APPLY, "").await;
    set(&machine, r#"{"motd":"two","ntp":{"time-servers":["a"]}}"#).await;
    json_of(&machine, "POST", APPLY, "").await;
    machine.units.take();
    assert_eq!(
        json_of(&machine, "POST", "/settings/rollback?to=1&wait=true", "").await,
        json!({
            "changed": ["settings.motd", "settings.ntp.time-servers"],
            "files": ["/etc/motd", "/etc/chrony.conf"],
            "restarted": [],
            "reloaded": ["chronyd.service"],
            "failures": [],
        })
    );
    assert_eq!(machine.read("etc/motd"), "user data\n");
    let machine = machine.reboot(&[]);
    let history = json_of(&machine, "GET", "/settings/history", "").await;
    let short: Vec<(u64, &str)> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            (
                entry["id"].as_u64().unwrap(),
                entry["origin"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        short,
        [(4, "rollback"), (3, "api"), (2, "api"), (1, "user-data")]
    );
    assert_eq!(history[2]["keys"], json!(["settings.motd"]));
    let time = history[0]["time"].as_str().unwrap();
    assert!(time.ends_with('Z') && time.len() == 20, "{time}");

    assert_eq!(
        machine.ask("POST", "/settings/rollback?to=3", "").await,
        r#"200 ["settings.motd","settings.ntp.time-servers"]"#
    );
    machine.app.apply_wanted().await;
    assert_eq!(machine.read("etc/motd"), "two\n");
    for (uri, expected) in [
        ("/settings/rollback", "400 parameter to is missing"),
        (
            "/settings/rollback?to=x",
            "400 \"x\" is not the number of a change",
        ),
        (
            "/settings/rollback?to=-1",
            "400 \"-1\" is not the number of a change",
        ),
        (
            "/settings/rollback?to=3&wait=x",
            "400 invalid wait \"x\": use true or false",
        ),
        (
            "/settings/rollback?to=99",
            "404 no change 99 is kept; see the history for those that are",
        ),
    ] {
        assert_eq!(machine.ask("POST", uri, "").await, expected);
    }
}

#[tokio::test]
async fn what_is_known_about_settings() {
    let machine = Machine::new();
    set(&machine, r#"{"ntp":{"time-servers":["a"]}}"#).await;
    json_of(&machine, "POST", "/tx/commit", "").await;
    let known = json_of(
        &machine,
        "GET",
        "/metadata/settings?keys=settings.ntp.time-servers,motd,kernel.lockdown,network.https-proxy,ntp",
        "",
    )
    .await;
    let servers = &known["settings.ntp.time-servers"];
    assert_eq!(servers["kind"], "list");
    assert_eq!(servers["source"], "user");
    assert_eq!(servers["value"], json!(["a"]));
    assert_eq!(servers["default"], json!(["pool.ntp.org"]));
    assert_eq!(servers["configuration-files"], json!(["chrony-conf"]));
    assert_eq!(servers["services"], json!(["chronyd"]));
    assert!(servers.get("generated").is_none());
    let motd = &known["settings.motd"];
    assert_eq!(
        (&motd["source"], &motd["kind"]),
        (&json!("default"), &json!("string"))
    );
    assert_eq!(motd["services"], json!([]));
    assert_eq!(
        known["settings.kernel.lockdown"]["choices"],
        json!(["none", "integrity", "confidentiality"])
    );
    assert_eq!(known["settings.network.https-proxy"]["source"], "unset");
    assert!(known["settings.network.https-proxy"].get("value").is_none());
    assert_eq!(known["settings.ntp"]["kind"], "table");
    assert_eq!(known["settings.ntp"]["value"]["time-servers"], json!(["a"]));

    let all = json_of(&machine, "GET", "/metadata/settings", "").await;
    let hostname = &all["settings.network.hostname"];
    assert_eq!(hostname["source"], "generated");
    assert_eq!(hostname["generated"], "hostname");
    for (key, known) in all.as_object().unwrap() {
        for text in ["doc", "kind", "what"] {
            assert!(!known[text].as_str().unwrap().is_empty(), "{key} {text}");
        }
    }
    for (uri, expected) in [
        (
            "/metadata/settings?keys=mtod",
            "404 settings.mtod is not a setting; did you mean settings.motd?",
        ),
        (
            "/metadata/settings?keys=motd,ntp.time-serves",
            "404 settings.ntp.time-serves is not a setting; did you mean settings.ntp.time-servers?",
        ),
        (
            "/metadata/settings?keys=qqqqqqqq",
            "404 settings.qqqqqqqq is not a setting",
        ),
        ("/metadata/settings?keys=", "400 parameter keys is empty"),
    ] {
        assert_eq!(machine.ask("GET", uri, "").await, expected);
    }
}

#[tokio::test]
async fn strengths() {
    let machine = Machine::new();
    let uri = "/settings?tx=t&strength=weak";
    machine
        .ask("PATCH", uri, r#"{"network":{"hostname":"w"}}"#)
        .await;
    machine
        .ask("PATCH", "/settings?tx=t", r#"{"motd":"strong"}"#)
        .await;
    assert_eq!(
        json_of(&machine, "GET", "/v2/tx?tx=t", "").await,
        json!({
            "settings": {"motd": "strong", "network": {"hostname": "w"}},
            "metadata": {
                "settings.motd": {"strength": "strong"},
                "settings.network.hostname": {"strength": "weak"},
            },
        })
    );
    assert_eq!(
        machine.ask("GET", "/v2/tx", "").await,
        r#"200 {"settings":{},"metadata":{}}"#
    );
    json_of(&machine, "POST", "/tx/commit?tx=t", "").await;
    machine
        .ask("PATCH", "/settings?strength=weak", r#"{"motd":"weak"}"#)
        .await;
    assert_eq!(
        machine.ask("POST", "/tx/commit", "").await,
        "500 settings.motd was set by the user; a weak value cannot replace it"
    );
    assert_eq!(
        json_of(&machine, "GET", "/v2/metadata/setting-generators", "").await["settings.network.hostname"],
        json!({"command": "hostname", "strength": "weak"})
    );
}
