//! The admin container: whom its user data names is let in by SSH.
//!
//! User data is JSON, in the form that admin containers of compatible hosts take:
//!
//! ```json
//! { "user": "ec2-user", "ssh": { "authorized-keys": ["ssh-ed25519 …"] } }
//! ```
//!
//! Whoever comes in is root in the container; the name is but a name. Without a key there
//! is no server, and the container waits for commands that the API runs in it.

use crate::{exec, wait_for_end};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

const USER_DATA: &str = "/.bottlerocket/host-containers/current/user-data";
/// Where the keys by which the host is known to clients lie: in the folder that stays.
const HOST_KEYS: &str = "/.bottlerocket/host-containers/current/etc/ssh";
/// Kinds of these keys.
const KINDS: [&str; 2] = ["ed25519", "ecdsa"];
const AUTHORIZED_KEYS: &str = "etc/ssh/authorized_keys";
const AUTHORITIES: &str = "etc/ssh/trusted_user_ca_keys";
const CONFIGURATION: &str = "etc/ssh/sshd_config";
/// The folder that the server's unprivileged part sees as its root.
const EMPTY: &str = "/run/sshd";
const PASSWD: &str = "etc/passwd";
const DEFAULT_USER: &str = "ec2-user";
/// Variables of the container that sessions have, too: the server starts them without any.
const PASSED_ON: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"];

/// What the user data says. What else it has is for others.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct UserData {
    user: Option<String>,
    ssh: Ssh,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Ssh {
    #[serde(alias = "authorized_keys")]
    authorized_keys: Vec<String>,
    #[serde(alias = "trusted_user_ca_keys")]
    trusted_user_ca_keys: Vec<String>,
    authorized_keys_command: Option<String>,
    authorized_keys_command_user: Option<String>,
    ciphers: Vec<String>,
    key_exchange_algorithms: Vec<String>,
    macs: Vec<String>,
}

/// Runs the server, if anybody may come in.
pub fn run() -> Result<()> {
    let user_data = read(Path::new(USER_DATA))?;
    if !user_data.ssh.lets_somebody_in() {
        eprintln!(
            "nobody may come in by SSH: user-data of the container has no key; \
             `apiclient exec admin bash` works all the same"
        );
        return wait_for_end();
    }
    let variables = PASSED_ON.map(|name| (name, env::var(name).ok()));
    let variables: Vec<_> = variables
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    set_up(Path::new("/"), &user_data, &variables)?;
    // The image's own `/run` is covered.
    fs::create_dir_all(EMPTY).with_context(|| format!("cannot make {EMPTY}"))?;
    make_host_keys()?;
    let configuration = format!("/{CONFIGURATION}");
    Err(exec(Command::new("/usr/sbin/sshd").args([
        "-D",
        "-e",
        "-f",
        &configuration,
    ])))
}

fn read(path: &Path) -> Result<UserData> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(UserData::default()),
        bytes => bytes.with_context(|| format!("cannot read {}", path.display()))?,
    };
    // Where one goes wrong may quote what is secret.
    let user_data = serde_json::from_slice(&bytes)
        .map_err(|error| {
            anyhow::anyhow!("it is no JSON of the right form, in line {}", error.line())
        })
        .with_context(|| format!("cannot take {}", path.display()))?;
    Ok(user_data)
}

impl Ssh {
    fn lets_somebody_in(&self) -> bool {
        !self.authorized_keys.is_empty()
            || !self.trusted_user_ca_keys.is_empty()
            || self.authorized_keys_command.is_some()
    }
}

/// Writes what the server goes by below `root`. Sessions get `variables`.
fn set_up(root: &Path, user_data: &UserData, variables: &[(&str, String)]) -> Result<()> {
    let user = user_data.user.as_deref().unwrap_or(DEFAULT_USER);
    ensure!(
        is_user_name(user),
        "{user:?} cannot be the name of a user: letters, digits, '-' and '_'"
    );
    let ssh = &user_data.ssh;
    let configuration = configuration(ssh)? + &set_env(variables)?;
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write(AUTHORIZED_KEYS, &lines(&ssh.authorized_keys)?)?;
    write(AUTHORITIES, &lines(&ssh.trusted_user_ca_keys)?)?;
    write(CONFIGURATION, &configuration)?;
    let path = root.join(PASSWD);
    let users =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let line = format!("{user}:");
    if users.lines().any(|known| known.starts_with(&line)) {
        return Ok(());
    }
    write(
        PASSWD,
        &format!("{users}{user}:*:0:0::/root:/usr/bin/bash\n"),
    )
}

fn is_user_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=32).contains(&name.len()) && !name.starts_with('-') && name.chars().all(plain)
}

/// Keys, one in a line.
fn lines(keys: &[String]) -> Result<String> {
    let mut text = String::new();
    for key in keys {
        ensure!(
            !key.chars().any(char::is_control),
            "a key has a line break or another control character in it"
        );
        text += key.trim();
        text.push('\n');
    }
    Ok(text)
}

/// The server's configuration.
fn configuration(ssh: &Ssh) -> Result<String> {
    let mut text = String::from(
        "PermitRootLogin prohibit-password\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         PrintMotd yes\n\
         Subsystem sftp internal-sftp\n",
    );
    for kind in KINDS {
        text += &format!("HostKey {HOST_KEYS}/ssh_host_{kind}_key\n");
    }
    text += &format!("AuthorizedKeysFile /{AUTHORIZED_KEYS}\n");
    if !ssh.trusted_user_ca_keys.is_empty() {
        text += &format!("TrustedUserCAKeys /{AUTHORITIES}\n");
    }
    for (keyword, value) in [
        ("AuthorizedKeysCommand", &ssh.authorized_keys_command),
        (
            "AuthorizedKeysCommandUser",
            &ssh.authorized_keys_command_user,
        ),
    ] {
        if let Some(value) = value {
            ensure!(
                !value.is_empty() && !value.chars().any(char::is_control),
                "the value for {keyword} is empty, or not of one line"
            );
            text += &format!("{keyword} {value}\n");
        }
    }
    for (keyword, words) in [
        ("Ciphers", &ssh.ciphers),
        ("KexAlgorithms", &ssh.key_exchange_algorithms),
        ("MACs", &ssh.macs),
    ] {
        let is_word = |word: &String| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-@.".contains(c);
            !word.is_empty() && word.chars().all(plain)
        };
        if !words.is_empty() {
            ensure!(words.iter().all(is_word), "{keyword} are not all names");
            text += &format!("{keyword} {}\n", words.join(","));
        }
    }
    Ok(text)
}

/// The line by which sessions get variables. There can be but one, for the server takes the
/// first.
fn set_env(variables: &[(&str, String)]) -> Result<String> {
    let mut line = String::new();
    for (name, value) in variables {
        ensure!(
            !value.chars().any(char::is_control),
            "the value of {name} is not of one line"
        );
        let value = value.replace('\\', r"\\").replace('"', r#"\""#);
        line += &format!(" \"{name}={value}\"");
    }
    Ok(match line.is_empty() {
        true => line,
        false => format!("SetEnv{line}\n"),
    })
}

/// Makes the keys that are not there: a client knows the host by them, also when the
/// container is another one.
fn make_host_keys() -> Result<()> {
    fs::create_dir_all(HOST_KEYS).with_context(|| format!("cannot make {HOST_KEYS}"))?;
    for kind in KINDS {
        let path = format!("{HOST_KEYS}/ssh_host_{kind}_key");
        if Path::new(&path).exists() {
            continue;
        }
        sysutil::process::run(
            Command::new("/usr/bin/ssh-keygen")
                .args(["-q", "-N", "", "-C", "", "-t", kind, "-f", &path]),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> UserData {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn who_comes_in_is_what_the_user_data_says() {
        for (text, expected) in [
            ("{}", false),
            (r#"{"user": "a", "ssh": {}}"#, false),
            (r#"{"ssh": {"authorized-keys": []}}"#, false),
            (r#"{"ssh": {"authorized-keys": ["k"]}}"#, true),
            (r#"{"ssh": {"authorized_keys": ["k"]}}"#, true),
            (r#"{"ssh": {"trusted-user-ca-keys": ["k"]}}"#, true),
            (r#"{"ssh": {"authorized-keys-command": "/c"}}"#, true),
            (
                r#"{"ssm": {"activation-id": "x"}, "password-hash": "y"}"#,
                false,
            ),
        ] {
            assert_eq!(parse(text).ssh.lets_somebody_in(), expected, "{text}");
        }
    }

    #[test]
    fn the_server_goes_by_the_user_data() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/ssh")).unwrap();
        fs::write(root.path().join(PASSWD), "root:*:0:0::/root:/bin/sh\n").unwrap();
        let user_data = parse(
            r#"{"user": "jo", "ssh": {
                "authorized-keys": ["ssh-ed25519 AAAA jo", "ssh-rsa BBBB "],
                "trusted-user-ca-keys": ["ssh-rsa CCCC"],
                "ciphers": ["aes256-gcm@openssh.com", "aes256-ctr"]
            }}"#,
        );
        let variables = [
            ("HTTPS_PROXY", r#"http://jo:a"b\c d@proxy:3128"#.to_string()),
            ("NO_PROXY", "localhost,127.0.0.1".to_string()),
        ];
        set_up(root.path(), &user_data, &variables).unwrap();
        set_up(root.path(), &user_data, &variables).unwrap();
        let text = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        assert_eq!(text(AUTHORIZED_KEYS), "ssh-ed25519 AAAA jo\nssh-rsa BBBB\n");
        assert_eq!(
            text(PASSWD),
            "root:*:0:0::/root:/bin/sh\njo:*:0:0::/root:/usr/bin/bash\n"
        );
        let configuration = text(CONFIGURATION);
        for line in [
            "PasswordAuthentication no",
            "AuthorizedKeysFile /etc/ssh/authorized_keys",
            "TrustedUserCAKeys /etc/ssh/trusted_user_ca_keys",
            "Ciphers aes256-gcm@openssh.com,aes256-ctr",
            r#"SetEnv "HTTPS_PROXY=http://jo:a\"b\\c d@proxy:3128" "NO_PROXY=localhost,127.0.0.1""#,
        ] {
            assert!(configuration.lines().any(|found| found == line), "{line}");
        }
        assert!(!configuration.contains("MACs"));
    }

    #[test]
    fn nothing_else_gets_into_the_configuration() {
        let root = tempfile::tempdir().unwrap();
        for text in [
            r#"{"user": "a:b"}"#,
            r#"{"user": ""}"#,
            r#"{"ssh": {"authorized-keys": ["a\nb"]}}"#,
            r#"{"ssh": {"ciphers": ["a\nPermitEmptyPasswords yes"]}}"#,
            r#"{"ssh": {"macs": ["a b"]}}"#,
            r#"{"ssh": {"authorized-keys-command": "a\nb"}}"#,
        ] {
            assert!(set_up(root.path(), &parse(text), &[]).is_err(), "{text}");
        }
        assert!(set_env(&[("NO_PROXY", "a\nPermitEmptyPasswords yes".to_string())]).is_err());
        assert_eq!(set_env(&[]).unwrap(), "");
    }
}
