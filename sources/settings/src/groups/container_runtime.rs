//! `settings.container-runtime` and `settings.container-runtime-plugins`.

use crate::model::{describe, group};
use crate::types::{choice_type, whole_number};
use crate::{Faults, Key, Model, Schema};
use serde_json::Value;

group! {
    /// containerd, as it runs pods.
    pub struct ContainerRuntime {
        /// Longest line of a container's log, in bytes; -1 is no limit.
        "max-container-log-line-size" => max_container_log_line_size: i32, example "16384";
        /// Layers of one image that are fetched at a time.
        "max-concurrent-downloads" => max_concurrent_downloads: i32, example "3";
        /// Whether every container may listen on ports below 1024.
        "enable-unprivileged-ports" => enable_unprivileged_ports: bool;
        /// Whether every container may send pings.
        "enable-unprivileged-icmp" => enable_unprivileged_icmp: bool;
        /// What unpacks images. A change loses the images that are there.
        "snapshotter" => snapshotter: Snapshotter, only AwsKubernetes;
        /// Bytes of a layer that are fetched as one piece, several pieces at a time;
        /// 0 fetches it whole. Given as a number, or as a text with a unit, and
        /// returned as a number; also taken as `concurrent-layer-fetch-buffer`.
        "concurrent-download-chunk-size" => concurrent_download_chunk_size: ByteSize,
            alias "concurrent-layer-fetch-buffer";
        /// Layers of one image that are unpacked at a time.
        "max-concurrent-unpacks" => max_concurrent_unpacks: i32, example "1";
    }
}

choice_type! {
    /// What unpacks images.
    Snapshotter {
        /// Layers are fetched whole and overlaid.
        Overlayfs = "overlayfs",
        /// The SOCI snapshotter.
        Soci = "soci",
    }
}

group! {
    /// Plugins of containerd.
    pub struct ContainerRuntimePlugins {
        /// The SOCI snapshotter.
        "soci-snapshotter" => soci_snapshotter: SociSnapshotter;
    }
}

group! {
    /// The SOCI snapshotter.
    pub struct SociSnapshotter {
        /// How images are pulled.
        "pull-mode" => pull_mode: PullMode;
        /// Fetching and unpacking the layers of an image side by side.
        "parallel-pull-unpack" => parallel_pull_unpack: ParallelPullUnpack;
    }
}

choice_type! {
    /// How the SOCI snapshotter pulls images.
    PullMode {
        /// Layers are fetched in pieces and unpacked side by side.
        ParallelPullUnpack = "parallel-pull-unpack",
    }
}

group! {
    /// Fetching and unpacking the layers of an image side by side. -1 is no limit.
    pub struct ParallelPullUnpack {
        /// Pieces that are fetched at a time.
        "max-concurrent-downloads" => max_concurrent_downloads: i64, default (-1);
        /// Pieces of one image that are fetched at a time.
        "max-concurrent-downloads-per-image" => max_concurrent_downloads_per_image: i64, default 3;
        /// Bytes of a piece. Given as a number, or as a text with a unit.
        "concurrent-download-chunk-size" => concurrent_download_chunk_size: ChunkSize,
            default "unlimited";
        /// Layers that are unpacked at a time.
        "max-concurrent-unpacks" => max_concurrent_unpacks: i64, default (-1);
        /// Layers of one image that are unpacked at a time.
        "max-concurrent-unpacks-per-image" => max_concurrent_unpacks_per_image: i64, default 1;
        /// Whether a layer is dropped once it is unpacked.
        "discard-unpacked-layers" => discard_unpacked_layers: bool, default false;
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(i64);

impl ByteSize {
    const WHAT: &'static str = "a number of bytes, or a text such as \"64mb\" or \"64MiB\"";

    /// The number.
    pub fn get(self) -> i64 {
        self.0
    }

    fn check(value: &Value) -> Result<Self, String> {
        let bytes = match value.as_str() {
            Some(text) => parse_size(text),
            None => Some(whole_number(value, Self::WHAT)?),
        };
        bytes
            .filter(|bytes| *bytes >= 0)
            .map(Self)
            .ok_or_else(|| format!("expected {}", Self::WHAT))
    }
}

/// Bytes from a whole number and a unit: `k`, `kb` (1000), `kib` (1024), and so on.
fn parse_size(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let factor: i64 = match unit.as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "kib" => 1 << 10,
        "m" | "mb" => 1000 * 1000,
        "mib" => 1 << 20,
        "g" | "gb" => 1000 * 1000 * 1000,
        "gib" => 1 << 30,
        "t" | "tb" => 1000 * 1000 * 1000 * 1000,
        "tib" => 1 << 40,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(factor)
}

fn size_schema() -> Schema {
    let scalar = |kind, pattern, range| Schema::Scalar {
        kind,
        what: ByteSize::WHAT,
        choices: None,
        pattern,
        range,
        example: "\"64mb\"",
    };
    Schema::Either(Box::new((
        scalar(
            "string",
            Some("^\\s*[0-9]+\\s*([bB]|[kKmMgGtT]([iI]?[bB])?)?\\s*$"),
            None,
        ),
        scalar("integer", None, Some((0, i64::MAX))),
    )))
}

impl Model for ByteSize {
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self> {
        Self::check(value)
            .map_err(|reason| faults.add(at, reason))
            .ok()
    }

    fn write(&self) -> Value {
        self.0.into()
    }

    fn schema() -> Schema {
        size_schema()
    }
}

/// A number of bytes, or no bound on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkSize {
    /// At most so many bytes.
    Bytes(ByteSize),
    /// As many as there are.
    Unlimited,
}

impl Model for ChunkSize {
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self> {
        if value.as_str() == Some("unlimited") {
            return Some(Self::Unlimited);
        }
        match ByteSize::check(value) {
            Ok(size) => Some(Self::Bytes(size)),
            Err(_) => {
                let reason = format!(
                    "expected {}, or \"unlimited\", got {}",
                    ByteSize::WHAT,
                    describe(value)
                );
                faults.add(at, reason);
                None
            }
        }
    }

    fn write(&self) -> Value {
        match self {
            Self::Bytes(size) => size.write(),
            Self::Unlimited => "unlimited".into(),
        }
    }

    fn schema() -> Schema {
        let unlimited = Schema::Scalar {
            kind: "string",
            what: "no bound",
            choices: Some(&["unlimited"]),
            pattern: None,
            range: None,
            example: "",
        };
        Schema::Either(Box::new((size_schema(), unlimited)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes() {
        for (value, bytes) in [
            (json!(0), Some(0)),
            (json!("0"), Some(0)),
            (json!("64mb"), Some(64_000_000)),
            (json!("64MB"), Some(64_000_000)),
            (json!("64 MiB"), Some(67_108_864)),
            (json!("1kib"), Some(1024)),
            (json!("2G"), Some(2_000_000_000)),
            (json!("1tib"), Some(1 << 40)),
            (json!("12b"), Some(12)),
            (json!(-1), None),
            (json!("-1"), None),
            (json!(""), None),
            (json!("mb"), None),
            (json!("1.5mb"), None),
            (json!("64mb\nx = 1"), None),
            (json!("9999999999tb"), None),
            (json!(5.0), None),
            (json!(true), None),
        ] {
            assert_eq!(
                ByteSize::check(&value).ok().map(ByteSize::get),
                bytes,
                "{value}"
            );
        }
    }
}
