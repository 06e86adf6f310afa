//! From the bytes that a platform hands over to settings and faults.

use crate::encoding;
use crate::policy::{self, Policy, Stated};
use api_types::{Severity, UserDataFault};
use flate2::read::GzDecoder;
use settings::{Document, Faults, Key, Model, Settings, Variant, limits};
use std::io::Read;

/// Formats that other systems take as user data, by how they begin.
const FOREIGN: &[(&str, &str)] = &[
    ("#!", "a script; Bulkhead runs none"),
    ("#cloud-config", "cloud-config"),
    ("#cloud-boothook", "a cloud-init boot hook"),
    ("#include", "a cloud-init include file"),
    ("## template:", "a cloud-init template"),
    ("Content-Type:", MIME),
    ("MIME-Version:", MIME),
    ("From nobody", MIME),
    ("--==", MIME),
    ("{\"ignition\"", "an Ignition document"),
    ("<powershell>", "a PowerShell script"),
];

/// Tools make it by themselves, so it is said how to be rid of it.
const MIME: &str = "a MIME multipart document, which tools make to join several parts: have \
                    yours send the one part with the settings as it is";

/// A document that was read and not yet judged.
#[derive(Debug)]
pub struct Unjudged {
    text: String,
    document: Document,
    faults: Faults,
}

/// What is left of a document, and what is wrong with it.
#[derive(Debug, PartialEq)]
pub struct Judged {
    /// What is valid and there is in this variant.
    pub document: Document,
    /// What is wrong, in the order of lines.
    pub faults: Vec<UserDataFault>,
}

impl Judged {
    /// Whether a fault stops the boot.
    pub fn is_fatal(&self) -> bool {
        let mut severities = self.faults.iter().map(|fault| fault.severity);
        severities.any(|severity| severity == Severity::Fatal)
    }
}

/// Reads user data: a TOML document with a table `[settings]`, as it is or
/// compressed by gzip. `None` if it is empty or white space; an error if there is
/// no telling what it says.
pub fn read(bytes: Vec<u8>) -> Result<Option<Unjudged>, Faults> {
    let text = text(bytes)?;
    let salvaged =
        Document::salvage_toml(&text).map_err(|faults| {
            match encoding::guess_base64(text.as_bytes()) {
                Some(_) => fault(
                    "user data is in base64 once more than it should be; tools encode it by \
                 themselves"
                        .into(),
                ),
                None => faults,
            }
        })?;
    Ok(salvaged.map(|(document, faults)| Unjudged {
        text,
        document,
        faults,
    }))
}

impl Unjudged {
    /// What the document says about the policy.
    pub fn policy(&self) -> Stated {
        policy::stated(&self.document, &self.faults)
    }

    /// Judges the document as user data of `variant`, which may be one that nobody
    /// knows, on a machine that says what of sound settings it cannot do.
    pub fn judge(
        mut self,
        policy: Policy,
        variant: Option<&Variant>,
        cannot_do: &dyn Fn(&Document) -> Faults,
    ) -> Judged {
        let mut faults = told(&self.faults, policy);
        let foreign = variant.map(|variant| self.document.foreign_to(variant));
        self.leave_out(foreign.unwrap_or_default(), policy, &mut faults);
        let undoable = cannot_do(&self.document);
        self.leave_out(undoable, policy, &mut faults);
        faults.sort_by_key(|fault| fault.line.unwrap_or(usize::MAX));
        Judged {
            document: self.document,
            faults,
        }
    }

    /// Takes the settings that are `refused` out of the document, and tells of them.
    fn leave_out(&mut self, mut refused: Faults, policy: Policy, faults: &mut Vec<UserDataFault>) {
        // Each has its place in the text, which is looked up only if needed.
        if !refused.is_empty() {
            refused.locate_in(&self.text);
        }
        for fault in refused.iter() {
            self.document.unset(&fault.key);
        }
        faults.extend(told(&refused, policy));
    }
}

/// The faults with what each of them costs. Those that are not told one by one may
/// be anything, so they count as the worst.
pub fn told(faults: &Faults, policy: Policy) -> Vec<UserDataFault> {
    let schema = Settings::schema();
    let mut told: Vec<UserDataFault> = faults
        .iter()
        .map(|fault| UserDataFault {
            key: fault.key.to_string(),
            line: fault.line,
            reason: fault.reason.clone(),
            suggestion: schema.nearest(&fault.key).map(|key| key.to_string()),
            severity: policy.severity(&fault.key),
        })
        .collect();
    if faults.untold() > 0 {
        told.push(UserDataFault {
            key: Key::root().to_string(),
            line: None,
            reason: format!("and {} more faults", faults.untold()),
            suggestion: None,
            severity: Severity::Fatal,
        });
    }
    told
}

/// Undoes gzip, and sees to it that the rest is a text that may be TOML.
fn text(bytes: Vec<u8>) -> Result<String, Faults> {
    let bytes = check_size(bytes, "user data")?;
    let bytes = if is_gzip(&bytes) {
        decompress(&bytes)?
    } else {
        bytes
    };
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        fault(format!("user data is not text: byte {good} is not UTF-8"))
    })?;
    let text = match text.strip_prefix('\u{feff}') {
        Some(text) => text.to_string(),
        None => text,
    };
    let start = text.trim_start();
    for (prefix, what) in FOREIGN {
        let begins = start
            .get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        if begins {
            return Err(fault(format!(
                "user data is {what}; only a TOML document of settings is taken"
            )));
        }
    }
    Ok(text)
}

/// Whether these are the first bytes of a gzip stream.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

fn fault(reason: String) -> Faults {
    Faults::one(Key::root(), reason)
}

fn check_size(bytes: Vec<u8>, what: &str) -> Result<Vec<u8>, Faults> {
    if bytes.len() > limits::DOCUMENT_BYTES {
        return Err(fault(format!(
            "{what} is larger than {} bytes, which is the most that is taken",
            limits::DOCUMENT_BYTES
        )));
    }
    Ok(bytes)
}

fn decompress(bytes: &[u8]) -> Result<Vec<u8>, Faults> {
    let mut plain = Vec::new();
    // One byte more than is taken, so that a bomb is noticed and not unpacked.
    let limit = limits::DOCUMENT_BYTES as u64 + 1;
    GzDecoder::new(bytes)
        .take(limit)
        .read_to_end(&mut plain)
        .map_err(|error| fault(format!("user data is damaged gzip: {error}")))?;
    check_size(plain, "decompressed user data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).expect("memory takes bytes");
        encoder.finish().expect("memory takes bytes")
    }

    const GOOD: &str = "[settings]\nmotd = 'x'\n";

    fn judged(bytes: impl Into<Vec<u8>>) -> Option<Judged> {
        let read = read(bytes.into()).expect("readable user data")?;
        let variant = Variant::parse("metal-core").expect("a variant");
        Some(read.judge(Policy::Lenient, Some(&variant), &|_| Faults::default()))
    }

    #[test]
    fn plain_and_compressed_mean_the_same() {
        let plain = judged(GOOD);
        assert!(plain.as_ref().is_some_and(|plain| plain.faults.is_empty()));
        assert_eq!(judged(gzip(GOOD.as_bytes())), plain);
        assert_eq!(judged(format!("\u{feff}{GOOD}")), plain);
        for nothing in [&b""[..], b" \n", &gzip(b""), &gzip(b"\n")] {
            assert_eq!(judged(nothing), None);
        }
    }

    #[test]
    fn faults_cost_what_the_table_says() {
        let text = "[settings]\nmotd = 'x'\nmtod = 1\n[settings.autoscaling]\nshould-wait = true\n\
                    [settings.kernel]\nlokdown = 'none'\nsysctl.a = 1\n[settings.ntp]\noptions = ['a']";
        let judged = judged(text).expect("not empty");
        assert_eq!(
            judged.document.to_value(),
            serde_json::json!({"motd": "x", "ntp": {"options": ["a"]}})
        );
        assert!(judged.is_fatal());
        let lines: Vec<String> = judged.faults.iter().map(ToString::to_string).collect();
        let expected = [
            "line 3: settings.mtod: unknown key; did you mean settings.motd? [skipped]",
            "line 4: settings.autoscaling: unknown key in metal-core; only variants for EC2 with Kubernetes have it [skipped]",
            "line 7: settings.kernel.lokdown: unknown key; did you mean settings.kernel.lockdown? [fatal]",
            "line 8: settings.kernel.sysctl.a: expected a text of one line (a string), got the number 1; put it in quotes (with apiclient set: --json) [skipped]",
        ];
        assert_eq!(lines, expected);
        let suggested: Vec<Option<&str>> = judged
            .faults
            .iter()
            .map(|fault| fault.suggestion.as_deref())
            .collect();
        let expected = [
            Some("settings.motd"),
            None,
            Some("settings.kernel.lockdown"),
            None,
        ];
        assert_eq!(suggested, expected);
    }

    #[test]
    fn too_many_faults_are_fatal() {
        for (count, fatal) in [(32, false), (33, true)] {
            let wrong: String = (0..count).map(|n| format!("zebra{n} = 1\n")).collect();
            let judged = judged(format!("[settings]\n{wrong}")).expect("not empty");
            assert_eq!(judged.is_fatal(), fatal, "{count}");
            assert_eq!(judged.faults.len(), count);
        }
    }

    #[test]
    fn what_is_refused_says_why() {
        let bomb = gzip(&vec![b'#'; 64 * 1024 * 1024]);
        assert!(bomb.len() < 100_000);
        let mut damaged = gzip(GOOD.as_bytes());
        let end = damaged.len() - 6;
        damaged[end] ^= 1;
        let cut = gzip(GOOD.as_bytes())[..15].to_vec();
        let large = format!("{GOOD}#{}", "x".repeat(10 * 1024 * 1024));
        for (bytes, reason) in [
            (b"#!/bin/sh\necho".to_vec(), "user data is a script"),
            (
                b"\n#cloud-config\na: b".to_vec(),
                "user data is cloud-config",
            ),
            (b"#Cloud-Config\n".to_vec(), "user data is cloud-config"),
            (gzip(b"#!/bin/sh\n"), "user data is a script"),
            (
                b"Content-Type: multipart/mixed; boundary=\"x\"\n".to_vec(),
                "user data is a MIME multipart document",
            ),
            (
                b"MIME-Version: 1.0\n".to_vec(),
                "user data is a MIME multipart document",
            ),
            (
                b"{\"ignition\": {}}".to_vec(),
                "user data is an Ignition document",
            ),
            (large.into_bytes(), "user data is larger than 2097152 bytes"),
            (bomb, "decompressed user data is larger than 2097152 bytes"),
            (damaged, "user data is damaged gzip"),
            (cut, "user data is damaged gzip"),
            (
                b"[settings]\nmotd = \"\xff\"".to_vec(),
                "byte 19 is not UTF-8",
            ),
            (b"\nW3NldHRpbmdzXQo=\n".to_vec(), "in base64 once more than"),
            (
                b"[settings]\n[settings]".to_vec(),
                "there twice, first in line 1",
            ),
            (b"motd = 'x'".to_vec(), "no top-level table [settings]"),
        ] {
            let faults = read(bytes).expect_err(reason);
            assert!(faults.to_string().contains(reason), "{faults}");
            let told = told(&faults, Policy::Lenient);
            assert!(told.iter().all(|fault| fault.severity == Severity::Fatal));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            properties::user_data(&bytes);
            properties::user_data(&[&[0x1f, 0x8b][..], &bytes].concat());
            properties::user_data(&gzip(&bytes));
        }
    }
}
