//! The support bundle: what somebody who was not there needs to understand what
//! happened on a host, in one compressed archive.
//!
//! [`requests`] is the table of what goes in. Each request ends as a file of the
//! archive; one that fails leaves its reason instead. Nothing goes in that could
//! hold a secret of the settings: the settings are written without theirs, config
//! files that read one are left out, and what is left is searched for their
//! values ([`redaction`]).

mod archive;
mod program;
mod redaction;
mod requests;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use config_templates::Catalog;
use serde_json::Value;
use settings::{Model, Settings};

use archive::Archive;
use redaction::Redaction;
use requests::{ALL, Source};

/// The folder that everything in it lies in.
const FOLDER: &str = "bulkhead-logs";
/// How much of one source goes in.
const LIMIT: usize = 16 * 1024 * 1024;
/// How many files of a folder go in.
const FILES: usize = 1000;

/// What a bundle is made from. Tests have a folder and answers of their own.
pub struct Host<'a> {
    /// The root of the file system.
    pub root: &'a Path,
    /// Answers to a `GET` of the API.
    pub api: &'a dyn Fn(&str) -> Result<Vec<u8>>,
    /// What a program writes to its standard output.
    pub program: &'a dyn Fn(&[&str]) -> Result<Vec<u8>>,
}

/// Makes the bundle of this host.
pub fn make() -> Result<()> {
    let client = apiclient::Client::new(Path::new(api_types::SOCKET));
    let host = Host {
        root: Path::new("/"),
        api: &|uri| Ok(client.send("GET", uri, None)?.body),
        program: &|words| program::run(words, LIMIT),
    };
    write(&host, &host.root.join(api_types::SUPPORT_BUNDLE))
}

/// Makes the bundle of `host` at `path`, replacing it whole.
pub fn write(host: &Host<'_>, path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("making the folder {}", folder.display()))?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let written = fill(host, &temporary).and_then(|()| {
        fs::rename(&temporary, path).with_context(|| format!("replacing {}", path.display()))
    });
    if written.is_err() {
        // The first error tells the story.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn fill(host: &Host<'_>, path: &Path) -> Result<()> {
    let schema = Settings::schema();
    let settings: Result<Value> = (host.api)("/settings").and_then(|body| {
        serde_json::from_slice(&body).context("the API's answer to /settings is not JSON")
    });
    let (settings, secrets) = match settings {
        Ok(tree) => {
            let (shown, secrets) = schema.without_secrets(&tree);
            (Ok(format!("{shown:#}\n").into_bytes()), secrets)
        }
        Err(error) => (Err(error), Vec::new()),
    };
    let redaction = Redaction::new(&secrets);
    let mut archive = Archive::create(path, FOLDER)?;
    let mut settings = Some(settings);
    for request in ALL {
        let mut add = |name: &str, content: Result<Vec<u8>>| {
            let content = content
                .unwrap_or_else(|error| format!("this could not be had: {error:#}\n").into_bytes());
            archive.add(name, &redaction.apply(content))
        };
        match request.source {
            Source::Settings => {
                if let Some(settings) = settings.take() {
                    add(request.name, settings)?;
                }
            }
            Source::Api(uri) => add(request.name, (host.api)(uri))?,
            Source::Program(words) => add(request.name, (host.program)(words))?,
            Source::File(name) => add(request.name, read(&host.root.join(name)))?,
            Source::Folder(name) => {
                for (file, content) in folder(&host.root.join(name)) {
                    add(&format!("{}/{file}", request.name), content)?;
                }
            }
            Source::ConfigFiles => match catalog(host.root) {
                Err(error) => add(request.name, Err(error))?,
                Ok(catalog) => {
                    for file in &catalog.files {
                        let path = host.root.join(file.path.trim_start_matches('/'));
                        let is_public = file.mode().is_ok_and(|mode| mode & 0o004 != 0);
                        let name = format!("{}{}", request.name, file.path);
                        if !is_public || file.keys().any(|key| schema.reads_secret(&key)) {
                            add(&name, Ok(b"left out: it may hold secrets\n".to_vec()))?;
                        } else if file.folder {
                            for (file, content) in folder(&path) {
                                add(&format!("{name}/{file}"), content)?;
                            }
                        } else if path.exists() {
                            add(&name, read(&path))?;
                        }
                    }
                }
            },
        }
    }
    archive.finish()
}

fn catalog(root: &Path) -> Result<Catalog> {
    let path = root.join("usr/share/bulkhead/config-files.toml");
    let text = sysutil::fs::read_text_if_present(&path, LIMIT as u64)?;
    Catalog::parse(&text.unwrap_or_default())
}

/// A file as far as the limit.
fn read(path: &Path) -> Result<Vec<u8>> {
    let file = fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut bytes = Vec::new();
    file.take(LIMIT as u64)
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading {}", path.display()))?;
    Ok(bytes)
}

/// The files below a folder in order, by their path in it. Links are not
/// followed.
fn folder(root: &Path) -> Vec<(String, Result<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(next) = folders.pop() {
        let Ok(entries) = fs::read_dir(&next) else {
            continue;
        };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found.truncate(FILES);
    found
        .into_iter()
        .filter_map(|path| {
            let name = path.strip_prefix(root).ok()?.to_str()?.to_string();
            Some((name, read(&path)))
        })
        .collect()
}
