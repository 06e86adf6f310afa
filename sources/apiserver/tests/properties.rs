//! Whatever is asked, the answer is one that the table of routes lists, in the shape
//! that it lists, and the server lives.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use apiclient::{Client, Error};
use apiserver::table::{Body, Parameter, ROUTES, Route, Success, Values};
use common::{Machine, Running};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

fn value(values: Values) -> BoxedStrategy<String> {
    let good: Vec<&str> = match values {
        Values::Keys => vec!["settings.motd", "ntp,motd", "kernel.sysctl.\"a.b\"", "dns"],
        Values::Names => vec!["motd", "chronyd", "hosts,motd"],
        Values::Prefix => vec!["motd", "settings.n", "os.v", "chrony"],
        Values::Transaction => vec!["t", "u", "default"],
        Values::Number => vec!["0", "1", "2", "3"],
        Values::OneOf(words) => words.to_vec(),
    };
    let bad = vec![
        "", "%", "%00", "a..b", "-1", "%ff", "x=y", "settings", "%22", "+", ",,",
    ];
    prop_oneof![
        4 => select(good).prop_map(String::from),
        1 => select(bad).prop_map(String::from),
    ]
    .boxed()
}

fn parameter(parameter: &Parameter) -> impl Strategy<Value = Option<String>> + use<> {
    let name = parameter.name;
    proptest::option::weighted(
        0.7,
        value(parameter.values).prop_map(move |v| format!("{name}={v}")),
    )
}

fn body() -> impl Strategy<Value = &'static str> {
    select(vec![
        "",
        "{",
        "null",
        "[]",
        "{}",
        r#"{"motd":"x"}"#,
        r#"{"motd":1}"#,
        r#"{"ntp":{"options":["a"]},"network":{"hosts":[["10.0.0.1",["x"]]]}}"#,
        r#"{"kernel":{"sysctl":{"a.b":"1"}}}"#,
        r#"{"nothing":null}"#,
        r#"{"request_payload":["motd=x","ntp.options=1"]}"#,
        r#"{"request_payload":["motd=x"]}"#,
        r#"{"request_payload":["motd"]}"#,
        "\u{0}\u{1}",
    ])
}

type Sent = (&'static Route, String, &'static str);

fn request() -> impl Strategy<Value = Sent> {
    (0..ROUTES.len()).prop_flat_map(|n| {
        let route = &ROUTES[n];
        let query: Vec<_> = route.query.iter().map(parameter).collect();
        (query, body()).prop_map(move |(query, body)| {
            let query: Vec<String> = query.into_iter().flatten().collect();
            (route, format!("{}?{}", route.path, query.join("&")), body)
        })
    })
}

fn check(sent: &Sent, status: u16, text: &str) {
    let (route, uri, body) = sent;
    let told = format!("{} {uri} {body}: {status} {text}", route.method);
    assert!(route.statuses().contains(&status), "{told}");
    if status == 500 {
        // No disk fails here, and no unit does anything. These are the host's own, and
        // the one that compatible clients expect.
        let is_known = [
            "ephemeral storage",
            "no report",
            "no support bundle",
            "the network configuration",
        ]
        .iter()
        .any(|known| text.starts_with(known))
            || text.contains("a weak value cannot replace it");
        assert!(is_known, "{told}");
    }
    match route.success {
        Some(Success::Json(schema)) if status == 200 => {
            let answer: Value = serde_json::from_str(text).unwrap();
            assert!(fits(&answer, &schema()), "{told}\n{}", schema());
        }
        Some(Success::Done) if status == 204 => assert_eq!(text, "", "{told}"),
        _ => assert!(!text.is_empty(), "{told}"),
    }
    if let (Body::Json(_), 204) = (&route.body, status) {
        serde_json::from_str::<Value>(body).unwrap();
    }
}

/// True if a value is as a schema of `apiserver::table` says; it knows no more than those
/// have in them.
fn fits(value: &Value, schema: &Value) -> bool {
    if let Some(all) = schema.as_bool() {
        return all;
    }
    if let Some(forms) = schema["oneOf"].as_array() {
        return forms.iter().filter(|form| fits(value, form)).count() == 1;
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.contains(value);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is_kind = match &schema["type"] {
        Value::Array(kinds) => kinds.contains(&kind.into()),
        one => one == kind,
    };
    let items_fit = || {
        value
            .as_array()
            .is_none_or(|items| items.iter().all(|item| fits(item, &schema["items"])))
    };
    let table_fits = || {
        value.as_object().is_none_or(|table| {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let others = schema
                .get("additionalProperties")
                .unwrap_or(&Value::Bool(true));
            required
                .iter()
                .all(|name| table.contains_key(name.as_str().unwrap_or_default()))
                && table.iter().all(|(name, value)| {
                    fits(value, schema["properties"].get(name).unwrap_or(others))
                })
        })
    };
    is_kind && items_fit() && table_fits()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn answers_are_those_of_the_table(requests in prop::collection::vec(request(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let machine = Machine::new();
            for sent in &requests {
                let (route, uri, body) = sent;
                let answer = machine.send(route.method, uri, body).await;
                check(sent, answer.status, &answer.body_text());
            }
            assert_eq!(machine.send("GET", "/os", "").await.status, 200);
        });
    }
}

/// One client more, each time, at one running server.
fn over_the_socket(server: &Running, sent: &Sent) {
    let (route, uri, body) = sent;
    let client = Client::new(&server.socket);
    let (status, text) = match client.send(route.method, uri, Some(body.as_bytes())) {
        Ok(answer) => {
            let status = answer.status.split(' ').next().unwrap().parse().unwrap();
            (status, String::from_utf8(answer.body).unwrap())
        }
        Err(Error::Refused { status, body, .. }) => (status, body),
        Err(error) => panic!("{} {uri} {body}: {error}", route.method),
    };
    check(sent, status, &text);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn answers_over_the_socket_are_those_of_the_table(
        requests in prop::collection::vec(request(), 20..60)
    ) {
        let server = Running::start();
        // Two at once, so that they also meet each other's changes.
        let (first, second) = requests.split_at(requests.len() / 2);
        std::thread::scope(|scope| {
            for half in [first, second] {
                scope.spawn(|| half.iter().for_each(|sent| over_the_socket(&server, sent)));
            }
        });
        prop_assert!(Client::new(&server.socket).send("GET", "/os", None).is_ok());
    }
}

#[test]
fn no_two_routes_are_the_same() {
    let mut names: Vec<(&str, &str)> = ROUTES.iter().map(|r| (r.path, r.method)).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ROUTES.len());
    assert!(ROUTES.iter().all(|route| !route.summary.is_empty()));
}
