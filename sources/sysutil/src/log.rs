//! Logging to stderr, the same for all programs.
//!
//! Under journald a line carries its syslog level in the form `<N>` that
//! journald understands, and no time stamp, which journald adds itself.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Compact, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Environment variable with another filter, such as `debug` or
/// `info,network=trace`.
pub const FILTER_VARIABLE: &str = "BULKHEAD_LOG";

/// Sends log lines of `level` and above to stderr. Calling it again changes
/// nothing, so a library's test may call it too.
pub fn init(level: Level) {
    let filter = std::env::var(FILTER_VARIABLE)
        .ok()
        .and_then(|text| text.parse::<Targets>().ok())
        .unwrap_or_else(|| Targets::new().with_default(level));
    let under_journald = std::env::var_os("JOURNAL_STREAM").is_some();
    let registry = tracing_subscriber::registry().with(filter);
    // A second call finds a subscriber in place; the first one stays.
    let _ = if under_journald {
        let layer = tracing_subscriber::fmt::layer()
            .event_format(SyslogLevel::default())
            .with_writer(std::io::stderr);
        registry.with(layer).try_init()
    } else {
        let layer = tracing_subscriber::fmt::layer()
            .compact()
            .with_ansi(false)
            .with_target(false)
            .with_writer(std::io::stderr);
        registry.with(layer).try_init()
    };
}

/// Puts journald's level prefix in front of each line.
struct SyslogLevel(Format<Compact, ()>);

impl Default for SyslogLevel {
    fn default() -> Self {
        let format = Format::default().compact().without_time();
        Self(format.with_level(false).with_target(false).with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for SyslogLevel
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", syslog_level(event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

fn syslog_level(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panics here").write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn journald_lines_start_with_their_level() {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(SyslogLevel::default())
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!("cannot read {}", "x");
            tracing::info!(unit = "a.service", "started");
        });
        let text = String::from_utf8(sink.0.lock().expect("no panics here").clone())
            .expect("log lines are text");
        assert_eq!(text, "<3>cannot read x\n<6>started unit=\"a.service\"\n");
    }
}
