//! `settings.measurement`.

use crate::Key;
use crate::model::group;
use crate::types::text_type;

group! {
    /// Measurement of the settings into the TPM.
    pub struct Measurement {
        /// Settings and tables of settings that are left out of it.
        "excluded-settings" => excluded_settings: Vec<SettingPrefix>;
    }
}

text_type! {
    /// A setting or a table of settings, by its dotted name.
    SettingPrefix, "the name of a setting or of a table of settings",
    example "settings.network.hostname",
    |text| {
        if text.contains('*') {
            return Err("there are no wildcards; a table stands for all that is in it".into());
        }
        let key: Key = text.parse().map_err(|error: crate::KeyError| error.to_string())?;
        match key.parts() {
            [] => Err("names all settings at once".into()),
            [group, ..] if group == "measurement" => {
                Err("the settings of measurement itself cannot be left out".into())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::tests::check;
    use serde_json::json;

    #[test]
    fn prefixes() {
        check::<SettingPrefix>(
            &[
                json!("settings.motd"),
                json!("network"),
                json!("settings.kernel.sysctl.\"vm.swappiness\""),
            ],
            &[
                json!(""),
                json!("settings"),
                json!("settings.*"),
                json!("settings.measurement"),
                json!("measurement.excluded-settings"),
                json!("a b"),
                json!("a\nb"),
                json!(1),
            ],
        );
    }
}
