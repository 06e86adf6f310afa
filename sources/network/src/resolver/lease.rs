//! networkd's summary of all leases and advertisements: lines of `KEY=words`.

use std::net::IpAddr;

/// What the leases say about names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Addresses of name servers, with the interface for link-local ones.
    pub name_servers: Vec<String>,
    /// Domains in which short names are looked up.
    pub search_list: Vec<String>,
}

impl Lease {
    /// Takes the fields out of the state file. What resolv.conf cannot express
    /// (servers on other ports) or must not contain is left out.
    pub fn parse(state: &str) -> Lease {
        let mut lease = Lease::default();
        for line in state.lines() {
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let words = value.split_ascii_whitespace();
            match key {
                "DNS" => lease.name_servers = words.filter_map(name_server).collect(),
                "DOMAINS" => lease.search_list = words.filter_map(domain).collect(),
                _ => {}
            }
        }
        lease
    }
}

/// An address as resolv.conf has it, from networkd's
/// `ADDRESS`, `ADDRESS%SCOPE`, `ADDRESS:PORT`, `[ADDRESS]:PORT`, each perhaps
/// with `#NAME` behind it.
fn name_server(word: &str) -> Option<String> {
    let word = word.split_once('#').map_or(word, |(address, _)| address);
    let (address, port) = match word.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']')?;
            (address, after.strip_prefix(':').unwrap_or("53"))
        }
        None if word.matches(':').count() == 1 => word.split_once(':')?,
        None => (word, "53"),
    };
    let (address, scope) = match address.split_once('%') {
        Some((address, scope)) => (address, Some(scope)),
        None => (address, None),
    };
    let address: IpAddr = address.parse().ok()?;
    if port != "53" {
        return None;
    }
    match (address, scope) {
        (IpAddr::V6(v6), Some(scope)) if v6.is_unicast_link_local() && is_plain(scope) => {
            Some(format!("{v6}%{scope}"))
        }
        _ => Some(address.to_string()),
    }
}

/// A domain that can stand in a search list. `~` marks one for routing only.
fn domain(word: &str) -> Option<String> {
    (is_plain(word) && word.len() <= 253).then(|| word.to_owned())
}

fn is_plain(word: &str) -> bool {
    !word.is_empty()
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_in_all_their_forms() {
        for (word, expected) in [
            ("10.0.2.3", Some("10.0.2.3")),
            ("10.0.2.3%2", Some("10.0.2.3")),
            ("10.0.2.3#dns.example", Some("10.0.2.3")),
            ("10.0.2.3:53", Some("10.0.2.3")),
            ("10.0.2.3:5353", None),
            ("2001:DB8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:853#dns.example", None),
            ("2001:db8::1%2", Some("2001:db8::1")),
            ("fe80::2%ens3", Some("fe80::2%ens3")),
            ("fe80::2%a;b", Some("fe80::2")),
            ("rubbish", None),
            ("[", None),
            ("", None),
        ] {
            assert_eq!(name_server(word).as_deref(), expected, "{word}");
        }
    }

    #[test]
    fn a_recorded_state_is_read() {
        let state = "# This is private data. Do not parse.\nADMIN_STATE=enabled\nDNS=10.0.2.3 \
                     fe80::2%2\nNTP=\nDOMAINS=a.example b_c.example bad;domain\nROUTE_DOMAINS=\n";
        let lease = Lease::parse(state);
        assert_eq!(lease.name_servers, ["10.0.2.3", "fe80::2%2"]);
        assert_eq!(lease.search_list, ["a.example", "b_c.example"]);
        assert_eq!(Lease::parse("DNS=\n=\nx"), Lease::default());
    }
}
