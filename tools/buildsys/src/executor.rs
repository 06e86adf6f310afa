//! Runs a graph of jobs in parallel.
//!
//! A job starts when all that it depends on has succeeded. The first failure ends
//! the rest: sandboxes are killed, other work notices at its next
//! [`signals::check`], and only the first error is told, for the others are its
//! consequences.

use crate::progress::{Progress, Task};
use crate::signals;
use anyhow::{Context, Result, anyhow, bail};
use sandbox::{Group, SandboxCommand};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::Duration;

/// How much of a failed step's log its error repeats.
const TAIL_LINES: usize = 25;
const TAIL_BYTES: u64 = 16 << 10;
/// Jobs that took this long leave a line.
const WORTH_A_LINE: Duration = Duration::from_millis(500);

/// One job of a graph.
pub struct Node<'a> {
    /// For people; also the name of its log.
    pub name: String,
    /// Indices of the jobs that must succeed before.
    pub depends: Vec<usize>,
    /// The work.
    pub job: Job<'a>,
}

/// What a job does.
pub type Job<'a> = Box<dyn FnOnce(&JobContext) -> Result<()> + Send + 'a>;

/// What a running job may use.
pub struct JobContext {
    log: PathBuf,
    fresh: Once,
    task: Task,
}

impl JobContext {
    /// Work outside of a graph that runs steps as a job does.
    pub fn new(name: &str, logs: &Path, progress: &Progress) -> Self {
        Self {
            log: logs.join(format!("{name}.log")),
            fresh: Once::new(),
            task: progress.start(name),
        }
    }

    /// Where the output of the job's steps goes. What an earlier run has left is
    /// removed when this is first asked for, and not before: a job that finds its
    /// result in the store keeps the log of how it was made.
    pub fn log(&self) -> &Path {
        self.fresh.call_once(|| {
            // If it cannot be removed it cannot be written either, which is told then.
            let _ = fs::remove_file(&self.log);
        });
        &self.log
    }

    /// The job's line of progress.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Runs `command` to its end, its output to the log. Failing is an error that
    /// shows `what` was tried and the end of the log.
    pub fn run(&self, what: &str, command: SandboxCommand) -> Result<()> {
        run_logged(what, command, self.log())
    }
}

/// Runs `command`, which appends its output to `log`, and makes its failure an
/// error that shows the end of the log and the log's path.
pub fn run_logged(what: &str, command: SandboxCommand, log: &Path) -> Result<()> {
    signals::check()?;
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let start = fs::metadata(log).map_or(0, |metadata| metadata.len());
    let written: Vec<PathBuf> = command
        .outputs()
        .chain([log])
        .map(Path::to_path_buf)
        .collect();
    let status = command
        .status_to_log(log)
        .with_context(|| format!("cannot {what}"))?;
    // What was killed for a reason known elsewhere is no news.
    signals::check()?;
    if status.success() {
        return Ok(());
    }
    // The step may have had nowhere to write its complaint to.
    let full = written
        .iter()
        .find(|path| is_on_full_disk(path))
        .map_or(String::new(), |path| {
            format!(
                " (no space left on device: the disk that holds {} is full)",
                path.display()
            )
        });
    let ended = ended(status);
    match tail(log, start)? {
        tail if tail.is_empty() => bail!("cannot {what}: the step {ended} and said nothing{full}"),
        tail => bail!(
            "cannot {what}: the step {ended}{full}; the end of {}:\n{tail}",
            log.display()
        ),
    }
}

fn is_on_full_disk(path: &Path) -> bool {
    /// Less than this is as good as nothing.
    const LITTLE: u64 = 64 << 10;
    nix::sys::statvfs::statvfs(path).is_ok_and(|disk| {
        let free = disk.blocks_available() * disk.fragment_size();
        // File systems without a limit on files count none of them.
        free < LITTLE || (disk.files() > 0 && disk.files_available() == 0)
    })
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (_, Some(signal)) => format!("was killed by signal {signal}"),
        _ => format!("ended oddly ({status})"),
    }
}

/// The last lines that `log` has beyond `start`, indented.
fn tail(log: &Path, start: u64) -> Result<String> {
    let read = || format!("cannot read the log {}", log.display());
    let mut file = File::open(log).with_context(read)?;
    let length = file.metadata().with_context(read)?.len();
    let from = start.max(length.saturating_sub(TAIL_BYTES));
    file.seek(SeekFrom::Start(from)).with_context(read)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).with_context(read)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    Ok(last
        .iter()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n"))
}

/// Runs all jobs of `graph`, at most `cores` at a time; logs go to the folder
/// `logs`.
pub fn execute(graph: Vec<Node<'_>>, cores: usize, logs: &Path, progress: &Progress) -> Result<()> {
    let group = Group::new();
    let schedule = Schedule::new(&graph)?;
    let workers = cores.clamp(1, graph.len().max(1));
    let names: Vec<String> = graph.iter().map(|node| node.name.clone()).collect();
    let jobs: Vec<Mutex<Option<Job<'_>>>> = graph
        .into_iter()
        .map(|node| Mutex::new(Some(node.job)))
        .collect();
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let _group = group.enter();
                while let Some(index) = schedule.next() {
                    let job = lock(&jobs[index]).take();
                    let result =
                        job.map_or(Ok(()), |job| run_job(job, &names[index], logs, progress));
                    let failed = result.is_err();
                    // Told before the others are ended, whose errors come of that.
                    schedule.finished(index, result);
                    if failed {
                        group.cancel();
                    }
                }
            });
        }
    });
    // A signal explains every error that comes after it.
    if let Some(interrupted) = signals::interrupted() {
        return Err(interrupted.into());
    }
    schedule.into_result()
}

fn run_job(job: Job<'_>, name: &str, logs: &Path, progress: &Progress) -> Result<()> {
    signals::check()?;
    let context = JobContext::new(name, logs, progress);
    catch_unwind(AssertUnwindSafe(|| job(&context)))
        .unwrap_or_else(|_| Err(anyhow!("the job panicked; this is a defect of bulkhead")))
        .with_context(|| format!("{name} failed"))?;
    // What was in the store took no time and is not worth a line.
    if context.task.elapsed() >= WORTH_A_LINE {
        context.task.finish(name);
    }
    Ok(())
}

/// Which jobs may run.
struct Schedule {
    state: Mutex<State>,
    changed: Condvar,
    dependents: Vec<Vec<usize>>,
}

struct State {
    /// Jobs that may start, lowest index first so that runs repeat.
    ready: BTreeSet<usize>,
    /// For each job, how many it still waits for.
    waiting_for: Vec<usize>,
    running: usize,
    first_error: Option<anyhow::Error>,
}

impl Schedule {
    fn new(graph: &[Node<'_>]) -> Result<Self> {
        let mut dependents = vec![Vec::new(); graph.len()];
        let mut waiting_for = vec![0; graph.len()];
        for (index, node) in graph.iter().enumerate() {
            for before in node.depends.iter().copied().collect::<BTreeSet<_>>() {
                let list = dependents
                    .get_mut(before)
                    .with_context(|| format!("{} depends on a job that is not there", node.name))?;
                list.push(index);
                waiting_for[index] += 1;
            }
        }
        let ready = |waiting: &[usize]| {
            waiting
                .iter()
                .enumerate()
                .filter(|(_, n)| **n == 0)
                .map(|(index, _)| index)
                .collect()
        };
        let ready: BTreeSet<usize> = ready(&waiting_for);
        // Take away what can run until nothing can; what is left runs in circles.
        let mut left = waiting_for.clone();
        let mut queue: Vec<usize> = ready.iter().copied().collect();
        let mut seen = queue.len();
        while let Some(index) = queue.pop() {
            for dependent in &dependents[index] {
                left[*dependent] -= 1;
                if left[*dependent] == 0 {
                    queue.push(*dependent);
                    seen += 1;
                }
            }
        }
        if seen < graph.len() {
            let circle: Vec<&str> = graph
                .iter()
                .zip(&left)
                .filter(|(_, left)| **left > 0)
                .map(|(node, _)| node.name.as_str())
                .collect();
            bail!("these jobs wait for each other: {}", circle.join(", "));
        }
        let state = State {
            ready,
            waiting_for,
            running: 0,
            first_error: None,
        };
        Ok(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            dependents,
        })
    }

    /// The next job to run; waits for one. `None` when there will be no more.
    fn next(&self) -> Option<usize> {
        let mut state = lock(&self.state);
        loop {
            if state.first_error.is_some() {
                return None;
            }
            if let Some(index) = state.ready.pop_first() {
                state.running += 1;
                return Some(index);
            }
            if state.running == 0 {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finished(&self, index: usize, result: Result<()>) {
        let mut state = lock(&self.state);
        state.running -= 1;
        match result {
            Ok(()) => {
                for dependent in &self.dependents[index] {
                    state.waiting_for[*dependent] -= 1;
                    if state.waiting_for[*dependent] == 0 {
                        state.ready.insert(*dependent);
                    }
                }
            }
            Err(error) => {
                state.first_error.get_or_insert(error);
            }
        }
        self.changed.notify_all();
    }

    fn into_result(self) -> Result<()> {
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        state.first_error.map_or(Ok(()), Err)
    }
}

/// Jobs' panics are caught before they could poison anything.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox::Sandbox;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    fn node<'a>(
        name: &str,
        depends: &[usize],
        job: impl FnOnce(&JobContext) -> Result<()> + Send + 'a,
    ) -> Node<'a> {
        Node {
            name: name.to_string(),
            depends: depends.to_vec(),
            job: Box::new(job),
        }
    }

    fn run(graph: Vec<Node<'_>>, cores: usize) -> Result<()> {
        let logs = tempfile::tempdir().unwrap();
        execute(graph, cores, logs.path(), &Progress::silent())
    }

    fn shell(script: &str) -> SandboxCommand {
        Sandbox::new(Path::new("/"))
            .env("PATH", "/usr/bin:/bin")
            .command("sh", ["-c", script])
    }

    #[test]
    fn jobs_run_after_what_they_depend_on() {
        for cores in [1, 2, 8] {
            let order = Mutex::new(Vec::new());
            let note = |name: &'static str| {
                let order = &order;
                move |_: &JobContext| {
                    lock(order).push(name);
                    Ok(())
                }
            };
            let graph = vec![
                node("image", &[1, 2, 2], note("image")),
                node("a", &[3], note("a")),
                node("b", &[3], note("b")),
                node("sdk", &[], note("sdk")),
            ];
            run(graph, cores).unwrap();
            let order = order.lock().unwrap();
            assert_eq!(
                (order.len(), order[0], order[3]),
                (4, "sdk", "image"),
                "{order:?}"
            );
        }
        run(vec![], 4).unwrap();
    }

    #[test]
    fn independent_jobs_run_at_the_same_time() {
        let met = AtomicUsize::new(0);
        let meet = |_: &JobContext| {
            met.fetch_add(1, Ordering::SeqCst);
            let start = Instant::now();
            while met.load(Ordering::SeqCst) < 2 {
                if start.elapsed() > Duration::from_secs(20) {
                    bail!("the other one never came");
                }
                thread::yield_now();
            }
            Ok(())
        };
        run(vec![node("a", &[], meet), node("b", &[], meet)], 2).unwrap();
    }

    #[test]
    fn the_first_failure_ends_the_rest_and_is_told() {
        let started = AtomicUsize::new(0);
        let graph = vec![
            node("long", &[], |context| {
                context.run("sleep", shell("sleep 1000"))
            }),
            node("bad", &[], |context| {
                context.run(
                    "compile it",
                    shell("echo first; echo 'no such thing' >&2; exit 3"),
                )
            }),
            node("after", &[1], |_| {
                started.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }),
        ];
        let start = Instant::now();
        let error = format!("{:#}", run(graph, 2).unwrap_err());
        for part in [
            "bad failed",
            "cannot compile it",
            "exit status 3",
            "bad.log",
            "\n    first\n    no such thing",
        ] {
            assert!(error.contains(part), "{part:?} is not in {error}");
        }
        assert_eq!(started.load(Ordering::SeqCst), 0);
        assert!(start.elapsed() < Duration::from_secs(100));
    }

    #[test]
    fn a_defect_in_a_job_is_an_error_of_the_graph() {
        let error = run(vec![node("odd", &[], |_| panic!("oh"))], 1).unwrap_err();
        assert!(
            format!("{error:#}").contains("odd failed: the job panicked"),
            "{error:#}"
        );
    }

    #[test]
    fn impossible_graphs_are_refused() {
        let nothing = |_: &JobContext| Ok(());
        for (graph, expected) in [
            (
                vec![
                    node("a", &[1], nothing),
                    node("b", &[0], nothing),
                    node("c", &[], nothing),
                ],
                "wait for each other: a, b",
            ),
            (vec![node("a", &[0], nothing)], "wait for each other: a"),
            (
                vec![node("a", &[7], nothing)],
                "a depends on a job that is not there",
            ),
        ] {
            let error = run(graph, 2).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_logs_tail_is_its_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let lines: Vec<String> = (0..100).map(|n| format!("line {n}")).collect();
        fs::write(&log, lines.join("\n")).unwrap();
        let text = tail(&log, 0).unwrap();
        assert!(
            text.starts_with("    line 75\n") && text.ends_with("line 99"),
            "{text}"
        );
        assert_eq!(tail(&log, fs::metadata(&log).unwrap().len()).unwrap(), "");
        fs::write(&log, "x".repeat(1 << 20)).unwrap();
        assert!(tail(&log, 0).unwrap().len() < 20_000);
    }
}
