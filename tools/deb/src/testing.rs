//! Keys, signatures and archives made in memory, for tests of this crate and of
//! those that use it.

use crate::archive::Kind;
use crate::openpgp::{ED25519_CURVE, EDDSA, Fingerprint, Keyring, SHA512};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::io::Read;

/// A key that signs messages.
pub struct TestKey {
    pair: Ed25519KeyPair,
    created: u32,
    lifetime: u32,
}

impl TestKey {
    /// A key made at `created` that expires `lifetime` seconds later, or never if
    /// that is zero. Each `seed` is another key.
    pub fn new(seed: u8, created: u32, lifetime: u32) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]);
        Self {
            pair: pair.expect("any seed of 32 bytes is a key"),
            created,
            lifetime,
        }
    }

    /// A keyring file with this key only.
    pub fn export(&self) -> Vec<u8> {
        let mut file = packet(6, &self.public_body());
        // A certification that holds nothing but the expiry; keyrings are trusted
        // as they are, so its signature is never looked at.
        let subpackets = subpacket(9, &self.lifetime.to_be_bytes());
        file.extend(packet(2, &signature_body(0x13, &subpackets, &[], &[0; 64])));
        file
    }

    /// The keyring with this key only.
    pub fn keyring(&self) -> Keyring {
        Keyring::parse(&self.export()).expect("our own export is well-formed")
    }

    /// The key's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.public_body()).expect("the key is short")
    }

    /// Signs `text`, which must end with a line end, as `InRelease` files are.
    /// A `lifetime` of zero means that the signature never expires.
    pub fn sign(&self, text: &str, created: u32, lifetime: u32) -> Vec<u8> {
        let canonical: Vec<&str> = text.lines().map(str::trim_end).collect();
        let mut subpackets = subpacket(2, &created.to_be_bytes());
        if lifetime > 0 {
            subpackets.extend(subpacket(3, &lifetime.to_be_bytes()));
        }
        let mut issuer = vec![4];
        issuer.extend(self.fingerprint().as_bytes());
        subpackets.extend(subpacket(33, &issuer));
        let hashed = hashed_part(1, &subpackets);
        let mut signed = canonical.join("\r\n").into_bytes();
        signed.extend(&hashed);
        signed.extend([4, 0xff]);
        signed.extend((hashed.len() as u32).to_be_bytes());
        let value = self
            .pair
            .sign(digest::digest(&digest::SHA512, &signed).as_ref());
        let packet = packet(2, &signature_body(1, &subpackets, &[0, 0], value.as_ref()));
        let dashed: String = text
            .lines()
            .map(|line| {
                if line.starts_with('-') {
                    format!("- {line}\n")
                } else {
                    format!("{line}\n")
                }
            })
            .collect();
        format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{dashed}-----BEGIN PGP SIGNATURE-----\n\n{}\n-----END PGP SIGNATURE-----\n",
            STANDARD.encode(packet)
        )
        .into_bytes()
    }

    fn public_body(&self) -> Vec<u8> {
        let mut body = vec![4];
        body.extend(self.created.to_be_bytes());
        body.push(EDDSA);
        body.push(ED25519_CURVE.len() as u8);
        body.extend(ED25519_CURVE);
        // The point is an integer whose first byte says that it is compressed.
        body.extend(263_u16.to_be_bytes());
        body.push(0x40);
        body.extend(self.pair.public_key().as_ref());
        body
    }
}

fn hashed_part(kind: u8, subpackets: &[u8]) -> Vec<u8> {
    let mut part = vec![4, kind, EDDSA, SHA512];
    part.extend((subpackets.len() as u16).to_be_bytes());
    part.extend(subpackets);
    part
}

fn signature_body(kind: u8, subpackets: &[u8], quick_check: &[u8], value: &[u8]) -> Vec<u8> {
    let mut body = hashed_part(kind, subpackets);
    body.extend(0_u16.to_be_bytes());
    body.extend(quick_check.iter().chain(&[0, 0]).take(2));
    for half in value.chunks(32) {
        let start = half
            .iter()
            .position(|byte| *byte != 0)
            .unwrap_or(half.len());
        let bits = half[start..].first().map_or(0, |first| {
            (half.len() - start) * 8 - first.leading_zeros() as usize
        });
        body.extend((bits as u16).to_be_bytes());
        body.extend(&half[start..]);
    }
    body
}

fn subpacket(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut found = vec![body.len() as u8 + 1, kind];
    found.extend(body);
    found
}

fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut found = vec![0xc0 | tag, 255];
    found.extend((body.len() as u32).to_be_bytes());
    found.extend(body);
    found
}

/// Makes a `.deb` with the given control file and entries.
pub fn make_deb(control: &str, entries: &[(&str, Kind, &[u8])]) -> Vec<u8> {
    let control_entry = (
        "./control",
        Kind::File {
            mode: 0o644,
            size: control.len() as u64,
            modified: 0,
        },
    );
    let control_tar = make_tar(&[(control_entry.0, control_entry.1, control.as_bytes())]);
    make_ar(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", &compress(&control_tar)),
        ("data.tar.xz", &compress(&make_tar(entries))),
    ])
}

/// Makes an `ar` archive.
pub fn make_ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let size = content.len();
        file.extend(
            format!(
                "{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n",
                0, 0, 0, 100_644
            )
            .bytes(),
        );
        file.extend(*content);
        file.extend(vec![b'\n'; size % 2]);
    }
    file
}

/// Makes a `tar` archive; paths go into it as they are, however bad.
pub fn make_tar(entries: &[(&str, Kind, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        let (entry_type, mode, target) = match kind {
            Kind::File { mode, .. } => (tar::EntryType::Regular, *mode, None),
            Kind::Directory { mode } => (tar::EntryType::Directory, *mode, None),
            Kind::Symlink { target } => (tar::EntryType::Symlink, 0o777, Some(target)),
            Kind::Hardlink { target } => (tar::EntryType::Link, 0o644, Some(target)),
        };
        header.set_entry_type(entry_type);
        header.set_mode(mode);
        header.set_mtime(match kind {
            Kind::File { modified, .. } => *modified,
            _ => 0,
        });
        header.set_size(content.len() as u64);
        if let Some(target) = target {
            let field = &mut header.as_old_mut().linkname;
            field[..target.len()].copy_from_slice(target.as_bytes());
        }
        if path.len() < 100 {
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        } else {
            let mut long = tar::Header::new_gnu();
            long.set_entry_type(tar::EntryType::GNULongName);
            long.set_size(path.len() as u64 + 1);
            long.set_cksum();
            let name = [path.as_bytes(), b"\0"].concat();
            builder
                .append(&long, name.as_slice())
                .expect("memory can be written");
        }
        header.set_cksum();
        builder
            .append(&header, *content)
            .expect("memory can be written");
    }
    builder.into_inner().expect("memory can be written")
}

/// Compresses as Debian's archives and indexes are.
pub fn compress(content: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut encoder = liblzma::read::XzEncoder::new(content, 1);
    encoder
        .read_to_end(&mut packed)
        .expect("memory can be read");
    packed
}
