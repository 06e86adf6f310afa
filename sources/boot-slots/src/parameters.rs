//! Kernel parameters of the settings, as words of the kernel's command line.
//!
//! The signed command line of an image comes first, then [`MARK`], then these
//! words. So `/proc/cmdline` says what of it the settings have added, and two
//! texts that are equal mean that the kernel runs with what is wanted. What goes
//! to init stands behind ` -- `, where the kernel looks for nothing.

use std::collections::BTreeMap;

/// The word in front of what the settings add.
pub const MARK: &str = "bulkhead.settings";

/// What the kernel takes on x86; other processors take no less.
pub const COMMAND_LINE_MAX: usize = 2047;

/// Parameters by name, each with its values; without values the name stands alone.
pub type Words = BTreeMap<String, Vec<String>>;

/// Which table of the settings a parameter is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// `settings.boot.kernel`, also known as `kernel-parameters`.
    Kernel,
    /// `settings.boot.init`, also known as `init-parameters`.
    Init,
}

impl Table {
    /// Its name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Init => "init",
        }
    }
}

/// Why parameters cannot be given to the kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// One of them.
    #[error("{}.{name}: {reason}", table.name())]
    One {
        /// Its table.
        table: Table,
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// All of them together.
    #[error(
        "the kernel's command line would have {length} bytes, more than the {COMMAND_LINE_MAX} that it may have"
    )]
    TooLong {
        /// How long it would be.
        length: usize,
    },
}

/// Parameters on which the protection of the host rests, and those by which it
/// finds its own root. They are part of the image, which is signed.
const OF_THE_IMAGE: &[&str] = &[
    "enforcing",
    "init",
    "initrd",
    "integrity_audit",
    "lockdown",
    "lsm",
    "module.sig_enforce",
    "rdinit",
    "root",
    "security",
    "selinux",
];

/// Beginning of the names that are for the image to use.
const OURS: &str = "bulkhead.";

/// Words that settings add to a command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    words: String,
}

impl Parameters {
    /// The words for `kernel` and `init`, in the order of the names.
    pub fn new(kernel: &Words, init: &Words) -> Result<Self, ParameterError> {
        let mut words = words(Table::Kernel, kernel)?;
        let init = self::words(Table::Init, init)?;
        if !init.is_empty() {
            words.push("--".to_string());
            words.extend(init);
        }
        Ok(Self {
            words: words.join(" "),
        })
    }

    /// What settings have added to the command line of a running kernel.
    pub fn of_command_line(text: &str) -> Self {
        let words = text
            .trim_end()
            .split_once(MARK)
            .map_or("", |(_, words)| words.trim());
        Self {
            words: words.to_string(),
        }
    }

    /// True if nothing is added.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// What is put behind the command line of the image.
    pub fn text(&self) -> String {
        if self.is_empty() {
            String::new()
        } else {
            format!("{MARK} {}", self.words)
        }
    }

    /// Checks that they fit behind what a running kernel's command line has
    /// without them.
    pub fn check_length(&self, running: &str) -> Result<(), ParameterError> {
        let image = running
            .split_once(MARK)
            .map_or(running, |(image, _)| image)
            .trim_end();
        let length = image.len() + 1 + self.text().len();
        if length > COMMAND_LINE_MAX {
            return Err(ParameterError::TooLong { length });
        }
        Ok(())
    }
}

fn words(table: Table, parameters: &Words) -> Result<Vec<String>, ParameterError> {
    let mut words = Vec::new();
    for (name, values) in parameters {
        let check = |fault: Option<&'static str>| match fault {
            Some(reason) => Err(ParameterError::One {
                table,
                name: name.clone(),
                reason,
            }),
            None => Ok(()),
        };
        check(fault_of_name(table, name))?;
        if values.is_empty() {
            words.push(name.clone());
        }
        for value in values {
            check(fault_of_value(value))?;
            words.push(if value.contains(' ') {
                format!("{name}=\"{value}\"")
            } else {
                format!("{name}={value}")
            });
        }
    }
    Ok(words)
}

fn fault_of_name(table: Table, name: &str) -> Option<&'static str> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    if name.is_empty() || !name.bytes().all(plain) || name == "--" {
        return Some("a parameter's name has letters, digits, '.', '-' and '_' only");
    }
    // The kernel takes one for the other.
    let name = name.replace('-', "_");
    if name.starts_with(OURS) {
        return Some("names with \"bulkhead.\" in front are for the image to use");
    }
    if table == Table::Kernel && OF_THE_IMAGE.contains(&name.as_str()) {
        return Some(
            "the host's protection rests on this parameter, so it is part of the image: build \
             the variant with it in [kernel] arguments",
        );
    }
    None
}

fn fault_of_value(value: &str) -> Option<&'static str> {
    if value.contains('"') {
        // The kernel knows no way to escape one.
        return Some("a value with a double quote cannot be given to the kernel");
    }
    if !value.bytes().all(|c| c == b' ' || c.is_ascii_graphic()) {
        return Some("a value has printable ASCII characters only");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, &[&str])]) -> Words {
        let owned = |values: &[&str]| values.iter().map(|value| value.to_string()).collect();
        rows.iter()
            .map(|(name, values)| (name.to_string(), owned(values)))
            .collect()
    }

    #[test]
    fn words_of_settings() {
        for (kernel, init, expected) in [
            (table(&[]), table(&[]), ""),
            (
                table(&[("quiet", &[])]),
                table(&[]),
                "bulkhead.settings quiet",
            ),
            (
                table(&[("console", &["tty0", "ttyS1,115200n8"]), ("a.b", &[""])]),
                table(&[]),
                "bulkhead.settings a.b= console=tty0 console=ttyS1,115200n8",
            ),
            (
                table(&[("dyndbg", &["file x +p"])]),
                table(&[("systemd.log_level", &["debug"]), ("splash", &[])]),
                "bulkhead.settings dyndbg=\"file x +p\" -- splash systemd.log_level=debug",
            ),
            (
                table(&[]),
                table(&[("splash", &[])]),
                "bulkhead.settings -- splash",
            ),
        ] {
            let parameters = Parameters::new(&kernel, &init).unwrap();
            assert_eq!(parameters.text(), expected);
            assert_eq!(parameters.is_empty(), expected.is_empty());
            // As it comes back from the kernel.
            let running = format!("quiet bulkhead.version=1.2.0 {expected}\n");
            assert_eq!(Parameters::of_command_line(&running), parameters);
        }
    }

    #[test]
    fn what_is_refused() {
        for (name, value, reason) in [
            ("", "x", "letters, digits"),
            ("a b", "x", "letters, digits"),
            ("--", "x", "letters, digits"),
            ("a=b", "x", "letters, digits"),
            ("bulkhead.root", "x", "for the image to use"),
            ("bulkhead.settings", "x", "for the image to use"),
            ("enforcing", "0", "part of the image"),
            ("module.sig-enforce", "0", "part of the image"),
            ("rdinit", "/x", "part of the image"),
            ("a", "say \"x\"", "double quote"),
            ("a", "x\ny", "printable"),
            ("a", "ü", "printable"),
        ] {
            let error = Parameters::new(&table(&[(name, &[value])]), &table(&[])).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("kernel."), "{text}");
            assert!(text.contains(reason), "{name}: {text}");
        }
        // What goes to init cannot change what the kernel does.
        assert!(Parameters::new(&table(&[]), &table(&[("root", &["x"])])).is_ok());
        assert!(Parameters::new(&table(&[]), &table(&[("bulkhead.x", &[])])).is_err());
    }

    #[test]
    fn length_counts_the_images_part_only() {
        let long = "x".repeat(1000);
        let parameters = Parameters::new(&table(&[("a", &[&long])]), &table(&[])).unwrap();
        let image = "y".repeat(COMMAND_LINE_MAX - 1 - parameters.text().len());
        assert_eq!(parameters.check_length(&image), Ok(()));
        let running = format!("{image} {MARK} {long}{long}\n");
        assert_eq!(parameters.check_length(&running), Ok(()));
        assert_eq!(
            parameters.check_length(&format!("{image}y")),
            Err(ParameterError::TooLong {
                length: COMMAND_LINE_MAX + 1
            })
        );
    }
}
