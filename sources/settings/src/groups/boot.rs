//! `settings.boot`.

use crate::model::group;
use crate::types::{name_type, text_type};
use std::collections::BTreeMap;

/// Parameters by name, each with the values that it is given one after the other.
pub type Parameters = BTreeMap<ParameterName, Vec<ParameterValue>>;

group! {
    /// The next boot.
    pub struct Boot {
        /// Whether the host reboots by itself, once, when it booted with other
        /// parameters than are set here.
        "reboot-to-reconcile" => reboot_to_reconcile: bool;
        /// Parameters of the kernel, given as `kernel-parameters` and returned as
        /// `kernel`. A name with a dot in it is quoted.
        "kernel" => kernel: Parameters, alias "kernel-parameters",
            example "{ \"log_buf_len\" = [\"1M\"] }";
        /// Parameters of init, given as `init-parameters` and returned as `init`.
        "init" => init: Parameters, alias "init-parameters",
            example "{ \"systemd.log_level\" = [\"debug\"] }";
    }
}

name_type! {
    /// Name of a kernel parameter on the command line.
    ParameterName, "a parameter name of letters, digits, '-' and '_', in words joined by dots",
    example "log_buf_len",
    |name| {
        let is_word = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
        };
        name.len() <= 256 && name.split('.').all(is_word)
    }
}

text_type! {
    /// A value of a kernel parameter, which the boot configuration can quote.
    ParameterValue, "printable ASCII, without both kinds of quotes", example "1M"
    pattern "^[ -~]*$",
    |text| {
        if !text.bytes().all(|c| (b' '..=b'~').contains(&c)) {
            Err("holds a character other than printable ASCII".into())
        } else if text.contains('"') && text.contains('\'') {
            Err("holds both kinds of quotes, of which only one can be written".into())
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::tests::{check, check_names};
    use serde_json::json;

    #[test]
    fn parameters() {
        check_names::<ParameterName>(
            &["quiet", "systemd.log_level", "a-b.c_d", "8250.nr_uarts"],
            &["", "a.", ".a", "a..b", "a b", "a=b", "a\n", "ä"],
        );
        check::<ParameterValue>(
            &[json!(""), json!("1M"), json!("a \"b\""), json!("it's")],
            &[
                json!("\"'"),
                json!("a\nb"),
                json!("\t"),
                json!("ü"),
                json!(1),
            ],
        );
    }
}
