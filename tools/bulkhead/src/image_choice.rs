//! Which image a verb is about.

use anyhow::{Result, ensure};
use buildsys::image::BuildRequest;
use buildsys::manifest::DEV_SUFFIX;
use buildsys::project::{Arch, Project};

/// A dev twin answers whoever asks: it is not for others' machines.
pub fn refuse_twin(variant: &str) -> Result<()> {
    ensure!(
        !variant.ends_with(DEV_SUFFIX),
        "{variant} is a dev twin, which lets everybody in who reaches it over the network: name \
         the variant itself"
    );
    Ok(())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_are_for_the_workstation() {
        assert!(refuse_twin("metal-core").is_ok());
        let error = refuse_twin("metal-core-dev").unwrap_err().to_string();
        assert!(error.contains("dev twin"), "{error}");
    }
}
