//! QMP, the emulator's control protocol: one JSON object a line, answers and
//! events mixed.

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// How long the emulator may take to answer a command. It answers at once unless
/// its process gets no processor time.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// Something that happened to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The machine was reset, by the guest or by us.
    Reset,
    /// The machine was powered off; the emulator's word for the reason.
    Shutdown(String),
    /// Another event, by name.
    Other(String),
}

/// What one line from the emulator is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    Greeting,
    Answer(Value),
    Error(String),
    Event(Event),
}

pub(crate) fn parse(line: &str) -> Result<Message> {
    let value: Value = serde_json::from_str(line).context("not JSON")?;
    if value.get("QMP").is_some() {
        return Ok(Message::Greeting);
    }
    if let Some(answer) = value.get("return") {
        return Ok(Message::Answer(answer.clone()));
    }
    if let Some(error) = value.get("error") {
        let text = error
            .get("desc")
            .and_then(Value::as_str)
            .unwrap_or("no description");
        return Ok(Message::Error(text.to_string()));
    }
    let Some(name) = value.get("event").and_then(Value::as_str) else {
        bail!("neither an answer nor an event");
    };
    let reason = value
        .pointer("/data/reason")
        .and_then(Value::as_str)
        .unwrap_or("unknown");
    Ok(Message::Event(match name {
        "RESET" => Event::Reset,
        "SHUTDOWN" => Event::Shutdown(reason.to_string()),
        _ => Event::Other(name.to_string()),
    }))
}

/// A connection to the emulator.
#[derive(Debug)]
pub(crate) struct Qmp {
    stream: UnixStream,
    answers: Receiver<Result<Value, String>>,
}

impl Qmp {
    /// Starts the conversation. Events go to `on_event`, on a thread of their own,
    /// until the emulator closes the connection.
    pub(crate) fn start(
        stream: UnixStream,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self> {
        let reader = stream
            .try_clone()
            .context("cannot duplicate the QMP socket")?;
        let (sender, answers) = channel();
        thread::Builder::new()
            .name("qmp".to_string())
            .spawn(move || read_messages(reader, &sender, on_event))
            .context("cannot start the thread that reads QMP")?;
        let mut qmp = Self { stream, answers };
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its answer.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut line = json!({"execute": command, "arguments": arguments}).to_string();
        line.push('\n');
        self.stream
            .write_all(line.as_bytes())
            .with_context(|| format!("cannot send {command} to the emulator"))?;
        match self.answers.recv_timeout(ANSWER_TIME) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(anyhow!("the emulator refused {command}: {error}")),
            Err(RecvTimeoutError::Timeout) => bail!("the emulator did not answer {command}"),
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the emulator ended before it answered {command}")
            }
        }
    }
}

fn read_messages(
    stream: UnixStream,
    answers: &Sender<Result<Value, String>>,
    mut on_event: impl FnMut(Event),
) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        // A line that cannot be read is answered as an error, so that whoever
        // waits for the answer learns of it.
        let answer = match parse(&line) {
            Ok(Message::Event(event)) => {
                on_event(event);
                continue;
            }
            Ok(Message::Greeting) => continue,
            Ok(Message::Answer(value)) => Ok(value),
            Ok(Message::Error(text)) => Err(text),
            Err(error) => Err(format!("unreadable line {line:?}: {error:#}")),
        };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn tells_messages_apart() {
        let check = |line: &str, expected: Message| assert_eq!(parse(line).unwrap(), expected);
        check(r#"{"QMP": {"version": {}}}"#, Message::Greeting);
        check(r#"{"return": {"a": 1}}"#, Message::Answer(json!({"a": 1})));
        check(
            r#"{"error": {"class": "X", "desc": "no"}}"#,
            Message::Error("no".to_string()),
        );
        check(
            r#"{"event": "RESET", "data": {"guest": true}}"#,
            Message::Event(Event::Reset),
        );
        check(
            r#"{"event": "SHUTDOWN", "data": {"reason": "guest-shutdown"}}"#,
            Message::Event(Event::Shutdown("guest-shutdown".to_string())),
        );
        check(
            r#"{"event": "STOP"}"#,
            Message::Event(Event::Other("STOP".to_string())),
        );
        for bad in ["", "{", "{}", "[]", r#"{"event": 1}"#] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn events_between_answers_reach_their_receiver() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let emulator = thread::spawn(move || {
            let mut writer = theirs.try_clone().unwrap();
            let mut lines = BufReader::new(theirs).lines();
            writer.write_all(b"{\"QMP\": {}}\n").unwrap();
            assert!(lines.next().unwrap().unwrap().contains("qmp_capabilities"));
            writer.write_all(b"{\"return\": {}}\n").unwrap();
            assert!(lines.next().unwrap().unwrap().contains("query-status"));
            writer
                .write_all(b"{\"event\": \"RESET\"}\n{\"return\": {\"running\": true}}\n")
                .unwrap();
            assert!(lines.next().unwrap().unwrap().contains("nonsense"));
            writer
                .write_all(b"{\"error\": {\"desc\": \"unknown\"}}\n")
                .unwrap();
        });
        let (sender, events) = mpsc::channel();
        let mut qmp = Qmp::start(ours, move |event| sender.send(event).unwrap()).unwrap();
        assert_eq!(
            qmp.execute("query-status", json!({})).unwrap(),
            json!({"running": true})
        );
        assert_eq!(events.recv().unwrap(), Event::Reset);
        let error = qmp.execute("nonsense", json!({})).unwrap_err().to_string();
        assert_eq!(error, "the emulator refused nonsense: unknown");
        emulator.join().unwrap();
        let error = qmp.execute("late", json!({})).unwrap_err().to_string();
        assert!(error.contains("late"), "{error}");
    }
}
