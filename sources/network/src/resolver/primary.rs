//! The interface that represents the host, for programs that look below
//! `/run/netdog`, and its address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use network::model::Mac;
use sysutil::fs::{read_text_if_present, write_atomic};

const FOLDER: &str = "run/netdog";
const RESOLVER: &str = "/run/resolv.conf";
const CARDS: &str = "sys/class/net";

/// An interface as it is now.
#[derive(Debug, Default)]
pub struct Interface {
    pub mac: Option<Mac>,
    pub addresses: Vec<IpAddr>,
}

/// All interfaces of the host, by name, in the kernel's order.
pub type Interfaces = Vec<(String, Interface)>;

/// Asks the kernel.
pub fn interfaces() -> Result<Interfaces> {
    let entries = nix::ifaddrs::getifaddrs().context("asking for the addresses of the host")?;
    let mut order: BTreeMap<String, usize> = BTreeMap::new();
    let mut interfaces: Interfaces = Vec::new();
    for entry in entries {
        let place = *order
            .entry(entry.interface_name.clone())
            .or_insert(interfaces.len());
        if place == interfaces.len() {
            interfaces.push((entry.interface_name, Interface::default()));
        }
        let interface = &mut interfaces[place].1;
        let Some(address) = entry.address else {
            continue;
        };
        if let Some(link) = address.as_link_addr() {
            interface.mac = link.addr().map(Mac::from);
        } else if let Some(v4) = address.as_sockaddr_in() {
            interface.addresses.push(v4.ip().into());
        } else if let Some(v6) = address.as_sockaddr_in6() {
            interface.addresses.push(v6.ip().into());
        }
    }
    Ok(interfaces)
}

/// Brings what lies below `root` up to date. What is not known yet has no file.
pub fn update(root: &Path, interfaces: &Interfaces) -> Result<()> {
    let folder = root.join(FOLDER);
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let link = folder.join("resolv.conf");
    if link.symlink_metadata().is_err() {
        std::os::unix::fs::symlink(RESOLVER, &link)
            .with_context(|| format!("creating {}", link.display()))?;
    }
    let configured = read_text_if_present(&root.join(network::sources::PRIMARY), 64)?;
    let is_card = |name: &str| root.join(CARDS).join(name).join("device").exists();
    let chosen = choose(interfaces, configured.as_deref(), is_card);
    let name = chosen.map(|(name, _)| name.clone());
    let mac = chosen.and_then(|(_, interface)| Some(interface.mac?.to_string()));
    let address = chosen.and_then(|(_, interface)| address_of(interface));
    for (file, text) in [
        ("primary_interface", name),
        ("primary_mac_address", mac),
        ("current_ip", address.map(|address| address.to_string())),
    ] {
        let path = folder.join(file);
        let before = read_text_if_present(&path, 64)?;
        match text {
            Some(text) if before.as_ref() != Some(&text) => {
                write_atomic(&path, text.as_bytes(), 0o644)?;
            }
            None if before.is_some() => std::fs::remove_file(&path)
                .with_context(|| format!("removing {}", path.display()))?,
            _ => {}
        }
    }
    Ok(())
}

/// The one that the configuration names; on a host without one the first card
/// that has an address.
fn choose<'i>(
    interfaces: &'i Interfaces,
    configured: Option<&str>,
    is_card: impl Fn(&str) -> bool,
) -> Option<&'i (String, Interface)> {
    let Some(wanted) = configured else {
        let mut cards = interfaces.iter().filter(|(name, _)| is_card(name));
        return cards.find(|(_, interface)| address_of(interface).is_some());
    };
    let mac: Option<Mac> = wanted.parse().ok();
    interfaces.iter().find(|(name, interface)| match mac {
        Some(mac) => interface.mac == Some(mac) && is_card(name),
        None => name == wanted,
    })
}

/// The address by which others know the host.
pub fn address_of(interface: &Interface) -> Option<IpAddr> {
    let addresses = || interface.addresses.iter().copied();
    let is_local = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_loopback(),
    };
    addresses()
        .find(|address| address.is_ipv4() && !is_local(*address))
        .or_else(|| addresses().find(|address| !is_local(*address)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// In the order of the kernel: what containers use may come first.
    fn host() -> Interfaces {
        [
            ("lo", "", &["127.0.0.1", "::1"][..]),
            ("veth1", "02:00:00:00:00:09", &["10.1.0.1"]),
            ("eth0", "02:00:00:00:00:01", &["fe80::1"]),
            (
                "eth1",
                "02:00:00:00:00:02",
                &["fe80::2", "2001:db8::2", "169.254.1.1", "192.0.2.2"],
            ),
            ("bond0", "02:00:00:00:00:01", &["fe80::3", "2001:db8::3"]),
        ]
        .into_iter()
        .map(|(name, mac, addresses)| {
            let addresses = addresses.iter().map(|text| text.parse().expect("address"));
            let interface = Interface {
                mac: mac.parse().ok(),
                addresses: addresses.collect(),
            };
            (name.to_owned(), interface)
        })
        .collect()
    }

    fn read(root: &Path, file: &str) -> Option<String> {
        fs::read_to_string(root.join(FOLDER).join(file)).ok()
    }

    #[test]
    fn the_configured_interface_or_the_first_card_with_an_address() {
        for (configured, name, mac, address) in [
            (None, "eth1", "02:00:00:00:00:02", Some("192.0.2.2")),
            (Some("eth0"), "eth0", "02:00:00:00:00:01", None),
            (
                Some("bond0"),
                "bond0",
                "02:00:00:00:00:01",
                Some("2001:db8::3"),
            ),
            // The bond has the address of its member, and is no card.
            (Some("02:00:00:00:00:01"), "eth0", "02:00:00:00:00:01", None),
        ] {
            let root = tempfile::tempdir().expect("folder");
            let root = root.path();
            for card in ["eth0", "eth1"] {
                fs::create_dir_all(root.join(CARDS).join(card).join("device")).expect("folder");
            }
            let path = root.join(network::sources::PRIMARY);
            fs::create_dir_all(path.parent().expect("folder")).expect("folder");
            if let Some(text) = configured {
                fs::write(&path, text).expect("file");
            }
            update(root, &host()).expect("updated");
            assert_eq!(read(root, "primary_interface").as_deref(), Some(name));
            assert_eq!(read(root, "primary_mac_address").as_deref(), Some(mac));
            assert_eq!(
                read(root, "current_ip").as_deref(),
                address,
                "{configured:?}"
            );
            let link = fs::read_link(root.join(FOLDER).join("resolv.conf")).expect("link");
            assert_eq!(link, Path::new(RESOLVER));
            // What goes away leaves nothing behind.
            update(root, &Vec::new()).expect("updated");
            assert_eq!(read(root, "primary_interface"), None);
            assert_eq!(read(root, "current_ip"), None);
        }
    }

    #[test]
    fn the_kernel_names_the_loopback_interface() {
        let interfaces = interfaces().expect("asked");
        let (_, loopback) = interfaces
            .iter()
            .find(|(name, _)| name == "lo")
            .expect("there");
        assert_eq!(address_of(loopback), None);
    }
}
