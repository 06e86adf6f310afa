//! Who asks AWS from a workstation: variables of the environment, profiles in the files of
//! AWS' own programs, or the role of the instance that it is.

use anyhow::{Context, Result, bail, ensure};
use aws_client::credentials::{of_environment, of_instance};
use aws_client::region::is_region;
use aws_client::signature::Credentials;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use sysutil::time::Time;

/// How long the metadata service of an instance may take. Off EC2 there is none.
const METADATA: Duration = Duration::from_secs(2);
/// What a profile may have that only AWS' own programs can make credentials of.
const NOT_HERE: [&str; 6] = [
    "credential_process",
    "login_session",
    "role_arn",
    "sso_session",
    "sso_start_url",
    "web_identity_token_file",
];

/// Settings of a profile, by name.
type Profile = BTreeMap<String, String>;

/// What there is besides the arguments.
pub(super) struct Surroundings {
    variables: BTreeMap<String, String>,
}

/// Who asks, and where.
pub(super) struct Who {
    pub(super) credentials: Credentials,
    pub(super) region: String,
}

impl Surroundings {
    pub(super) fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            variables: std::env::vars_os().filter_map(text).collect(),
        }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    /// These variables alone.
    #[cfg(test)]
    fn of(variables: &[(&str, &str)]) -> Self {
        let text = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        Self {
            variables: variables.iter().map(text).collect(),
        }
    }

    /// The variables that name a proxy, in the form in which programs of the host have them.
    pub(super) fn proxy(&self) -> Vec<String> {
        let value = |name: &str| {
            let value = self.variable(name);
            value.or_else(|| self.variable(&name.to_ascii_lowercase()))
        };
        let line = |name| Some(format!("{name}={}", value(name)?));
        ["HTTPS_PROXY", "NO_PROXY"]
            .into_iter()
            .filter_map(line)
            .collect()
    }

    /// Who asks. A profile that is named is that one and no other; else the environment comes
    /// first, then a profile, then the instance. So do regions, unless there is one already.
    pub(super) fn who(
        &self,
        profile: Option<&str>,
        region: Option<&str>,
        now: Time,
    ) -> Result<Who> {
        let name = profile
            .or_else(|| self.variable("AWS_PROFILE"))
            .unwrap_or("default");
        let profiles = self.profile(name)?;
        let mut metadata = None;
        let environment = match profile {
            None => of_environment(|name| self.variable(name).map(str::to_string))?,
            Some(_) => None,
        };
        let credentials = match environment {
            Some(found) => found.credentials,
            None => match (of_profile(name, &profiles.settings)?, profile) {
                (Some(credentials), _) => credentials,
                (None, Some(_)) => bail!("there are no credentials: {}", profiles.looked_for(name)),
                (None, None) => {
                    let client = metadata.insert(self.metadata()?);
                    let found = client.as_mut().map(|client| of_instance(client, now));
                    let missing = || {
                        format!(
                            "there are no credentials: AWS_ACCESS_KEY_ID and \
                             AWS_SECRET_ACCESS_KEY are not set; {}; and there is no role of an \
                             instance of EC2",
                            profiles.looked_for(name)
                        )
                    };
                    found
                        .with_context(missing)?
                        .with_context(missing)?
                        .credentials
                }
            },
        };
        let here = region
            .or_else(|| self.variable("AWS_REGION"))
            .or_else(|| self.variable("AWS_DEFAULT_REGION"))
            .or_else(|| profiles.settings.get("region").map(String::as_str))
            .map(str::to_string);
        let region = match (here, metadata.flatten()) {
            (Some(region), _) => Some(region),
            (None, Some(mut client)) => client
                .text("meta-data/placement/region")
                .context("cannot ask for the instance's region")?,
            (None, None) => None,
        };
        let region = region.with_context(|| {
            format!(
                "there is no region: AWS_REGION and AWS_DEFAULT_REGION are not set, and the profile \
                 {name} has none in {}",
                profiles.places()
            )
        })?;
        ensure!(is_region(&region), "{region:?} is no name of a region");
        Ok(Who {
            credentials,
            region,
        })
    }

    /// A client of the metadata service, unless nobody is to ask it.
    fn metadata(&self) -> Result<Option<imds::Client>> {
        const ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
        let disabled = self.variable("AWS_EC2_METADATA_DISABLED");
        if disabled.is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let mut options = imds::Options::with_budget(METADATA);
        if let Some(text) = self.variable(ENDPOINT) {
            let address = text.trim_end_matches('/').strip_prefix("http://");
            let address = address.and_then(|address| {
                let with_port = format!("{address}:80");
                address.parse().or_else(|_| with_port.parse()).ok()
            });
            let address: SocketAddr = address
                .with_context(|| format!("{ENDPOINT} is no address such as http://[::1]:80"))?;
            options.endpoints = vec![address];
        }
        Ok(Some(imds::Client::new(options)))
    }

    fn profile(&self, name: &str) -> Result<Profiles> {
        let home = self.variable("HOME").map(PathBuf::from);
        let place = |variable: &str, file: &str| {
            let named = self.variable(variable).map(PathBuf::from);
            named.or_else(|| Some(home.as_ref()?.join(".aws").join(file)))
        };
        let mut settings = Profile::new();
        let mut files = Vec::new();
        let in_config = match name {
            "default" => name.to_string(),
            _ => format!("profile {name}"),
        };
        // What is in the file of credentials counts more than the other.
        for (variable, file, section) in [
            ("AWS_CONFIG_FILE", "config", in_config),
            (
                "AWS_SHARED_CREDENTIALS_FILE",
                "credentials",
                name.to_string(),
            ),
        ] {
            let Some(path) = place(variable, file) else {
                continue;
            };
            match fs::read_to_string(&path) {
                Ok(text) => settings.extend(section_of(&text, &section)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot read {}", path.display()));
                }
            }
            files.push(path);
        }
        Ok(Profiles { settings, files })
    }
}

/// What a profile says, and where that was looked for.
struct Profiles {
    settings: Profile,
    files: Vec<PathBuf>,
}

impl Profiles {
    fn places(&self) -> String {
        let files = self.files.iter().map(|path| path.display().to_string());
        match self.files.is_empty() {
            true => "~/.aws, since HOME is not set".to_string(),
            false => files.collect::<Vec<_>>().join(" and "),
        }
    }

    fn looked_for(&self, name: &str) -> String {
        format!(
            "the profile {name} has no aws_access_key_id in {}",
            self.places()
        )
    }
}

/// The credentials in a profile.
fn of_profile(name: &str, profile: &Profile) -> Result<Option<Credentials>> {
    let get = |key: &str| profile.get(key).cloned();
    match (get("aws_access_key_id"), get("aws_secret_access_key")) {
        (Some(access_key), Some(secret_key)) => Ok(Some(Credentials {
            access_key,
            secret_key,
            session_token: get("aws_session_token"),
        })),
        (None, None) => match NOT_HERE.iter().find(|key| profile.contains_key(**key)) {
            Some(key) => bail!(
                "the profile {name} has {key}, of which credentials are not made here: run \
                 eval \"$(aws configure export-credentials --profile {name} --format env)\", and \
                 leave the profile out of the address of the key"
            ),
            None => Ok(None),
        },
        _ => bail!(
            "of aws_access_key_id and aws_secret_access_key the profile {name} has one and lacks \
             the other"
        ),
    }
}

/// The settings below `[section]`.
fn section_of(text: &str, section: &str) -> Profile {
    let mut settings = Profile::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(header) = line.trim().strip_prefix('[') {
            let header = header.split(']').next().unwrap_or_default();
            let words: Vec<_> = header.split_whitespace().collect();
            inside = words.join(" ").replace(['"', '\''], "") == section;
        } else if inside
            && !line.starts_with([' ', '\t', '#', ';'])
            && let Some((name, value)) = line.split_once('=')
        {
            let value = value.split(" #").next().unwrap_or_default();
            let value = value.split(" ;").next().unwrap_or_default().trim();
            if !value.is_empty() {
                settings.insert(name.trim().to_ascii_lowercase(), value.to_string());
            }
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use imds::fake::{Behaviour, Fake, Instance};
    use std::path::Path;

    const CONFIG: &str = "[default]\nregion = eu-south-2\n[profile ci]\nregion=us-east-1 # near\n\
        aws_access_key_id = CONFIG\n[profile sso]\nsso_session = x\nregion = us-east-1\n\
        [profile half]\naws_access_key_id = HALF\n[profile bare]\ns3 =\n  region = odd\n";
    const CREDENTIALS: &str = "; made by hand\n[default]\naws_access_key_id = DEFAULT\n\
        aws_secret_access_key = secret\n\n[ci]\naws_access_key_id=CI\n\
        aws_secret_access_key=a/b+c==\naws_session_token=token\n\
        [bare]\naws_access_key_id = BARE\naws_secret_access_key = secret\n";

    /// Who asks, of whom these variables are set, besides where the files are.
    fn who(
        folder: &Path,
        variables: &[(&str, &str)],
        profile: Option<&str>,
        region: Option<&str>,
    ) -> String {
        let home = folder.to_str().unwrap();
        let mut all = vec![("HOME", home), ("AWS_EC2_METADATA_DISABLED", "true")];
        all.extend(variables);
        let said = match Surroundings::of(&all).who(profile, region, Time::now()) {
            Ok(Who {
                credentials,
                region,
            }) => {
                let session = credentials.session_token.unwrap_or_default();
                format!("{} {session} {region}", credentials.access_key)
            }
            Err(error) => format!("{error:#}").replace(home, "~"),
        };
        assert!(!said.contains("secret\""), "{said}");
        said
    }

    fn home() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(".aws")).unwrap();
        fs::write(folder.path().join(".aws/config"), CONFIG).unwrap();
        fs::write(folder.path().join(".aws/credentials"), CREDENTIALS).unwrap();
        folder
    }

    #[test]
    fn the_environment_then_a_profile() {
        let home = home();
        let keys = [
            ("AWS_ACCESS_KEY_ID", "ENV"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        let with = |more: &[(&'static str, &'static str)]| [&keys[..], more].concat();
        for (variables, profile, expected) in [
            (vec![], None, "DEFAULT  eu-south-2"),
            (vec![], Some("ci"), "CI token us-east-1"),
            (vec![("AWS_PROFILE", "ci")], None, "CI token us-east-1"),
            (
                vec![("AWS_REGION", "af-south-1")],
                None,
                "DEFAULT  af-south-1",
            ),
            (with(&[]), None, "ENV  eu-south-2"),
            (
                with(&[("AWS_SESSION_TOKEN", "t")]),
                None,
                "ENV t eu-south-2",
            ),
            // What is named is taken.
            (with(&[]), Some("ci"), "CI token us-east-1"),
        ] {
            let said = who(home.path(), &variables, profile, None);
            assert_eq!(said, expected, "{variables:?} {profile:?}");
        }
        let said = who(
            home.path(),
            &[("AWS_REGION", "x")],
            None,
            Some("cn-north-1"),
        );
        assert_eq!(said, "DEFAULT  cn-north-1");
    }

    #[test]
    fn what_was_looked_for_is_said() {
        let home = home();
        let none = tempfile::tempdir().unwrap();
        let files = "in ~/.aws/config and ~/.aws/credentials";
        for (folder, variables, profile, expected) in [
            (
                &none,
                &[][..],
                None,
                format!(
                    "there are no credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are \
                     not set; the profile default has no aws_access_key_id {files}; and there is \
                     no role of an instance of EC2"
                ),
            ),
            (
                &none,
                &[],
                Some("ci"),
                format!(
                    "there are no credentials: the profile ci has no aws_access_key_id {files}"
                ),
            ),
            (
                &home,
                &[],
                Some("bare"),
                format!(
                    "there is no region: AWS_REGION and AWS_DEFAULT_REGION are not set, and the \
                     profile bare has none {files}"
                ),
            ),
            (
                &home,
                &[],
                Some("sso"),
                "the profile sso has sso_session, of which credentials are not made here: run \
                 eval \"$(aws configure export-credentials --profile sso --format env)\", and leave \
                 the profile out of the address of the key"
                    .to_string(),
            ),
            (
                &home,
                &[],
                Some("half"),
                "of aws_access_key_id and aws_secret_access_key the profile half has one and \
                 lacks the other"
                    .to_string(),
            ),
            (
                &home,
                &[("AWS_REGION", "x.example/")],
                None,
                "\"x.example/\" is no name of a region".to_string(),
            ),
        ] {
            assert_eq!(who(folder.path(), variables, profile, None), expected);
        }
    }

    #[test]
    fn the_role_of_an_instance_comes_last() {
        let role = r#"{"Code": "Success", "LastUpdated": "2026-01-01T00:00:00Z",
            "AccessKeyId": "ROLE", "SecretAccessKey": "secret", "Token": "session",
            "Expiration": "2096-01-01T00:00:00Z"}"#;
        let at = "meta-data/iam/security-credentials/";
        let instance: Instance = [
            (at.to_string(), "builders".into()),
            (format!("{at}builders"), role.into()),
            ("meta-data/placement/region".to_string(), "eu-west-1".into()),
        ]
        .into_iter()
        .collect();
        let fake = Fake::start(instance, Behaviour::default()).unwrap();
        let endpoint = format!("http://{}", fake.address());
        let none = tempfile::tempdir().unwrap();
        let variables = [
            ("AWS_EC2_METADATA_DISABLED", ""),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint),
        ];
        let said = |folder: &Path| who(folder, &variables, None, None);
        assert_eq!(said(none.path()), "ROLE session eu-west-1");
        assert_eq!(said(home().path()), "DEFAULT  eu-south-2");
    }

    #[test]
    fn proxies_are_those_of_the_environment() {
        let around = Surroundings::of(&[("https_proxy", "http://p"), ("NO_PROXY", "x")]);
        assert_eq!(around.proxy(), ["HTTPS_PROXY=http://p", "NO_PROXY=x"]);
        assert!(Surroundings::of(&[]).proxy().is_empty());
    }
}
