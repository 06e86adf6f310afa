//! Settings that the host computes while nobody has set them.
//!
//! The model names a generator beside the setting; [`ALL`] knows it by that name.
//! They run side by side, each with a budget of time. One that fails or takes too
//! long leaves its setting as it was generated before, or at its default, which is
//! told; it never holds up the boot for longer than its budget.
//!
//! To add one, write its function and name it in [`ALL`]. A generator asks nothing
//! of a network that its platform does not have: that is what
//! [`Generator::platform`] is for.

mod ec2;

use anyhow::{Context, Result};
use early_boot::ec2::Metadata;
use serde_json::Value;
use settings::{Document, Key, Model, Platform, Settings, Variant};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a generator may take that asks nobody.
const AT_ONCE: Duration = Duration::from_secs(5);
/// How long one may take that asks EC2's metadata service, whose client has a budget
/// of its own, so that this one is never used up.
const METADATA: Duration = Duration::from_secs(600);

/// What a generator may look at.
#[derive(Clone)]
pub struct Machine {
    /// The root of the file system.
    pub root: PathBuf,
    /// The variant, if it is one that is known.
    pub variant: Option<Variant>,
    /// What holds where nobody says otherwise.
    pub defaults: Document,
    /// What the user has set.
    pub user: Document,
    /// What was generated at earlier boots.
    pub before: Document,
    /// EC2's metadata service.
    pub metadata: Metadata,
}

impl Machine {
    /// The setting that user or variant have chosen.
    fn get(&self, key: &Key) -> Option<&Value> {
        self.user.get(key).or_else(|| self.defaults.get(key))
    }

    /// Such a setting that is a text, by its name below `settings`.
    fn text(&self, key: &str) -> Option<&str> {
        self.get(&key.parse().ok()?)?.as_str()
    }
}

/// Something that computes a setting.
#[derive(Clone, Copy)]
pub struct Generator {
    /// The name by which the model knows it.
    pub name: &'static str,
    /// The platform that it is for; without one it is for all.
    pub platform: Option<Platform>,
    /// How long it may take.
    pub budget: Duration,
    /// Computes the setting `key`. `None` if there is nothing to say.
    pub run: fn(&Machine, &Key) -> Result<Option<Value>>,
}

const AWS: Option<Platform> = Some(Platform::Aws);

/// All generators.
pub const ALL: &[Generator] = &[
    Generator {
        name: "admin-user-data",
        platform: AWS,
        budget: METADATA,
        run: ec2::admin_user_data,
    },
    Generator {
        name: "cluster-dns-ip",
        platform: AWS,
        budget: METADATA,
        run: ec2::cluster_dns_ip,
    },
    Generator {
        name: "hostname",
        platform: None,
        budget: METADATA,
        run: hostname,
    },
    Generator {
        name: "hostname-override",
        platform: AWS,
        budget: METADATA,
        run: ec2::hostname_override,
    },
    Generator {
        name: "max-pods",
        platform: AWS,
        budget: METADATA,
        run: ec2::max_pods,
    },
    Generator {
        name: "node-ip",
        platform: AWS,
        budget: METADATA,
        run: ec2::node_ip,
    },
    Generator {
        name: "provider-id",
        platform: AWS,
        budget: METADATA,
        run: ec2::provider_id,
    },
    Generator {
        name: "update-seed",
        platform: None,
        budget: AT_ONCE,
        run: update_seed,
    },
];

/// What generators have said.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The generated settings that hold from now on.
    pub settings: Document,
    /// The settings that could not be generated.
    pub failures: Vec<Failure>,
}

/// A setting that could not be generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The setting.
    pub key: Key,
    /// What holds instead.
    pub instead: &'static str,
    /// Why.
    pub reason: String,
}

impl Generated {
    /// A line for each reason, for people.
    pub fn failures_told(&self) -> Vec<String> {
        let mut by_reason: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
        for failure in &self.failures {
            let reason = (failure.reason.as_str(), failure.instead);
            let keys = by_reason.entry(reason).or_default();
            keys.push(failure.key.to_string());
        }
        let told = |((reason, instead), keys): ((&str, &str), Vec<String>)| {
            format!("not generated: {} ({instead}): {reason}", keys.join(", "))
        };
        by_reason.into_iter().map(told).collect()
    }
}

/// The generated settings that hold from now on: for every setting with a
/// generator that the user has not set, what the generator says. Settings that
/// the host generated otherwise stay as they are.
pub fn generate(machine: &Machine) -> Generated {
    generate_with(machine, &wanted(machine))
}

/// The settings to generate, and by what.
fn wanted(machine: &Machine) -> Vec<(Key, Generator)> {
    let schema = match &machine.variant {
        Some(variant) => Settings::schema_for(variant),
        None => Settings::schema(),
    };
    let mut wanted = Vec::new();
    for settings::Generator { key, name } in schema.generators() {
        match ALL.iter().find(|generator| generator.name == name) {
            Some(generator) if applies(generator, machine) => wanted.push((key, *generator)),
            Some(_) => tracing::debug!("{name} does not apply here; {key} is not generated"),
            None => tracing::debug!("nothing here can tell {name}; {key} is not generated"),
        }
    }
    wanted
}

fn applies(generator: &Generator, machine: &Machine) -> bool {
    let platform = machine.variant.as_ref().map(Variant::platform);
    match generator.platform {
        AWS => platform == AWS && machine.metadata.is_expected(),
        other => other.is_none() || other == platform,
    }
}

fn generate_with(machine: &Machine, wanted: &[(Key, Generator)]) -> Generated {
    let mut failures = Vec::new();
    let mut generated = machine.before.clone();
    let shared = Arc::new(machine.clone());
    let mut running = Vec::new();
    for (key, generator) in wanted {
        if machine.user.get(key).is_some() {
            generated.unset(key);
            continue;
        }
        running.push((key, generator, start(generator, key, &shared)));
    }
    for (key, generator, run) in running {
        let value = run.and_then(|run| run.finish(generator.budget));
        let value = value.and_then(|value| match value {
            Some(value) => Document::from_value(&Document::single(key, value))
                .map(Some)
                .map_err(|faults| anyhow::anyhow!("it gave a wrong value: {faults}")),
            None => Ok(None),
        });
        match value {
            Ok(Some(value)) => generated.merge(&value),
            Ok(None) => tracing::debug!("{} has nothing to say; {key} stays", generator.name),
            Err(error) => {
                let instead = if machine.before.get(key).is_some() {
                    "the value of an earlier boot holds"
                } else if machine.defaults.get(key).is_some() {
                    "the default holds"
                } else {
                    "it stays unset"
                };
                failures.push(Failure {
                    key: key.clone(),
                    instead,
                    reason: format!("{error:#}"),
                });
            }
        }
    }
    Generated {
        settings: generated,
        failures,
    }
}

/// A generator that runs in a thread of its own, which is left behind if it does
/// not come to an end.
struct Run {
    since: Instant,
    answer: Receiver<Result<Option<Value>>>,
}

fn start(generator: &Generator, key: &Key, machine: &Arc<Machine>) -> Result<Run> {
    let (sender, answer) = mpsc::channel();
    let (run, key, machine) = (generator.run, key.clone(), Arc::clone(machine));
    thread::Builder::new()
        .name(format!("generate-{}", generator.name))
        .spawn(move || {
            // Nobody listens any more once the budget is used up.
            let _ = sender.send(run(&machine, &key));
        })
        .context("start a thread")?;
    Ok(Run {
        since: Instant::now(),
        answer,
    })
}

impl Run {
    fn finish(self, budget: Duration) -> Result<Option<Value>> {
        let left = budget.saturating_sub(self.since.elapsed());
        match self.answer.recv_timeout(left) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => {
                anyhow::bail!("it takes longer than {} s", budget.as_secs_f32())
            }
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("it crashed"),
        }
    }
}

/// The name that the machine's platform gives it. Where there is none, one made from
/// the machine's identity, so that it stays and no two machines have the same: there
/// is no network yet that could be asked for a better one.
fn hostname(machine: &Machine, key: &Key) -> Result<Option<Value>> {
    let platform = machine.variant.as_ref().map(Variant::platform);
    if platform == AWS && machine.metadata.is_expected() {
        match ec2::hostname(machine) {
            Ok(Some(name)) => return Ok(Some(name.into())),
            Ok(None) => {}
            Err(_) if machine.before.get(key).is_some() => return Ok(None),
            // Told for the settings that have no other source.
            Err(error) => tracing::debug!("no host name of EC2: {error:#}"),
        }
    }
    let id = fs::read_to_string(machine.root.join("etc/machine-id")).unwrap_or_default();
    let name = match id.trim() {
        "" => "localhost".to_string(),
        id => {
            // The identity itself is not to be shown to the network (machine-id(5)).
            let digest = hex::encode(Sha256::digest(format!("bulkhead hostname {id}")));
            format!("bulkhead-{}", &digest[..8])
        }
    };
    Ok(Some(name.into()))
}

/// The host's place in the order in which a fleet is updated: thrown once, then
/// kept.
fn update_seed(machine: &Machine, key: &Key) -> Result<Option<Value>> {
    const SEEDS: u16 = 2048;
    if machine.before.get(key).is_some() {
        return Ok(None);
    }
    let mut bytes = [0; 2];
    File::open("/dev/urandom")
        .and_then(|mut chance| chance.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    // A power of two, so every seed is as likely as any other.
    Ok(Some((u16::from_le_bytes(bytes) % SEEDS).into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use std::collections::BTreeSet;

    pub(super) fn document(text: &str) -> Document {
        Document::from_toml(text)
            .expect("valid settings")
            .unwrap_or_default()
    }

    pub(super) fn key(text: &str) -> Key {
        text.parse().expect(text)
    }

    pub(super) fn machine(
        root: &std::path::Path,
        variant: &str,
        user: &str,
        before: &str,
    ) -> Machine {
        Machine {
            root: root.to_path_buf(),
            variant: Variant::parse(variant).ok(),
            defaults: Document::default(),
            user: document(user),
            before: document(before),
            metadata: Metadata::of(root),
        }
    }

    #[test]
    fn every_generator_of_the_model_is_known() {
        let known: BTreeSet<&str> = ALL.iter().map(|generator| generator.name).collect();
        assert_eq!(known.len(), ALL.len(), "each name is there once");
        let named = Settings::schema().generators();
        let named: BTreeSet<&str> = named.iter().map(|generator| generator.name).collect();
        assert_eq!(named, known);
    }

    #[test]
    fn on_machines_of_ones_own_nothing_is_asked_of_a_network() {
        let root = tempfile::tempdir().expect("a folder");
        for variant in ["metal-core", "metal-k8s-1.36", "vmware-k8s-1.36", ""] {
            let machine = machine(root.path(), variant, "", "");
            for (key, generator) in wanted(&machine) {
                assert!(
                    ["hostname", "update-seed"].contains(&generator.name),
                    "{key}"
                );
            }
        }
    }

    #[test]
    fn host_names() {
        let id = Some("0123456789abcdef0123456789abcdef\n");
        let by_id = "bulkhead-8a7fff78";
        let before = "[settings.network]\nhostname = \"before\"";
        for (id, user, before, expected) in [
            (None, "", "", Some("localhost")),
            (id, "", "", Some(by_id)),
            (id, "", before, Some(by_id)),
            (id, before, before, None),
        ] {
            let root = tempfile::tempdir().expect("a folder");
            if let Some(id) = id {
                fs::create_dir(root.path().join("etc")).expect("a folder");
                fs::write(root.path().join("etc/machine-id"), id).expect("a file");
            }
            let machine = machine(root.path(), "metal-core", user, before);
            let generated = generate(&machine);
            let name = generated
                .settings
                .get(&key("network.hostname"))
                .and_then(Value::as_str);
            assert_eq!(name, expected, "{id:?} {user} {before}");
        }
    }

    #[test]
    fn seeds_are_thrown_once() {
        let root = tempfile::tempdir().expect("a folder");
        let machine = machine(root.path(), "metal-core", "", "[settings]\nmotd = '7'");
        // Any key will do: a seed is kept because there is one.
        assert_eq!(update_seed(&machine, &key("motd")).expect("kept"), None);
        let seeds: BTreeSet<u64> = (0..200)
            .map(|_| {
                let seed = update_seed(&machine, &key("ntp")).expect("thrown");
                seed.and_then(|seed| seed.as_u64()).expect("a number")
            })
            .collect();
        assert!(seeds.iter().all(|seed| *seed < 2048), "{seeds:?}");
        assert!(seeds.len() > 100, "{seeds:?}");
    }

    #[test]
    fn a_generator_that_fails_costs_its_setting_and_no_time() {
        fn good(_: &Machine, _: &Key) -> Result<Option<Value>> {
            Ok(Some("good".into()))
        }
        fn silent(_: &Machine, _: &Key) -> Result<Option<Value>> {
            Ok(None)
        }
        fn failing(_: &Machine, _: &Key) -> Result<Option<Value>> {
            bail!("no such thing")
        }
        fn wrong(_: &Machine, _: &Key) -> Result<Option<Value>> {
            Ok(Some(1.into()))
        }
        fn slow(_: &Machine, _: &Key) -> Result<Option<Value>> {
            thread::sleep(Duration::from_secs(60));
            Ok(Some("too late".into()))
        }
        let root = tempfile::tempdir().expect("a folder");
        let machine = machine(root.path(), "metal-core", "", "[settings]\nmotd = 'before'");
        let started = Instant::now();
        for (run, expected) in [
            (good as fn(&Machine, &Key) -> Result<Option<Value>>, "good"),
            (silent, "before"),
            (failing, "before"),
            (wrong, "before"),
            (slow, "before"),
        ] {
            let generator = Generator {
                name: "test",
                platform: None,
                budget: Duration::from_millis(200),
                run,
            };
            // Beside it, one that is well.
            let well = Generator {
                run: hostname,
                ..generator
            };
            let wanted = [(key("motd"), generator), (key("network.hostname"), well)];
            let generated = generate_with(&machine, &wanted);
            let settings = generated.settings;
            assert_eq!(settings.get(&key("motd")), Some(&expected.into()));
            assert!(settings.get(&key("network.hostname")).is_some());
        }
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn generators_run_side_by_side() {
        fn slow(_: &Machine, _: &Key) -> Result<Option<Value>> {
            thread::sleep(Duration::from_millis(300));
            Ok(Some("slow".into()))
        }
        let root = tempfile::tempdir().expect("a folder");
        let machine = machine(root.path(), "metal-core", "", "");
        let generator = Generator {
            name: "slow",
            platform: None,
            budget: Duration::from_secs(30),
            run: slow,
        };
        let wanted: Vec<(Key, Generator)> = (0..10).map(|_| (key("motd"), generator)).collect();
        let started = Instant::now();
        generate_with(&machine, &wanted);
        assert!(started.elapsed() < Duration::from_millis(2_500));
    }
}
