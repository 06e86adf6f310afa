//! Which image a verb is about.

use buildsys::image::BuildRequest;
use buildsys::project::{Arch, Project};

/// Which image: the arguments that verbs about images share.
#[derive(Clone, Debug, clap::Args)]
pub struct ImageChoice {
    /// The variant, or `<variant>-dev`, its twin with the dev door; the project's
    /// default if not given
    #[arg(long)]
    variant: Option<String>,
    /// Processor architecture: x86_64 or aarch64
    #[arg(long, default_value = "x86_64")]
    pub arch: Arch,
}

impl ImageChoice {
    /// The variant's name.
    pub fn variant<'a>(&'a self, project: &'a Project) -> &'a str {
        self.variant
            .as_deref()
            .unwrap_or(&project.config.release.default_variant)
    }

    /// What the build is asked for.
    pub fn request(&self, locked: bool) -> BuildRequest {
        BuildRequest {
            variant: self.variant.clone(),
            arch: self.arch,
            locked,
        }
    }
}
