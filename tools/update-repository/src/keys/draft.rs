//! A `root.json` that signatures are gathered for, by one person after the other.

use anyhow::{Context, Result, ensure};
use aws_lc_rs::rand::SystemRandom;
use jiff::Timestamp;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::num::NonZeroU64;
use std::path::Path;
use sysutil::fs::write_atomic;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::Key;
use tough::schema::{Role, RoleKeys, RoleType, Root, Signature, Signed};
use tough::sign::Sign;

/// A `root.json` that may lack signatures.
#[derive(Clone, Debug)]
pub struct Draft {
    pub(super) root: Signed<Root>,
    /// The one that it comes after, whose keys have to sign it, too.
    pub(super) before: Option<Signed<Root>>,
}

/// Signatures that lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// The version whose keys of the root have to sign.
    pub of: u64,
    /// How many have signed.
    pub have: u64,
    /// How many have to.
    pub threshold: u64,
    /// Identities of those keys that have not signed.
    pub unsigned: Vec<String>,
}

impl Draft {
    /// The draft in a file. `before` is the `root.json` that it comes after, which it may be
    /// signed without.
    pub fn read(path: &Path, before: Option<&Path>) -> Result<Self> {
        let read = |path: &Path| {
            let bytes =
                fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            parse(&bytes).with_context(|| format!("{} is no root.json", path.display()))
        };
        let root = read(path)?;
        let before = before.map(read).transpose()?;
        if let Some(before) = &before {
            let (version, last) = (root.signed.version, before.signed.version);
            ensure!(
                last.checked_add(1) == Some(version),
                "{} has version {version}, and does not come after version {last}",
                path.display()
            );
        }
        Ok(Self { root, before })
    }

    /// Writes it, with what signatures it has.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomic(path, &self.bytes()?, 0o644)
    }

    /// It as it is written.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(&self.root).context("cannot write root.json")?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Has those keys sign that may and have not yet, and says how many did.
    pub fn sign(&mut self, keys: &[Box<dyn Sign>]) -> Result<usize> {
        let message = (self.root.signed.canonical_form()).context("cannot write root.json")?;
        let random = SystemRandom::new();
        let mut count = 0;
        for key in keys {
            let public = key.tuf_key();
            let id = public.key_id().context("a key has no identity")?;
            if !self.names(key.as_ref()) || self.is_signed_by(&id, &public) {
                continue;
            }
            let signing = key.sign(&message, &random);
            let signature = crate::wait_for(async {
                let signed = signing.await.map_err(|error| anyhow::anyhow!(error));
                signed.with_context(|| format!("cannot sign with the key {}", hex::encode(&id)))
            })?;
            let signatures = &mut self.root.signatures;
            // One that is none would count against it.
            signatures.retain(|signature| signature.keyid != id);
            let (keyid, sig) = (id, signature.into());
            signatures.push(Signature { keyid, sig });
            count += 1;
        }
        Ok(count)
    }

    /// Whether a key is one of those that are to sign it.
    pub fn names(&self, key: &dyn Sign) -> bool {
        let id = key.tuf_key().key_id();
        id.is_ok_and(|id| self.signers().any(|(_, role)| role.keyids.contains(&id)))
    }

    /// What it lacks, as far as is known: nothing, and hosts follow.
    pub fn lacks(&self) -> Vec<Lack> {
        let lack = |(root, role): (&Root, &RoleKeys)| {
            let signed = |id: &&Decoded<Hex>| {
                let key = root.keys.get(*id);
                key.is_some_and(|key| self.is_signed_by(id, key))
            };
            let (have, unsigned): (Vec<_>, Vec<_>) = role.keyids.iter().partition(signed);
            let (have, threshold) = (have.len() as u64, role.threshold.get());
            let unsigned = unsigned.into_iter().map(hex::encode).collect();
            (have < threshold).then_some(Lack {
                of: root.version.get(),
                have,
                threshold,
                unsigned,
            })
        };
        self.signers().filter_map(lack).collect()
    }

    /// Whether it is known whose signatures it takes.
    pub fn is_judged(&self) -> bool {
        self.before.is_some() || self.root.signed.version == NonZeroU64::MIN
    }

    /// Whose signatures it takes.
    fn signers(&self) -> impl Iterator<Item = (&Root, &RoleKeys)> {
        let before = self.before.as_ref().map(|before| &before.signed);
        let roots = before.into_iter().chain([&self.root.signed]);
        roots.filter_map(|root| Some((root, root.roles.get(&RoleType::Root)?)))
    }

    /// Whether there is a good signature of a key.
    fn is_signed_by(&self, id: &Decoded<Hex>, key: &Key) -> bool {
        let signatures = self.root.signatures.iter();
        let signatures = signatures.filter(|signature| signature.keyid == *id);
        // A root that takes this key alone judges it as hosts do.
        let judge = Root {
            keys: HashMap::from([(id.clone(), key.clone())]),
            roles: HashMap::from([(RoleType::Root, role(vec![id.clone()], NonZeroU64::MIN))]),
            ..self.root.signed.clone()
        };
        let signed = Signed {
            signed: self.root.signed.clone(),
            signatures: signatures.cloned().collect(),
        };
        judge.verify_role(&signed).is_ok()
    }
}

/// What it says, for those who are to sign it.
impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = &self.root.signed;
        writeln!(
            f,
            "root.json version {}, good until {}",
            root.version, root.expires
        )?;
        for (name, part) in [("root", RoleType::Root), ("releases", RoleType::Targets)] {
            let Some(role) = root.roles.get(&part) else {
                continue;
            };
            let (count, threshold) = (role.keyids.len(), role.threshold);
            writeln!(f, "{name}: {threshold} of {count} keys sign")?;
            for id in &role.keyids {
                let kind = match root.keys.get(id) {
                    Some(Key::Ed25519 { .. }) => "Ed25519",
                    Some(Key::Rsa { .. }) => "RSA",
                    Some(Key::Ecdsa { .. } | Key::EcdsaOld { .. }) => "ECDSA",
                    None => "unknown",
                };
                writeln!(f, "  {} {kind}", hex::encode(id))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            of,
            have,
            threshold,
            ..
        } = self;
        write!(
            f,
            "{have} of {threshold} signatures by the root keys of version {of}; not signed by {}",
            self.unsigned.join(", ")
        )
    }
}

/// The first one, of nobody.
pub(super) fn first(expires: Timestamp) -> Draft {
    let root = Root {
        spec_version: "1.0.0".to_string(),
        consistent_snapshot: true,
        version: NonZeroU64::MIN,
        expires,
        keys: HashMap::new(),
        roles: HashMap::new(),
        _extra: HashMap::new(),
    };
    Draft {
        root: unsigned(root),
        before: None,
    }
}

/// The one after `before`, with the same keys.
pub(super) fn after(before: Signed<Root>, expires: Timestamp) -> Result<Draft> {
    let version = before.signed.version.checked_add(1);
    let root = Root {
        version: version.context("too many root.json")?,
        expires,
        ..before.signed.clone()
    };
    Ok(Draft {
        root: unsigned(root),
        before: Some(before),
    })
}

impl Draft {
    /// Gives roles these keys alone.
    pub(super) fn give(
        &mut self,
        parts: &[RoleType],
        keys: Vec<Key>,
        threshold: NonZeroU64,
    ) -> Result<()> {
        let root = &mut self.root.signed;
        let mut ids = Vec::new();
        for key in keys {
            let id = key.key_id().context("a key has no identity")?;
            ensure!(
                !ids.contains(&id),
                "the key {} is there twice",
                hex::encode(&id)
            );
            ids.push(id.clone());
            root.keys.insert(id, key);
        }
        for part in parts {
            root.roles.insert(*part, role(ids.clone(), threshold));
        }
        let named: Vec<_> = (root.roles.values())
            .flat_map(|role| role.keyids.clone())
            .collect();
        root.keys.retain(|id, _| named.contains(id));
        Ok(())
    }
}

pub(super) fn parse(root: &[u8]) -> Result<Signed<Root>> {
    serde_json::from_slice(root).context("cannot parse root.json")
}

fn unsigned(signed: Root) -> Signed<Root> {
    Signed {
        signed,
        signatures: Vec::new(),
    }
}

fn role(keyids: Vec<Decoded<Hex>>, threshold: NonZeroU64) -> RoleKeys {
    RoleKeys {
        keyids,
        threshold,
        _extra: HashMap::new(),
    }
}
