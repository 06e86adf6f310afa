use super::*;
use crate::properties;
use proptest::prelude::*;

fn faults(text: &str) -> Vec<String> {
    match parse(text.as_bytes()) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(ToString::to_string).collect(),
    }
}

const BOND: &str = "[bond0]\nkind = \"bond\"\nmode = \"active-backup\"\ndhcp4 = true\n";
const WATCHED: &str = "monitoring = { miimon-frequency-ms = 100, miimon-updelay-ms = 0, \
                       miimon-downdelay-ms = 0 }\n";

#[test]
fn nothing_is_no_configuration() {
    for text in ["", " \n\t\n"] {
        assert_eq!(parse(text.as_bytes()), Ok(None));
    }
}

#[test]
fn the_first_interface_is_primary_unless_one_says_so() {
    for (text, primary) in [
        ("[b]\ndhcp4 = true\n[a]\ndhcp4 = true\n", "b"),
        (
            "[b]\ndhcp4 = true\n[a]\ndhcp4 = true\nprimary = true\n",
            "a",
        ),
        (
            "[b]\ndhcp4 = true\nprimary = false\n[a]\ndhcp4 = true\n",
            "b",
        ),
    ] {
        let read = parse(format!("version = 1\n{text}").as_bytes());
        let configuration = read.expect("valid").expect("present");
        assert_eq!(configuration.primary().id.to_string(), primary, "{text}");
    }
}

/// What is wrong, in all versions; line 1 of each text is its version.
#[test]
fn each_mistake_is_told_with_its_line_and_key() {
    for (version, text, expected) in [
        (1, "", "line 1: no interface is configured"),
        (1, "[eth0]\n", "line 2: eth0: needs dhcp4 or dhcp6"),
        (
            2,
            "[eth0]\n",
            "line 2: eth0: needs dhcp4, dhcp6, static4 or static6",
        ),
        (1, "[eth0]\ndhcp4 = false\n", "line 2: eth0: needs dhcp4"),
        (
            1,
            "eth0 = 1\n",
            "line 2: eth0: expected the table of an interface",
        ),
        (
            1,
            "[eth0]\ndhcp = true\n",
            "line 3: eth0.dhcp: unknown key; did you mean dhcp4?",
        ),
        (
            1,
            "[eth0]\ndhcp4 = 1\n",
            "line 3: eth0.dhcp4: expected true or false, got 1",
        ),
        (1, "[eth0.dhcp4]\n", "line 2: eth0.dhcp4: lacks enabled"),
        (
            1,
            "[eth0.dhcp6]\nenabled = true\nroute-metric = 1\n",
            "line 4: eth0.dhcp6.route-metric: unknown key",
        ),
        (
            1,
            "[eth0.dhcp4]\nenabled = true\nroute-metric = -1\n",
            "line 4: eth0.dhcp4.route-metric: expected a whole number from 0 to 4294967295, got -1",
        ),
        (
            1,
            "[eth0.10]\ndhcp4 = true\n",
            "line 2: eth0.10: unknown key; a name with a dot is written in quotes, [\"eth0.10\"]",
        ),
        (
            1,
            "[eth0]\nstatic4 = { addresses = [\"192.0.2.7/24\"] }\n",
            "line 3: eth0.static4: known since version 2, and this text says version = 1",
        ),
        (
            1,
            "[an-interface-name]\ndhcp4 = true\n",
            "line 2: an-interface-name: the name of an interface has 1 to 15 characters",
        ),
        (
            1,
            "[a]\ndhcp4 = true\nprimary = true\n[b]\ndhcp4 = true\nprimary = true\n",
            "line 7: b.primary: only one interface can be primary; see a.primary",
        ),
        (
            2,
            "[v]\nkind = \"vlan\"\ndevice = \"e\"\nid = 1\ndhcp4 = true\n",
            "line 3: v.kind: known since version 3",
        ),
        (
            2,
            "[\"52:54:00:12:34:56\"]\ndhcp4 = true\n",
            "line 2: \"52:54:00:12:34:56\": hardware addresses as names are known since version 3",
        ),
        (
            2,
            "[eth0]\nstatic4 = { addresses = [\"192.0.2.7\"] }\n",
            "line 3: eth0.static4.addresses[0]: expected an address with its prefix",
        ),
        (
            2,
            "[eth0]\nstatic4 = { addresses = [\n\"192.0.2.7/24\",\n\"2001:db8::7/64\"] }\n",
            "line 5: eth0.static4.addresses[1]: expected an IPv4 address",
        ),
        (
            2,
            "[eth0]\nstatic6 = { addresses = [\"192.0.2.7/24\"] }\n",
            "line 3: eth0.static6.addresses[0]: expected an IPv6 address",
        ),
        (
            2,
            "[eth0]\nstatic6 = { addresses = [] }\n",
            "line 3: eth0.static6.addresses: needs at least one address",
        ),
        (
            2,
            "[eth0]\nstatic4 = { addresses = [\"192.0.2.7/24\", \"192.0.2.7/24\"] }\n",
            "line 3: eth0.static4.addresses[1]: is there twice",
        ),
        (
            2,
            "[eth0]\nstatic4 = {}\n",
            "line 3: eth0.static4: lacks addresses",
        ),
        (
            2,
            "[eth0]\ndhcp4 = true\n[[eth0.route]]\nto = \"default\"\n",
            "line 4: eth0.route: routes need static4 or static6 beside them",
        ),
        (
            2,
            "[eth0]\ndhcp6 = true\nstatic4 = { addresses = [\"192.0.2.7/24\"] }\n[[eth0.route]]\nto = \"default\"\n",
            "line 5: eth0.route: routes cannot be combined with dhcp4 or dhcp6",
        ),
        (
            2,
            "[eth0]\nstatic4 = { addresses = [\"192.0.2.7/24\"] }\n[[eth0.route]]\nvia = \"192.0.2.1\"\n",
            "line 4: eth0.route[0]: lacks to",
        ),
        (
            2,
            "[eth0]\nstatic4 = { addresses = [\"192.0.2.7/24\"] }\n[[eth0.route]]\nto = \"default\"\nvia = \"192.0.2.1\"\nfrom = \"2001:db8::7\"\n",
            "line 4: eth0.route[0]: to, via and from must be all IPv4 or all IPv6",
        ),
        (
            2,
            "[eth0]\nstatic4 = { addresses = [\"192.0.2.7/24\"] }\n[[eth0.route]]\nto = \"everywhere\"\n",
            "line 5: eth0.route[0].to: expected an address with its prefix",
        ),
        (
            3,
            "[eth0]\nkind = \"bridge\"\ndhcp4 = true\n",
            "line 3: eth0.kind: is not one of bond, vlan",
        ),
        (
            3,
            "[\"52:54:00:12:34\"]\ndhcp4 = true\n",
            "line 2: \"52:54:00:12:34\": a hardware address is written as",
        ),
        (
            3,
            "[\"52:54:00:12:34:5a\"]\ndhcp4 = true\n[\"52:54:00:12:34:5A\"]\ndhcp4 = true\n",
            "line 4: \"52:54:00:12:34:5A\": is the same interface as \"52:54:00:12:34:5a\"",
        ),
        (
            3,
            "[v]\nkind = \"vlan\"\ndevice = \"eth0\"\nid = 4095\ndhcp4 = true\n",
            "line 5: v.id: expected a whole number from 0 to 4094, got 4095",
        ),
        (
            3,
            "[v]\nkind = \"vlan\"\nid = 1\ndhcp4 = true\n",
            "line 2: v: lacks device",
        ),
        (
            3,
            "[v]\nkind = \"vlan\"\ndevice = \"v\"\nid = 1\ndhcp4 = true\n",
            "line 4: v.device: v is a vlan, which cannot carry another",
        ),
        (
            3,
            "[v]\nkind = \"vlan\"\ndevice = \"e\"\nid = 1\ndhcp4 = true\n[w]\nkind = \"vlan\"\ndevice = \"e\"\nid = 1\ndhcp4 = true\n",
            "line 7: w: v is the network 1 of e already",
        ),
        (
            3,
            "[v]\nkind = \"vlan\"\ndevice = \"e\"\nid = 1\nmode = \"active-backup\"\ndhcp4 = true\n",
            "line 6: v.mode: unknown key",
        ),
        (
            3,
            "[\"52:54:00:12:34:56\"]\nkind = \"vlan\"\ndevice = \"e\"\nid = 1\ndhcp4 = true\n",
            "line 2: \"52:54:00:12:34:56\": a vlan is made by the host",
        ),
    ] {
        let told = faults(&format!("version = {version}\n{text}"));
        assert_eq!(told.len(), 1, "{text}\n{told:#?}");
        assert!(told[0].starts_with(expected), "{text}\n{told:#?}");
    }
}

#[test]
fn mistakes_in_bonds_are_told() {
    let arp = |rest: &str| {
        format!("interfaces = [\"a\"]\n[bond0.monitoring]\narpmon-interval-ms = 1\n{rest}")
    };
    let targets = |count: usize| {
        let list = vec!["\"192.0.2.1\""; count].join(", ");
        arp(&format!(
            "arpmon-validate = \"none\"\narpmon-targets = [{list}]\n"
        ))
    };
    let watched = |rest: &str| format!("{WATCHED}{rest}");
    for (text, expected) in [
        (watched(""), "line 2: bond0: lacks interfaces"),
        (watched("interfaces = []\n"), "line 7: bond0.interfaces: needs at least one interface"),
        (watched("interfaces = [\"a\", \"a\"]\n"), "line 7: bond0.interfaces[1]: a is a member of bond0 already"),
        (watched("interfaces = [\"a\"]\nmin-links = 2\n"), "line 8: bond0.min-links: the bond has 1 interfaces only"),
        (watched("interfaces = [\"a\"]\n[a]\ndhcp4 = true\n"), "line 8: a: is a member of bond0, and has no table of its own"),
        (watched("interfaces = [\"a\"]\n[v]\nkind = \"vlan\"\ndevice = \"a\"\nid = 1\ndhcp4 = true\n"), "line 10: v.device: a is a member of bond0"),
        ("interfaces = [\"a\"]\n".into(), "line 2: bond0: lacks a table monitoring"),
        ("interfaces = [\"a\"]\nmonitoring = {}\n".into(), "line 7: bond0.monitoring: lacks miimon-frequency-ms"),
        ("interfaces = [\"a\"]\nmonitoring = { miimon-frequency-ms = 1, miimon-updelay-ms = 0 }\n".into(), "line 7: bond0.monitoring: lacks miimon-downdelay-ms"),
        ("interfaces = [\"a\"]\nmonitoring = { miimon-frequency-ms = 0, miimon-updelay-ms = 0, miimon-downdelay-ms = 0 }\n".into(), "line 7: bond0.monitoring.miimon-frequency-ms: expected a whole number from 1"),
        (arp("miimon-updelay-ms = 1\n"), "line 7: bond0.monitoring: a bond watches by miimon or by arpmon, not by both"),
        (arp("arpmon-validate = \"al\"\narpmon-targets = [\"192.0.2.1\"]\n"), "line 9: bond0.monitoring.arpmon-validate: is not one of active, all, backup, none; did you mean \"all\"?"),
        (arp("arpmon-validate = \"all\"\narpmon-targets = [\"::1\"]\n"), "line 10: bond0.monitoring.arpmon-targets[0]: expected an IPv4 address"),
        (targets(0), "line 10: bond0.monitoring.arpmon-targets: needs 1 to 16 addresses"),
        (targets(17), "line 10: bond0.monitoring.arpmon-targets: needs 1 to 16 addresses"),
    ] {
        let told = faults(&format!("version = 3\n{BOND}{text}"));
        assert_eq!(told.len(), 1, "{text}\n{told:#?}");
        assert!(told[0].starts_with(expected), "{text}\n{told:#?}");
    }
    assert_eq!(
        faults(&format!("version = 3\n{BOND}{}", targets(16))),
        [""; 0]
    );
    let mode = BOND.replace("active-backup", "802.3ad");
    let told = faults(&format!(
        "version = 3\n{mode}{WATCHED}interfaces = [\"a\"]\n"
    ));
    assert_eq!(told, ["line 4: bond0.mode: is not one of active-backup"]);
}

#[test]
fn all_mistakes_are_told_in_the_order_of_their_lines() {
    let text = "version = 4\n[eth0]\ndhpc4 = true\n[\"bad name\"]\ndhcp4 = 1\n[eth0.dhcp6]\noptional = 3\n";
    assert_eq!(
        faults(text),
        [
            "line 1: version: expected a whole number from 1 to 3, got 4",
            "line 3: eth0.dhpc4: unknown key; did you mean dhcp4?",
            "line 4: \"bad name\": the name of an interface has letters, digits and - _ . @ only",
            "line 5: \"bad name\".dhcp4: expected true or false, got 1",
            "line 6: eth0.dhcp6: lacks enabled = true or false",
            "line 7: eth0.dhcp6.optional: expected true or false, got 3",
        ]
    );
    let syntax = faults("version = \n[eth0\ndhcp4 = true\n");
    assert_eq!(syntax.len(), 2, "{syntax:?}");
    assert!(
        syntax.iter().all(|fault| fault.contains("not TOML")),
        "{syntax:?}"
    );
    assert!(faults("[eth0]\ndhcp4 = true\n")[0].starts_with("line 1: version: is missing"));
}

#[test]
fn odd_bytes_are_refused() {
    let text = |bytes: &[u8]| parse(bytes).expect_err("refused").to_string();
    assert_eq!(text(b"version = 1\n\n\xff"), "line 3: not UTF-8 text");
    assert!(text(&vec![b' '; SIZE_LIMIT + 1]).contains("at most 65536 are taken"));
    let many: String = (0..1000).map(|n| format!("x{n} = 1\n")).collect();
    let told = text(format!("version = 1\n{many}").as_bytes());
    assert!(told.ends_with("and 968 more faults"), "{told}");
}

/// Pieces from which texts are put together that are nearly right.
fn piece() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "version = 1\n",
        "version = 2\n",
        "version = 3\n",
        "[a]\n",
        "[b]\n",
        "[bond0]\n",
        "[\"52:54:00:12:34:56\"]\n",
        "[[a.route]]\n",
        "[bond0.monitoring]\n",
        "dhcp4 = true\n",
        "dhcp6 = { enabled = true, optional = true }\n",
        "primary = true\n",
        "kind = \"bond\"\n",
        "kind = \"vlan\"\n",
        "mode = \"active-backup\"\n",
        "interfaces = [\"c\", \"d\"]\n",
        "device = \"a\"\n",
        "id = 7\n",
        "static4 = { addresses = [\"192.0.2.7/24\"] }\n",
        "to = \"default\"\n",
        "via = \"192.0.2.1\"\n",
        "miimon-frequency-ms = 1\n",
        "miimon-updelay-ms = 1\n",
        "miimon-downdelay-ms = 1\n",
        WATCHED,
    ]);
    prop_oneof![
        9 => fixed.prop_map(str::to_owned),
        1 => "[ -~]{0,12}\n",
    ]
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        properties::net_toml(&bytes);
    }

    #[test]
    fn nearly_right_texts(pieces in prop::collection::vec(piece(), 0..16)) {
        properties::net_toml(pieces.concat().as_bytes());
        properties::net_toml(format!("version = 3\n{}", pieces.concat()).as_bytes());
    }
}
