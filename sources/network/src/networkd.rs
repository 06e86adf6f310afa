//! A configuration as units of networkd: names of files and their texts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use crate::model::{
    Bond, Configuration, Destination, Id, Interface, Kind, Monitoring, Name, Prefix, Route, Vlan,
};

/// The unit of the image for hosts that nobody has configured. An empty file of
/// its name in a nearer folder takes it out of use.
const DEFAULT_UNIT: &str = "80-ethernet.network";

/// What every network has, for addresses arrive in no other way than was asked.
const QUIET: &str = "LLDP=no\nEmitLLDP=no\nLLMNR=no\nMulticastDNS=no\n";

/// Addresses that were leased outlive networkd. It stops beside everything else when the
/// host goes down, and what others still have to say then, such as that they are going
/// down, must get out; a restart of it must not cut the connections of pods.
const KEEP: &str = "KeepConfiguration=dynamic-on-stop\n";

/// The files of `configuration`, by name.
pub fn render(configuration: &Configuration) -> BTreeMap<String, String> {
    let interfaces = configuration.interfaces();
    let mut carried: BTreeMap<&Name, Vec<&Name>> = BTreeMap::new();
    let mut files = BTreeMap::from([(DEFAULT_UNIT.to_owned(), String::new())]);
    let mut named = BTreeSet::new();
    for interface in interfaces {
        let Id::Name(name) = &interface.id else {
            continue;
        };
        named.insert(name);
        match &interface.kind {
            Kind::Card => {}
            Kind::Bond(bond) => {
                files.insert(format!("10-{name}.netdev"), bond_device(name, bond));
                for (n, member) in bond.members.iter().enumerate() {
                    let text = member_network(member, name, n == 0);
                    files.insert(format!("10-{member}.network"), text);
                }
            }
            Kind::Vlan(vlan) => {
                carried.entry(&vlan.device).or_default().push(name);
                files.insert(format!("10-{name}.netdev"), vlan_device(name, vlan));
            }
        }
    }
    for interface in interfaces {
        let (file, carries) = match &interface.id {
            Id::Name(name) => (format!("10-{name}.network"), carried.get(name)),
            Id::Mac(mac) => (format!("10-mac-{}.network", mac.digits()), None),
        };
        let carries = carries.map_or(&[][..], Vec::as_slice);
        files.insert(file, network(interface, carries));
    }
    for (device, carries) in &carried {
        if !named.contains(device) {
            files.insert(format!("10-{device}.network"), carrier(device, carries));
        }
    }
    files
}

fn network(interface: &Interface, carries: &[&Name]) -> String {
    let mut text = String::new();
    match &interface.id {
        Id::Name(name) => section(&mut text, "Match", &format!("Name={name}\n")),
        // What is made of a card may have taken its address over.
        Id::Mac(mac) => section(&mut text, "Match", &format!("MACAddress={mac}\nKind=!*\n")),
    }
    section(&mut text, "Link", &online(interface));
    let is_used = has_addresses(interface);
    let dhcp = match (&interface.dhcp4, &interface.dhcp6) {
        (Some(_), Some(_)) => "yes",
        (Some(_), None) => "ipv4",
        (None, Some(_)) => "ipv6",
        (None, None) => "no",
    };
    let mut lines = format!("DHCP={dhcp}\n");
    if is_used {
        lines.push_str(KEEP);
        lines.push_str("IPv6AcceptRA=yes\n");
    } else {
        lines.push_str("IPv6AcceptRA=no\nLinkLocalAddressing=no\n");
    }
    lines.push_str(QUIET);
    for address in &interface.addresses {
        let _ = writeln!(lines, "Address={address}");
    }
    push_networks(&mut lines, carries);
    section(&mut text, "Network", &lines);
    if let Some(lease) = &interface.dhcp4 {
        let mut lines = "ClientIdentifier=mac\nUseMTU=yes\nUseHostname=no\n".to_owned();
        if let Some(metric) = lease.metric {
            let _ = writeln!(lines, "RouteMetric={metric}");
        }
        section(&mut text, "DHCPv4", &lines);
    }
    if interface.dhcp6.is_some() {
        section(&mut text, "DHCPv6", "UseHostname=no\nWithoutRA=solicit\n");
    } else if is_used {
        // A router may offer leases that nobody here wants.
        section(&mut text, "IPv6AcceptRA", "DHCPv6Client=no\n");
    }
    for route in &interface.routes {
        for lines in route_sections(route, &interface.addresses) {
            section(&mut text, "Route", &lines);
        }
    }
    text
}

fn has_addresses(interface: &Interface) -> bool {
    interface.dhcp4.is_some() || interface.dhcp6.is_some() || !interface.addresses.is_empty()
}

/// What has to be there for the host to count as online.
fn online(interface: &Interface) -> String {
    let is_static = |v4| {
        let mut addresses = interface.addresses.iter();
        addresses.any(|prefix| prefix.address.is_ipv4() == v4)
    };
    let is_leased = |lease: &Option<_>| {
        let lease: Option<&crate::model::Dhcp> = lease.as_ref();
        lease.is_some_and(|lease| !lease.optional)
    };
    let v4 = is_static(true) || is_leased(&interface.dhcp4);
    let v6 = is_static(false) || is_leased(&interface.dhcp6);
    match (v4, v6) {
        (true, true) => "RequiredFamilyForOnline=both\n",
        (true, false) => "RequiredFamilyForOnline=ipv4\n",
        (false, true) => "RequiredFamilyForOnline=ipv6\n",
        (false, false) => "RequiredForOnline=no\n",
    }
    .to_owned()
}

/// The lines of a route, once for each family that it is meant for.
fn route_sections(route: &Route, own: &[Prefix]) -> Vec<String> {
    let everywhere = |address: IpAddr| match address {
        IpAddr::V4(_) => "0.0.0.0/0".to_owned(),
        IpAddr::V6(_) => "::/0".to_owned(),
    };
    let destinations: BTreeSet<String> = match (&route.to, route.via.or(route.from)) {
        (Destination::Network(network), _) => BTreeSet::from([network.to_string()]),
        (Destination::Default, Some(address)) => BTreeSet::from([everywhere(address)]),
        (Destination::Default, None) => own
            .iter()
            .map(|prefix| everywhere(prefix.address))
            .collect(),
    };
    let mut rest = String::new();
    if let Some(via) = route.via {
        let _ = writeln!(rest, "Gateway={via}");
        // A gateway outside of the interface's own networks can only be meant as
        // one that is on the link all the same.
        if !own.iter().any(|network| network.contains(via)) {
            rest.push_str("GatewayOnLink=yes\n");
        }
    }
    if let Some(from) = route.from {
        let _ = writeln!(rest, "PreferredSource={from}");
    }
    if let Some(metric) = route.metric {
        let _ = writeln!(rest, "Metric={metric}");
    }
    let lines = |destination| format!("Destination={destination}\n{rest}");
    destinations.into_iter().map(lines).collect()
}

fn member_network(member: &Name, bond: &Name, is_preferred: bool) -> String {
    let mut text = String::new();
    section(&mut text, "Match", &format!("Name={member}\n"));
    section(&mut text, "Link", "RequiredForOnline=no\n");
    let mut lines = format!("Bond={bond}\n");
    if is_preferred {
        lines.push_str("PrimarySlave=yes\n");
    }
    section(&mut text, "Network", &lines);
    text
}

/// Something that is there for the sake of the networks on it alone.
fn carrier(device: &Name, carries: &[&Name]) -> String {
    let mut text = String::new();
    section(&mut text, "Match", &format!("Name={device}\n"));
    section(&mut text, "Link", "RequiredForOnline=no\n");
    let mut lines = format!("DHCP=no\nIPv6AcceptRA=no\nLinkLocalAddressing=no\n{QUIET}");
    push_networks(&mut lines, carries);
    section(&mut text, "Network", &lines);
    text
}

fn push_networks(lines: &mut String, carries: &[&Name]) {
    for name in carries {
        let _ = writeln!(lines, "VLAN={name}");
    }
}

fn bond_device(name: &Name, bond: &Bond) -> String {
    let mut text = String::new();
    section(&mut text, "NetDev", &format!("Name={name}\nKind=bond\n"));
    let mut lines = "Mode=active-backup\n".to_owned();
    if let Some(links) = bond.min_links {
        let _ = writeln!(lines, "MinLinks={links}");
    }
    match &bond.monitoring {
        Monitoring::Link {
            interval,
            up_delay,
            down_delay,
        } => {
            let _ = writeln!(lines, "MIIMonitorSec={interval}ms");
            let _ = writeln!(lines, "UpDelaySec={up_delay}ms");
            let _ = writeln!(lines, "DownDelaySec={down_delay}ms");
        }
        Monitoring::Arp {
            interval,
            validate,
            targets,
        } => {
            let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
            let _ = writeln!(lines, "ARPIntervalSec={interval}ms");
            let _ = writeln!(lines, "ARPValidate={validate}");
            let _ = writeln!(lines, "ARPIPTargets={}", targets.join(" "));
        }
    }
    section(&mut text, "Bond", &lines);
    text
}

fn vlan_device(name: &Name, vlan: &Vlan) -> String {
    let mut text = String::new();
    section(&mut text, "NetDev", &format!("Name={name}\nKind=vlan\n"));
    section(&mut text, "VLAN", &format!("Id={}\n", vlan.id));
    text
}

fn section(text: &mut String, name: &str, lines: &str) {
    let gap = if text.is_empty() { "" } else { "\n" };
    let _ = write!(text, "{gap}[{name}]\n{lines}");
}
