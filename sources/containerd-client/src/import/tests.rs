//! Imports into a stand-in for containerd, which notes what it is asked.

use super::*;
use crate::api::{Image, ImageMessage, UpdateImage};
use bytes::Bytes;
use prost::Message;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};

/// Method and message of each call.
type Calls = Vec<(String, Vec<u8>)>;

/// What the stand-in says: a message, or the code of a failure.
type Answers = HashMap<&'static str, Result<Vec<u8>, u32>>;

/// The image of a test, with one layer, in a folder of images.
fn layout(shelf: &Path) -> Layout {
    let folder = &shelf.join("image");
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |digit: &str, text: &str| {
        let digest = digit.repeat(64);
        fs::write(blobs.join(&digest), text).unwrap();
        let size = text.len();
        format!("\"mediaType\":\"type/{digit}\",\"digest\":\"sha256:{digest}\",\"size\":{size}")
    };
    let layer = blob("1", "the layer");
    let config = blob("2", "{\"rootfs\":{\"diff_ids\":[\"sha256:content\"]}}");
    let manifest = blob(
        "3",
        &format!("{{\"config\":{{{config}}},\"layers\":[{{{layer}}}]}}"),
    );
    let name = "\"annotations\":{\"io.containerd.image.name\":\"localhost/a:1\"}";
    let index = format!("{{\"manifests\":[{{{manifest},{name}}}]}}");
    fs::write(folder.join("index.json"), index).unwrap();
    Layout::read(folder).unwrap()
}

async fn serve(stream: UnixStream, calls: Arc<Mutex<Calls>>, answers: Answers) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let answers = Arc::new(answers);
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (calls, answers) = (calls.clone(), answers.clone());
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            assert_eq!(head.headers["containerd-namespace"], "space");
            let mut bytes = Vec::new();
            while let Some(Ok(chunk)) = body.data().await {
                body.flow_control().release_capacity(chunk.len()).unwrap();
                bytes.extend_from_slice(&chunk);
            }
            let path = head.uri.path();
            let method = path.trim_start_matches("/containerd.services.");
            let call = (method.to_string(), bytes[5..].to_vec());
            calls.lock().unwrap().push(call);
            let answer = answers.get(method).cloned().unwrap_or(Ok(Vec::new()));
            let head = http::Response::builder().status(200).body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            let mut status = 0;
            match answer {
                Ok(message) => {
                    let length = (message.len() as u32).to_be_bytes();
                    let framed = [&[0][..], &length, &message].concat();
                    stream.send_data(Bytes::from(framed), false).unwrap();
                }
                Err(code) => status = code,
            }
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", status.into());
            trailers.insert("grpc-message", "as the test wants".parse().unwrap());
            stream.send_trailers(trailers).unwrap();
        });
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Imports where these answers are given, as so many programs at once; what came of each,
/// and the calls of all.
fn run_at_once(programs: usize, answers: Answers) -> (Vec<Result<bool>>, Calls) {
    let folder = TempDir::new().unwrap();
    let layout = &layout(folder.path());
    let socket = &folder.path().join("socket");
    let calls = Arc::new(Mutex::new(Calls::new()));
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    let noted = calls.clone();
    // It goes with the program of the tests.
    thread::spawn(move || {
        runtime().block_on(async {
            let listener = UnixListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, noted.clone(), answers.clone()));
            }
        });
    });
    let import = || {
        runtime().block_on(async {
            let client = Client::connect(socket, "space").await?;
            import(&client, layout, &[("label", "value")]).await
        })
    };
    let results = thread::scope(|scope| {
        let importing: Vec<_> = (0..programs).map(|_| scope.spawn(import)).collect();
        let ended = importing.into_iter().map(|program| program.join().unwrap());
        ended.collect()
    });
    let calls = calls.lock().unwrap().clone();
    (results, calls)
}

/// The same as one program.
fn run(answers: Answers) -> (Result<bool>, Calls) {
    let (mut results, calls) = run_at_once(1, answers);
    (results.pop().unwrap(), calls)
}

fn methods(calls: &Calls) -> Vec<&str> {
    calls
        .iter()
        .filter_map(|(method, _)| method.rsplit('.').next())
        .collect()
}

/// A containerd that has nothing: code 5 says that.
fn empty() -> Answers {
    HashMap::from([
        ("images.v1.Images/Get", Err(5)),
        ("snapshots.v1.Snapshots/Stat", Err(5)),
        ("snapshots.v1.Snapshots/Remove", Err(5)),
    ])
}

const WHOLE: [&str; 12] = [
    "Images/Get",
    "Leases/Create",
    "Content/Write",
    "Content/Write",
    "Content/Write",
    "Snapshots/Stat",
    "Snapshots/Remove",
    "Snapshots/Prepare",
    "Diff/Apply",
    "Snapshots/Commit",
    "Images/Create",
    "Leases/Delete",
];

#[test]
fn the_name_comes_last_and_files_are_on_the_disk_by_then() {
    let (result, calls) = run(empty());
    assert!(result.unwrap());
    assert_eq!(methods(&calls), WHOLE);
    let apply = Apply::decode(calls[8].1.as_slice()).unwrap();
    assert!(apply.sync_fs);
    let commit = CommitSnapshot::decode(calls[9].1.as_slice()).unwrap();
    assert_eq!(commit.name, "sha256:content");
    let image = ImageMessage::decode(calls[10].1.as_slice()).unwrap();
    let image = image.image.unwrap();
    assert_eq!(image.name, "localhost/a:1");
    assert_eq!(image.labels["label"], "value");
    let digest = image.target.unwrap().digest;
    assert_eq!(digest, format!("sha256:{}", "3".repeat(64)));
    // What belongs together is known by labels: else it would be collected.
    let labels = |call: usize| {
        let written = WriteContent::decode(calls[call].1.as_slice()).unwrap();
        written.labels
    };
    let layer = format!("sha256:{}", "1".repeat(64));
    assert_eq!(labels(4)["containerd.io/gc.ref.content.l.0"], layer);
    let snapshot = "containerd.io/gc.ref.snapshot.overlayfs";
    assert_eq!(labels(3)[snapshot], "sha256:content");
}

#[test]
fn what_a_cut_has_left_is_no_obstacle() {
    let mut answers = empty();
    // Code 6: it is there already.
    answers.insert("leases.v1.Leases/Create", Err(6));
    answers.insert("content.v1.Content/Write", Err(6));
    answers.insert("snapshots.v1.Snapshots/Remove", Ok(Vec::new()));
    let (result, calls) = run(answers);
    assert!(result.unwrap());
    assert_eq!(methods(&calls), WHOLE);
}

#[test]
fn programs_import_one_after_the_other() {
    // What one has on the way has the names of what the others have.
    let (results, calls) = run_at_once(3, empty());
    for result in results {
        assert!(result.unwrap());
    }
    assert_eq!(methods(&calls), WHOLE.repeat(3));
}

#[test]
fn an_image_that_is_there_costs_two_questions() {
    let known = |digit: &str| {
        let target = Descriptor {
            digest: format!("sha256:{}", digit.repeat(64)),
            ..Descriptor::default()
        };
        let image = Image {
            name: "localhost/a:1".to_string(),
            target: Some(target),
            ..Image::default()
        };
        let message = ImageMessage { image: Some(image) };
        let mut answers = empty();
        answers.insert("images.v1.Images/Get", Ok(message.encode_to_vec()));
        answers.insert("images.v1.Images/Create", Err(6));
        run(answers)
    };
    let (result, calls) = known("3");
    assert!(!result.unwrap());
    // What a cut has left is not kept for ever, though nobody comes to end it.
    assert_eq!(methods(&calls), ["Images/Get", "Leases/Delete"]);
    // A name that an older release gave to its image goes to this one.
    let (result, calls) = known("4");
    assert!(result.unwrap());
    let update = calls
        .iter()
        .find(|(method, _)| method == "images.v1.Images/Update");
    let update = UpdateImage::decode(update.unwrap().1.as_slice()).unwrap();
    // Whoever uses an image is noted in other labels of it.
    assert_eq!(update.fields.unwrap().paths, ["target", "labels.label"]);
    let digest = update.image.unwrap().target.unwrap().digest;
    assert_eq!(digest, format!("sha256:{}", "3".repeat(64)));
}

#[test]
fn a_failure_leaves_no_name() {
    let mut answers = empty();
    answers.insert("diff.v1.Diff/Apply", Err(13));
    let (result, calls) = run(answers);
    let told = format!("{:#}", result.unwrap_err());
    for part in ["localhost/a:1", "Diff/Apply", "as the test wants (code 13)"] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    assert!(!methods(&calls).contains(&"Images/Create"));
    // What is there already is for the next try.
    assert!(!methods(&calls).contains(&"Leases/Delete"));
}

#[test]
fn a_large_part_is_written_in_pieces() {
    let part = Descriptor {
        digest: "sha256:d".to_string(),
        size: 1,
        ..Descriptor::default()
    };
    for (length, expected) in [
        (0, vec![(COMMIT, 0, 0)]),
        (PIECE, vec![(COMMIT, 0, PIECE)]),
        (
            2 * PIECE + 1,
            vec![
                (WRITE, 0, PIECE),
                (WRITE, PIECE as i64, PIECE),
                (COMMIT, 2 * PIECE as i64, 1),
            ],
        ),
    ] {
        let requests = pieces(&part, &vec![7; length], &Labels::new()).unwrap();
        let found: Vec<(i32, i64, usize)> = requests
            .iter()
            .map(|request| (request.action, request.offset, request.data.len()))
            .collect();
        assert_eq!(found, expected, "{length} bytes");
    }
}
