//! The host as settings see it: its defaults, its files, its units.

use crate::units::Units;
use anyhow::{Context, Result};
use config_templates::{Catalog, Os};
use settings::{Document, Key, Model, Schema, Settings, Variant};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sysutil::os_release::OsRelease;

/// Where things lie, below the root.
pub mod layout {
    /// The variant's defaults.
    pub const DEFAULTS: &str = "usr/share/bulkhead/defaults.toml";
    /// The list of config files.
    pub const CONFIG_FILES: &str = "usr/share/bulkhead/config-files.toml";
    /// The settings store.
    pub const STORE: &str = "var/lib/bulkhead/settings";
    /// The settings store of a machine whose state partition cannot be used.
    pub const VOLATILE_STORE: &str = "run/bulkhead/settings";
    /// What became of user data, for the API.
    pub const USER_DATA_REPORT: &str = "run/bulkhead/user-data.json";
    /// What became of user data when it was last looked at, for later boots.
    pub const KEPT_USER_DATA_REPORT: &str = "var/lib/bulkhead/user-data.json";
    /// There in a boot that user data stops; `preconfigured.target` knows it.
    pub const STOPPED_BY_USER_DATA: &str = "run/bulkhead/stopped-by-user-data";
}

/// Largest file of the image that is read; they come from our own build.
const FILE_LIMIT: u64 = 4 * 1024 * 1024;

/// Everything about the host that does not change while it runs.
#[derive(Clone)]
pub struct Host {
    root: PathBuf,
    catalog: Catalog,
    defaults: Document,
    os: api_types::Os,
    variant: Option<Variant>,
    units: Arc<dyn Units>,
}

/// What [`Host::apply`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Paths of the files that were replaced.
    pub files: Vec<String>,
    /// Units that were restarted.
    pub restarted: Vec<String>,
    /// Units that were reloaded.
    pub reloaded: Vec<String>,
    /// What went wrong, one text each.
    pub failures: Vec<String>,
}

impl Host {
    /// Reads what the image says, below `root`. The image is verified and was
    /// checked at build, so faults in it are errors, not things to live with.
    pub fn open(root: &Path, units: Arc<dyn Units>) -> Result<Self> {
        let read = |path: &str| {
            let path = root.join(path);
            sysutil::fs::read_text_if_present(&path, FILE_LIMIT).map(Option::unwrap_or_default)
        };
        let catalog = Catalog::parse(&read(layout::CONFIG_FILES)?)
            .with_context(|| format!("/{}", layout::CONFIG_FILES))?;
        let os = read_os(root)?;
        let variant = Variant::parse(&os.variant_id).ok();
        let mut defaults = Document::defaults_of(variant.as_ref());
        let of_the_image = Document::from_toml(&read(layout::DEFAULTS)?)
            .with_context(|| format!("/{}", layout::DEFAULTS))?;
        defaults.merge(&of_the_image.unwrap_or_default());
        Ok(Self {
            root: root.to_path_buf(),
            catalog,
            defaults,
            os,
            variant,
            units,
        })
    }

    /// The root of the file system.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The config files of the image.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The defaults of the model and of the variant.
    pub fn defaults(&self) -> &Document {
        &self.defaults
    }

    /// What the image is.
    pub fn os(&self) -> &api_types::Os {
        &self.os
    }

    /// The variant, if its name is one: that of a development image may not be.
    pub fn variant(&self) -> Option<&Variant> {
        self.variant.as_ref()
    }

    /// The settings that there are here.
    pub fn schema(&self) -> Schema {
        match &self.variant {
            Some(variant) => Settings::schema_for(variant),
            None => Settings::schema(),
        }
    }

    /// The service manager.
    pub fn units(&self) -> &dyn Units {
        self.units.as_ref()
    }

    /// Renders every config file. A file that fails is said and the others are
    /// written all the same: at boot a machine with most of its files is worth
    /// more than one with none.
    pub fn render_all(&self, settings: &Document) {
        let mut failed = Vec::new();
        for file in &self.catalog.files {
            match config_templates::render([file], &self.root, settings, &self.template_os()) {
                Ok(rendered) => {
                    rendered.write(&self.root, &mut failed);
                }
                Err(error) => failed.push(error),
            }
        }
        for error in failed {
            self.alarm(&format!("config file not rendered: {error:#}"));
        }
    }

    /// Brings the files that read one of `keys` up to date (all files without
    /// keys) and restarts or reloads the units of those that differed. If one
    /// file cannot be rendered, nothing is changed; otherwise a failure keeps
    /// nothing else from being done.
    pub fn apply(&self, settings: &Document, keys: Option<&[Key]>) -> Applied {
        let mut applied = Applied::default();
        let os = self.template_os();
        let rendered = match keys {
            Some(keys) => {
                config_templates::render(self.catalog.affected_by(keys), &self.root, settings, &os)
            }
            None => config_templates::render(&self.catalog.files, &self.root, settings, &os),
        };
        let mut failed = Vec::new();
        match rendered {
            Ok(rendered) => {
                let replaced = rendered.write(&self.root, &mut failed);
                applied.files = replaced.paths;
                match self.units.restart(&replaced.restart) {
                    Ok(units) => applied.restarted = units,
                    Err(error) => failed.push(error),
                }
                match self.units.reload(&replaced.reload) {
                    Ok(units) => applied.reloaded = units,
                    Err(error) => failed.push(error),
                }
            }
            Err(error) => failed.push(error),
        }
        if !applied.files.is_empty() {
            tracing::info!(
                "replaced {}; restarted {:?}, reloaded {:?}",
                applied.files.join(", "),
                applied.restarted,
                applied.reloaded
            );
        }
        for error in failed {
            tracing::error!("settings not applied: {error:#}");
            applied.failures.push(format!("{error:#}"));
        }
        applied
    }

    /// Says something that somebody has to see, in the journal and on the
    /// console; a host in a folder has none.
    pub fn alarm(&self, line: &str) {
        tracing::error!("{line}");
        if self.root == Path::new("/") {
            sysutil::console::alarm(line);
        }
    }

    fn template_os(&self) -> Os {
        Os {
            variant_id: self.os.variant_id.clone(),
            version_id: self.os.version_id.clone(),
            arch: self.os.arch.clone(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            data_bytes: sysutil::fs::size_of(&self.root.join("var")).unwrap_or_default(),
        }
    }
}

fn read_os(root: &Path) -> Result<api_types::Os> {
    let release = OsRelease::read(root)?;
    Ok(api_types::Os {
        pretty_name: release.pretty_name().to_string(),
        variant_id: release.variant_id().to_string(),
        version_id: release.version_id().to_string(),
        build_id: release.build_id().to_string(),
        arch: std::env::consts::ARCH.to_string(),
    })
}
