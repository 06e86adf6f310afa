//! Help, as it is shown in a terminal.

use super::{Flag, GLOBAL, SUBCOMMANDS, Subcommand, Takes};
use std::fmt::Write;

/// Columns of a line.
const WIDTH: usize = 80;
/// Where the text beside a flag or a subcommand begins.
const INDENT: usize = 29;

/// The program's help.
pub fn general() -> String {
    let mut help = String::from(
        "Usage: apiclient [SUBCOMMAND] [OPTION]...\n\nTalks to the API of this host.\n\n\
         Options, anywhere on the line:\n",
    );
    flags(&mut help, GLOBAL);
    help.push_str("\nSubcommands:\n");
    list(&mut help, |_| true);
    help.push_str("\napiclient SUBCOMMAND --help tells more about one.\n");
    help
}

/// Help for a first word that needs a second one.
pub fn group(name: &str) -> String {
    let mut help = String::new();
    let within = |subcommand: &Subcommand| subcommand.words().0 == name;
    let members = SUBCOMMANDS.iter().filter(|subcommand| within(subcommand));
    for (index, subcommand) in members.enumerate() {
        usage(&mut help, subcommand, index == 0);
    }
    help.push('\n');
    list(&mut help, within);
    help
}

/// Help for a subcommand.
pub fn of(subcommand: &Subcommand) -> String {
    let mut help = String::new();
    usage(&mut help, subcommand, true);
    for paragraph in subcommand.about {
        let _ = write!(help, "\n{}\n", wrap(paragraph, WIDTH).join("\n"));
    }
    if !subcommand.flags.is_empty() {
        help.push_str("\nOptions:\n");
        flags(&mut help, subcommand.flags);
    }
    let beside = |other: &Subcommand| {
        let (first, second) = other.words();
        second.is_some() && first == subcommand.name
    };
    if SUBCOMMANDS.iter().any(|other| beside(other)) {
        help.push_str("\nSubcommands:\n");
        list(&mut help, beside);
    }
    if !subcommand.examples.is_empty() {
        help.push_str("\nExamples:\n");
        for example in subcommand.examples {
            let _ = writeln!(help, "  apiclient {example}");
        }
    }
    help
}

fn usage(help: &mut String, subcommand: &Subcommand, first: bool) {
    for (index, form) in subcommand.forms.iter().enumerate() {
        let start = if first && index == 0 {
            "Usage:"
        } else {
            "      "
        };
        let _ = writeln!(help, "{start} apiclient {form}");
    }
}

fn list(help: &mut String, which: impl Fn(&Subcommand) -> bool) {
    for subcommand in SUBCOMMANDS {
        if which(subcommand) && !subcommand.hidden {
            entry(help, subcommand.name, subcommand.summary);
        }
    }
}

fn flags(help: &mut String, flags: &[Flag]) {
    for flag in flags {
        entry(help, &left_side(flag), flag.help);
    }
}

/// A flag's names and what follows it.
pub fn left_side(flag: &Flag) -> String {
    let names = flag.names.join(", ");
    match flag.takes {
        Takes::Nothing => names,
        Takes::One(word) => format!("{names} {}", word.name),
        Takes::Many(word) => format!("{names} {}...", word.name),
    }
}

fn entry(help: &mut String, left: &str, right: &str) {
    let _ = write!(help, "  {left}");
    let mut column = 2 + left.len();
    if column + 2 > INDENT {
        help.push('\n');
        column = 0;
    }
    let _ = write!(help, "{:1$}", "", INDENT - column);
    let lines = wrap(right, WIDTH - INDENT);
    help.push_str(&lines.join(&format!("\n{:INDENT$}", "")));
    help.push('\n');
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut length = 0;
    for word in text.split_whitespace() {
        let letters = word.chars().count();
        if length > 0 && length + 1 + letters > width {
            lines.push(String::new());
            length = 0;
        }
        if let Some(line) = lines.last_mut() {
            if length > 0 {
                line.push(' ');
                length += 1;
            }
            line.push_str(word);
            length += letters;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let groups = SUBCOMMANDS
            .iter()
            .map(|subcommand| group(subcommand.words().0));
        let each = SUBCOMMANDS.iter().map(|subcommand| of(subcommand));
        for text in groups.chain(each).chain([general()]) {
            for line in text.lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
                assert_eq!(line.trim_end(), line);
            }
        }
    }

    #[test]
    fn what_does_not_fit_beside_goes_below() {
        let mut help = String::new();
        entry(&mut help, "-a", "one");
        entry(&mut help, "--with-a-very-long-name VALUE", "two");
        assert_eq!(
            help,
            "  -a                         one\n  --with-a-very-long-name VALUE\n                             two\n"
        );
    }
}
