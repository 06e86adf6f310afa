//! The places where platforms put user data.

mod config_drive;
mod ec2;
mod esp;
mod file;
mod fw_cfg;
mod vmware_cd;
mod vmware_guestinfo;

use crate::Source;
use crate::ec2::Metadata;
use settings::{Platform, Variant};

/// The sources that fit the platform of `variant`, in the order in which they are
/// asked: a later one wins. Where nobody knows which variant it is, it is taken
/// for a machine of one's own. `metadata` is asked on EC2 alone.
pub fn of(variant: Option<&Variant>, metadata: &Metadata) -> Vec<Box<dyn Source>> {
    let mut sources: Vec<Box<dyn Source>> = vec![
        Box::new(file::DEFAULTS),
        Box::new(file::USER_DATA),
        Box::new(fw_cfg::FwCfg),
    ];
    match variant.map_or(Platform::Metal, Variant::platform) {
        Platform::Aws => sources.extend(ec2::sources(metadata)),
        Platform::Metal => {
            sources.push(Box::new(esp::Esp));
            sources.push(Box::new(config_drive::ConfigDrive));
        }
        Platform::Vmware => {
            sources.push(Box::new(esp::Esp));
            sources.push(Box::new(vmware_cd::VmwareCd));
            sources.push(Box::new(vmware_guestinfo::VmwareGuestinfo));
        }
    }
    sources.push(Box::new(file::OVERRIDES));
    sources
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::DISC_PATIENCE;
    use std::time::Duration;

    #[test]
    fn only_sources_of_the_platform_are_asked() {
        let metal = "local defaults, local user data, QEMU fw_cfg, EFI system partition, \
                     config drive, local overrides";
        for (variant, expected, waits) in [
            ("", metal, false),
            ("metal-core", metal, false),
            ("metal-k8s-1.36", metal, false),
            (
                "aws-k8s-1.36",
                "local defaults, local user data, QEMU fw_cfg, EC2 identity document, \
                 EC2 user data, local overrides",
                true,
            ),
            (
                "vmware-k8s-1.36",
                "local defaults, local user data, QEMU fw_cfg, EFI system partition, CD, \
                 VMware guestinfo, local overrides",
                false,
            ),
        ] {
            let root = tempfile::tempdir().expect("a folder");
            let variant = Variant::parse(variant).ok();
            let sources = of(variant.as_ref(), &Metadata::of(root.path()));
            let names: Vec<&str> = sources.iter().map(|source| source.name()).collect();
            assert_eq!(names.join(", "), expected);
            let patience: Duration = sources.iter().map(|source| source.patience()).sum();
            // Drives are waited for a moment, a network for longer.
            assert_eq!(patience > DISC_PATIENCE, waits, "{variant:?}");
            if !waits {
                for source in sources {
                    let read = source.read(root.path(), 10).expect("nothing there");
                    assert_eq!(read, None, "{}", source.name());
                }
            }
        }
    }
}
