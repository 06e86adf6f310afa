//! The table of one interface.

use std::net::IpAddr;

use super::node::{Field, Node, Reader, get};
use crate::model::{
    Bond, Destination, Dhcp, Id, Interface, Kind, Mac, Monitoring, Name, Prefix, Route, Vlan,
};

/// What any interface may have.
const ANY: &[Field] = &[
    ("primary", 1),
    ("dhcp4", 1),
    ("dhcp6", 1),
    ("static4", 2),
    ("static6", 2),
    ("route", 2),
    ("kind", 3),
];
// What is inside of something new needs no version of its own.
const BOND: &[Field] = &[
    ("mode", 1),
    ("interfaces", 1),
    ("min-links", 1),
    ("monitoring", 1),
];
const VLAN: &[Field] = &[("device", 1), ("id", 1)];
const DHCP4: &[Field] = &[("enabled", 1), ("optional", 1), ("route-metric", 1)];
const DHCP6: &[Field] = &[("enabled", 1), ("optional", 1)];
const STATIC: &[Field] = &[("addresses", 1)];
const ROUTE: &[Field] = &[("to", 1), ("from", 1), ("via", 1), ("route-metric", 1)];
const BY_LINK: &[Field] = &[
    ("miimon-frequency-ms", 1),
    ("miimon-updelay-ms", 1),
    ("miimon-downdelay-ms", 1),
];
const BY_ARP: &[Field] = &[
    ("arpmon-interval-ms", 1),
    ("arpmon-validate", 1),
    ("arpmon-targets", 1),
];

/// How many targets the kernel takes.
const MOST_TARGETS: usize = 16;

/// Networkd counts milliseconds and the kernel keeps a signed number.
const MOST_MILLISECONDS: u32 = i32::MAX as u32;

/// An interface as far as it could be read, and where things stand that have to
/// agree with other interfaces. It is worth something only if nothing was wrong.
pub struct Draft<'d> {
    pub interface: Interface,
    pub node: Node<'d>,
    /// The key `primary`, if it is true.
    pub primary: Option<Node<'d>>,
    /// Members of the bond.
    pub members: Vec<(Name, Node<'d>)>,
    /// What carries the tagged network.
    pub device: Option<(Name, Node<'d>)>,
    /// Some key asks for addresses, be it right or wrong, or may have been meant to.
    pub addressed: bool,
}

/// Reads the table at `node`. `None` if nothing can be said about it.
pub fn read<'d>(reader: &mut Reader<'d>, node: Node<'d>) -> Option<Draft<'d>> {
    let id = id(reader, &node);
    if !node.is_table() {
        let reason = "expected the table of an interface; besides them there is version only";
        reader.refuse(&node, reason);
        return None;
    }
    let before = reader.faults.len();
    // What the table may have depends on what it is.
    let kind = kind_of(reader, &node);
    let entries = match kind {
        Some("bond") => reader.table(&node, &[ANY, BOND]),
        Some("vlan") => reader.table(&node, &[ANY, VLAN]),
        _ => reader.table(&node, &[ANY]),
    };
    let is_odd = reader.faults.len() > before;
    if let (Some(kind), Some(Id::Mac(_))) = (kind, &id) {
        let reason = format!("a {kind} is made by the host and has a name, not an address");
        reader.refuse(&node, reason);
    }
    let mut draft = Draft {
        interface: Interface {
            // The rest of the table is read even if nobody knows whose it is.
            id: id.clone().unwrap_or(Id::Mac(Mac::default())),
            primary: false,
            dhcp4: None,
            dhcp6: None,
            addresses: Vec::new(),
            routes: Vec::new(),
            kind: Kind::Card,
        },
        node,
        primary: None,
        members: Vec::new(),
        device: None,
        addressed: is_odd,
    };
    if let Some(node) = get(&entries, "primary")
        && reader.switch(node) == Some(true)
    {
        draft.interface.primary = true;
        draft.primary = Some(node.clone());
    }
    addresses(reader, &entries, &mut draft);
    let made = match kind {
        Some("bond") => bond(reader, &entries, &mut draft).map(Kind::Bond),
        Some("vlan") => vlan(reader, &entries, &mut draft).map(Kind::Vlan),
        _ => None,
    };
    draft.interface.kind = made.unwrap_or(Kind::Card);
    id.map(|_| draft)
}

fn id(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Id> {
    if !Mac::is_meant_by(node.name) {
        return match node.name.parse() {
            Ok(name) => Some(Id::Name(name)),
            Err(reason) => {
                reader.refuse(node, reason);
                None
            }
        };
    }
    if reader.version < 3 {
        let reason = format!(
            "hardware addresses as names are known since version 3, and this text says \
             version = {}",
            reader.version
        );
        reader.refuse(node, reason);
    }
    match node.name.parse() {
        Ok(mac) => Some(Id::Mac(mac)),
        Err(reason) => {
            reader.refuse(node, reason);
            None
        }
    }
}

fn kind_of<'d>(reader: &mut Reader<'d>, node: &Node<'d>) -> Option<&'static str> {
    let entries = reader.entries_of(node);
    reader.word(get(&entries, "kind")?, &["bond", "vlan"])
}

/// Leases, static addresses and routes.
fn addresses<'d>(reader: &mut Reader<'d>, entries: &[Node<'d>], draft: &mut Draft<'d>) {
    let interface = &mut draft.interface;
    for (name, fields) in [("dhcp4", DHCP4), ("dhcp6", DHCP6)] {
        let Some(node) = get(entries, name) else {
            continue;
        };
        let before = reader.faults.len();
        let lease = dhcp(reader, node, fields);
        draft.addressed |= lease.is_some() || reader.faults.len() > before;
        match name {
            "dhcp4" => interface.dhcp4 = lease,
            _ => interface.dhcp6 = lease,
        }
    }
    for (name, is_v4) in [("static4", true), ("static6", false)] {
        let Some(node) = get(entries, name) else {
            continue;
        };
        draft.addressed = true;
        interface
            .addresses
            .extend(static_addresses(reader, node, is_v4));
    }
    let Some(node) = get(entries, "route") else {
        return;
    };
    let is_static = ["static4", "static6"]
        .iter()
        .any(|name| get(entries, name).is_some());
    if !is_static {
        reader.refuse(node, "routes need static4 or static6 beside them");
    } else if interface.dhcp4.is_some() || interface.dhcp6.is_some() {
        reader.refuse(node, "routes cannot be combined with dhcp4 or dhcp6");
    }
    for node in reader.list(node) {
        interface.routes.extend(route(reader, &node));
    }
}

fn dhcp<'d>(reader: &mut Reader<'d>, node: &Node<'d>, fields: &[Field]) -> Option<Dhcp> {
    if !node.is_table() {
        return reader.switch(node)?.then(Dhcp::default);
    }
    let entries = reader.table(node, &[fields]);
    let enabled = match get(&entries, "enabled") {
        Some(node) => reader.switch(node),
        None => reader.missing(node, "enabled = true or false"),
    };
    let lease = Dhcp {
        optional: get(&entries, "optional")
            .and_then(|node| reader.switch(node))
            .unwrap_or(false),
        metric: metric(reader, &entries),
    };
    enabled?.then_some(lease)
}

fn metric<'d>(reader: &mut Reader<'d>, entries: &[Node<'d>]) -> Option<u32> {
    reader.number(get(entries, "route-metric")?, 0..=u32::MAX)
}

fn static_addresses<'d>(reader: &mut Reader<'d>, node: &Node<'d>, is_v4: bool) -> Vec<Prefix> {
    let entries = reader.table(node, &[STATIC]);
    let Some(list) = get(&entries, "addresses") else {
        if node.is_table() {
            reader.missing::<()>(node, "addresses = [\"192.0.2.7/24\"] or the like");
        }
        return Vec::new();
    };
    let before = reader.faults.len();
    let elements = reader.list(list);
    if elements.is_empty() && reader.faults.len() == before {
        reader.refuse(list, "needs at least one address");
    }
    let mut addresses: Vec<Prefix> = Vec::new();
    for element in elements {
        let Some(prefix) = reader.parsed::<Prefix>(&element) else {
            continue;
        };
        if prefix.address.is_ipv4() != is_v4 {
            let family = if is_v4 { "an IPv4" } else { "an IPv6" };
            reader.refuse(&element, format!("expected {family} address"));
        } else if prefix.address.is_unspecified() || prefix.address.is_multicast() {
            reader.refuse(&element, "is not an address that a host can have");
        } else if addresses.contains(&prefix) {
            reader.refuse(&element, "is there twice");
        }
        addresses.push(prefix);
    }
    addresses
}

fn route<'d>(reader: &mut Reader<'d>, node: &Node<'d>) -> Option<Route> {
    let entries = reader.table(node, &[ROUTE]);
    if !node.is_table() {
        return None;
    }
    let to = match get(&entries, "to") {
        Some(node) if reader.text(node)? == "default" => Some((Destination::Default, None)),
        Some(node) => reader.parsed::<Prefix>(node).map(|prefix| {
            let network = Destination::Network(prefix.network());
            (network, Some(prefix.address))
        }),
        None => reader.missing(node, "to = \"default\" or a network"),
    };
    let address = |reader: &mut Reader<'d>, name| {
        let node = get(&entries, name)?;
        let address: IpAddr = reader.address(node)?;
        if address.is_unspecified() || address.is_multicast() {
            reader.refuse(node, "is not an address that a host can have");
        }
        Some(address)
    };
    let via = address(reader, "via");
    let from = address(reader, "from");
    let metric = metric(reader, &entries);
    let (to, destination) = to?;
    let mut families = [destination, via, from].into_iter().flatten();
    if let Some(first) = families.next()
        && families.any(|other| other.is_ipv4() != first.is_ipv4())
    {
        reader.refuse(node, "to, via and from must be all IPv4 or all IPv6");
    }
    Some(Route {
        to,
        via,
        from,
        metric,
    })
}

fn bond<'d>(reader: &mut Reader<'d>, entries: &[Node<'d>], draft: &mut Draft<'d>) -> Option<Bond> {
    let node = &draft.node;
    match get(entries, "mode") {
        Some(mode) => drop(reader.word(mode, &["active-backup"])),
        None => drop(reader.missing::<()>(node, "mode = \"active-backup\"")),
    }
    match get(entries, "interfaces") {
        Some(list) => {
            let before = reader.faults.len();
            let elements = reader.list(list);
            if elements.is_empty() && reader.faults.len() == before {
                reader.refuse(list, "needs at least one interface");
            }
            for element in elements {
                let Some(name) = reader.parsed::<Name>(&element) else {
                    continue;
                };
                draft.members.push((name, element));
            }
        }
        None => drop(reader.missing::<()>(node, "interfaces = [\"eth0\", \"eth1\"] or the like")),
    }
    let min_links = get(entries, "min-links").and_then(|node| {
        let links = reader.number(node, 0..=u32::MAX)?;
        let members = draft.members.len();
        if links as usize > members && members > 0 {
            reader.refuse(node, format!("the bond has {members} interfaces only"));
        }
        Some(links)
    });
    let monitoring = match get(entries, "monitoring") {
        Some(node) => monitoring(reader, node),
        None => reader.missing(
            node,
            "a table monitoring with miimon-frequency-ms and so on; without it no failure \
             would be seen",
        ),
    };
    Some(Bond {
        members: draft.members.iter().map(|(name, _)| name.clone()).collect(),
        min_links,
        monitoring: monitoring?,
    })
}

fn monitoring<'d>(reader: &mut Reader<'d>, node: &Node<'d>) -> Option<Monitoring> {
    let entries = reader.table(node, &[BY_LINK, BY_ARP]);
    if !node.is_table() {
        return None;
    }
    let any = |fields: &[Field]| fields.iter().any(|(name, _)| get(&entries, name).is_some());
    match (any(BY_LINK), any(BY_ARP)) {
        (true, true) => {
            reader.refuse(node, "a bond watches by miimon or by arpmon, not by both");
            None
        }
        (false, false) => reader.missing(
            node,
            "miimon-frequency-ms, miimon-updelay-ms and miimon-downdelay-ms, or \
             arpmon-interval-ms, arpmon-validate and arpmon-targets",
        ),
        (true, false) => {
            let [interval, up_delay, down_delay] = BY_LINK else {
                return None;
            };
            let mut time = |(name, _): &Field, least| match get(&entries, name) {
                Some(node) => reader.number(node, least..=MOST_MILLISECONDS),
                None => reader.missing(node, name),
            };
            let (interval, up, down) = (time(interval, 1), time(up_delay, 0), time(down_delay, 0));
            Some(Monitoring::Link {
                interval: interval?,
                up_delay: up?,
                down_delay: down?,
            })
        }
        (false, true) => {
            let interval = match get(&entries, "arpmon-interval-ms") {
                Some(node) => reader.number(node, 1..=MOST_MILLISECONDS),
                None => reader.missing(node, "arpmon-interval-ms"),
            };
            let validate = match get(&entries, "arpmon-validate") {
                Some(node) => reader.word(node, &["active", "all", "backup", "none"]),
                None => reader.missing(node, "arpmon-validate"),
            };
            let targets = match get(&entries, "arpmon-targets") {
                Some(node) => arp_targets(reader, node),
                None => reader.missing(node, "arpmon-targets")?,
            };
            Some(Monitoring::Arp {
                interval: interval?,
                validate: validate?,
                targets,
            })
        }
    }
}

fn arp_targets<'d>(reader: &mut Reader<'d>, node: &Node<'d>) -> Vec<std::net::Ipv4Addr> {
    let before = reader.faults.len();
    let elements = reader.list(node);
    if !(1..=MOST_TARGETS).contains(&elements.len()) && reader.faults.len() == before {
        let reason = format!("needs 1 to {MOST_TARGETS} addresses");
        reader.refuse(node, reason);
    }
    let mut targets = Vec::new();
    for element in elements {
        match reader.address(&element) {
            Some(IpAddr::V4(v4)) => targets.push(v4),
            Some(IpAddr::V6(_)) => reader.refuse(&element, "expected an IPv4 address"),
            None => {}
        }
    }
    targets
}

fn vlan<'d>(reader: &mut Reader<'d>, entries: &[Node<'d>], draft: &mut Draft<'d>) -> Option<Vlan> {
    let device: Option<Name> = match get(entries, "device") {
        Some(node) => {
            let name = reader.parsed::<Name>(node);
            draft.device = name.clone().map(|name| (name, node.clone()));
            name
        }
        None => reader.missing(
            &draft.node,
            "device, the interface that carries the network",
        ),
    };
    let id = match get(entries, "id") {
        Some(node) => reader.number(node, 0..=4094),
        None => reader.missing(&draft.node, "id, the tag of the network"),
    };
    Some(Vlan {
        device: device?,
        id: u16::try_from(id?).ok()?,
    })
}
