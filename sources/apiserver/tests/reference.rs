//! The reference of the API is made from the table of routes, with exchanges that the
//! test makes. With `UPDATE_EXPECT=1` it is written anew.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use apiserver::http::Answer;
use apiserver::table::{
    Body, EVERYWHERE, Example, Origin, Parameter, ROUTES, Route, Success, Values,
};
use common::Machine;
use expect_test::expect_file;
use serde_json::{Map, Value, json};
use std::fmt::Write;

const HEAD: &str = "# API reference\n\n\
    Made from `sources/apiserver/src/table.rs`; `UPDATE_EXPECT=1 cargo test -p apiserver`\n\
    writes it anew. [openapi.yaml](openapi.yaml) says the same for programs, and\n\
    [API and apiclient](../api.md) what holds for all routes. Each exchange was made with a\n\
    server whose variant has a few settings only.\n\n\
    Every route can refuse with 400 (a parameter or the body is wrong), 408 (the body is\n\
    slow) and 413 (it is too large); refusals are plain text. *(ours)* marks what compatible\n\
    hosts do not have.\n";

/// Stands for the time of a change, which is another one at each run.
const SOME_TIME: &str = "2026-01-31T12:00:00Z";

#[tokio::test(flavor = "current_thread")]
async fn the_reference_page_is_up_to_date() {
    let mut page = String::from(HEAD);
    for route in ROUTES {
        describe(route, &mut page).await;
    }
    expect_file![concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/reference/api.md"
    )]
    .assert_eq(&page);
}

#[test]
fn the_openapi_document_is_up_to_date() {
    let mut text = String::from(
        "# Made from sources/apiserver/src/table.rs; UPDATE_EXPECT=1 cargo test -p apiserver\n\
         # writes it anew.\n",
    );
    write_yaml(&openapi(), 0, &mut text);
    expect_file![concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/reference/openapi.yaml"
    )]
    .assert_eq(&text);
}

async fn describe(route: &Route, page: &mut String) {
    let ours = match route.origin {
        Origin::Ours => " *(ours)*",
        Origin::Bottlerocket => "",
    };
    let _ = write!(
        page,
        "\n## {} {}\n\n{}{ours}\n",
        route.method, route.path, route.summary
    );
    if !route.query.is_empty() {
        page.push_str("\n| parameter | what |\n|---|---|\n");
        for parameter in route.query {
            let required = if parameter.is_required {
                ", required"
            } else {
                ""
            };
            let _ = writeln!(
                page,
                "| `{}`{required} | {} |",
                parameter.name, parameter.about
            );
        }
    }
    let body = match route.body {
        Body::None => String::new(),
        Body::Json(_) => "Takes JSON. ".to_string(),
        Body::Document(kind) => format!("Takes `{kind}`. "),
    };
    let answers = match route.success {
        None => String::new(),
        Some(Success::Done) => "Answers 204. ".to_string(),
        Some(Success::Json(_)) => "Answers 200 with JSON. ".to_string(),
        Some(Success::TextOrJson) => "Answers 200 with text or JSON. ".to_string(),
        Some(Success::File(kind)) => format!("Answers 200 with `{kind}`. "),
        Some(Success::WebSocket) => "Answers 101. ".to_string(),
    };
    let refusals: Vec<String> = route.refusals.iter().map(u16::to_string).collect();
    let refusals = match refusals.is_empty() {
        true => String::new(),
        false => format!("Also refuses with {}. ", refusals.join(", ")),
    };
    let _ = write!(page, "\n{}\n", format!("{body}{answers}{refusals}").trim());
    if !route.example.request.is_empty() {
        let _ = write!(page, "\n```text\n{}\n```\n", exchange(&route.example).await);
    }
}

/// Makes the example's requests on a machine of their own, and tells of the last.
async fn exchange(example: &Example) -> String {
    let machine = Machine::new();
    for before in example.before {
        let answer = send(&machine, before).await;
        assert!(answer.status < 300, "{before}: {}", answer.body_text());
    }
    let answer = send(&machine, example.request).await;
    let text = match serde_json::from_slice::<Value>(&answer.body) {
        Ok(mut json) => {
            fix_times(&mut json);
            serde_json::to_string_pretty(&json).unwrap()
        }
        Err(_) => answer.body_text(),
    };
    format!("{}\n\n{} {text}", example.request, answer.status)
        .trim_end()
        .to_string()
}

async fn send(machine: &Machine, request: &str) -> Answer {
    let mut words = request.splitn(3, ' ');
    let mut next = || words.next().unwrap_or_default();
    machine.send(next(), next(), next()).await
}

fn fix_times(json: &mut Value) {
    match json {
        Value::Object(table) => {
            for (name, value) in table {
                match value {
                    Value::String(time) if name == "time" => *time = SOME_TIME.to_string(),
                    value => fix_times(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(fix_times),
        _ => {}
    }
}

fn openapi() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let path = paths
            .entry(route.path)
            .or_insert_with(|| Value::Object(Map::new()));
        path[route.method.to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Bulkhead API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "HTTP/1.1 over the Unix socket /run/api.sock.",
            "license": { "name": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "http://localhost", "description": "any host name is taken" }],
        "paths": paths,
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "summary": route.summary,
        "parameters": route.query.iter().map(parameter).collect::<Vec<_>>(),
        "responses": responses(route),
    });
    let body = match route.body {
        Body::None => None,
        Body::Json(schema) => Some(("application/json", schema())),
        Body::Document(kind) => Some((kind, json!({ "type": "string" }))),
    };
    if let Some((kind, schema)) = body {
        operation["requestBody"] =
            json!({ "required": true, "content": { kind: { "schema": schema } } });
    }
    if route.origin == Origin::Ours {
        operation["x-origin"] = "bulkhead".into();
    }
    operation
}

fn parameter(parameter: &Parameter) -> Value {
    let schema = match parameter.values {
        Values::OneOf(words) => json!({ "enum": words }),
        Values::Number => json!({ "type": "integer", "minimum": 0 }),
        Values::Keys | Values::Names | Values::Prefix | Values::Transaction => {
            json!({ "type": "string" })
        }
    };
    json!({
        "name": parameter.name,
        "in": "query",
        "required": parameter.is_required,
        "description": parameter.about,
        "schema": schema,
    })
}

fn responses(route: &Route) -> Value {
    let text = json!({ "text/plain": { "schema": { "type": "string" } } });
    let mut responses = Map::new();
    if let Some(success) = route.success {
        let mut response = json!({ "description": "Done." });
        let content = match success {
            Success::Done | Success::WebSocket => None,
            Success::Json(schema) => Some(json!({ "application/json": { "schema": schema() } })),
            Success::TextOrJson => Some(json!({
                "text/plain": { "schema": { "type": "string" } },
                "application/json": { "schema": true },
            })),
            Success::File(kind) => Some(json!({ kind: { "schema": { "type": "string" } } })),
        };
        if let Some(content) = content {
            response["content"] = content;
        }
        responses.insert(success.status().to_string(), response);
    }
    let mut refusals: Vec<u16> = route.refusals.iter().chain(EVERYWHERE).copied().collect();
    refusals.sort_unstable();
    refusals.dedup();
    for status in refusals {
        responses.insert(
            status.to_string(),
            json!({ "description": "Refused; the text says why.", "content": text }),
        );
    }
    Value::Object(responses)
}

/// Writes a value as YAML. A text in JSON's quotes is a text in YAML, too.
fn write_yaml(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(table) if !table.is_empty() => {
            for (name, value) in table {
                let _ = write!(text, "{indent}{}:", json!(name));
                write_below(value, depth, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let _ = write!(text, "{indent}-");
                write_below(item, depth, text);
            }
        }
        value => {
            let _ = writeln!(text, "{indent}{value}");
        }
    }
}

fn write_below(value: &Value, depth: usize, text: &mut String) {
    let has_lines = value.as_object().is_some_and(|table| !table.is_empty())
        || value.as_array().is_some_and(|items| !items.is_empty());
    if has_lines {
        text.push('\n');
        write_yaml(value, depth + 1, text);
    } else {
        let _ = writeln!(text, " {value}");
    }
}
