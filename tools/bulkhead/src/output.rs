//! Results for programs.

use anyhow::{Context, Result};
use serde::Serialize;

/// Prints a result as JSON.
pub fn print_json(result: &(impl Serialize + ?Sized)) -> Result<()> {
    let text = serde_json::to_string_pretty(result).context("cannot write JSON")?;
    println!("{text}");
    Ok(())
}
