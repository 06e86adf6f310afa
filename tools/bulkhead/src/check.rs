//! `bulkhead check`.

use anyhow::{Context, Result};
use api_types::{UserDataCheck, UserDataFault};
use settings::Variant;
use settings::limits::DOCUMENT_BYTES;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `check`.
#[derive(clap::Args)]
pub struct Args {
    /// The document, plain or in gzip, and either of them also in base64; - for
    /// standard input.
    file: PathBuf,
    /// The variant that it is for, such as aws-k8s-1.36 or metal-core.
    #[arg(long)]
    variant: Variant,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Says what is wrong with a document of user data. Exit status 1 if anything is,
/// 2 if it cannot be read.
pub fn run(args: &Args) -> ExitCode {
    let done = read(&args.file).and_then(|bytes| {
        let faults = early_boot::check(bytes, &args.variant).faults;
        let is_good = faults.is_empty();
        show(&mut std::io::stdout().lock(), args, faults)?;
        Ok(is_good)
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn show(out: &mut impl Write, args: &Args, faults: Vec<UserDataFault>) -> Result<()> {
    let shown = if args.json {
        let mut json =
            serde_json::to_string_pretty(&UserDataCheck { faults }).context("cannot write JSON")?;
        json.push('\n');
        json
    } else {
        let file = args.file.display().to_string();
        let lines = faults.iter().map(|fault| fault.in_file(&file) + "\n");
        lines.collect()
    };
    out.write_all(shown.as_bytes())
        .context("cannot write the result")
}

/// What the file holds, or so much of it that it is too much in any encoding.
fn read(file: &Path) -> Result<Vec<u8>> {
    // Base64 takes four bytes for three, and breaks lines.
    let limit = 2 * DOCUMENT_BYTES as u64;
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        let opened = File::open(file);
        Box::new(opened.with_context(|| format!("cannot open {}", file.display()))?)
    };
    let mut bytes = Vec::new();
    let read = source.take(limit).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read {}", file.display()))?;
    Ok(bytes)
}
