//! What the console is told while the host has no network. Nobody can ask it then, so
//! that what is seen of its cards from the inside has to come by itself.

use super::primary::{Interfaces, address_of};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a host may be without: what a slow switch, or a server of addresses that has
/// to be asked twice, may take is no outage.
const PATIENCE: Duration = Duration::from_secs(45);
/// How often the cards are looked at from then on.
const PERIOD: Duration = Duration::from_secs(30);

const CARDS: &str = "sys/class/net";

/// Sees whether the host has a network, and knows what was said last.
#[derive(Debug)]
pub struct Outage {
    /// When it was lost, or looked for first.
    since: Option<Instant>,
    said: Vec<String>,
}

impl Outage {
    /// The host has none yet.
    pub fn new(now: Instant) -> Self {
        Self {
            since: Some(now),
            said: Vec::new(),
        }
    }

    /// How long to wait for the next look; without end while there is a network.
    pub fn next_look(&self, now: Instant) -> Option<Duration> {
        let lasted = now.saturating_duration_since(self.since?);
        Some(match self.said.is_empty() {
            true => PATIENCE.saturating_sub(lasted),
            false => PERIOD,
        })
    }

    /// Lines for the console, of a host that has a network or not. Said once, a line is
    /// said again only when another one was true in between.
    pub fn look(
        &mut self,
        has_network: bool,
        now: Instant,
        cards: impl FnOnce() -> Vec<String>,
    ) -> Vec<String> {
        if has_network {
            self.since = None;
            return match std::mem::take(&mut self.said).is_empty() {
                true => Vec::new(),
                false => vec!["network: there is one again".to_string()],
            };
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) < PATIENCE {
            return Vec::new();
        }
        let cards = cards();
        let new = cards
            .iter()
            .filter(|line| !self.said.contains(line))
            .cloned()
            .collect();
        self.said = cards;
        new
    }
}

/// What is to be seen of each card below `root`.
pub fn cards(root: &Path, interfaces: &Interfaces) -> Vec<String> {
    let read = |name: &str, file: &str| {
        // Reading a card that is down is an error, and then there is nothing to be seen.
        let text = std::fs::read_to_string(root.join(CARDS).join(name).join(file));
        text.ok().map(|text| text.trim().to_string())
    };
    let lines: Vec<String> = interfaces
        .iter()
        .filter(|(name, _)| root.join(CARDS).join(name).join("device").exists())
        .map(|(name, interface)| {
            let mac = interface
                .mac
                .map_or(String::new(), |mac| format!(" ({mac})"));
            let state = match (read(name, "carrier").as_deref(), address_of(interface)) {
                (Some("1"), Some(address)) => {
                    format!("has the address {address}, but leads nowhere")
                }
                (Some("1"), None) => {
                    "has a link but no address: no server answers to DHCP, or none was \
                     configured"
                        .to_string()
                }
                (Some(_), _) => "has no link: is its cable in, and the port at its other end \
                                 on?"
                .to_string(),
                (None, _) => "is down: the network configuration does not name it".to_string(),
            };
            format!("network: none: {name}{mac} {state}")
        })
        .collect();
    match lines.is_empty() {
        true => {
            vec!["network: none: no card that the kernel of this image has a driver for".into()]
        }
        false => lines,
    }
}

#[cfg(test)]
mod tests {
    use super::super::primary::Interface;
    use super::*;
    use std::fs;

    #[test]
    fn an_outage_is_told_when_it_lasts_and_when_it_is_over() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut outage = Outage::new(start);
        let none = || -> Vec<String> { panic!("too early to look") };
        let line = |text: &'static str| move || vec![text.to_string()];

        assert_eq!(outage.next_look(after(1)), Some(Duration::from_secs(44)));
        assert!(outage.look(false, after(44), none).is_empty());
        assert_eq!(outage.look(false, after(45), line("no link")), ["no link"]);
        assert_eq!(outage.next_look(after(46)), Some(PERIOD));
        assert!(outage.look(false, after(75), line("no link")).is_empty());
        assert_eq!(
            outage.look(false, after(105), line("no address")),
            ["no address"]
        );
        assert_eq!(outage.look(true, after(110), none).len(), 1);
        assert_eq!(outage.next_look(after(111)), None);
        assert!(outage.look(true, after(112), none).is_empty());

        // The next one has its own time.
        assert!(outage.look(false, after(200), none).is_empty());
        assert_eq!(outage.next_look(after(210)), Some(Duration::from_secs(35)));
        assert!(outage.look(true, after(215), none).is_empty());
    }

    #[test]
    fn each_card_says_what_is_to_be_seen_of_it() {
        let root = tempfile::tempdir().expect("folder");
        let card = |name: &str, carrier: Option<&str>| {
            let folder = root.path().join(CARDS).join(name);
            fs::create_dir_all(folder.join("device")).expect("folder");
            if let Some(carrier) = carrier {
                fs::write(folder.join("carrier"), carrier).expect("file");
            }
        };
        card("eno1", Some("0\n"));
        card("eno2", Some("1\n"));
        card("eno3", None);
        card("eno4", Some("1\n"));
        fs::create_dir_all(root.path().join(CARDS).join("lo")).expect("folder");
        let with = |addresses: &[&str]| Interface {
            mac: Some("52:54:00:12:34:56".parse().expect("an address")),
            addresses: addresses.iter().map(|a| a.parse().expect(a)).collect(),
        };
        let interfaces = [
            ("lo", with(&["127.0.0.1"])),
            ("eno1", with(&[])),
            ("eno2", with(&["fe80::1", "169.254.3.4"])),
            ("eno3", with(&[])),
            ("eno4", with(&["192.0.2.7"])),
        ]
        .map(|(name, interface)| (name.to_string(), interface))
        .into();
        let lines = cards(root.path(), &interfaces);
        let expected = ["no link", "no address", "is down", "192.0.2.7"];
        assert_eq!(lines.len(), expected.len(), "{lines:?}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.contains(expected), "{line} {expected}");
            assert!(line.contains("(52:54:00:12:34:56)"), "{line}");
        }
        let none = cards(root.path(), &Vec::new());
        assert!(none[0].contains("no card"), "{none:?}");
    }
}
