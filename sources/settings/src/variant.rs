//! Variants of the host, as far as they decide which settings there are.

use crate::groups::upstream::{NEWEST_KUBERNETES_MINOR, OLDEST_KUBERNETES_MINOR};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A variant, by what its name says: `aws-k8s-1.36`, `metal-core`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    platform: Platform,
    kubernetes: Option<u32>,
}

/// What a host runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// EC2.
    Aws,
    /// Machines of one's own, and QEMU.
    Metal,
    /// VMware.
    Vmware,
}

/// Which variants have a setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    #[default]
    All,
    /// Those for EC2.
    Aws,
    /// Those with Kubernetes.
    Kubernetes,
    /// Those for EC2 with Kubernetes.
    AwsKubernetes,
    /// Those for EC2, and those with Kubernetes.
    AwsOrKubernetes,
    /// Those with Kubernetes of some minor versions. A version that is newer or older
    /// than all that the model knows is taken for the nearest of them.
    KubernetesMinors {
        /// The least.
        from: u32,
        /// The greatest.
        to: u32,
    },
}

/// Why a text names no variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariantError {
    id: String,
}

impl fmt::Display for VariantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.id.chars().take(80).collect();
        write!(
            f,
            "{shown:?} is no variant: it is named aws, metal or vmware, then \"-core\" or \
             \"-k8s-1.\" and a number, as in aws-k8s-1.36"
        )
    }
}

impl std::error::Error for VariantError {}

impl Variant {
    /// Reads the name of a variant or of its dev twin, which has the same
    /// settings.
    pub fn parse(id: &str) -> Result<Self, VariantError> {
        Self::read(id).ok_or_else(|| VariantError { id: id.to_string() })
    }

    fn read(id: &str) -> Option<Self> {
        let name = id.strip_suffix("-dev").unwrap_or(id);
        let (platform, rest) = name.split_once('-')?;
        let platform = match platform {
            "aws" => Platform::Aws,
            "metal" => Platform::Metal,
            "vmware" => Platform::Vmware,
            _ => return None,
        };
        let kubernetes = if rest == "core" {
            None
        } else {
            let minor = rest.strip_prefix("k8s-1.")?;
            let is_plain = (1..=4).contains(&minor.len())
                && minor.bytes().all(|c| c.is_ascii_digit())
                && !minor.starts_with('0');
            Some(is_plain.then(|| minor.parse().ok()).flatten()?)
        };
        Some(Self {
            platform,
            kubernetes,
        })
    }

    /// What it runs on.
    pub fn platform(&self) -> Platform {
        self.platform
    }

    /// The minor version of its Kubernetes, if it has one: 36 for `1.36`.
    pub fn kubernetes(&self) -> Option<u32> {
        self.kubernetes
    }
}

impl FromStr for Variant {
    type Err = VariantError;

    fn from_str(id: &str) -> Result<Self, VariantError> {
        Self::parse(id)
    }
}

impl fmt::Display for Variant {
    /// Its name, which a dev twin shares.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let platform = match self.platform {
            Platform::Aws => "aws",
            Platform::Metal => "metal",
            Platform::Vmware => "vmware",
        };
        match self.kubernetes {
            Some(minor) => write!(f, "{platform}-k8s-1.{minor}"),
            None => write!(f, "{platform}-core"),
        }
    }
}

/// A setting that takes fewer values in some variants: there is nothing there that could
/// do what the others ask for.
pub(crate) struct Narrowed {
    /// The setting.
    pub(crate) key: [&'static str; 2],
    /// The values that are taken, as words.
    pub(crate) words: &'static [&'static str],
    /// What somebody reads who gives another one.
    pub(crate) reason: &'static str,
    is_whole: fn(&Variant) -> bool,
}

const NARROWED: &[Narrowed] = &[
    Narrowed {
        key: ["kubernetes", "authentication-mode"],
        words: &["tls"],
        reason: "only variants for EC2 have what proves a role; with \"tls\" the node joins by \
                 a bootstrap token",
        is_whole: |variant| variant.platform == Platform::Aws,
    },
    Narrowed {
        key: ["autoscaling", "should-wait"],
        words: &["false"],
        reason: "the host does not wait for its turn: it joins as soon as it is up, in a warm \
                 pool, too",
        is_whole: |_| false,
    },
    Narrowed {
        key: ["cloudformation", "should-signal"],
        words: &["false"],
        reason: "the host sends no signal; have the stack wait for something else",
        is_whole: |_| false,
    },
];

impl Narrowed {
    /// Those that take fewer values in `variant`.
    pub(crate) fn in_variant(variant: &Variant) -> impl Iterator<Item = &'static Self> {
        NARROWED
            .iter()
            .filter(move |narrowed| !(narrowed.is_whole)(variant))
    }

    /// True if `value` is among those that are taken.
    pub(crate) fn has(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.words.contains(&text.as_str()),
            Value::Bool(flag) => self.words.contains(&flag.to_string().as_str()),
            _ => false,
        }
    }
}

impl Scope {
    /// True if `variant` is among them.
    pub fn has(self, variant: &Variant) -> bool {
        let aws = variant.platform == Platform::Aws;
        let kubernetes = variant.kubernetes.is_some();
        match self {
            Self::All => true,
            Self::Aws => aws,
            Self::Kubernetes => kubernetes,
            Self::AwsKubernetes => aws && kubernetes,
            Self::AwsOrKubernetes => aws || kubernetes,
            Self::KubernetesMinors { from, to } => variant.kubernetes.is_some_and(|minor| {
                let minor = minor.clamp(OLDEST_KUBERNETES_MINOR, NEWEST_KUBERNETES_MINOR);
                (from..=to).contains(&minor)
            }),
        }
    }

    /// The variants in words: "variants with Kubernetes".
    pub fn words(self) -> Cow<'static, str> {
        let words = match self {
            Self::All => "all variants",
            Self::Aws => "variants for EC2",
            Self::Kubernetes => "variants with Kubernetes",
            Self::AwsKubernetes => "variants for EC2 with Kubernetes",
            Self::AwsOrKubernetes => "variants for EC2 and variants with Kubernetes",
            Self::KubernetesMinors { from, to } if from == to => {
                return format!("variants with Kubernetes 1.{from}").into();
            }
            Self::KubernetesMinors { from, to } => {
                return format!("variants with Kubernetes 1.{from} to 1.{to}").into();
            }
        };
        words.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_variants() {
        for (id, platform, kubernetes, shown) in [
            ("aws-k8s-1.36", Platform::Aws, Some(36), "aws-k8s-1.36"),
            ("metal-k8s-1.9", Platform::Metal, Some(9), "metal-k8s-1.9"),
            (
                "vmware-k8s-1.36-dev",
                Platform::Vmware,
                Some(36),
                "vmware-k8s-1.36",
            ),
            ("metal-core", Platform::Metal, None, "metal-core"),
            ("metal-core-dev", Platform::Metal, None, "metal-core"),
        ] {
            let variant = Variant::parse(id).expect(id);
            assert_eq!(variant.platform(), platform, "{id}");
            assert_eq!(variant.kubernetes(), kubernetes, "{id}");
            assert_eq!(variant.to_string(), shown);
            assert_eq!(shown.parse(), Ok(variant));
        }
        for id in [
            "",
            "aws",
            "aws-",
            "core",
            "metal-core-dev-dev",
            "aws-k8s",
            "aws-k8s-1.",
            "aws-k8s-1.036",
            "aws-k8s-1.+36",
            "aws-k8s-2.1",
            "aws-k8s-1.36-nvidia",
            "aws-ecs-2",
            "azure-k8s-1.36",
            "Metal-core",
            "aws-k8s-1.99999999999999999999",
        ] {
            let error = Variant::parse(id).expect_err(id).to_string();
            assert!(error.contains("as in aws-k8s-1.36"), "{error}");
        }
    }

    #[test]
    fn scopes() {
        for (id, has) in [
            ("aws-k8s-1.36", [true, true, true, true, true]),
            ("aws-core", [true, true, false, false, true]),
            ("metal-k8s-1.36", [true, false, true, false, true]),
            ("vmware-core", [true, false, false, false, false]),
        ] {
            let variant = Variant::parse(id).expect(id);
            let scopes = [
                Scope::All,
                Scope::Aws,
                Scope::Kubernetes,
                Scope::AwsKubernetes,
                Scope::AwsOrKubernetes,
            ];
            assert_eq!(scopes.map(|scope| scope.has(&variant)), has, "{id}");
        }
    }
}
