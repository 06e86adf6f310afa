//! What long work shows: live lines on a terminal, plain ones elsewhere.
//!
//! All of it goes to standard error; standard output is for results. A
//! [`Progress`] is a handle that every part of a build has a copy of; work that
//! takes a while holds a [`Task`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How often live lines are drawn anew.
const REDRAW: Duration = Duration::from_millis(200);
/// After how long a plain line says that something still runs.
const STILL_RUNNING: Duration = Duration::from_secs(30);
/// Live lines at a time; a terminal has few rows.
const LIVE_LINES: usize = 12;

/// Where progress is shown. A cheap handle.
#[derive(Clone)]
pub struct Progress(Arc<Mutex<State>>);

struct State {
    output: Box<dyn Write + Send>,
    live: bool,
    tasks: BTreeMap<u64, Running>,
    next: u64,
    /// Live lines on the screen, which the next drawing overwrites.
    drawn: usize,
}

struct Running {
    name: String,
    note: String,
    start: Instant,
    /// When a plain line last spoke of it.
    told: Instant,
}

impl Progress {
    /// Shows progress on standard error.
    pub fn new() -> Self {
        let live =
            io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        let progress = Self::to(Box::new(io::stderr()), live);
        let state = Arc::downgrade(&progress.0);
        // Without the thread only elapsed times stand still.
        let _ = thread::Builder::new()
            .name("progress".to_string())
            .spawn(move || tick(&state));
        progress
    }

    /// Shows nothing.
    pub fn silent() -> Self {
        Self::to(Box::new(io::sink()), false)
    }

    fn to(output: Box<dyn Write + Send>, live: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            output,
            live,
            tasks: BTreeMap::new(),
            next: 0,
            drawn: 0,
        })))
    }

    /// Prints a line that stays.
    pub fn message(&self, text: impl AsRef<str>) {
        self.state().print(text.as_ref());
    }

    /// Begins work called `name`, which runs until the task is finished or dropped.
    pub fn start(&self, name: impl Into<String>) -> Task {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        let now = Instant::now();
        let running = Running {
            name: name.into(),
            note: String::new(),
            start: now,
            told: now,
        };
        state.tasks.insert(id, running);
        state.redraw();
        Task {
            progress: self.clone(),
            id,
            start: now,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// Work under way. Dropping it takes its line away without a word; the one who
/// made it tell of an error does so.
pub struct Task {
    progress: Progress,
    id: u64,
    start: Instant,
}

impl Task {
    /// Says how far the work is, in a few words such as `12 of 40 files`.
    pub fn note(&self, note: impl Into<String>) {
        let mut state = self.progress.state();
        if let Some(running) = state.tasks.get_mut(&self.id) {
            running.note = note.into();
        }
    }

    /// Ends the work and leaves a line with `what` was done and how long it took.
    pub fn finish(self, what: impl AsRef<str>) {
        let elapsed = self.start.elapsed();
        let mut state = self.progress.state();
        state.tasks.remove(&self.id);
        state.print(&format!("{} ({})", what.as_ref(), seconds(elapsed)));
    }

    /// How long the work has been running.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let mut state = self.progress.state();
        if state.tasks.remove(&self.id).is_some() {
            state.redraw();
        }
    }
}

impl State {
    fn print(&mut self, text: &str) {
        let mut out = self.erase();
        out.push_str(text);
        out.push('\n');
        self.draw(&mut out);
        self.write(&out);
    }

    fn redraw(&mut self) {
        if self.live {
            let mut out = self.erase();
            self.draw(&mut out);
            self.write(&out);
        }
    }

    /// Takes the live lines off the screen.
    fn erase(&mut self) -> String {
        let mut out = String::new();
        if self.drawn > 0 {
            let _ = write!(out, "\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
        out
    }

    fn draw(&mut self, out: &mut String) {
        if !self.live || self.tasks.is_empty() {
            return;
        }
        // The terminal itself cuts what does not fit into a row.
        out.push_str("\x1b[?7l");
        for running in self.tasks.values().take(LIVE_LINES) {
            let _ = write!(
                out,
                "  {:>6}  {}",
                seconds(running.start.elapsed()),
                running.name
            );
            if !running.note.is_empty() {
                let _ = write!(out, ": {}", running.note);
            }
            out.push('\n');
        }
        self.drawn = self.tasks.len().min(LIVE_LINES);
        if self.tasks.len() > LIVE_LINES {
            let _ = writeln!(out, "          and {} more", self.tasks.len() - LIVE_LINES);
            self.drawn += 1;
        }
        out.push_str("\x1b[?7h");
    }

    fn tell_of_long_work(&mut self) {
        let now = Instant::now();
        let mut lines = String::new();
        for running in self.tasks.values_mut() {
            if now - running.told >= STILL_RUNNING {
                running.told = now;
                let elapsed = seconds(now - running.start);
                let _ = write!(lines, "{} still runs after {elapsed}", running.name);
                if !running.note.is_empty() {
                    let _ = write!(lines, ": {}", running.note);
                }
                lines.push('\n');
            }
        }
        self.write(&lines);
    }

    fn write(&mut self, text: &str) {
        // A closed standard error must not stop a build.
        let _ = self.output.write_all(text.as_bytes());
        let _ = self.output.flush();
    }
}

fn tick(state: &Weak<Mutex<State>>) {
    loop {
        thread::sleep(REDRAW);
        let Some(state) = state.upgrade() else { return };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.tasks.is_empty() {
            continue;
        }
        if state.live {
            state.redraw();
        } else {
            state.tell_of_long_work();
        }
    }
}

/// A duration for people: `0.4 s`, `12 s`, `3 min 05 s`.
pub fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    match whole {
        0..=9 => format!("{:.1} s", duration.as_secs_f64()),
        10..=59 => format!("{whole} s"),
        _ => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

/// A size for people: `512 B`, `3.4 MB`, `1.2 GB`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return if unit == "B" || value >= 99.5 {
                format!("{value:.0} {unit}")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(live: bool, work: impl FnOnce(&Progress)) -> String {
        let screen = Screen::default();
        work(&Progress::to(Box::new(screen.clone()), live));
        let bytes = screen.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn plain_lines_tell_results_only() {
        let text = shown(false, |progress| {
            let task = progress.start("fetch");
            task.note("1 of 2");
            progress.message("hello");
            drop(progress.start("dropped"));
            task.finish("fetched 2 files");
        });
        assert_eq!(text, "hello\nfetched 2 files (0.0 s)\n");
    }

    #[test]
    fn live_lines_are_replaced() {
        let text = shown(true, |progress| {
            let task = progress.start("fetch");
            task.note("1 of 2");
            progress.message("hello");
            task.finish("done");
        });
        let live = |note: &str| format!("\x1b[?7l   0.0 s  fetch{note}\n\x1b[?7h");
        let erase = "\x1b[1A\x1b[J";
        let expected = format!(
            "{}{erase}hello\n{}{erase}done (0.0 s)\n",
            live(""),
            live(": 1 of 2")
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn figures_are_short() {
        for (millis, text) in [
            (40, "0.0 s"),
            (9_400, "9.4 s"),
            (59_999, "59 s"),
            (185_000, "3 min 05 s"),
        ] {
            assert_eq!(seconds(Duration::from_millis(millis)), text);
        }
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (999_600, "1.0 MB"),
            (382_000_000, "382 MB"),
            (21_474_836_480, "21.5 GB"),
            (5_000_000_000_000, "5.0 TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
