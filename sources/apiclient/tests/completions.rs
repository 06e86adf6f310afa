//! Completion scripts, as shells read them. A shell that is not there is left
//! out, and said so.

#![allow(clippy::unwrap_used, reason = "a test")]

use apiclient::cli::completions::script;
use std::io::ErrorKind;
use std::process::Command;

/// What a shell says to a program of its own; `None` if there is no such shell.
fn run(shell: &str, arguments: &[&str], program: &str) -> Option<String> {
    let mut command = Command::new(shell);
    command.args(arguments).arg("-c").arg(program);
    match command.output() {
        Ok(output) => {
            let err = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && err.is_empty(), "{shell}: {err}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: there is no {shell} here");
            None
        }
        Err(error) => panic!("{shell}: {error}"),
    }
}

/// Lines whose last word is completed, and some of what is offered, or of what
/// is not.
const CASES: &[(&str, &[&str], &[&str])] = &[
    (
        "",
        &["get", "update", "completions"],
        &["complete-key", "fips"],
    ),
    ("u", &["unset", "update"], &["get"]),
    ("-", &["-s", "--help", "--uri"], &["--json"]),
    ("-m ", &["POST"], &["get"]),
    ("-s /x upd", &["update"], &["unset"]),
    ("--log-level ", &["trace"], &["get"]),
    ("update ", &["check", "apply", "cancel"], &["get"]),
    ("-v update a", &["apply"], &["cancel"]),
    ("update apply --", &["--check", "--reboot"], &["--uri"]),
    ("update check -", &["--help"], &["--check"]),
    ("report ", &["cis", "cis-k8s", "fips", "boot"], &["-l"]),
    ("report cis -l ", &["1", "2"], &["cis"]),
    ("report boot -f ", &["text", "json"], &["boot"]),
    ("ephemeral-storage init -t ", &["xfs", "ext4"], &["init"]),
    (
        "ephemeral-storage init --prefer ebs-volume eph",
        &["ephemeral-disk"],
        &["ebs-volume"],
    ),
    ("unset motd -o ", &["text", "json"], &["ntp.options"]),
    ("unset motd nt", &["ntp.options"], &["motd"]),
    (
        "explain settings.nt",
        &["settings.ntp.options"],
        &["settings.motd"],
    ),
    ("set mo", &["motd="], &["ntp.options="]),
    ("get ", &["settings.", "os."], &["motd"]),
    (
        "get settings.m",
        &["settings.motd"],
        &["settings.ntp.options"],
    ),
    ("exec ", &["admin", "control"], &["ls"]),
    ("completions ", &["bash", "zsh", "fish"], &["get"]),
];

/// Instead of the program, which would ask a server for names.
const NAMES: &str = r#"
case "$2" in
    settings.*) printf '%s\n' settings.motd settings.ntp.options ;;
    *) printf '%s\n' motd ntp.options ;;
esac
"#;

fn check(line: &str, offered: &str, expected: &[&str], other: &[&str]) {
    let offered: Vec<&str> = offered.split_whitespace().collect();
    for word in expected {
        assert!(offered.contains(word), "{line:?}: no {word} in {offered:?}");
    }
    for word in other {
        assert!(!offered.contains(word), "{line:?}: {word} in {offered:?}");
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[test]
fn bash() {
    let script = script("bash").unwrap();
    for (line, expected, other) in CASES {
        let words: Vec<String> = line.split(' ').map(quoted).collect();
        let program = format!(
            "apiclient() {{ {NAMES} }}\ncompopt() {{ :; }}\n{script}\n\
             COMP_WORDS=(apiclient {}); COMP_CWORD={}\n_apiclient\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.join(" "),
            words.len(),
        );
        let Some(offered) = run("bash", &["--norc"], &program) else {
            return;
        };
        check(line, &offered, expected, other);
    }
}

#[test]
fn zsh() {
    let script = script("zsh").unwrap();
    for (line, expected, other) in CASES {
        let words: Vec<String> = line.split(' ').map(quoted).collect();
        // Its completion system runs only at a prompt, so what it is told is
        // looked at instead.
        let program = format!(
            "apiclient() {{ {NAMES} }}\ncompdef() {{ :; }}\n_files() {{ :; }}\n\
             compadd() {{\n\
               local end=''\n\
               if [[ $1 = -S ]]; then end=$2; shift 2; fi\n\
               shift\n\
               local word; for word in \"$@\"; do\n\
                 [[ $word = ${{words[CURRENT]}}* ]] && print -r -- $word$end\n\
               done; true\n\
             }}\n{script}\n\
             words=(apiclient {}); CURRENT={}\n_apiclient",
            words.join(" "),
            words.len() + 1,
        );
        let Some(offered) = run("zsh", &["-f"], &program) else {
            return;
        };
        check(line, &offered, expected, other);
    }
}

#[test]
fn fish() {
    let script = script("fish").unwrap();
    for (line, expected, other) in CASES {
        let program = format!(
            "function apiclient; sh -c {} sh $argv; end\n{script}\n\
             complete -C {} | string split -f 1 \\t; true",
            quoted(NAMES),
            quoted(&format!("apiclient {line}")),
        );
        let Some(offered) = run("fish", &["--no-config"], &program) else {
            return;
        };
        check(line, &offered, expected, other);
    }
}
