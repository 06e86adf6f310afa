//! Signing keys: what Secure Boot on the builder's machines trusts.
//!
//! Keys are an input of the build and never part of the repository. When there
//! are none, development keys are made in the user's data folder. A folder of
//! keys appears whole or not at all, since half a set would brick a fleet that
//! had enrolled the other half.

use anyhow::{Context, Result, bail};
use disk_image::authenticode::Signer;
use disk_image::certificate;
use rsa::RsaPrivateKey;
use rsa::pkcs8::{EncodePrivateKey, LineEnding};
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Length of the keys in bits. Firmware in the field takes nothing longer
/// everywhere.
const BITS: usize = 2048;

/// What a key is for, as UEFI names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Role {
    /// Owns the machine: signs changes of the key exchange keys.
    #[serde(rename = "PK")]
    Platform,
    /// Signs changes of the signature database.
    #[serde(rename = "KEK")]
    Exchange,
    /// Signs what boots.
    #[serde(rename = "db")]
    Database,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Platform, Self::Exchange, Self::Database];

    /// The name of its files, which is UEFI's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Platform => "PK",
            Self::Exchange => "KEK",
            Self::Database => "db",
        }
    }

    fn common_name(self) -> &'static str {
        match self {
            Self::Platform => "Bulkhead development platform key",
            Self::Exchange => "Bulkhead development key exchange key",
            Self::Database => "Bulkhead development signing key",
        }
    }
}

/// A folder of keys.
#[derive(Clone, Debug)]
pub struct Keys {
    folder: PathBuf,
    fingerprint: String,
}

impl Keys {
    /// The keys in `folder`; makes development keys, and says so, when there is no
    /// such folder.
    pub fn load_or_create(folder: &Path) -> Result<Self> {
        if !folder.exists() {
            Self::create(folder)?;
            eprintln!(
                "made development keys in {}: images are signed with them; keep them out of production",
                folder.display()
            );
        }
        Self::load(folder)
    }

    /// The keys in `folder`, which must be there.
    pub fn load(folder: &Path) -> Result<Self> {
        let mut keys = Self {
            folder: folder.to_path_buf(),
            fingerprint: String::new(),
        };
        for role in Role::ALL {
            for path in [keys.key_path(role), keys.certificate_path(role)] {
                if !path.is_file() {
                    bail!(
                        "{} is missing; restore it, or remove the folder to have new keys made",
                        path.display()
                    );
                }
            }
        }
        keys.fingerprint = keys.fingerprint_of(Role::Database)?;
        Ok(keys)
    }

    /// Makes a new set of keys in `folder`, which must not exist.
    pub fn create(folder: &Path) -> Result<()> {
        if folder.exists() {
            bail!(
                "{} exists already; keys are never overwritten",
                folder.display()
            );
        }
        let parent = folder
            .parent()
            .context("the folder for the keys has no parent")?;
        let creating = || format!("cannot make keys in {}", folder.display());
        fs::create_dir_all(parent).with_context(creating)?;
        let staging = parent.join(format!(".keys-{}", std::process::id()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&staging)
            .with_context(creating)?;
        let made = Role::ALL
            .into_iter()
            .try_for_each(|role| create_key(&staging, role))
            .and_then(|()| sync_folder(&staging));
        let placed = made.with_context(creating).and_then(|()| {
            fs::rename(&staging, folder).with_context(creating)?;
            sync_folder(parent)
        });
        if placed.is_err() {
            // Best effort: the error that is returned says more.
            let _ = fs::remove_dir_all(&staging);
        }
        placed
    }

    /// Where the keys lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What signs the boot chain.
    pub fn signer(&self) -> Result<Signer> {
        let read = |path: PathBuf| {
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let key = read(self.key_path(Role::Database))?;
        let certificate = read(self.certificate_path(Role::Database))?;
        Signer::from_pem(&key, &certificate)
            .with_context(|| format!("cannot use the keys in {}", self.folder.display()))
    }

    /// SHA-256 of the certificate that signs images, in hex.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// SHA-256 of the certificate for `role`, in hex.
    pub fn fingerprint_of(&self, role: Role) -> Result<String> {
        let path = self.certificate_path(role);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let certificate = certificate::from_pem(&text)
            .with_context(|| format!("{} is not valid", path.display()))?;
        Ok(hex::encode(certificate::fingerprint(&certificate)))
    }

    /// The certificate for `role`, as PEM.
    pub fn certificate_path(&self, role: Role) -> PathBuf {
        self.folder.join(format!("{}.crt", role.name()))
    }

    fn key_path(&self, role: Role) -> PathBuf {
        self.folder.join(format!("{}.key", role.name()))
    }
}

fn create_key(folder: &Path, role: Role) -> Result<()> {
    let key = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, BITS).context("cannot draw a key")?;
    let certificate = certificate::self_signed(role.common_name(), &key)?;
    let key = key
        .to_pkcs8_pem(LineEnding::LF)
        .context("cannot encode the key")?;
    write(
        &folder.join(format!("{}.key", role.name())),
        key.as_bytes(),
        0o600,
    )?;
    let certificate = certificate::to_pem(&certificate)?;
    write(
        &folder.join(format!("{}.crt", role.name())),
        certificate.as_bytes(),
        0o644,
    )
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .with_context(|| format!("cannot write {}", path.display()))
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("cannot sync {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_made_whole_and_kept() {
        let parent = tempfile::tempdir().expect("temporary folder");
        let folder = parent.path().join("data/keys");
        let made = Keys::load_or_create(&folder).expect("made");
        let found = Keys::load_or_create(&folder).expect("found");
        assert_eq!(made.fingerprint(), found.fingerprint());
        assert!(found.signer().is_ok());
        let mode = fs::metadata(folder.join("db.key"))
            .expect("key")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(
            Keys::create(&folder).is_err(),
            "keys must never be overwritten"
        );
        fs::remove_file(folder.join("KEK.crt")).expect("remove");
        let error = Keys::load(&folder).expect_err("incomplete").to_string();
        assert!(error.contains("KEK.crt"), "{error}");
    }
}
