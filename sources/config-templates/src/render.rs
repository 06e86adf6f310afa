//! From settings to texts.

use crate::catalog::{Catalog, ConfigFile, Format};
use crate::filters;
use crate::write::Rendered;
use anyhow::{Context, Result, bail, ensure};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::{Map, Value};
use settings::{Document, Model, Settings};
use std::fs;
use std::path::Path;

/// What templates see as `os`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Os {
    /// The variant's name.
    pub variant_id: String,
    /// The version, without a leading `v`.
    pub version_id: String,
    /// `x86_64` or `aarch64`.
    pub arch: String,
}

/// A file's text and how it is to be written.
#[derive(Clone, Debug)]
pub struct RenderedFile {
    /// The file's entry in the catalog.
    pub file: ConfigFile,
    /// Its text.
    pub text: String,
}

/// Renders `files`, whose templates lie below `root`. Nothing is written; the
/// first file that fails is named in the error.
pub fn render<'c>(
    files: impl IntoIterator<Item = &'c ConfigFile>,
    root: &Path,
    settings: &Document,
    os: &Os,
) -> Result<Rendered> {
    let environment = environment();
    let os = serde_json::to_value(os).context("describe the system to templates")?;
    let mut rendered = Vec::new();
    for file in files {
        let text = render_one(&environment, file, root, settings, &os)
            .with_context(|| format!("render {} ({})", file.path, file.name))?;
        rendered.push(RenderedFile {
            file: file.clone(),
            text,
        });
    }
    Ok(Rendered::new(rendered))
}

/// Renders every file of an image, as the build does, so that a broken template
/// fails the build: with the variant's defaults, and with every setting set to its
/// example over them. `config_files` and `defaults` are the texts of
/// `config-files.toml` and `defaults.toml`, and the templates lie below `root` at the
/// paths that the catalog gives.
///
/// What a file then says is for its golden tests.
pub fn check(config_files: &str, root: &Path, defaults: &str) -> Result<()> {
    let catalog = Catalog::parse(config_files)?;
    let mut settings = Document::defaults();
    if let Some(variant) = Document::from_toml(defaults).context("settings defaults")? {
        settings.merge(&variant);
    }
    let os = Os {
        variant_id: "variant".into(),
        version_id: "0.0.0".into(),
        arch: "x86_64".into(),
    };
    render(&catalog.files, root, &settings, &os)?;
    let examples = Document::from_toml(&Settings::schema().examples())
        .context("the examples of all settings")?;
    settings.merge(&examples.unwrap_or_default());
    render(&catalog.files, root, &settings, &os)
        .map(|_| ())
        .context("with every setting set to its example")
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_keep_trailing_newline(true);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    filters::add(&mut environment);
    environment
}

fn render_one(
    environment: &Environment<'_>,
    file: &ConfigFile,
    root: &Path,
    settings: &Document,
    os: &Value,
) -> Result<String> {
    let path = root.join(file.template.trim_start_matches('/'));
    let template = fs::read_to_string(&path)
        .with_context(|| format!("read the template {}", path.display()))?;
    let context = serde_json::json!({ "settings": visible(file, settings), "os": os });
    let text = environment
        .render_named_str(&file.template, &template, context)
        .map_err(|error| anyhow::anyhow!("{}", explain(&error)))?;
    parse(file.format, &text).with_context(|| {
        let format = format!("{:?}", file.format).to_lowercase();
        format!("the rendered text is not valid as {format}")
    })?;
    Ok(text)
}

/// The settings that the file declares that it reads, and the tables on the way
/// to them. A template that reads more does not get it, here or in the tests,
/// so that no change can go unnoticed by a file that depends on it.
fn visible(file: &ConfigFile, settings: &Document) -> Value {
    let read: Vec<_> = file.keys().collect();
    let chosen = settings.filter(|key| read.iter().any(|read| key.is_within(read)));
    let mut tree = Settings::schema().skeleton();
    if let Value::Object(tree) = &mut tree {
        tree.retain(|group, _| {
            let group = settings::Key::from_parts([group.as_str()]);
            read.iter().any(|read| read.touches(&group))
        });
        overlay(tree, chosen.tree());
    }
    tree
}

fn overlay(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (name, value) in from {
        match (into.get_mut(name), value) {
            (Some(Value::Object(into)), Value::Object(from)) => overlay(into, from),
            _ => {
                into.insert(name.clone(), value.clone());
            }
        }
    }
}

/// The template's error with its line, and what caused it.
fn explain(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Checks that a rendered text is what it says it is.
fn parse(format: Format, text: &str) -> Result<()> {
    match format {
        Format::Toml => {
            toml::de::DeTable::parse(text).map_err(|error| {
                let line = error
                    .span()
                    .map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
                anyhow::anyhow!("line {}: {}", line.unwrap_or(1), error.message())
            })?;
        }
        Format::Json => {
            serde_json::from_str::<serde::de::IgnoredAny>(text)?;
        }
        Format::Env => {
            for (n, line) in text.lines().enumerate() {
                let line = line.trim();
                if line.is_empty() || line.starts_with(['#', ';']) {
                    continue;
                }
                let name = line.split_once('=').map(|(name, _)| name);
                let is_name = name.is_some_and(|name| {
                    !name.is_empty()
                        && !name.starts_with(|c: char| c.is_ascii_digit())
                        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                });
                ensure!(is_name, "line {} is not NAME=value", n + 1);
            }
        }
        Format::Text => {
            let odd = text
                .chars()
                .find(|&c| c.is_control() && !"\n\t".contains(c));
            if let Some(odd) = odd {
                bail!("it holds the control character U+{:04X}", u32::from(odd));
            }
        }
        Format::None => {}
    }
    Ok(())
}
