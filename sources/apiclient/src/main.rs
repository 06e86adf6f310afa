//! Program of the API's command line.

use apiclient::command::{self, SOCKET_VARIABLE};
use std::io::{BufWriter, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let environment = std::env::var_os(SOCKET_VARIABLE).map(Into::into);
    let invocation = match command::parse(&words, environment) {
        Ok(invocation) => invocation,
        Err(usage) => {
            if let Some(fault) = usage.fault {
                eprintln!("apiclient: {fault}\n");
            }
            eprint!("{}", usage.text);
            return ExitCode::from(2);
        }
    };
    match apiclient::run(&invocation, &mut BufWriter::new(stdout())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
