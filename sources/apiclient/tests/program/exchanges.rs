//! Recorded exchanges: which requests a command line leads to, and what the
//! program makes of the answers. They lie in `tests/compat/apiclient`.

use super::support::{Script, run, serve};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    exchange: Vec<Exchange>,
}

/// A run of the program.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    /// The words after the program's name; what stands in single quotes is one.
    /// `{folder}` stands for the folder of `files`, `{served}` for the address
    /// of the server of `served`.
    run: String,
    /// Standard input.
    #[serde(default)]
    input: String,
    /// Files by name.
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// Documents over HTTP by path.
    #[serde(default)]
    served: BTreeMap<String, String>,
    /// What the server is asked, in this order, and what it answers.
    #[serde(default)]
    request: Vec<Request>,
    #[serde(default)]
    stdout: String,
    /// `…` at its end stands for anything.
    #[serde(default)]
    stderr: String,
    #[serde(default)]
    exit: i32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// Method and URI; `…` stands for the random end of a transaction's name.
    line: String,
    #[serde(default)]
    body: String,
    #[serde(default = "ok")]
    status: String,
    #[serde(default)]
    answer: String,
}

fn ok() -> String {
    "200 OK".into()
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_string());
        } else {
            words.extend(part.split_whitespace().map(str::to_string));
        }
    }
    words
}

/// A text without the random ends of transactions' names.
fn normal(text: &str) -> String {
    let mut pieces = text.split("tx=apiclient-");
    let mut normal = pieces.next().unwrap().to_string();
    for piece in pieces {
        let (command, rest) = piece.split_once('-').unwrap();
        let (random, rest) = rest.split_at(16);
        assert!(random.bytes().all(|c| c.is_ascii_alphanumeric()), "{text}");
        normal = format!("{normal}tx=apiclient-{command}-…{rest}");
    }
    normal
}

fn check(exchange: Exchange) {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in &exchange.files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let place = folder.path().display().to_string();
    let mut line = exchange.run.replace("{folder}", &place);
    if !exchange.served.is_empty() {
        line = line.replace("{served}", &serve(exchange.served.into_iter().collect()));
    }
    let answers = exchange.request.iter().map(|request| {
        let (status, answer) = (&request.status, &request.answer);
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        )
    });
    let script = Script::new(answers.collect());
    let outcome = run(&words(&line), Some(&script.socket()), &exchange.input);
    let seen: Vec<String> = script
        .requests()
        .iter()
        .map(|request| {
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            let (first, _) = head.split_once(" HTTP/1.1\r\n").unwrap();
            normal(&format!("{first}\n{body}"))
        })
        .collect();
    let expected: Vec<String> = exchange
        .request
        .iter()
        .map(|request| format!("{}\n{}", request.line, request.body))
        .collect();
    let name = &exchange.run;
    let err = normal(&outcome.err).replace(&place, "{folder}");
    assert_eq!(seen, expected, "requests of {name}; it said: {err}");
    match exchange.stderr.strip_suffix('…') {
        Some(start) => assert!(err.starts_with(start), "standard error of {name}: {err}"),
        None => assert_eq!(err, exchange.stderr, "standard error of {name}"),
    }
    assert_eq!(outcome.out, exchange.stdout, "standard output of {name}");
    assert_eq!(outcome.status, exchange.exit, "status of {name}");
}

fn check_file(name: &str) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/compat/apiclient");
    let text = std::fs::read_to_string(Path::new(folder).join(name)).unwrap();
    let file: File = toml::from_str(&text).unwrap();
    for exchange in file.exchange {
        check(exchange);
    }
}

#[test]
fn of_bottlerocket() {
    check_file("bottlerocket.toml");
}

#[test]
fn of_ours() {
    check_file("ours.toml");
}
