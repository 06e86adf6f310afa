//! Regions of AWS, and the domains that their services are in.

/// The domain of most partitions.
const DOMAIN: &str = "amazonaws.com";
/// Those of the others, by how the names of their regions begin.
const OTHER_DOMAINS: [(&str, &str); 6] = [
    ("cn-", "amazonaws.com.cn"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
];

/// Whether `text` can be the name of a region, and so part of a service's name.
pub fn is_region(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(plain)
}

/// The domain of a region's partition.
pub fn domain(region: &str) -> &'static str {
    let mut others = OTHER_DOMAINS.iter();
    let other = others.find(|(start, _)| region.starts_with(start));
    other.map_or(DOMAIN, |(_, domain)| domain)
}

/// Whether `text` is the domain of a partition.
pub fn is_domain(text: &str) -> bool {
    text == DOMAIN || OTHER_DOMAINS.iter().any(|(_, domain)| *domain == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_in_the_domain_of_their_partition() {
        for (region, expected) in [
            ("eu-south-2", "amazonaws.com"),
            ("us-gov-west-1", "amazonaws.com"),
            ("cn-north-1", "amazonaws.com.cn"),
            ("us-iso-east-1", "c2s.ic.gov"),
            ("us-isob-east-1", "sc2s.sgov.gov"),
            ("eusc-de-east-1", "amazonaws.eu"),
        ] {
            assert!(is_region(region), "{region}");
            assert_eq!(domain(region), expected, "{region}");
            assert!(is_domain(expected), "{expected}");
        }
        for odd in ["", "eu.south", "EU-south-2", "eu south"] {
            assert!(!is_region(odd) && !is_domain(odd), "{odd}");
        }
    }
}
