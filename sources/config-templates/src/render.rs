//! From settings to texts.

use crate::catalog::{Catalog, ConfigFile, Format};
use crate::write::Rendered;
use crate::{data, filters, folder};
use anyhow::{Context, Result, bail, ensure};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::Value;
use settings::{Document, Model, Settings, Variant, lay_over, merge_tables};
use std::fs;
use std::path::Path;

/// What templates see as `os`: the image, and the machine that it runs on. They
/// also see `os.kubernetes_minor`, the minor version of the image's Kubernetes; a
/// variant whose name does not tell it is taken for the newest.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Os {
    /// The variant's name.
    pub variant_id: String,
    /// The version, without a leading `v`.
    pub version_id: String,
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// Processors of the machine.
    pub cpus: usize,
    /// Bytes of the file system that `/var` is on; 0 if nobody knows.
    pub data_bytes: u64,
}

impl Os {
    fn to_value(&self) -> Result<Value> {
        let mut value = serde_json::to_value(self).context("describe the system to templates")?;
        let variant = Variant::parse(&self.variant_id).ok();
        let minor = variant
            .and_then(|variant| variant.kubernetes())
            .unwrap_or(settings::NEWEST_KUBERNETES_MINOR);
        value["kubernetes_minor"] = minor.into();
        Ok(value)
    }
}

/// A file's text and how it is to be written.
#[derive(Clone, Debug)]
pub struct RenderedFile {
    /// The file's entry in the catalog, or that of the folder it lies in.
    pub file: ConfigFile,
    /// Where it lies, absolute.
    pub path: String,
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
    let os = os.to_value()?;
    let (mut rendered, mut folders) = (Vec::new(), Vec::new());
    for file in files {
        let made = render_one(&environment, file, root, settings, &os)
            .with_context(|| format!("render {} ({})", file.path, file.name))?;
        if file.folder {
            folders.push(file.clone());
        }
        rendered.extend(made);
    }
    Ok(Rendered::new(rendered, folders))
}

/// Renders every file of an image, as the build does, so that a broken template
/// fails the build: with the variant's defaults, and with every setting set to its
/// example over them. `config_files` and `defaults` are the texts of
/// `config-files.toml` and `defaults.toml`, and the templates lie below `root` at the
/// paths that the catalog gives.
///
/// What a file then says is for its golden tests.
pub fn check(config_files: &str, root: &Path, defaults: &str, os: &Os) -> Result<()> {
    let catalog = Catalog::parse(config_files)?;
    let mut settings = Document::defaults();
    if let Some(variant) = Document::from_toml(defaults).context("settings defaults")? {
        settings.merge(&variant);
    }
    render(&catalog.files, root, &settings, os)?;
    let examples = Document::from_toml(&Settings::schema().examples())
        .context("the examples of all settings")?;
    settings.merge(&examples.unwrap_or_default());
    render(&catalog.files, root, &settings, os)
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
) -> Result<Vec<RenderedFile>> {
    let path = root.join(file.template.trim_start_matches('/'));
    let template = fs::read_to_string(&path)
        .with_context(|| format!("read the template {}", path.display()))?;
    let context = serde_json::json!({ "settings": visible(file, settings), "os": os });
    let text = environment
        .render_named_str(&file.template, &template, context)
        .map_err(|error| anyhow::anyhow!("{}", explain(&error)))?;
    let texts = if file.folder {
        folder::split(&text)?
            .into_iter()
            .map(|(name, text)| (format!("{}/{name}", file.path), text))
            .collect()
    } else {
        vec![(file.path.clone(), text)]
    };
    let finish = |(path, text): (String, String)| {
        let text = match file.folder {
            true => finish(file, settings, text).context(path.clone()),
            false => finish(file, settings, text),
        };
        Ok(RenderedFile {
            file: file.clone(),
            text: text?,
            path,
        })
    };
    texts.into_iter().map(finish).collect()
}

/// Checks what a template has rendered, and turns it into what is written.
fn finish(file: &ConfigFile, settings: &Document, text: String) -> Result<String> {
    let written_in = file.from.unwrap_or(file.format);
    parse(written_in, &text).with_context(|| {
        let format = format!("{written_in:?}").to_lowercase();
        format!("the rendered text is not valid as {format}")
    })?;
    let overlay = file.overlay_key();
    if overlay.is_none() && file.from.is_none() {
        return Ok(text);
    }
    let mut value = data::read(written_in, &text)?;
    if let Some(over) = overlay.and_then(|key| settings.get(&key)) {
        lay_over(&mut value, over);
    }
    data::write(file.format, &value)
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
        merge_tables(tree, chosen.tree());
    }
    tree
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
