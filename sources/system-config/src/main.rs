//! `system-config`; its library says what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    system_config::main()
}
