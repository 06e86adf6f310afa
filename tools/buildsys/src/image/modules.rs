//! Kernel modules: which of the kernel's an image has, and in what order the
//! initrd loads its own.

use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// The kernel's modules and what each needs, as `depmod` found it.
#[derive(Debug, Default)]
pub struct ModuleIndex {
    /// Module name → path below `usr/lib/modules/<release>/`.
    paths: BTreeMap<String, String>,
    /// Path → paths of what it needs, nearest first.
    needs: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
}

impl ModuleIndex {
    /// Parses `modules.dep` and `modules.builtin`.
    pub fn parse(modules_dep: &str, modules_builtin: &str) -> Result<Self> {
        let mut index = Self::default();
        for line in modules_dep.lines() {
            let (path, needs) = line
                .split_once(':')
                .with_context(|| format!("modules.dep has the line {line:?}"))?;
            index.paths.insert(module_name(path), path.to_string());
            let needs = needs.split_whitespace().map(str::to_string).collect();
            index.needs.insert(path.to_string(), needs);
        }
        index.builtin = modules_builtin.lines().map(module_name).collect();
        Ok(index)
    }

    /// Paths of the modules called `names` and of all that they need.
    ///
    /// A module that the kernel has built in needs no file; one that it does not
    /// have at all is an error.
    pub fn select(&self, names: &[String]) -> Result<BTreeSet<String>> {
        Ok(self.load_order(names)?.into_iter().collect())
    }

    /// The same in an order in which they can be loaded one after the other.
    pub fn load_order(&self, names: &[String]) -> Result<Vec<String>> {
        let mut order = Vec::new();
        let mut unknown = Vec::new();
        for name in names {
            let key = name.replace('-', "_");
            match self.paths.get(&key) {
                Some(path) => {
                    // depmod lists what is needed nearest first, so the last
                    // one needs nothing that stands before it.
                    for needed in self.needs[path].iter().rev().chain([path]) {
                        if !order.contains(needed) {
                            order.push(needed.clone());
                        }
                    }
                }
                None if self.builtin.contains(&key) => {}
                None => unknown.push(name.as_str()),
            }
        }
        if !unknown.is_empty() {
            bail!(
                "the kernel has no module {}: correct `modules` or `init-modules` of the variant",
                unknown.join(", ")
            );
        }
        Ok(order)
    }
}

/// `kernel/fs/erofs/erofs.ko.xz` → `erofs`; the kernel takes `-` and `_` for the
/// same.
pub fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/a-b.ko.xz: kernel/c.ko.xz kernel/d.ko.xz\nkernel/c.ko.xz: kernel/d.ko.xz\nkernel/d.ko.xz:\nkernel/e.ko.xz:\n";

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn needed_modules_come_first_and_once() {
        let index = ModuleIndex::parse(DEP, "kernel/fs/ext4/ext4.ko\n").expect("valid");
        let order = index
            .load_order(&names(&["c", "a_b", "ext4"]))
            .expect("known");
        assert_eq!(
            order,
            ["kernel/d.ko.xz", "kernel/c.ko.xz", "kernel/a-b.ko.xz"]
        );
        assert_eq!(index.select(&names(&["e"])).expect("known").len(), 1);
    }

    #[test]
    fn unknown_modules_are_named() {
        let index = ModuleIndex::parse(DEP, "").expect("valid");
        let error = index
            .select(&names(&["e", "nonesuch"]))
            .expect_err("unknown")
            .to_string();
        assert!(
            error.contains("nonesuch") && !error.contains(" e,"),
            "{error}"
        );
    }
}
