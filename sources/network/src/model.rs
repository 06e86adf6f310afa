//! A network configuration that has been checked.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// What a `net.toml` says: at least one interface, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    pub(crate) interfaces: Vec<Interface>,
}

impl Configuration {
    /// The one that represents the host: it says so, or is the first.
    pub fn primary(&self) -> &Interface {
        let chosen = self.interfaces.iter().find(|interface| interface.primary);
        chosen.unwrap_or(&self.interfaces[0])
    }

    /// All of them.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Which one it is.
    pub id: Id,
    /// Whether it says that it is the primary one.
    pub primary: bool,
    /// Asks for an IPv4 address.
    pub dhcp4: Option<Dhcp>,
    /// Asks for an IPv6 address.
    pub dhcp6: Option<Dhcp>,
    /// Addresses of its own, of both families.
    pub addresses: Vec<Prefix>,
    /// Routes besides those that leases and addresses bring.
    pub routes: Vec<Route>,
    /// What makes it.
    pub kind: Kind,
}

/// How an interface is recognised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Id {
    /// By the name that the kernel or the device manager gave it.
    Name(Name),
    /// By the address of the card.
    Mac(Mac),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Mac(mac) => mac.fmt(f),
        }
    }
}

/// What makes an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A card, which is there anyway.
    Card,
    /// Several cards that act as one.
    Bond(Bond),
    /// A tagged network on another interface.
    Vlan(Vlan),
}

/// A bond of which one member is active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bond {
    /// Its cards, the preferred one first.
    pub members: Vec<Name>,
    /// How many must have a link for the bond to have one.
    pub min_links: Option<u32>,
    /// How it sees that a member fails.
    pub monitoring: Monitoring,
}

/// How a bond watches its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Monitoring {
    /// By the state of the link. Times are in milliseconds.
    Link {
        /// Between two looks.
        interval: u32,
        /// Before a link that came is used.
        up_delay: u32,
        /// Before a link that went is given up.
        down_delay: u32,
    },
    /// By asking for the hardware addresses of neighbours.
    Arp {
        /// Milliseconds between two questions.
        interval: u32,
        /// Which members' answers are looked at: `active`, `all`, `backup`, `none`.
        validate: &'static str,
        /// Who is asked.
        targets: Vec<Ipv4Addr>,
    },
}

/// A tagged network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// The interface that carries it.
    pub device: Name,
    /// Its tag.
    pub id: u16,
}

/// A request for a lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dhcp {
    /// The host counts as online without it.
    pub optional: bool,
    /// Metric of the routes that come with the lease.
    pub metric: Option<u32>,
}

/// A static route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub to: Destination,
    /// The gateway; none for what is on the link itself.
    pub via: Option<IpAddr>,
    /// The address that packets of the host carry on it.
    pub from: Option<IpAddr>,
    /// Of two routes the one with the smaller metric is taken.
    pub metric: Option<u32>,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Everywhere.
    Default,
    /// A network.
    Network(Prefix),
}

/// Name of an interface, as the kernel and networkd take it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The longest one that the kernel takes.
    pub const MAX: usize = 15;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.chars().count() > Self::MAX {
            return Err(format!(
                "the name of an interface has 1 to {} characters",
                Self::MAX
            ));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
        if !text.bytes().all(plain) {
            return Err("the name of an interface has letters, digits and - _ . @ only".into());
        }
        if text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
        {
            return Err("the name of an interface needs a letter".into());
        }
        if ["all", "default", "lo"].contains(&text) {
            return Err(format!("{text} is not the name of a network interface"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hardware address of a card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac([u8; 6]);

impl Mac {
    /// True if `text` can only be meant as one: no name has a colon.
    pub fn is_meant_by(text: &str) -> bool {
        text.contains(':')
    }

    /// The digits alone.
    pub fn digits(&self) -> String {
        self.to_string().replace(':', "")
    }
}

impl From<[u8; 6]> for Mac {
    fn from(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let byte = |part: &str| {
            let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        match bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok()) {
            Some(bytes) => Ok(Self(bytes)),
            None => Err("a hardware address is written as 52:54:00:12:34:56".into()),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0.iter().enumerate() {
            let colon = if n == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The address, which may be one inside the network.
    pub address: IpAddr,
    /// How many leading bits name the network.
    pub length: u8,
}

impl Prefix {
    /// The network without the bits of the host.
    pub fn network(self) -> Self {
        let address = match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.length));
                Ipv4Addr::from_bits(v4.to_bits() & mask.unwrap_or(0)).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.length));
                Ipv6Addr::from_bits(v6.to_bits() & mask.unwrap_or(0)).into()
            }
        };
        Self { address, ..self }
    }

    /// Whether `address` lies in the network.
    pub fn contains(self, address: IpAddr) -> bool {
        let other = Self { address, ..self };
        address.is_ipv4() == self.address.is_ipv4() && other.network() == self.network()
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "expected an address with its prefix, as 192.0.2.7/24".to_string();
        let (address, length) = text.split_once('/').ok_or_else(form)?;
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        match length.parse() {
            Ok(length) if digits && length <= most => Ok(Self { address, length }),
            _ => Err(format!(
                "the prefix of {address} is a number from 0 to {most}"
            )),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_kernel_and_networkd_take() {
        for (text, accepted) in [
            ("eth0", true),
            ("enp0s20", true),
            ("bond0.10", true),
            ("a23456789012345", true),
            ("a234567890123456", false),
            ("", false),
            ("eth 0", false),
            ("eth*", false),
            ("!eth0", false),
            ("eth0/1", false),
            ("ethé", false),
            ("123", false),
            ("..", false),
            ("lo", false),
            ("all", false),
        ] {
            assert_eq!(text.parse::<Name>().is_ok(), accepted, "{text}");
        }
    }

    #[test]
    fn hardware_addresses_in_one_form() {
        for (text, expected) in [
            ("52:54:00:AB:34:56", Some("52:54:00:ab:34:56")),
            ("52:54:00:ab:34", None),
            ("52:54:00:ab:34:56:78", None),
            ("52:54:0:ab:34:56", None),
            ("52:54:+0:ab:34:56", None),
            ("52-54-00-ab-34-56", None),
        ] {
            let read = text.parse::<Mac>().map(|mac| mac.to_string());
            assert_eq!(read.ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn prefixes_and_their_networks() {
        for (text, network) in [
            ("192.0.2.77/24", Some("192.0.2.0/24")),
            ("192.0.2.77/32", Some("192.0.2.77/32")),
            ("192.0.2.77/0", Some("0.0.0.0/0")),
            ("2001:db8::77/64", Some("2001:db8::/64")),
            ("2001:db8::77/0", Some("::/0")),
            ("192.0.2.77/33", None),
            ("2001:db8::77/129", None),
            ("192.0.2.77/+8", None),
            ("192.0.2.77/", None),
            ("192.0.2.77", None),
            ("192.0.2/24", None),
        ] {
            let read = text
                .parse::<Prefix>()
                .map(|prefix| prefix.network().to_string());
            assert_eq!(read.ok().as_deref(), network, "{text}");
        }
        let prefix: Prefix = "192.0.2.7/24".parse().expect("valid");
        for (address, inside) in [("192.0.2.200", true), ("192.0.3.1", false), ("::1", false)] {
            assert_eq!(prefix.contains(address.parse().expect("address")), inside);
        }
    }
}
