//! What several interfaces have to agree on.

use std::collections::BTreeMap;

use super::interface::Draft;
use super::node::Reader;
use crate::model::{Id, Kind, Name};

/// Notes which rules `drafts` break.
pub fn check(reader: &mut Reader<'_>, drafts: &[Draft<'_>]) {
    one_primary(reader, drafts);
    no_card_twice(reader, drafts);
    members_belong_to_one_bond(reader, drafts);
    networks_have_a_carrier(reader, drafts);
    every_interface_has_a_use(reader, drafts);
}

fn one_primary(reader: &mut Reader<'_>, drafts: &[Draft<'_>]) {
    let mut primaries = drafts.iter().filter_map(|draft| draft.primary.as_ref());
    let first = primaries.next();
    for node in primaries {
        let other = first.map_or("", |node| &node.key);
        reader.refuse(
            node,
            format!("only one interface can be primary; see {other}"),
        );
    }
}

/// One address may be written in several ways.
fn no_card_twice(reader: &mut Reader<'_>, drafts: &[Draft<'_>]) {
    let mut seen = BTreeMap::new();
    for draft in drafts {
        if let Some(other) = seen.insert(&draft.interface.id, &draft.node.key) {
            reader.refuse(&draft.node, format!("is the same interface as {other}"));
        }
    }
}

fn members_belong_to_one_bond(reader: &mut Reader<'_>, drafts: &[Draft<'_>]) {
    let mut taken: BTreeMap<&Name, &str> = BTreeMap::new();
    for draft in drafts {
        for (member, node) in &draft.members {
            if let Some(bond) = taken.insert(member, &draft.node.key) {
                reader.refuse(node, format!("{member} is a member of {bond} already"));
            }
            if let Some(own) = find(drafts, member) {
                let reason = format!(
                    "is a member of {}, and has no table of its own",
                    draft.node.key
                );
                reader.refuse(&own.node, reason);
            }
        }
    }
    for (device, node) in drafts.iter().filter_map(|draft| draft.device.as_ref()) {
        if let Some(bond) = taken.get(device) {
            let reason = format!("{device} is a member of {bond}; the bond can carry the network");
            reader.refuse(node, reason);
        }
    }
}

fn networks_have_a_carrier(reader: &mut Reader<'_>, drafts: &[Draft<'_>]) {
    let mut seen: BTreeMap<(&Name, u16), &str> = BTreeMap::new();
    for draft in drafts {
        let Some((device, node)) = &draft.device else {
            continue;
        };
        if find(drafts, device).is_some_and(|carrier| carrier.device.is_some()) {
            reader.refuse(
                node,
                format!("{device} is a vlan, which cannot carry another"),
            );
        }
        if let Kind::Vlan(vlan) = &draft.interface.kind
            && let Some(other) = seen.insert((device, vlan.id), &draft.node.key)
        {
            let reason = format!("{other} is the network {} of {device} already", vlan.id);
            reader.refuse(&draft.node, reason);
        }
    }
}

/// Addresses, or networks that it carries.
fn every_interface_has_a_use(reader: &mut Reader<'_>, drafts: &[Draft<'_>]) {
    let devices = || drafts.iter().filter_map(|draft| draft.device.as_ref());
    for draft in drafts {
        let carries = |(device, _): &(Name, _)| is_named(draft, device);
        if !draft.addressed && !devices().any(carries) {
            let reason = match reader.version {
                1 => "needs dhcp4 or dhcp6",
                _ => "needs dhcp4, dhcp6, static4 or static6",
            };
            reader.refuse(&draft.node, reason);
        }
    }
}

fn find<'s, 'd>(drafts: &'s [Draft<'d>], name: &Name) -> Option<&'s Draft<'d>> {
    drafts.iter().find(|draft| is_named(draft, name))
}

fn is_named(draft: &Draft<'_>, name: &Name) -> bool {
    matches!(&draft.interface.id, Id::Name(own) if own == name)
}
