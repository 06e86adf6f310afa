//! Program of the API's command line.

use apiclient::cli::{self, SOCKET_VARIABLE};
use std::ffi::OsString;
use std::io::{BufWriter, stderr, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let environment = std::env::var_os(SOCKET_VARIABLE).map(Into::into);
    let invocation = match cli::parse(&words, environment) {
        Ok(invocation) => invocation,
        Err(usage) => {
            if let Some(fault) = usage.fault {
                eprintln!("apiclient: {fault}\n");
            }
            eprint!("{}", usage.text);
            return ExitCode::from(2);
        }
    };
    match apiclient::run(&invocation, &mut BufWriter::new(stdout()), &mut stderr()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
