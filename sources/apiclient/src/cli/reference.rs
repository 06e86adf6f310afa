//! The reference page of the command line, in Markdown.

use super::help::left_side;
use super::{Flag, GLOBAL, SUBCOMMANDS, Subcommand};
use std::fmt::Write;

/// The page.
pub fn page() -> String {
    let mut page = String::from(
        "# apiclient\n\n\
         Made from the table in `sources/apiclient`; `UPDATE_EXPECT=1 cargo test -p apiclient`\n\
         writes it anew. *(ours)* marks what Bottlerocket's client does not have.\n\n\
         These flags are recognised anywhere on the line, until a `--`:\n\n",
    );
    flags(&mut page, GLOBAL);
    page.push_str(
        "\nExit status: 0 done; 1 failed, with the reason on standard error; 2 wrong usage, and \
         also help,\nboth with the usage on standard error. `exec` exits with the status of its \
         command.\n\n\
         A request that the server refuses is reported as `Status 400 when PATCHing /settings…: \
         …`, which\nprograms may rely on.\n",
    );
    for subcommand in SUBCOMMANDS {
        if !subcommand.hidden {
            section(&mut page, subcommand);
        }
    }
    page
}

fn section(page: &mut String, subcommand: &Subcommand) {
    let ours = if subcommand.ours { " *(ours)*" } else { "" };
    let _ = write!(page, "\n## apiclient {}{ours}\n\n", subcommand.name);
    for form in subcommand.forms {
        let _ = writeln!(page, "    apiclient {form}");
    }
    for paragraph in subcommand.about {
        let _ = write!(page, "\n{}\n", escape(paragraph));
    }
    if !subcommand.flags.is_empty() {
        page.push('\n');
        flags(page, subcommand.flags);
    }
    if !subcommand.examples.is_empty() {
        page.push_str("\nExamples:\n\n");
        for example in subcommand.examples {
            let _ = writeln!(page, "    apiclient {example}");
        }
    }
}

fn flags(page: &mut String, flags: &[Flag]) {
    page.push_str("| flag | |\n|---|---|\n");
    for flag in flags {
        let _ = writeln!(page, "| `{}` | {} |", left_side(flag), escape(flag.help));
    }
}

/// Text in which nothing means anything to Markdown.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        if "|<>*_\\".contains(letter) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}
