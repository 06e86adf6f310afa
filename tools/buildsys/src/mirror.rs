//! Where Debian's archives are: which mirrors, in which order.
//!
//! The first of these that names any: `BULKHEAD_DEBIAN_MIRROR`, `[debian]
//! mirrors` of `Bulkhead.toml`, the host's apt sources, Debian itself. A mirror
//! has two bases, one for the archive proper and one for security updates, and
//! both are only ever trusted for being there: what comes from them is checked
//! against signatures and digests.

use crate::project::Project;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// The variable that overrides everything: addresses separated by blanks.
const VARIABLE: &str = "BULKHEAD_DEBIAN_MIRROR";

/// Debian's own mirror, for hosts without apt.
const DEBIANS_OWN: &str = "https://ftp.debian.org/debian";
/// The security archive is not on every mirror, and not on the one above.
const DEBIANS_OWN_SECURITY: &str = "https://security.debian.org/debian-security";
/// Keeps what mirrors have dropped.
const DATED_ARCHIVE: &str = "https://snapshot.debian.org/archive";

/// Mirrors, in the order in which they are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrors {
    /// Bases of the archive proper.
    main: Vec<String>,
    /// Bases of the security archive.
    security: Vec<String>,
    /// Base of an archive by date, asked last.
    dated: Option<String>,
    /// Where the addresses were found, for messages.
    origin: String,
}

impl Mirrors {
    /// The mirrors that `project` is to use on this host.
    pub fn of(project: &Project) -> Result<Self> {
        let variable = std::env::var(VARIABLE).ok();
        let debian = &project.config.debian;
        let mut mirrors = match Self::named(variable.as_deref(), &debian.mirrors)? {
            Some(mirrors) => mirrors,
            None => Self::from_apt(&AptSource::of_host(Path::new("/etc/apt"))?)
                .unwrap_or_else(Self::debians_own),
        };
        match debian.dated_archive.as_deref() {
            Some("") => mirrors.dated = None,
            Some(address) => {
                mirrors.dated = Some(checked_address(address, "debian.dated-archive")?)
            }
            None => {}
        }
        Ok(mirrors)
    }

    /// Mirrors at the addresses given, as a test or the user names them.
    ///
    /// Whoever names mirrors may have no way to other hosts, or not want one: no
    /// dated archive is asked.
    pub fn at(addresses: &[String], origin: &str) -> Result<Self> {
        let main = addresses
            .iter()
            .map(|address| checked_address(address, origin))
            .collect::<Result<Vec<_>>>()?;
        let security = main.iter().map(|base| security_beside(base)).collect();
        Ok(Self {
            main,
            security,
            dated: None,
            origin: origin.to_string(),
        })
    }

    /// The same with an archive by date, asked for what the mirrors lack.
    pub fn with_dated_archive(mut self, address: &str) -> Result<Self> {
        self.dated = Some(checked_address(address, "the dated archive")?);
        Ok(self)
    }

    /// Bases to ask for files of `suite`, in order.
    pub fn bases(&self, suite: &str) -> &[String] {
        if is_security(suite) {
            &self.security
        } else {
            &self.main
        }
    }

    /// Base of the dated archive for files of `suite` as they were at `moment`
    /// (see [`deb::release::Timestamp::compact`]).
    pub fn dated_base(&self, suite: &str, moment: &str) -> Option<String> {
        let archive = if is_security(suite) {
            "debian-security"
        } else {
            "debian"
        };
        self.dated
            .as_ref()
            .map(|dated| format!("{dated}/{archive}/{moment}"))
    }

    /// Whether nothing but this machine is asked, which needs neither proxy nor
    /// certificates.
    pub(crate) fn are_on_this_machine(&self) -> bool {
        self.main
            .iter()
            .chain(&self.security)
            .chain(&self.dated)
            .all(|address| address.starts_with("http://127.0.0.1:"))
    }

    /// Where the mirrors were named, for messages.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    fn named(variable: Option<&str>, configured: &[String]) -> Result<Option<Self>> {
        let from_variable: Vec<String> = variable
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_string)
            .collect();
        if !from_variable.is_empty() {
            return Self::at(&from_variable, VARIABLE).map(Some);
        }
        if !configured.is_empty() {
            return Self::at(configured, "debian.mirrors of Bulkhead.toml").map(Some);
        }
        Ok(None)
    }

    fn from_apt(sources: &[AptSource]) -> Option<Self> {
        let mut main: Vec<String> = Vec::new();
        let mut security: Vec<String> = Vec::new();
        for source in sources.iter().filter(|source| source.is_debian()) {
            let list = if source.suites.iter().all(|suite| is_security(suite)) {
                &mut security
            } else {
                &mut main
            };
            if !list.contains(&source.address) {
                list.push(source.address.clone());
            }
        }
        if main.is_empty() {
            return None;
        }
        for beside in main.iter().map(|base| security_beside(base)) {
            if !security.contains(&beside) {
                security.push(beside);
            }
        }
        let dated = Some(DATED_ARCHIVE.to_string());
        Some(Self {
            main,
            security,
            dated,
            origin: "the host's apt sources".to_string(),
        })
    }

    fn debians_own() -> Self {
        Self {
            main: vec![DEBIANS_OWN.to_string()],
            security: vec![DEBIANS_OWN_SECURITY.to_string()],
            dated: Some(DATED_ARCHIVE.to_string()),
            origin: "Debian's own addresses".to_string(),
        }
    }
}

/// Whether files of `suite` are in the security archive.
fn is_security(suite: &str) -> bool {
    suite.ends_with("-security") || suite.ends_with("/updates")
}

/// Mirrors that carry both archives have them side by side.
fn security_beside(base: &str) -> String {
    format!("{base}-security")
}

fn checked_address(address: &str, origin: &str) -> Result<String> {
    let plain = address.trim_end_matches('/');
    let host = plain
        .strip_prefix("https://")
        .or_else(|| plain.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(char::is_whitespace) => {
            Ok(plain.to_string())
        }
        _ => bail!(
            "{origin} names the mirror {address:?}; an address looks like https://host/debian"
        ),
    }
}

/// One address of apt's sources with the suites that it is used for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AptSource {
    address: String,
    suites: Vec<String>,
    components: Vec<String>,
}

impl AptSource {
    /// All sources of the host. What cannot be read or understood is left out:
    /// these files are the host's, and a guess is all we want from them.
    fn of_host(folder: &Path) -> Result<Vec<Self>> {
        let mut files = vec![folder.join("sources.list")];
        files.extend(sorted_files(&folder.join("sources.list.d"))?);
        let mut found = Vec::new();
        for file in files {
            let Ok(text) = fs::read_to_string(&file) else {
                continue;
            };
            match file.extension().and_then(|ending| ending.to_str()) {
                Some("list") => found.extend(Self::parse_lines(&text)),
                Some("sources") => found.extend(Self::parse_stanzas(&text)),
                _ => {}
            }
        }
        Ok(found
            .into_iter()
            .flat_map(Self::through_mirror_list)
            .collect())
    }

    /// `deb [options] address suite components…` lines.
    fn parse_lines(text: &str) -> Vec<Self> {
        let parse = |line: &str| {
            let rest = line.split('#').next()?.trim().strip_prefix("deb")?;
            let mut rest = rest.strip_prefix(char::is_whitespace)?.trim_start();
            if let Some(options) = rest.strip_prefix('[') {
                rest = options.split_once(']')?.1;
            }
            let mut words = rest.split_whitespace();
            Some(Self {
                address: words.next()?.trim_end_matches('/').to_string(),
                suites: vec![words.next()?.to_string()],
                components: words.map(str::to_string).collect(),
            })
        };
        text.lines().filter_map(parse).collect()
    }

    /// Stanzas with `URIs`, `Suites` and `Components`.
    fn parse_stanzas(text: &str) -> Vec<Self> {
        // Comments may stand anywhere, also between lines of one field.
        let text: String = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .flat_map(|line| [line, "\n"])
            .collect();
        let mut found = Vec::new();
        for stanza in deb::control::stanzas(&text).unwrap_or_default() {
            let words = |field| -> Vec<String> {
                stanza
                    .get(field)
                    .unwrap_or_default()
                    .split_whitespace()
                    .map(str::to_string)
                    .collect()
            };
            let off = stanza.get("Enabled").is_some_and(|value| {
                matches!(
                    value.to_ascii_lowercase().as_str(),
                    "no" | "false" | "without" | "off" | "disable"
                )
            });
            if off || !words("Types").iter().any(|kind| kind == "deb") {
                continue;
            }
            found.extend(words("URIs").into_iter().map(|address| Self {
                address: address.trim_end_matches('/').to_string(),
                suites: words("Suites"),
                components: words("Components"),
            }));
        }
        found
    }

    /// Cloud images name a file that lists their mirrors.
    fn through_mirror_list(self) -> Vec<Self> {
        let Some(list) = self.address.strip_prefix("mirror+file:") else {
            return vec![self];
        };
        let path = PathBuf::from(format!("/{}", list.trim_start_matches('/')));
        fs::read_to_string(path)
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .map(|address| Self {
                address: address.trim_end_matches('/').to_string(),
                ..self.clone()
            })
            .collect()
    }

    /// Whether it is a mirror of Debian and not somebody's packages for it.
    fn is_debian(&self) -> bool {
        const RELEASES: [&str; 10] = [
            "buster",
            "bullseye",
            "bookworm",
            "trixie",
            "forky",
            "duke",
            "stable",
            "oldstable",
            "testing",
            "sid",
        ];
        let name = self.address.rsplit('/').next().unwrap_or_default();
        let of_release = |suite: &String| {
            let release = suite.split(['-', '/']).next().unwrap_or_default();
            RELEASES.contains(&release)
                && matches!(
                    &suite[release.len()..],
                    "" | "-updates" | "-security" | "/updates" | "-backports"
                )
        };
        checked_address(&self.address, "").is_ok()
            && name.contains("debian")
            && self.components.iter().any(|component| component == "main")
            && !self.suites.is_empty()
            && self.suites.iter().all(of_release)
    }
}

fn sorted_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(_) => return Ok(Vec::new()),
    };
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .with_context(|| format!("cannot list {}", folder.display()))?;
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_names_any_is_used() {
        let configured = ["https://b.example/debian".to_string()];
        let check = |variable: Option<&str>, configured: &[String], expected: Option<&[&str]>| {
            let found = Mirrors::named(variable, configured).unwrap();
            assert_eq!(
                found
                    .as_ref()
                    .map(|mirrors| mirrors.main.clone())
                    .as_deref(),
                {
                    let expected: Option<Vec<String>> =
                        expected.map(|list| list.iter().map(|base| base.to_string()).collect());
                    expected
                }
                .as_deref()
            );
            if let Some(mirrors) = found {
                assert_eq!(
                    mirrors.dated, None,
                    "who names mirrors is not led elsewhere"
                );
            }
        };
        check(None, &[], None);
        check(Some(" "), &[], None);
        check(None, &configured, Some(&["https://b.example/debian"]));
        check(
            Some("http://a.example/debian/ http://c.example/d"),
            &configured,
            Some(&["http://a.example/debian", "http://c.example/d"]),
        );
        for wrong in ["ftp://a.example", "a.example/debian", "http://"] {
            let error = Mirrors::named(Some(wrong), &[]).unwrap_err().to_string();
            assert!(error.contains(VARIABLE) && error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn suites_lead_to_their_archive() {
        let mirrors = Mirrors::at(&["http://a.example/debian".to_string()], "test")
            .unwrap()
            .with_dated_archive("http://old.example/archive/")
            .unwrap();
        assert_eq!(mirrors.bases("trixie-updates"), ["http://a.example/debian"]);
        assert_eq!(
            mirrors.bases("trixie-security"),
            ["http://a.example/debian-security"]
        );
        assert_eq!(
            mirrors
                .dated_base("trixie-security", "20260912T075541Z")
                .unwrap(),
            "http://old.example/archive/debian-security/20260912T075541Z"
        );
    }

    #[test]
    fn apt_sources_are_understood() {
        let check = |lines: &str, stanzas: &str, main: &[&str], security: &[&str]| {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("sources.list.d")).unwrap();
            fs::write(folder.path().join("sources.list"), lines).unwrap();
            fs::write(folder.path().join("sources.list.d/x.sources"), stanzas).unwrap();
            let found = Mirrors::from_apt(&AptSource::of_host(folder.path()).unwrap());
            let (found_main, found_security) = found
                .map(|mirrors| (mirrors.main, mirrors.security))
                .unwrap_or_default();
            assert_eq!(found_main, main, "{lines}{stanzas}");
            assert_eq!(found_security, security, "{lines}{stanzas}");
        };
        check("", "", &[], &[]);
        check(
            "# deb http://no.example/debian sid main\n\
             deb [arch=amd64 signed-by=/x] http://a.example/debian/ bookworm main contrib # x\n\
             deb-src http://src.example/debian bookworm main\n\
             deb http://s.example/debian-security bookworm-security main\n",
            "",
            &["http://a.example/debian"],
            &[
                "http://s.example/debian-security",
                "http://a.example/debian-security",
            ],
        );
        check(
            "",
            "Types: deb\n# remark\nURIs: http://a.example/debian\nSuites: bookworm bookworm-updates\n\
             Components: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n x\n\n\
             Types: deb deb-src\nURIs: http://b.example/mirror/debian-proxy\nSuites: trixie\n\
             Components: main\n\nEnabled: no\nTypes: deb\nURIs: http://c.example/debian\n\
             Suites: trixie\nComponents: main\n",
            &[
                "http://a.example/debian",
                "http://b.example/mirror/debian-proxy",
            ],
            &[
                "http://a.example/debian-security",
                "http://b.example/mirror/debian-proxy-security",
            ],
        );
        // Packages for Debian that are not Debian's.
        check(
            "deb https://x.example/linux/debian bookworm stable\n\
             deb https://x.example/repos/apt bookworm-pgdg main\n\
             deb https://x.example/debian bookworm-pgdg main\n\
             deb http://x.example/ubuntu noble main\n\
             deb cdrom:[Debian]/debian bookworm main\n",
            "",
            &[],
            &[],
        );
    }

    #[test]
    fn mirror_lists_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("debian.list");
        fs::write(
            &list,
            "https://a.example/debian\tpriority:1\nhttps://b.example/debian/\n",
        )
        .unwrap();
        let source = AptSource {
            address: format!("mirror+file://{}", list.display()),
            suites: vec!["trixie".to_string()],
            components: vec!["main".to_string()],
        };
        let found: Vec<String> = source
            .through_mirror_list()
            .into_iter()
            .map(|source| source.address)
            .collect();
        assert_eq!(
            found,
            ["https://a.example/debian", "https://b.example/debian"]
        );
    }
}
