//! What the API says of settings to people, and what it says is wrong with them, has no
//! secret in it.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::Machine;
use settings::planted;

#[tokio::test]
async fn no_secret_is_in_changes_history_or_metadata() {
    let machine = Machine::new();
    for planted in planted::all() {
        let body = planted.settings.to_value().to_string();
        assert_eq!(machine.ask("PATCH", "/settings", &body).await, "204");
        let answer = machine
            .ask("POST", "/tx/commit_and_apply?wait=true", "")
            .await;
        assert!(answer.starts_with("200 "), "{}: {answer}", planted.key);
        let mut told = vec![answer];
        for uri in [
            "/settings/changes".to_string(),
            "/settings/history".to_string(),
            "/metadata/settings".to_string(),
            "/metadata/settings?keys=settings".to_string(),
            format!("/metadata/settings?keys={}", planted.key),
        ] {
            let answer = machine.ask("GET", &uri, "").await;
            assert!(answer.starts_with("200 "), "{uri}: {answer}");
            told.push(answer);
        }
        for answer in &told {
            let (key, secret) = (&planted.key, &planted.secret);
            assert!(!answer.contains(secret.as_str()), "{key}: {answer}");
        }
        assert!(told[1].contains(settings::secret::INSTEAD), "{}", told[1]);
        // Whoever acts by a setting reads it as it is.
        let held = machine.ask("GET", "/settings", "").await;
        let held: serde_json::Value = serde_json::from_str(&held[4..]).unwrap();
        let document = settings::Document::from_value(&held).unwrap();
        assert_eq!(
            document.get(&planted.key),
            planted.settings.get(&planted.key),
        );
    }
}

#[tokio::test]
async fn what_is_refused_is_not_repeated() {
    let machine = Machine::new();
    for (method, uri, body) in [
        (
            "PATCH",
            "/settings/keypair",
            r#"{"request_payload":["settings.kubernetes.bootstrap-token 5ecret"]}"#,
        ),
        (
            "PATCH",
            "/settings/keypair",
            r#"{"request_payload":["settings.kubernetes.bootstrap-token=5ecret"]}"#,
        ),
        (
            "PATCH",
            "/settings",
            r#"{"kubernetes":{"server-key":"5ecret"}}"#,
        ),
        ("PATCH", "/settings", r#"{"aws":"5ecret"}"#),
        ("PATCH", "/settings", r#"{"aws":{"config":"5ecret}}"#),
        ("POST", "/check", "[settings]\naws.config = '5ecret'"),
        ("POST", "/check", "[settings]\naws.config = 5ecret'"),
    ] {
        let answer = machine.ask(method, uri, body).await;
        assert!(!answer.contains("5ecret"), "{body}: {answer}");
        assert!(!answer.starts_with("204"), "{body}: {answer}");
    }
}
