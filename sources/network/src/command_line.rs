//! The interface that the kernel's command line names.

use crate::model::{Configuration, Dhcp, Id, Interface, Kind};

/// Of several the last one counts.
const PARAMETER: &str = "netdog.default-interface=";

/// Reads `netdog.default-interface=NAME:dhcp4[,dhcp6]`, where a `?` behind a
/// protocol makes its lease optional. `None` if nothing is said.
pub fn parse(command_line: &str) -> Result<Option<Configuration>, String> {
    let words = command_line.split_ascii_whitespace();
    let Some(value) = words
        .filter_map(|word| word.strip_prefix(PARAMETER))
        .next_back()
    else {
        return Ok(None);
    };
    let wrong = |reason: &str| format!("{PARAMETER}{value}: {reason}");
    let (name, protocols) = value
        .split_once(':')
        .ok_or_else(|| wrong("expected NAME:dhcp4,dhcp6"))?;
    let mut interface = Interface {
        id: Id::Name(name.parse().map_err(|reason: String| wrong(&reason))?),
        primary: true,
        dhcp4: None,
        dhcp6: None,
        addresses: Vec::new(),
        routes: Vec::new(),
        kind: Kind::Card,
    };
    for protocol in protocols.split(',') {
        let (protocol, optional) = match protocol.strip_suffix('?') {
            Some(protocol) => (protocol, true),
            None => (protocol, false),
        };
        let lease = match protocol {
            "dhcp4" => &mut interface.dhcp4,
            "dhcp6" => &mut interface.dhcp6,
            _ => {
                return Err(wrong(
                    "a protocol is dhcp4 or dhcp6, perhaps with ? behind it",
                ));
            }
        };
        let asked = Dhcp {
            optional,
            metric: None,
        };
        if lease.replace(asked).is_some() {
            return Err(wrong(&format!("{protocol} is there twice")));
        }
    }
    Ok(Some(Configuration {
        interfaces: vec![interface],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_interface_with_its_protocols() {
        // Whether there is a lease of IPv4 and of IPv6, and whether it may lack.
        for (text, name, leases) in [
            ("eth0:dhcp4", "eth0", [Some(false), None]),
            ("eth0:dhcp4?", "eth0", [Some(true), None]),
            ("ens3:dhcp4,dhcp6?", "ens3", [Some(false), Some(true)]),
            ("ens3:dhcp6,dhcp4", "ens3", [Some(false), Some(false)]),
        ] {
            let line = format!("quiet netdog.default-interface=x:dhcp4 {PARAMETER}{text} ro\n");
            let configuration = parse(&line).expect("valid").expect("present");
            let primary = configuration.primary();
            assert_eq!(primary.id.to_string(), name, "{text}");
            let optional = |lease: &Option<Dhcp>| lease.as_ref().map(|lease| lease.optional);
            let read = [optional(&primary.dhcp4), optional(&primary.dhcp6)];
            assert_eq!(read, leases, "{text}");
        }
        assert_eq!(parse("quiet\n"), Ok(None));
    }

    #[test]
    fn mistakes_are_told() {
        for (text, reason) in [
            ("eth0", "expected NAME:dhcp4,dhcp6"),
            ("eth0:", "a protocol is dhcp4 or dhcp6"),
            ("eth0:dhcp4??", "a protocol is dhcp4 or dhcp6"),
            ("eth0:dhcp4,dhcp4?", "dhcp4 is there twice"),
            (":dhcp4", "1 to 15 characters"),
            ("eth*:dhcp4", "letters, digits"),
        ] {
            let error = parse(&format!("{PARAMETER}{text}")).expect_err(text);
            assert!(error.contains(reason) && error.contains(text), "{error}");
        }
    }
}
