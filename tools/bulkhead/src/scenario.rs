//! `bulkhead scenario`: boots images and sees whether they do what they should.

use crate::output;
use crate::vm;
use anyhow::{Context, Result, bail};
use buildsys::progress::Progress;
use buildsys::project::{Arch, Project};
use buildsys::signals;
use scenarios::runner::{Outcome, Summary};
use scenarios::{ALL, Cluster, Scenario, Setup, runner};
use std::fs::{self, File};
use std::path::PathBuf;

/// List the scenarios, or run some: tests that boot images in QEMU.
///
/// Without arguments their names are printed, one a line. What a scenario may take
/// is counted in processor seconds of the emulator; together those of a tier have
/// a limit. When one fails, its console logs and disks are kept in build/scenarios.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Scenarios to run
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Run the scenarios of this tier and those below
    #[arg(long, value_name = "N", conflicts_with_all = ["names", "all"])]
    tier: Option<u8>,
    /// Run every scenario
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Architecture of the images and of the machines that boot them
    #[arg(long, default_value = "x86_64")]
    arch: Arch,
    /// Variant whose image and dev twin are booted, instead of metal-core for the host
    /// by itself and metal-k8s-1.36 for nodes of a cluster
    #[arg(long)]
    variant: Option<String>,
    /// Boot the latest images as they are
    #[arg(long)]
    no_build: bool,
    /// Print the list or the results as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let chosen = choose(&args)?;
    if chosen.is_empty() {
        return list(args.json);
    }
    let project = Project::find()?;
    let progress = Progress::new();
    let (variant, twin) = vm::pair(&project, args.variant.as_deref().or(Some(HOST_VARIANT)));
    let arch = args.arch;
    vm::update_keys(&project)?;
    let variant = vm::image(&project, &variant, arch, !args.no_build, &progress)?;
    let twin = vm::image(&project, &twin, arch, !args.no_build, &progress)?;
    // Kept until the last scenario has run: the store may drop what nobody uses.
    let [beside, contained] = [Scenario::packages_beside, Scenario::packages].map(|packages| {
        let packages = chosen.iter().flat_map(|scenario| packages(scenario));
        packages.copied().collect::<Vec<_>>()
    });
    let more = vm::More {
        beside: &beside,
        contained: &contained,
    };
    let programs = match chosen.iter().any(|scenario| scenario.cluster) {
        true => Some(vm::cluster_programs(
            &project,
            node_variant(&args),
            arch,
            &more,
            &progress,
        )?),
        false => None,
    };
    let cluster = match &programs {
        Some(programs) => Some(Cluster {
            node: node_twin(&args)()?,
            next_node: next_of(&args, node_variant(&args)),
            ec2_node: ec2_node(&args)?,
            programs: (**programs).clone(),
        }),
        None => None,
    };
    let folder = project.build_dir().join("scenarios");
    let _lock = claim(&folder)?;
    let emulation = vm::prepare(&project, arch, &folder, &progress)?;
    eprintln!(
        "Acceleration: {} ({})",
        emulation.acceleration, emulation.reason
    );
    let setup = Setup {
        emulator: emulation.emulator,
        acceleration: emulation.acceleration,
        variables: emulation.variables,
        signer: emulation.keys.signer()?,
        variant,
        twin,
        next_twin: next_of(&args, args.variant.as_deref().unwrap_or(HOST_VARIANT)),
        node_twin: node_twin(&args),
        update_keys: project.update_keys_dir(),
        cluster,
        folder,
    };
    let summary = runner::run(
        &setup,
        &chosen,
        |scenario| eprintln!("{}: {}", scenario.name, scenario.about),
        |outcome| {
            if !args.json {
                print_outcome(outcome);
            }
        },
        signals::check,
    )?;
    if args.json {
        output::print_json(&summary)?;
    } else {
        print_summary(&summary);
    }
    match (summary.failed(), summary.over_limit.first()) {
        (0, None) => Ok(()),
        (0, Some(limit)) => bail!("{limit}"),
        (1, _) => bail!("a scenario failed"),
        (failed, _) => bail!("{failed} scenarios failed"),
    }
}

/// The variant that is booted as a host by itself, if none is named. What it has,
/// every variant has.
const HOST_VARIANT: &str = "metal-core";
/// The variant whose dev twin is the node of a cluster, if none is named.
const NODE_VARIANT: &str = "metal-k8s-1.36";

fn node_variant(args: &Args) -> &str {
    args.variant.as_deref().unwrap_or(NODE_VARIANT)
}

/// What builds the dev twin of the node of a cluster.
fn node_twin(args: &Args) -> Box<dyn Fn() -> Result<PathBuf>> {
    let variant = node_variant(args).to_string();
    let (arch, build) = (args.arch, !args.no_build);
    Box::new(move || {
        let project = Project::find()?;
        let (_, twin) = vm::pair(&project, Some(&variant));
        vm::image(&project, &twin, arch, build, &Progress::new())
    })
}

/// What builds the node of a cluster as it is on EC2, which few scenarios need.
fn ec2_node(args: &Args) -> Result<Box<dyn Fn() -> Result<PathBuf>>> {
    let version = vm::kubernetes_of(node_variant(args))?.to_string();
    let (arch, build) = (args.arch, !args.no_build);
    Ok(Box::new(move || {
        let project = Project::find()?;
        let (_, twin) = vm::pair(&project, Some(&format!("aws-k8s-{version}")));
        vm::image(&project, &twin, arch, build, &Progress::new())
    }))
}

/// What builds the next version of a variant's twin.
fn next_of(args: &Args, variant: &str) -> Box<dyn Fn() -> Result<PathBuf>> {
    let variant = variant.to_string();
    let (arch, build) = (args.arch, !args.no_build);
    Box::new(move || {
        let project = Project::find()?;
        let (_, twin) = vm::pair(&project, Some(&variant));
        vm::next_image(&project, &twin, arch, build, &Progress::new())
    })
}

fn choose(args: &Args) -> Result<Vec<&'static Scenario>> {
    if let Some(tier) = args.tier {
        let chosen: Vec<_> = ALL
            .iter()
            .filter(|scenario| scenario.tier.number() <= tier)
            .collect();
        if chosen.is_empty() {
            bail!("there is no tier {tier}; the tiers are 1 and 2");
        }
        return Ok(chosen);
    }
    if args.all {
        return Ok(ALL.iter().collect());
    }
    args.names
        .iter()
        .map(|name| {
            scenarios::find(name).with_context(|| {
                format!("there is no scenario {name:?}; `bulkhead scenario` lists them")
            })
        })
        .collect()
}

fn list(json: bool) -> Result<()> {
    if json {
        let list: Vec<_> = ALL
            .iter()
            .map(|scenario| {
                serde_json::json!({
                    "name": scenario.name,
                    "about": scenario.about,
                    "tier": scenario.tier.number(),
                    "budget": scenario.budget,
                })
            })
            .collect();
        output::print_json(&list)?;
    } else {
        for scenario in ALL {
            println!("{}", scenario.name);
        }
    }
    Ok(())
}

/// The folder, ours until the lock is dropped: two runs would boot from each
/// other's disks.
fn claim(folder: &std::path::Path) -> Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join("lock");
    let lock = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => {
            bail!("scenarios of this project are being run already; wait until they are done")
        }
        Err(fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

fn print_outcome(outcome: &Outcome) {
    let verdict = if outcome.failure.is_none() {
        "pass"
    } else {
        "FAIL"
    };
    println!(
        "{verdict}  {:<26} {:>6.1} of {:>3.0} CPU s, {:>4.0} s",
        outcome.name, outcome.cpu, outcome.budget, outcome.wall
    );
    for note in &outcome.notes {
        println!("      {note}");
    }
    if let Some(failure) = &outcome.failure {
        println!("      {}", failure.replace('\n', "\n      "));
    }
    if let Some(kept) = &outcome.kept {
        println!("      console logs and disks: {}", kept.display());
    }
}

fn print_summary(summary: &Summary) {
    for limit in &summary.over_limit {
        println!("FAIL  {limit}");
    }
    let cpu: f64 = summary.outcomes.iter().map(|outcome| outcome.cpu).sum();
    println!("{cpu:.0} CPU seconds in all");
    println!("{} passed, {} failed", summary.passed(), summary.failed());
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn chooses_scenarios() {
        let check = |line: &[&str], expected: Result<usize, &str>| {
            let cli = Cli::parse_from(["x"].iter().chain(line));
            match (choose(&cli.args), expected) {
                (Ok(chosen), Ok(count)) => assert_eq!(chosen.len(), count, "{line:?}"),
                (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
                (result, _) => panic!("{line:?}: {:?}", result.map(|chosen| chosen.len())),
            }
        };
        let first = ALL[0].name;
        check(&[], Ok(0));
        check(&[first], Ok(1));
        check(&["--all"], Ok(ALL.len()));
        check(&["--tier", "2"], Ok(ALL.len()));
        check(&["--tier", "0"], Err("no tier 0"));
        check(&["none"], Err("\"none\""));
        assert!(Cli::try_parse_from(["x", "--all", first]).is_err());
        assert!(Cli::try_parse_from(["x", "--all", "--tier", "1"]).is_err());
    }
}
