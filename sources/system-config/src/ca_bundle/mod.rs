//! `ca-bundle`: the trust store, made from the image's certificates and the
//! bundles in the settings: trusted ones are added, the certificates of
//! distrusted ones are taken out.

mod pem;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// The image's own certificates.
const IMAGE: &str = "/usr/share/bulkhead/ca-certificates.crt";
/// What programs read. A link to [`IMAGE`] until settings ask for something else.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The bundles of the settings.
const SETTINGS: &str = "/etc/bulkhead/pki.toml";
/// Tells the unit that the store differs from the image's, so that it also
/// runs when the last bundle leaves the settings.
const CHANGED: &str = "/run/bulkhead/ca-bundle-changed";

const SIZE_LIMIT: u64 = 16 * 1024 * 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    bundles: BTreeMap<String, Bundle>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bundle {
    /// Base64 of PEM, as in the settings.
    #[serde(default)]
    data: String,
    #[serde(default)]
    trusted: bool,
}

/// Writes the trust store.
pub fn run() -> Result<()> {
    let image = sysutil::fs::read_text_if_present(Path::new(IMAGE), SIZE_LIMIT)?
        .with_context(|| format!("{IMAGE} is missing from the image"))?;
    let text =
        sysutil::fs::read_text_if_present(Path::new(SETTINGS), SIZE_LIMIT)?.unwrap_or_default();
    let settings: Settings =
        toml::from_str(&text).with_context(|| format!("reading {SETTINGS}"))?;
    let store = compose(&image, &settings)?;
    sysutil::fs::write_atomic(Path::new(BUNDLE), store.as_bytes(), 0o644)?;
    sysutil::fs::write_atomic(Path::new(CHANGED), b"", 0o644)?;
    tracing::info!(bundles = settings.bundles.len(), "trust store written");
    Ok(())
}

/// The text of the trust store. A bundle with anything in it that is no
/// certificate is an error: half of a trust store helps nobody.
fn compose(image: &str, settings: &Settings) -> Result<String> {
    let mut trusted = pem::certificates(image).with_context(|| format!("reading {IMAGE}"))?;
    let mut distrusted = BTreeSet::new();
    for (name, bundle) in &settings.bundles {
        let bytes = STANDARD
            .decode(bundle.data.trim())
            .with_context(|| format!("settings.pki.{name}.data is not base64"))?;
        let certificates = String::from_utf8(bytes)
            .context("not text")
            .and_then(|text| pem::certificates(&text))
            .with_context(|| format!("settings.pki.{name}.data does not hold certificates"))?;
        if bundle.trusted {
            trusted.extend(certificates);
        } else {
            distrusted.extend(certificates);
        }
    }
    let mut written = BTreeSet::new();
    Ok(trusted
        .iter()
        .filter(|certificate| !distrusted.contains(*certificate) && written.insert(*certificate))
        .map(|certificate| pem::encode(certificate))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(bundles: &[(&str, bool, &str)]) -> Settings {
        let bundles = bundles
            .iter()
            .map(|(name, trusted, text)| {
                let bundle = Bundle {
                    data: STANDARD.encode(text),
                    trusted: *trusted,
                };
                (name.to_string(), bundle)
            })
            .collect();
        Settings { bundles }
    }

    #[test]
    fn bundles_are_added_and_taken_out() {
        let [a, b, c] = [1, 2, 3].map(|number| pem::encode(&pem::example(number)));
        let image = format!("{a}{b}");
        for (bundles, expected) in [
            (vec![], format!("{a}{b}")),
            (vec![("x", true, c.as_str())], format!("{a}{b}{c}")),
            (vec![("x", true, a.as_str())], format!("{a}{b}")),
            (vec![("x", false, a.as_str())], b.clone()),
            (
                vec![("x", true, c.as_str()), ("y", false, c.as_str())],
                format!("{a}{b}"),
            ),
            (vec![("x", true, "")], format!("{a}{b}")),
        ] {
            assert_eq!(
                compose(&image, &settings(&bundles)).expect("composed"),
                expected
            );
        }
    }

    #[test]
    fn a_bad_bundle_is_named() {
        let image = pem::encode(&pem::example(1));
        let error = compose(&image, &settings(&[("corp", true, "rubbish")])).expect_err("no PEM");
        assert!(
            format!("{error:#}").contains("settings.pki.corp.data"),
            "{error:#}"
        );
        let bad: Settings =
            toml::from_str("[bundles.corp]\ntrusted = true\ndata = \"%\"").expect("TOML");
        let error = compose(&image, &bad).expect_err("no base64");
        assert!(format!("{error:#}").contains("settings.pki.corp.data is not base64"));
    }
}
