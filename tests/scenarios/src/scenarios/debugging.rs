//! The page on debugging: each of its commands is run as it stands there, and has the outcome
//! that the page promises.

use super::diagnostics::unpack;
use super::exec::{run_in, session};
use super::host_containers::{ADMIN, Host};
use anyhow::{Context, Result, bail, ensure};
use api_types::exec::{Size, Tty};
use apiclient::Client;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::iter;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;
use test_vm::probe::Probe;

/// A command of the page.
struct Step {
    /// As the page has it.
    command: &'static str,
    /// Who runs it.
    place: Place,
    /// Parts of what is seen then.
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A node whose settings name the certificate of another authority than its cluster's.
    Refused,
    /// The control container.
    Control,
    /// The shell in admin that the command before has opened.
    Shell,
    /// A machine that reaches admin by SSH under the name `node`.
    Client,
}

enum Outcome {
    /// It says this, and exits with 0 unless it is typed.
    Says(&'static [&'static str]),
    /// It gives a support bundle with these files, in base64.
    Bundle(&'static [&'static str]),
    /// Admin runs, or is gone.
    AdminRuns(bool),
}

const STEPS: &[Step] = &[
    Step {
        command: "apiclient report node",
        place: Place::Refused,
        outcome: Outcome::Says(&[
            "the API server's certificate is of another authority",
            "see settings.kubernetes.cluster-certificate",
            "x509: certificate signed by unknown authority",
        ]),
    },
    Step {
        command: "apiclient report user-data",
        place: Place::Control,
        outcome: Outcome::Says(&["settings.ntp.time-server", "[skipped]"]),
    },
    Step {
        command: "apiclient get settings.kubernetes",
        place: Place::Control,
        outcome: Outcome::Says(&["\"standalone-mode\": true"]),
    },
    Step {
        command: "apiclient report boot",
        place: Place::Control,
        outcome: Outcome::Says(&["Boot complete after", "kubelet.service"]),
    },
    Step {
        command: "apiclient set host-containers.admin.enabled=true",
        place: Place::Control,
        outcome: Outcome::AdminRuns(true),
    },
    Step {
        command: "apiclient exec admin bash",
        place: Place::Control,
        outcome: Outcome::Says(&["# "]),
    },
    Step {
        command: "ps; strace -f -p PID",
        place: Place::Shell,
        outcome: Outcome::Says(&["kubelet", "attached", "rt_sigtimedwait("]),
    },
    Step {
        command: "tcpdump -i any -n host 10.244.1.7",
        place: Place::Shell,
        outcome: Outcome::Says(&["Flags [S]"]),
    },
    Step {
        command: "sheltie -c 'journalctl -u kubelet -n 50'",
        place: Place::Shell,
        outcome: Outcome::Says(&["kubelet["]),
    },
    Step {
        command: "apiclient exec admin sh -c 'du -xh -d 2 /.bottlerocket/rootfs/var/lib | sort -h'",
        place: Place::Control,
        outcome: Outcome::Says(&["/.bottlerocket/rootfs/var/lib/host-containerd"]),
    },
    Step {
        command: "apiclient exec admin sheltie -c 'journalctl -u kubelet'",
        place: Place::Control,
        outcome: Outcome::Says(&["kubelet["]),
    },
    Step {
        command: "apiclient exec admin sheltie -c 'journalctl -u host-containers@NAME'",
        place: Place::Control,
        outcome: Outcome::Says(&["admin runs with superpowers", "Server listening on"]),
    },
    Step {
        command: "ssh node apiclient report support-bundle > bulkhead-logs.tar.gz",
        place: Place::Client,
        outcome: Outcome::Bundle(&[
            "settings.json",
            "journal/this-boot",
            "journal/previous-boot",
        ]),
    },
    Step {
        command: "apiclient report support-bundle | base64",
        place: Place::Control,
        outcome: Outcome::Bundle(&["units/all"]),
    },
    Step {
        command: "apiclient set host-containers.admin.enabled=false",
        place: Place::Control,
        outcome: Outcome::AdminRuns(false),
    },
];

/// What the shell in admin listens to instead of a pod's address: its port of SSH.
const LISTENED_TO: &str = "127.0.0.1";
/// What is typed to end a program.
const INTERRUPT: &[u8] = b"\x03";
/// How long a terminal may take to show what is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs those commands on the node whose settings name another authority's certificate.
pub(super) fn refused(probe: &mut Probe<UnixStream>) -> Result<()> {
    for step in STEPS.iter().filter(|step| step.place == Place::Refused) {
        let words: Vec<&str> = step.command.split(' ').collect();
        let ended = probe.run(&words)?;
        ensure!(
            ended.status == 0,
            "{} complains: {}",
            step.command,
            ended.stderr
        );
        step.check(&ended.stdout)?;
    }
    Ok(())
}

/// A host with the containers control and admin, of which the latter is off.
pub(super) struct Doors<'a> {
    pub(super) host: &'a Host<'a>,
    /// The container that reaches admin by SSH.
    pub(super) client: &'static str,
    /// What a pod's process is called.
    pub(super) pod: &'static str,
}

impl Doors<'_> {
    /// Runs all the others, in their order; `started` looks at admin when it runs.
    pub(super) fn run_all(&self, started: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut started = Some(started);
        let elsewhere = |step: &&Step| step.place != Place::Refused;
        let mut steps = STEPS.iter().filter(elsewhere).peekable();
        while let Some(step) = steps.next() {
            let typed = iter::from_fn(|| steps.next_if(|next| next.place == Place::Shell));
            let typed: Vec<&Step> = typed.collect();
            let ran = if typed.is_empty() {
                self.run(step)
            } else {
                self.type_in(step, &typed)
            };
            ran.with_context(|| format!("running {:?} of the page on debugging", step.command))?;
            if let Outcome::AdminRuns(true) = step.outcome
                && let Some(started) = started.take()
            {
                started()?;
            }
        }
        Ok(())
    }

    fn run(&self, step: &Step) -> Result<()> {
        let command = step.command.replace("NAME", "admin");
        let (container, script) = match step.place {
            Place::Client => (
                self.client,
                format!("cd /tmp && {command} && base64 bulkhead-logs.tar.gz"),
            ),
            _ => ("control", command),
        };
        let (said, status) = self.run_in(container, &script)?;
        ensure!(status == 0, "it ended with {status}: {said}");
        match step.outcome {
            Outcome::Says(_) => step.check(&said),
            Outcome::AdminRuns(true) => self.host.wait_for(ADMIN, "Server listening on").map(drop),
            Outcome::AdminRuns(false) => self.host.wait_until_inactive(ADMIN),
            Outcome::Bundle(files) => {
                let text: String = said.split_whitespace().collect();
                let bundle = STANDARD
                    .decode(&text)
                    .with_context(|| format!("it is not base64: {said}"))?;
                let bundle = unpack(&bundle)?;
                for file in files {
                    ensure!(
                        bundle.keys().any(|path| path.ends_with(file)),
                        "the bundle has no {file}"
                    );
                }
                Ok(())
            }
        }
    }

    fn run_in(&self, container: &str, script: &str) -> Result<(String, u8)> {
        run_in(&self.host.client(), container, &["sh", "-c", script], None)
    }

    /// Opens a shell by `opens` in a terminal, types the commands, and interrupts each once it
    /// has shown what it should.
    fn type_in(&self, opens: &Step, typed: &[&Step]) -> Result<()> {
        let (pid, _) = self.run_in("admin", &format!("pidof {}", self.pod))?;
        let pid = pid.split_whitespace().next().context("no pod runs")?;
        let (calls, client) = (&self.host.client(), self.client);
        let size = Some(Size {
            rows: 50,
            cols: 200,
        });
        let command = ["sh", "-c", opens.command];
        let tty = Some(Tty { size });
        let ((), status) = session(calls, "control", &command, tty, |keys, screen| {
            let mut terminal = Terminal::new(keys, screen);
            let shown = terminal.run_all(opens, typed, pid, || knock(calls, client));
            if shown.is_err() {
                terminal.give_up();
            }
            shown
        })?;
        status.map(drop)
    }
}

/// Has a packet come to where the shell in admin listens.
fn knock(client: &Client, container: &str) -> Result<()> {
    let script = format!("wget -q -T 5 -O /dev/null http://{LISTENED_TO}:22/; true");
    run_in(client, container, &["sh", "-c", &script], None).map(drop)
}

impl Step {
    fn check(&self, said: &str) -> Result<()> {
        if let Outcome::Says(texts) = self.outcome {
            for text in texts {
                ensure!(
                    said.contains(text),
                    "{:?} does not say {text:?}: {said}",
                    self.command
                );
            }
        }
        Ok(())
    }
}

/// A terminal, as who sits at it has it.
struct Terminal {
    keys: PipeWriter,
    screen: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn new(keys: PipeWriter, mut screen: PipeReader) -> Self {
        let (sender, receiver) = channel();
        // Ends with the session, and with who looks at the screen.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut bytes) {
                if sender.send(bytes[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            keys,
            screen: receiver,
            shown: String::new(),
        }
    }

    fn run_all(
        &mut self,
        opens: &Step,
        typed: &[&Step],
        pid: &str,
        knock: impl Fn() -> Result<()>,
    ) -> Result<()> {
        self.wait_for(opens)?;
        for step in typed {
            let line = step.command.replace("PID", pid);
            let line = line.replace("10.244.1.7", LISTENED_TO);
            self.press(format!("{line}\n").as_bytes())?;
            if line.starts_with("tcpdump") {
                self.wait_for_text("listening on any")?;
                knock()?;
            }
            self.wait_for(step)?;
            self.press(INTERRUPT)?;
        }
        self.press(b"exit\n")?;
        // The screen is dark when the session has ended.
        loop {
            match self.screen.recv_timeout(PATIENCE) {
                Ok(bytes) => self.show(&bytes),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the shell does not end but shows {:?}", self.shown)
                }
            }
        }
    }

    fn press(&mut self, keys: &[u8]) -> Result<()> {
        self.shown.clear();
        self.keys.write_all(keys).context("the terminal is gone")
    }

    fn wait_for(&mut self, step: &Step) -> Result<()> {
        let Outcome::Says(texts) = step.outcome else {
            bail!("{:?} has no outcome that a terminal shows", step.command);
        };
        texts.iter().try_for_each(|text| self.wait_for_text(text))
    }

    fn wait_for_text(&mut self, text: &str) -> Result<()> {
        while !self.shown.contains(text) {
            let Ok(bytes) = self.screen.recv_timeout(PATIENCE) else {
                bail!("it does not show {text:?} but {:?}", self.shown);
            };
            self.show(&bytes);
        }
        Ok(())
    }

    fn show(&mut self, bytes: &[u8]) {
        self.shown.push_str(&String::from_utf8_lossy(bytes));
    }

    /// Leaves the shell, whatever runs in it. A session that goes on all the same ends with
    /// what it shows next, since nobody looks.
    fn give_up(mut self) {
        drop(self.screen);
        let keys: [&[u8]; 6] = [INTERRUPT, b"q", INTERRUPT, b"exit\n", INTERRUPT, b"exit\n"];
        for keys in keys {
            if self.keys.write_all(keys).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(500));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{network, troubles};
    use super::*;
    use std::collections::BTreeSet;

    const PAGE: &str = include_str!("../../../../docs/debugging.md");

    /// What the page names that is not run on a host, or is but a name.
    const ELSEWHERE: [&str; 5] = [
        "apiclient set",
        "aws ec2 get-console-output",
        "kubectl describe pod",
        "kubectl exec",
        "kubectl logs",
    ];

    /// What a page has people run: lines of blocks, without what is said about them, and all
    /// that has a blank in it between backquotes; and what it shows of the outcome.
    fn read(page: &str) -> (BTreeSet<String>, Vec<&str>) {
        let (mut commands, mut shown) = (BTreeSet::new(), Vec::new());
        let mut is_prompted = false;
        for line in page.lines() {
            let Some(line) = line.strip_prefix("    ") else {
                is_prompted = false;
                let spans = line.split('`').skip(1).step_by(2);
                let spans = spans.filter(|span| span.contains(' '));
                commands.extend(spans.map(|span| span.replace("\\|", "|")));
                continue;
            };
            let prompted = line.strip_prefix("$ ");
            // What is below a prompt is what comes of it.
            if prompted.is_none() && (is_prompted || line.starts_with("bulkhead: ")) {
                shown.push(line);
                continue;
            }
            is_prompted = prompted.is_some();
            let line = prompted.or(line.strip_prefix("# ")).unwrap_or(line);
            let command = line.split("   ").next().unwrap_or_default();
            commands.insert(command.trim_end().to_string());
        }
        (commands, shown)
    }

    #[test]
    fn each_command_of_the_page_is_run_and_no_other() {
        let steps = STEPS.iter().map(|step| step.command);
        let known: BTreeSet<String> = steps.chain(ELSEWHERE).map(str::to_string).collect();
        assert_eq!(read(PAGE).0, known);
        for added in ["    apiclient report cis", "Or `journalctl -b`."] {
            assert_ne!(read(&format!("{PAGE}\n{added}\n")).0, known, "{added}");
        }
    }

    #[test]
    fn what_the_page_shows_is_looked_for() {
        let shown = read(PAGE).1;
        assert_eq!(shown.len(), 5, "{shown:?}");
        for line in shown {
            let is_told = STEPS.iter().any(|step| match step.outcome {
                Outcome::Says(texts) => texts.iter().any(|text| line.contains(text)),
                Outcome::Bundle(_) | Outcome::AdminRuns(_) => false,
            });
            let is_on_the_console = troubles::CONSOLE.iter().any(|said| line.contains(said))
                || network::NO_LINK.iter().all(|part| line.contains(part));
            assert!(is_told || is_on_the_console, "nobody looks for {line:?}");
        }
    }
}
