//! The firmware's variables with our keys enrolled, made offline.

use crate::emulator::{Emulator, RUN};
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// The certificates that Secure Boot is set up with, PEM files.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// Platform key.
    pub pk: PathBuf,
    /// Key exchange key.
    pub kek: PathBuf,
    /// Key that boot loaders are signed with.
    pub db: PathBuf,
}

/// Owner of our signatures in the firmware's lists. Any constant does.
const OWNER: &str = "7c3e2c5e-3b0c-4f0a-9d0b-8a9c1e4d5f60";

/// The store of variables of a firmware that knows no keys: Secure Boot is off.
pub fn without_keys(emulator: &Emulator) -> Result<PathBuf> {
    emulator.file(emulator.platform().variables)
}

/// The store of variables with Secure Boot on under `certificates`; made once and
/// kept in `cache`.
pub fn variables(
    emulator: &Emulator,
    certificates: &Certificates,
    cache: &Path,
) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    hash.update(emulator.key());
    let mut copies = Vec::new();
    for (name, path) in [
        ("PK.pem", &certificates.pk),
        ("KEK.pem", &certificates.kek),
        ("db.pem", &certificates.db),
    ] {
        let pem = fs::read(path).with_context(|| {
            format!(
                "cannot read the certificate {}; `bulkhead keys` makes it",
                path.display()
            )
        })?;
        hash.update(name);
        hash.update((pem.len() as u64).to_le_bytes());
        hash.update(&pem);
        copies.push((name, pem));
    }
    let folder = cache.join("firmware");
    let finished = folder.join(format!("{}.fd", hex::encode(hash.finalize())));
    if finished.exists() {
        return Ok(finished);
    }
    // Two runs may do this at once, so each works in a folder of its own and the
    // result appears by a rename.
    let work = folder.join(format!("new-{}", std::process::id()));
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    for (name, pem) in copies {
        let path = work.join(name);
        fs::write(&path, pem).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let empty = emulator.platform().variables;
    emulator.file(empty)?;
    let inside = |name: &str| format!("{RUN}/{name}");
    emulator
        .run(
            &work,
            "virt-fw-vars",
            &[
                "--input",
                empty,
                "--output",
                &inside("variables.fd"),
                "--set-pk",
                OWNER,
                &inside("PK.pem"),
                "--add-kek",
                OWNER,
                &inside("KEK.pem"),
                "--add-db",
                OWNER,
                &inside("db.pem"),
                "--secure-boot",
            ],
        )
        .context("cannot enrol the keys in the firmware's variables")?;
    fs::rename(work.join("variables.fd"), &finished)
        .with_context(|| format!("cannot put {} in place", finished.display()))?;
    // What is left are copies of public certificates; they harm nobody.
    let _ = fs::remove_dir_all(&work);
    Ok(finished)
}
