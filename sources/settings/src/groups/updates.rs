//! `settings.updates`.

use crate::model::group;
use crate::types::{Url, text_type};

group! {
    /// Updates of the host. Nothing is fetched while the addresses are unset.
    pub struct Updates {
        /// Folder of the update repository's metadata.
        "metadata-base-url" => metadata_base_url: Url,
            example "\"https://updates.example.com/metadata/\"";
        /// Folder of the update repository's files.
        "targets-base-url" => targets_base_url: Url,
            example "\"https://updates.example.com/targets/\"";
        /// When the host's turn comes in a release that is rolled out in waves,
        /// which are numbered from 0 to 2047.
        "seed" => seed: u32, generated "update-seed", example "1033";
        /// The version that the host updates to: `latest`, or one by its number.
        "version-lock" => version_lock: VersionLock, default "latest";
        /// Whether the host updates without waiting for its turn.
        "ignore-waves" => ignore_waves: bool, default false;
        /// Whether a node's boot is complete only when kubelet is healthy. An update after
        /// which kubelet does not get there is then left again.
        "wait-for-kubelet" => wait_for_kubelet: bool, default true;
    }
}

text_type! {
    /// `latest`, or a version as in `1.2.3` or `v1.2.3`, kept as it was written.
    VersionLock, "\"latest\" or a version", example "v1.2.3",
    |text| {
        if text == "latest" || is_version(text.strip_prefix('v').unwrap_or(text)) {
            Ok(())
        } else {
            let build = "; what may follow a version after a + is not part of an image's version";
            let hint = if text.contains('+') { build } else { "" };
            Err(format!("neither \"latest\" nor a version such as \"1.2.3\"{hint}"))
        }
    }
}

/// True for a version after the rules of Semantic Versioning 2.0.0 that can be one of an
/// image. Those have no build metadata, for in names of kernel images a `+` begins a counter,
/// and are short enough for such a name.
fn is_version(text: &str) -> bool {
    let (core, pre) = match text.split_once('-') {
        Some((core, pre)) => (core, Some(pre)),
        None => (text, None),
    };
    let is_number = |part: &str| {
        (1..=18).contains(&part.len())
            && part.bytes().all(|c| c.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let is_pre = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && (is_number(part) || !part.bytes().all(|c| c.is_ascii_digit()))
    };
    text.len() <= 64
        && core.split('.').count() == 3
        && core.split('.').all(is_number)
        && pre.is_none_or(|pre| pre.split('.').all(is_pre))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::tests::check;
    use serde_json::json;

    #[test]
    fn versions() {
        let good = ["latest", "1.2.3", "v1.20.0", "0.0.0-rc.1", "1.0.0-x-y.0"];
        for text in good {
            let lock: Result<update_metadata::VersionLock, _> = text.parse();
            assert!(lock.is_ok(), "the updater does not take {text}");
        }
        let long = format!("1.2.3-{}", "x".repeat(60));
        check::<VersionLock>(
            &good.map(|text| json!(text)),
            &[
                json!(""),
                json!("Latest"),
                json!("1.2"),
                json!("1.2.3.4"),
                json!("vv1.2.3"),
                json!("01.2.3"),
                json!("1.2.3-"),
                json!("1.2.3-01"),
                json!("1.2.3\n"),
                json!("1.2.3+"),
                json!("1.2.3+build"),
                json!("v1.2.3-rc.1+build.01"),
                json!(long),
                json!(1.2),
            ],
        );
    }
}
