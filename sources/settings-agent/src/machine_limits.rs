//! Settings that are sound and that this machine cannot follow all the same.
//!
//! The model judges a document by itself; what is here needs the machine.

use crate::host::Host;
use boot_slots::parameters::{ParameterError, Parameters, Table, Words};
use serde_json::Value;
use settings::{Document, Faults, Key};

const SECURE_BOOT: &str = "under Secure Boot the kernel's command line is part of the signed \
     image: build the variant with the parameter in [kernel] arguments";

impl Host {
    /// What of `settings` this machine cannot do, and what to do instead.
    pub fn cannot_do(&self, settings: &Document) -> Faults {
        let mut faults = Faults::default();
        let [kernel, init] = [Table::Kernel, Table::Init].map(|table| words(settings, table));
        if sysutil::efi::is_secure_boot(self.root()) {
            for (table, words) in [(Table::Kernel, &kernel), (Table::Init, &init)] {
                if !words.is_empty() {
                    faults.add(&key(table), SECURE_BOOT);
                }
            }
            return faults;
        }
        let none = Words::new();
        // One by one, so that each fault is told.
        for (table, words) in [(Table::Kernel, &kernel), (Table::Init, &init)] {
            for (name, values) in words {
                let one = Words::from([(name.clone(), values.clone())]);
                let judged = match table {
                    Table::Kernel => Parameters::new(&one, &none),
                    Table::Init => Parameters::new(&none, &one),
                };
                if let Err(error) = judged {
                    let reason = match &error {
                        ParameterError::One { reason, .. } => (*reason).to_string(),
                        ParameterError::TooLong { .. } => error.to_string(),
                    };
                    faults.add(&key(table).child(name), reason);
                }
            }
        }
        let running = std::fs::read_to_string(self.root().join("proc/cmdline"));
        if let (Ok(parameters), Ok(running)) = (Parameters::new(&kernel, &init), running)
            && let Err(error) = parameters.check_length(&running)
        {
            faults.add(&Key::from_parts(["boot"]), error.to_string());
        }
        faults
    }
}

fn key(table: Table) -> Key {
    Key::from_parts(["boot", table.name()])
}

/// The parameters of a table. A document has been checked, so nothing in it is
/// of another form.
fn words(settings: &Document, table: Table) -> Words {
    let parameters = settings.get(&key(table)).and_then(Value::as_object);
    let texts = |value: &Value| {
        let values = value.as_array().into_iter().flatten();
        values
            .filter_map(|value| Some(value.as_str()?.to_string()))
            .collect()
    };
    parameters
        .into_iter()
        .flatten()
        .map(|(name, values)| (name.clone(), texts(values)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Systemd;
    use std::fs;
    use std::sync::Arc;

    fn faults(secure_boot: bool, settings: &str) -> String {
        let root = tempfile::tempdir().expect("a folder");
        let put = |path: &str, bytes: &[u8]| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, bytes).expect("a file");
        };
        put("usr/lib/os-release", b"VARIANT_ID=metal-core\n");
        put("proc/cmdline", b"quiet bulkhead.version=1\n");
        put(
            "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
            &[6, 0, 0, 0, u8::from(secure_boot)],
        );
        let host = Host::open(root.path(), Arc::new(Systemd)).expect("a host");
        let settings = Document::from_toml(settings).expect("valid").expect("some");
        host.cannot_do(&settings).to_string()
    }

    #[test]
    fn kernel_parameters() {
        let both = "[settings.boot]\nkernel-parameters = { quiet = [] }\n\
                    init-parameters = { \"systemd.log_level\" = [\"debug\"] }";
        assert_eq!(faults(false, both), "");
        assert_eq!(
            faults(true, both),
            format!("settings.boot.kernel: {SECURE_BOOT}\nsettings.boot.init: {SECURE_BOOT}")
        );
        // What asks for no parameter is fine everywhere.
        for settings in [
            "[settings]\nmotd = \"x\"",
            "[settings.boot]\nreboot-to-reconcile = true",
        ] {
            assert_eq!(faults(true, settings), "", "{settings}");
        }
        let bad =
            "[settings.boot.kernel]\nenforcing = [\"0\"]\nx = [\"say \\\"y\\\"\"]\nz = [\"1\"]";
        let told = faults(false, bad);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 2, "{told}");
        assert!(
            lines[0].starts_with("settings.boot.kernel.enforcing: "),
            "{told}"
        );
        assert!(lines[1].starts_with("settings.boot.kernel.x: "), "{told}");
        let long = format!("[settings.boot.kernel]\na = [\"{}\"]", "x".repeat(2040));
        let told = faults(false, &long);
        assert!(
            told.starts_with("settings.boot: ") && told.contains("2047"),
            "{told}"
        );
    }
}
