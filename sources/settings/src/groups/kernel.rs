//! `settings.kernel`.

use crate::model::{group, table_entries};
use crate::types::{SingleLine, choice_type, name_type, text_type};
use crate::{Faults, Key, Model, Schema};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

group! {
    /// The Linux kernel at run time.
    pub struct Kernel {
        /// Kernel lockdown. It can be raised at run time and lowered by a reboot.
        "lockdown" => lockdown: Lockdown, default "integrity";
        /// Kernel modules by name. A module with an entry is blocked unless the
        /// entry allows it.
        "modules" => modules: BTreeMap<ModuleName, Module>;
        /// Kernel parameters by name. The values are texts, and a name with a
        /// dot in it is quoted.
        "sysctl" => sysctl: BTreeMap<SysctlName, SingleLine>,
            example "{ \"vm.max_map_count\" = \"262144\" }";
        /// Pages larger than 4 KiB.
        "hugepages" => hugepages: Hugepages;
    }
}

group! {
    /// Pages larger than 4 KiB.
    pub struct Hugepages {
        /// Pages that are reserved at boot, by their size.
        "static" => reserved: StaticHugepages;
        /// Pages that the kernel makes out of small ones by itself.
        "transparent" => transparent: TransparentHugepages;
    }
}

/// Pages that are reserved at boot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StaticHugepages {
    /// Whether the boot stops if there are fewer than asked for.
    pub essential: Option<bool>,
    /// How many, by size.
    pub sizes: BTreeMap<PageSize, Reservation>,
}

group! {
    /// What there is beside the sizes.
    pub struct StaticOptions {
        /// Whether the boot stops if there are fewer than asked for.
        "essential" => essential: bool, default false;
    }
}

group! {
    /// Pages of one size.
    pub struct Reservation {
        /// How many: a number, or for some NUMA nodes `node:pages`, with commas between.
        "count" => count: PageCount;
    }
}

impl Model for StaticHugepages {
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self> {
        let table = table_entries(value, at, faults)?;
        let (options, sizes): (Map<_, _>, Map<_, _>) = table
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .partition(|(name, _)| name == "essential");
        let options = StaticOptions::read(&Value::Object(options), at, faults);
        let sizes = BTreeMap::read(&Value::Object(sizes), at, faults);
        Some(Self {
            essential: options.unwrap_or_default().essential,
            sizes: sizes.unwrap_or_default(),
        })
    }

    fn write(&self) -> Value {
        let mut table = self.sizes.write();
        if let Some(essential) = self.essential {
            table["essential"] = essential.into();
        }
        table
    }

    fn schema() -> Schema {
        match StaticOptions::schema() {
            Schema::Table { doc, fields, .. } => Schema::Table {
                doc,
                fields,
                others: Some(Box::new(BTreeMap::<PageSize, Reservation>::schema())),
            },
            other => other,
        }
    }
}

name_type! {
    /// Size of a page.
    PageSize, "a power of two with Ki, Mi, Gi or Ti, such as 2Mi", example "2Mi",
    |name| {
        let number = ["Ki", "Mi", "Gi", "Ti"].iter().find_map(|unit| name.strip_suffix(unit));
        number.is_some_and(|number| {
            (1..=4).contains(&number.len())
                && number.bytes().all(|c| c.is_ascii_digit())
                && !number.starts_with('0')
                && number.parse().is_ok_and(u32::is_power_of_two)
        })
    }
}

text_type! {
    /// A number of pages, or numbers of pages by NUMA node.
    PageCount, "a number, or node:pages with commas between", example "512"
    pattern "^([0-9]+|[0-9]+:[0-9]+(,[0-9]+:[0-9]+)*)$",
    |text| {
        let is_number = |part: &str| {
            (1..=10).contains(&part.len()) && part.bytes().all(|c| c.is_ascii_digit())
        };
        let is_node = |part: &str| {
            part.split_once(':').is_some_and(|(node, pages)| is_number(node) && is_number(pages))
        };
        if is_number(text) || text.split(',').all(is_node) {
            Ok(())
        } else {
            Err("expected a number such as \"512\", or numbers by NUMA node such as \"0:256,1:256\"".into())
        }
    }
}

group! {
    /// Pages that the kernel makes out of small ones by itself.
    pub struct TransparentHugepages {
        /// For which memory it does so.
        "enabled" => enabled: TransparentMode;
        /// How much it does at once to find a large page.
        "defrag" => defrag: Defrag;
    }
}

choice_type! {
    /// For which memory the kernel uses transparent huge pages.
    TransparentMode {
        /// For none.
        Never = "never",
        /// Where a program asks for them.
        Madvise = "madvise",
        /// For all.
        Always = "always",
    }
}

choice_type! {
    /// How much the kernel does at once to find a large page.
    Defrag {
        /// Nothing.
        Never = "never",
        /// It makes room where a program asked for large pages.
        Madvise = "madvise",
        /// It makes room in the background.
        Defer = "defer",
        /// At once where a program asked, else in the background.
        DeferMadvise = "defer+madvise",
        /// It makes room at once.
        Always = "always",
    }
}

group! {
    /// What may happen to a kernel module.
    pub struct Module {
        /// Whether it may be loaded.
        "allowed" => allowed: bool;
        /// Whether it is loaded at boot, if it is allowed.
        "autoload" => autoload: bool;
    }
}

choice_type! {
    /// Mode of the kernel's lockdown.
    Lockdown {
        /// No lockdown.
        None = "none",
        /// User space cannot change the running kernel.
        Integrity = "integrity",
        /// Nor read secrets out of it.
        Confidentiality = "confidentiality",
    }
}

name_type! {
    /// Name of a kernel module.
    ModuleName, "a module name of letters, digits, '-' and '_', at most 56 long", example "udf",
    |name| (1..=56).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
}

name_type! {
    /// Name of a kernel parameter.
    SysctlName,
    "a kernel parameter of letters, digits, '.', '/', '-' and '_', at most 128 long, without '..' and without '.' or '/' in front", example "vm.max_map_count",
    |name| (1..=128).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"./_-".contains(&c))
        && !name.contains("..")
        && !name.starts_with(['.', '/'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::tests::{check, check_names};
    use serde_json::json;

    #[test]
    fn huge_pages() {
        check_names::<PageSize>(
            &["2Mi", "1Gi", "64Ki", "1024Mi"],
            &[
                "", "2", "3Mi", "2M", "2mi", "02Mi", "Mi", "+2Mi", "0Mi", "2Mi\n", "2 Mi",
            ],
        );
        check::<PageCount>(
            &[
                json!("0"),
                json!("512"),
                json!("0:256"),
                json!("0:256,1:128"),
            ],
            &[
                json!(""),
                json!(512),
                json!("-1"),
                json!("0:256,"),
                json!("0:256,128"),
                json!("512\n"),
                json!("0x10"),
                json!(":1"),
            ],
        );
        let tree = json!({ "essential": true, "2Mi": { "count": "8" } });
        let mut faults = Faults::default();
        let read = StaticHugepages::read(&tree, &mut Key::root(), &mut faults);
        assert_eq!(read.expect("valid").write(), tree);
        let wrong = json!({ "essential": 1, "3Mi": {}, "2Mi": { "count": "x" } });
        StaticHugepages::read(&wrong, &mut Key::root(), &mut faults);
        assert_eq!(faults.iter().count(), 3, "{faults}");
    }

    #[test]
    fn modules_and_parameters() {
        check_names::<ModuleName>(
            &["xfs", "nf_tables", "dm-mod", &"a".repeat(56)],
            &["", "a/b", "..", "a b", "a\n", &"a".repeat(57)],
        );
        check_names::<SysctlName>(
            &[
                "vm.swappiness",
                "net/ipv4/ip_forward",
                "net.ipv4.conf.eth0/1.x",
            ],
            &[
                "",
                ".a",
                "/a",
                "a..b",
                "a b",
                "a=b",
                "a\n",
                &"a".repeat(129),
            ],
        );
    }
}
