//! `bulkhead conformance`: Kubernetes' own tests against a node.

use crate::output;
use crate::run;
use crate::vm;
use anyhow::{Context, Result, bail, ensure};
use buildsys::progress::Progress;
use buildsys::project::{Arch, Project};
use buildsys::signals;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use test_vm::cluster::{Cluster, Conformance, Place, Selection};
use test_vm::{Builder, Disk, Reach, Services, TestNetwork};

/// Run Kubernetes' end-to-end tests against a node.
///
/// A control plane is started in a network of its own, the variant's dev twin joins it, and
/// the tests of the same version of Kubernetes are run beside them. Images that they need
/// are made from their sources; there is nothing that comes from a registry, so tests that
/// want other images fail. The tests' log and results are in build/conformance.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node's variant
    #[arg(long, default_value = "metal-k8s-1.36")]
    variant: String,
    /// Run tests whose names match this regular expression
    #[arg(long, default_value = r"\[sig-node\].*\[NodeConformance\]")]
    focus: String,
    /// Leave out tests whose names match this regular expression
    #[arg(
        long,
        default_value = r"\[Serial\]|\[Slow\]|\[Disruptive\]|\[Flaky\]|\[Feature:"
    )]
    skip: String,
    /// Memory of the node in MiB
    #[arg(long, default_value_t = 4096)]
    memory: u32,
    /// Run so many tests at a time: most of them wait
    #[arg(long, default_value_t = 4)]
    parallel: usize,
    /// Only list the tests that would run
    #[arg(long)]
    list: bool,
    /// Boot the latest image as it is
    #[arg(long)]
    no_build: bool,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// The node's name.
const NODE: &str = "node-1";
/// Some tests compare times of the node with those of the control plane.
const TIME_SERVER: &str = "\n[settings.ntp]\ntime-servers = [\"10.0.2.2\"]\n";
/// The package with the tests.
const PACKAGE: &str = "conformance";
/// Bytes of the node's disk, most of which are never written.
const DISK_SIZE: u64 = 20 << 30;
/// Processor seconds that the node may take until it is ready.
const READY: f64 = 300.0;
const PERIOD: Duration = Duration::from_millis(200);

/// What a test came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Failed,
    /// It found by itself that it has nothing to test here.
    Skipped,
    Passed,
    /// It is only listed.
    Chosen,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Test {
    name: String,
    outcome: Outcome,
    seconds: f64,
    /// Why it failed or had nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let project = Project::find()?;
    let progress = Progress::new();
    let arch = Arch::X86_64;
    let (variant, twin) = vm::pair(&project, Some(&args.variant));
    let image = vm::image(&project, &twin, arch, !args.no_build, &progress)?;
    let more = vm::More {
        contained: &[PACKAGE],
        ..vm::More::default()
    };
    let programs = vm::cluster_programs(&project, &variant, arch, &more, &progress)?;

    let folder = project.build_dir().join("conformance");
    let _lock = run::claim(&folder)?;
    let emulation = vm::prepare(&project, arch, &folder, &progress)?;
    let of_network = folder.join("network");
    fs::create_dir_all(&of_network)
        .with_context(|| format!("cannot create {}", of_network.display()))?;
    let network = Arc::new(TestNetwork::new(&emulation.emulator, &of_network)?);
    eprintln!("Starting a Kubernetes control plane.");
    let cluster = Cluster::start(
        &emulation.emulator,
        &programs,
        &folder.join("cluster"),
        Place::Network(&network),
        1,
    )?;
    cluster.push_conformance_images()?;
    let mut builder = Builder::new(
        &image,
        &folder,
        &emulation.variables,
        emulation.acceleration,
    );
    builder.memory = args.memory;
    builder.disk = Disk::Overlay {
        size: Some(DISK_SIZE),
    };
    builder.reach = Reach::Shared { network, index: 0 };
    builder.forwards = vec![cluster.plane.kubelet_forward(0)];
    builder.services = Services {
        ntp: Some(0),
        ..Services::default()
    };
    builder.user_data = Some((cluster.node_user_data(NODE) + TIME_SERVER).into_bytes());
    let tests = folder.join("tests");
    let start = |name: &str, focus: &str, dry_run| {
        let selection = Selection {
            focus,
            skip: &args.skip,
            dry_run,
        };
        cluster.start_conformance(&tests.join(name), selection)
    };
    let chosen = wait(vec![start("list", &args.focus, true)?])?;
    ensure!(
        !chosen.is_empty(),
        "no test matches {} and not {}",
        args.focus,
        args.skip
    );
    let results = if args.list {
        chosen
    } else {
        let machine = builder.start(&emulation.emulator)?;
        let plane = &cluster.plane;
        machine.wait_until("the node is ready", READY, || {
            // What fails now is tried again.
            let _ = plane.approve_serving_certificates();
            plane.has_ready_node().unwrap_or(false)
        })?;
        let shares = shares(&chosen, args.parallel.max(1));
        let running = shares.iter().enumerate();
        let running = running.map(|(index, focus)| start(&index.to_string(), focus, false));
        let results = wait(running.collect::<Result<_>>()?)?;
        drop(machine);
        results
    };
    let path = folder.join("results.json");
    let json = serde_json::to_string_pretty(&results).context("cannot write the results")?;
    fs::write(&path, &json).with_context(|| format!("cannot write {}", path.display()))?;
    if args.json {
        output::print_json(&results)?;
    } else {
        print(&results);
    }
    match count(&results, Outcome::Failed) {
        0 => Ok(()),
        failed => bail!("{failed} of {} tests failed", results.len()),
    }
}

/// Expressions that match a part of the tests each, and all of them together.
fn shares(tests: &[Test], count: usize) -> Vec<String> {
    (0..count.min(tests.len()))
        .map(|first| {
            let names = tests.iter().skip(first).step_by(count);
            let names: Vec<String> = names.map(|test| literal(&test.name)).collect();
            // Ginkgo puts the name of the whole before each.
            format!("({})$", names.join("|"))
        })
        .collect()
}

/// The expression that matches `text` and nothing else.
fn literal(text: &str) -> String {
    let escaped = text.chars().map(|c| match c.is_alphanumeric() || c == ' ' {
        true => c.to_string(),
        false => format!("\\{c}"),
    });
    escaped.collect()
}

/// Waits until all programs have ended, telling how many tests have; returns what the
/// tests came to, those that failed first.
fn wait(mut running: Vec<Conformance>) -> Result<Vec<Test>> {
    let mut logs = Vec::new();
    for tests in &running {
        let path = tests.log();
        let log = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        logs.push(BufReader::new(log));
    }
    let (started, mut ended) = (Instant::now(), 0);
    let mut results = Vec::new();
    while !running.is_empty() {
        let mut still = Vec::new();
        for mut tests in running {
            match tests.report()? {
                Some(report) => results.extend(read(&report)?),
                None => still.push(tests),
            }
        }
        running = still;
        let before = ended;
        for log in &mut logs {
            let mut line = String::new();
            while log.read_line(&mut line).context("cannot read a log")? > 0 {
                // Ginkgo's mark of a test that has ended.
                ended += usize::from(line.starts_with("• "));
                line.clear();
            }
        }
        if ended > before {
            let seconds = started.elapsed().as_secs();
            eprintln!("{ended} tests have ended after {seconds} s");
        }
        signals::check()?;
        thread::sleep(PERIOD);
    }
    results.sort_by(|a, b| (a.outcome, &a.name).cmp(&(b.outcome, &b.name)));
    Ok(results)
}

/// Ginkgo's report of one program of tests.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    #[serde(default)]
    spec_reports: Vec<Spec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    /// What a spec is: a test, or something that is done once for all of them.
    leaf_node_type: String,
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_text: String,
    state: String,
    /// Nanoseconds.
    #[serde(default)]
    run_time: f64,
    #[serde(default)]
    failure: Failure,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

/// The tests that were run, or would be.
fn read(report: &str) -> Result<Vec<Test>> {
    let suites: Vec<Suite> = serde_json::from_str(report).context("the report cannot be read")?;
    let mut tests = Vec::new();
    for spec in suites.into_iter().flat_map(|suite| suite.spec_reports) {
        let has_failed = !matches!(spec.state.as_str(), "passed" | "skipped" | "pending");
        let is_test = spec.leaf_node_type == "It";
        let outcome = match (spec.state.as_str(), spec.failure.message.is_empty()) {
            ("passed", _) if spec.run_time == 0.0 => Outcome::Chosen,
            ("passed", _) => Outcome::Passed,
            // Without a reason it was left out by its name.
            ("skipped" | "pending", true) => continue,
            ("skipped" | "pending", false) => Outcome::Skipped,
            _ => Outcome::Failed,
        };
        if !is_test && !has_failed {
            continue;
        }
        let mut name = spec.container_hierarchy_texts.unwrap_or_default();
        name.push(spec.leaf_node_text);
        tests.push(Test {
            name: name.join(" ").trim().to_string(),
            outcome,
            seconds: spec.run_time / 1e9,
            reason: spec.failure.message,
        });
    }
    Ok(tests)
}

fn count(tests: &[Test], outcome: Outcome) -> usize {
    tests.iter().filter(|test| test.outcome == outcome).count()
}

fn print(tests: &[Test]) {
    for test in tests {
        let outcome = match test.outcome {
            Outcome::Failed => "FAIL",
            Outcome::Skipped => "skip",
            Outcome::Passed => "pass",
            Outcome::Chosen => "",
        };
        println!("{outcome:<4} {:>6.1} s  {}", test.seconds, test.name);
        // The rest of a reason says where in the tests' code it is.
        if let Some(reason) = test.reason.lines().next() {
            println!("               {reason}");
        }
    }
    println!(
        "{} passed, {} failed, {} had nothing to test here",
        count(tests, Outcome::Passed),
        count(tests, Outcome::Failed),
        count(tests, Outcome::Skipped)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let spec = |kind: &str, name: &str, state: &str, time: u64, message: &str| {
            serde_json::json!({
                "LeafNodeType": kind,
                "ContainerHierarchyTexts": ["[sig-node] Pods"],
                "LeafNodeText": name,
                "State": state,
                "RunTime": time,
                "Failure": { "Message": message },
            })
        };
        let report = serde_json::json!([{ "SpecReports": [
            spec("SynchronizedBeforeSuite", "", "passed", 1, ""),
            spec("It", "should run", "passed", 1_500_000_000, ""),
            spec("It", "should be chosen", "passed", 0, ""),
            spec("It", "should not be chosen", "skipped", 0, ""),
            spec("It", "should have two nodes", "skipped", 5, "one node"),
            spec("It", "should fail", "failed", 5, "expected\nthis"),
            spec("It", "should end", "timedout", 5, "too long"),
            spec("SynchronizedAfterSuite", "", "panicked", 5, "oh"),
        ]}]);
        let found = read(&report.to_string()).unwrap();
        let found: Vec<(&str, Outcome)> = found
            .iter()
            .map(|test| (test.name.as_str(), test.outcome))
            .collect();
        assert_eq!(
            found,
            [
                ("[sig-node] Pods should run", Outcome::Passed),
                ("[sig-node] Pods should be chosen", Outcome::Chosen),
                ("[sig-node] Pods should have two nodes", Outcome::Skipped),
                ("[sig-node] Pods should fail", Outcome::Failed),
                ("[sig-node] Pods should end", Outcome::Failed),
                ("[sig-node] Pods", Outcome::Failed),
            ]
        );
        let names = ["a (b) [c]", "d", "e"].map(|name| Test {
            name: name.to_string(),
            outcome: Outcome::Chosen,
            seconds: 0.0,
            reason: String::new(),
        });
        let expected = [r"(a \(b\) \[c\]|e)$", "(d)$"];
        assert_eq!(shares(&names, 2), expected);
        assert_eq!(shares(&names, 9).len(), 3);
        assert!(read("[{}]").unwrap().is_empty());
        assert!(read("{").is_err());
    }
}
