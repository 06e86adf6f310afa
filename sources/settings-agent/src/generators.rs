//! Settings that the host computes while nobody has set them.
//!
//! The model names a generator beside the setting; [`ALL`] knows it by that name.
//! They run side by side, each with a budget of time. One that fails or takes too
//! long leaves its setting as it was generated before, or at its default, and says
//! so; it never holds up the boot for longer than its budget.
//!
//! To add one, write its function and name it in [`ALL`]. A generator asks nothing
//! of a network that its platform does not have: that is what
//! [`Generator::platform`] is for.

use anyhow::{Context, Result};
use serde_json::Value;
use settings::{Document, Key, Model, Platform, Settings, Variant};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a generator may take that asks nobody.
const AT_ONCE: Duration = Duration::from_secs(5);

/// What a generator may look at.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The root of the file system.
    pub root: PathBuf,
    /// The variant, if it is one that is known.
    pub variant: Option<Variant>,
    /// What the user has set.
    pub user: Document,
    /// What was generated at earlier boots.
    pub before: Document,
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

/// All generators.
///
/// Those that ask EC2 for the region, the node and its cluster are not among them
/// yet; the model's names for them are in [`OF_EC2`].
pub const ALL: &[Generator] = &[
    Generator {
        name: "hostname",
        platform: None,
        budget: AT_ONCE,
        run: hostname,
    },
    Generator {
        name: "update-seed",
        platform: None,
        budget: AT_ONCE,
        run: update_seed,
    },
];

/// Names that the model has for what only EC2 can tell. Without an image for EC2
/// nothing computes them, and the settings stay unset.
pub const OF_EC2: &[&str] = &[
    "admin-user-data",
    "cluster-dns-ip",
    "hostname-override",
    "max-pods",
    "node-ip",
    "provider-id",
    "region",
];

/// The generated settings that hold from now on: for every setting with a
/// generator that the user has not set, what the generator says. Settings that
/// the host generated otherwise stay as they are. `defaults` only serve to say what
/// holds where a generator fails.
pub fn generate(machine: &Machine, defaults: &Document) -> Document {
    generate_with(machine, defaults, &wanted(machine))
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
    generator.platform.is_none() || generator.platform == platform
}

fn generate_with(machine: &Machine, defaults: &Document, wanted: &[(Key, Generator)]) -> Document {
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
                } else if defaults.get(key).is_some() {
                    "the default holds"
                } else {
                    "it stays unset"
                };
                tracing::error!(
                    "{key} was not generated, {instead}: generator {}: {error:#}",
                    generator.name
                );
            }
        }
    }
    generated
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

/// A name made from the machine's identity, so that it stays and no two machines
/// have the same. There is no network yet that could be asked for a better one.
fn hostname(machine: &Machine, _: &Key) -> Result<Option<Value>> {
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

    fn document(text: &str) -> Document {
        Document::from_toml(text)
            .expect("valid settings")
            .unwrap_or_default()
    }

    fn key(text: &str) -> Key {
        text.parse().expect(text)
    }

    fn machine(root: &std::path::Path, variant: &str, user: &str, before: &str) -> Machine {
        Machine {
            root: root.to_path_buf(),
            variant: Variant::parse(variant).ok(),
            user: document(user),
            before: document(before),
        }
    }

    #[test]
    fn every_generator_of_the_model_is_known() {
        let known: BTreeSet<&str> = ALL
            .iter()
            .map(|generator| generator.name)
            .chain(OF_EC2.iter().copied())
            .collect();
        assert_eq!(
            known.len(),
            ALL.len() + OF_EC2.len(),
            "each name is there once"
        );
        for settings::Generator { key, name } in Settings::schema().generators() {
            assert!(known.contains(name), "{key}: {name}");
        }
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
            let generated = generate(&machine, &Document::default());
            let name = generated
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
            let generated = generate_with(&machine, &Document::default(), &wanted);
            assert_eq!(generated.get(&key("motd")), Some(&expected.into()));
            assert!(generated.get(&key("network.hostname")).is_some());
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
        generate_with(&machine, &Document::default(), &wanted);
        assert!(started.elapsed() < Duration::from_millis(2_500));
    }
}
