//! Child processes.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// How much of a failed child's stderr goes into the error.
const STDERR_IN_ERROR: usize = 2000;

/// Runs a command to its end with no standard input. An exit status other than
/// zero is an error that holds the command line, the status and the end of
/// stderr, so nothing secret may be among the arguments.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = output(command)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stderr = tail(stderr.trim(), STDERR_IN_ERROR);
        let status = output.status;
        if stderr.is_empty() {
            bail!("`{}` failed ({status})", describe(command));
        }
        bail!("`{}` failed ({status}): {stderr}", describe(command));
    }
    Ok(output)
}

/// As [`run`], for callers to whom the exit status says something: only a
/// command that cannot be started is an error.
pub fn output(command: &mut Command) -> Result<Output> {
    tracing::debug!(command = describe(command), "running");
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting `{}`", describe(command)))
}

/// As [`run`], with the standard output as text.
pub fn stdout(command: &mut Command) -> Result<String> {
    let output = run(command)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

fn tail(text: &str, limit: usize) -> &str {
    let mut start = text.len().saturating_sub(limit);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_tell_command_status_and_stderr() {
        let failing = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"]));
        let error = failing.expect_err("fails").to_string();
        assert!(error.contains("`sh -c"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.ends_with(": why"), "{error}");

        let absent = run(&mut Command::new("/does/not/exist")).expect_err("absent");
        assert!(format!("{absent:#}").contains("starting `/does/not/exist`"));
    }

    #[test]
    fn output_is_given_back() {
        let text = stdout(Command::new("sh").args(["-c", "echo out; cat"])).expect("runs");
        assert_eq!(text, "out\n");
        assert!(
            !output(&mut Command::new("false"))
                .expect("starts")
                .status
                .success()
        );
    }

    #[test]
    fn tail_respects_characters() {
        assert_eq!(tail("abc", 9), "abc");
        assert_eq!(tail("abc", 2), "bc");
        assert_eq!(tail("aéé", 3), "é");
    }
}
