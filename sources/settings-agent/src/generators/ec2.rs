//! What only EC2 can tell a node: who it is, and what its network is like.
//!
//! All of it comes from the metadata service; nobody else is asked. AWS' interfaces
//! would have to be reached by name, over TLS and with the node's role, before any
//! of that is there.

use super::Machine;
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use settings::Key;
use std::net::IpAddr;

/// Pods by type of instance; its head says where it is from.
const MAX_PODS: &str = include_str!("max-pods.txt");

/// Where the services of EKS are, and their DNS, unless a cluster says otherwise:
/// in the first range where the VPC itself lies in 10.0.0.0/8, else in the second.
const CLUSTER_DNS: [&str; 2] = ["172.20.0.10", "10.100.0.10"];

/// The host name that EC2 gives the instance. More than one word is there where the
/// VPC's options name more than one domain.
pub fn hostname(machine: &Machine) -> Result<Option<String>> {
    let names = machine.metadata.text("meta-data/local-hostname")?;
    let names = names.unwrap_or_default();
    let first = names.split_whitespace().next();
    Ok(first.map(|name| name.trim_end_matches('.').to_string()))
}

/// The addresses of the cluster's DNS, as clusters of EKS have it by default.
pub fn cluster_dns_ip(machine: &Machine, _: &Key) -> Result<Option<Value>> {
    let blocks = of_the_interface(machine, "vpc-ipv4-cidr-blocks")?;
    if blocks.is_empty() {
        bail!(
            "the VPC has no IPv4 addresses that say where the cluster's services are; set it in \
             user data"
        );
    }
    let in_ten = blocks.iter().any(|block| block.starts_with("10."));
    let [first, second] = CLUSTER_DNS;
    Ok(Some(if in_ten { first } else { second }.into()))
}

/// The node's address, of the same kind as that of the cluster's DNS.
pub fn node_ip(machine: &Machine, _: &Key) -> Result<Option<Value>> {
    if is_ipv6(machine)? {
        let addresses = of_the_interface(machine, "ipv6s")?;
        let first = addresses.into_iter().next();
        let first = first.context(
            "the instance's first network interface has no IPv6 address, which the cluster's \
             DNS has",
        )?;
        return Ok(Some(first.into()));
    }
    let address = machine.metadata.identity()?.private_ip;
    Ok(Some(address.context(NO_FIELD)?.into()))
}

/// `aws:///<zone>/<instance>`, if somebody outside of kubelet is to look it up.
pub fn provider_id(machine: &Machine, _: &Key) -> Result<Option<Value>> {
    if machine.text("kubernetes.cloud-provider") != Some("external") {
        return Ok(None);
    }
    let identity = machine.metadata.identity()?;
    let zone = identity.availability_zone.context(NO_FIELD)?;
    let instance = identity.instance_id.context(NO_FIELD)?;
    Ok(Some(format!("aws:///{zone}/{instance}").into()))
}

/// The name by which the cluster knows the node's role, if it is not the host's.
pub fn hostname_override(machine: &Machine, _: &Key) -> Result<Option<Value>> {
    let identity = machine.metadata.identity()?;
    let name = match machine.text("kubernetes.hostname-override-source") {
        Some("instance-id") => identity.instance_id.context(NO_FIELD)?,
        Some("private-dns-name") => {
            let hostname = match hostname(machine)? {
                Some(name) => name,
                None => format!(
                    "ip-{}",
                    identity.private_ip.context(NO_FIELD)?.replace('.', "-")
                ),
            };
            private_dns_name(&hostname, &identity.region.context(NO_FIELD)?)
        }
        _ => return Ok(None),
    };
    Ok(Some(name.into()))
}

/// As many pods as the instance has addresses for.
pub fn max_pods(machine: &Machine, _: &Key) -> Result<Option<Value>> {
    let kind = machine.metadata.identity()?.instance_type;
    let kind = kind.context(NO_FIELD)?;
    let pods = pods_of(&kind);
    if pods.is_none() {
        tracing::warn!("nothing is known of instances {kind}: settings.kubernetes.max-pods stays");
    }
    Ok(pods.map(Value::from))
}

const NO_FIELD: &str = "the instance's identity document does not say it";

/// User data of the admin container that lets in by SSH whose keys the instance was launched
/// with.
pub fn admin_user_data(machine: &Machine, _: &Key) -> Result<Option<Value>> {
    const KEYS: &str = "meta-data/public-keys/";
    let listed = machine.metadata.text(KEYS)?.unwrap_or_default();
    let mut keys = Vec::new();
    for line in listed.lines() {
        // A number, and the name that the key has at AWS.
        let number = line.split('=').next().unwrap_or(line);
        let key = machine
            .metadata
            .text(&format!("{KEYS}{number}/openssh-key"))?;
        keys.extend(key.filter(|key| !key.is_empty()));
    }
    if keys.is_empty() {
        return Ok(None);
    }
    let user_data = json!({ "ssh": { "authorized-keys": keys } });
    Ok(Some(STANDARD.encode(user_data.to_string()).into()))
}

/// The name that EC2 itself has for an instance: whatever domains the VPC's options
/// name, the last part is the region's own, and the first that of the host name,
/// which is made of the instance's address or of its id.
fn private_dns_name(hostname: &str, region: &str) -> String {
    let label = hostname.split('.').next().unwrap_or(hostname);
    match region {
        // The oldest region has a name of its own.
        "us-east-1" => format!("{label}.ec2.internal"),
        _ => format!("{label}.{region}.compute.internal"),
    }
}

fn is_ipv6(machine: &Machine) -> Result<bool> {
    let key: Key = "kubernetes.cluster-dns-ip".parse()?;
    let address = match machine.get(&key) {
        Some(Value::Array(addresses)) => addresses.first().cloned(),
        Some(address) => Some(address.clone()),
        // It is generated beside us, and never is one of IPv6.
        None => None,
    };
    let address = address.as_ref().and_then(Value::as_str);
    Ok(address.is_some_and(|address| matches!(address.parse(), Ok(IpAddr::V6(_)))))
}

/// The lines of what the service says of the instance's first network interface.
fn of_the_interface(machine: &Machine, what: &str) -> Result<Vec<String>> {
    let mac = machine.metadata.text("meta-data/mac")?;
    let mac = mac.context("the metadata service knows no network interface")?;
    let path = format!("meta-data/network/interfaces/macs/{mac}/{what}");
    let text = machine.metadata.text(&path)?.unwrap_or_default();
    Ok(text.split_whitespace().map(str::to_string).collect())
}

fn pods_of(instance_type: &str) -> Option<u32> {
    let (family, size) = instance_type.split_once('.')?;
    let mut lines = MAX_PODS.lines().filter(|line| !line.starts_with('#'));
    let sizes = lines.find_map(|line| line.strip_prefix(family)?.strip_prefix(' '))?;
    let mut sizes = sizes.split(' ').filter_map(|entry| entry.split_once('='));
    sizes.find(|(name, _)| *name == size)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{document, key, machine};
    use super::super::{Generated, generate};
    use super::*;
    use early_boot::ec2::Metadata;
    use imds::fake::{Behaviour, Fake, Instance};
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    const IDENTITY: &str = r#"{
        "region": "eu-south-2", "availabilityZone": "eu-south-2b", "instanceType": "m7i.large",
        "instanceId": "i-0123456789abcdef0", "privateIp": "10.1.2.3"
    }"#;
    const MAC: &str = "0e:49:61:0f:c3:11";

    fn instance(change: &[(&str, Option<&str>)]) -> Instance {
        let interface = format!("meta-data/network/interfaces/macs/{MAC}");
        let mut instance: Instance = [
            (imds::IDENTITY_DOCUMENT, IDENTITY),
            (
                "meta-data/local-hostname",
                "ip-10-1-2-3.eu-south-2.compute.internal",
            ),
            ("meta-data/mac", MAC),
            (
                &format!("{interface}/vpc-ipv4-cidr-blocks"),
                "192.168.0.0/16\n10.1.0.0/16",
            ),
            (&format!("{interface}/ipv6s"), "2001:db8::5\n2001:db8::6"),
        ]
        .map(|(path, text)| (path.to_string(), text.into()))
        .into();
        for (path, text) in change {
            let path = path.replace("INTERFACE", &interface);
            match text {
                Some(text) => instance.insert(path, (*text).into()),
                None => instance.remove(&path),
            };
        }
        instance
    }

    const DEFAULTS: &str = "[settings.kubernetes]\ncloud-provider = 'external'\n\
                            hostname-override-source = 'private-dns-name'";

    fn generated(instance: Instance, user: &str) -> Generated {
        let fake = Fake::start(instance, Behaviour::default()).expect("a fake");
        let root = tempfile::tempdir().expect("a folder");
        let mut machine = machine(root.path(), "aws-k8s-1.36", user, "");
        machine.defaults = document(DEFAULTS);
        machine.metadata = Metadata::at(vec![fake.address()], true, Duration::from_secs(5));
        generate(&machine)
    }

    /// What is generated of one setting, by the name below `settings.`.
    fn check(name: &str, user: &str, change: &[(&str, Option<&str>)], expected: Option<Value>) {
        let generated = generated(instance(change), user);
        let found = generated.settings.get(&key(name)).cloned();
        assert_eq!(found, expected, "{name} {change:?} {user}");
    }

    #[test]
    fn a_node_knows_itself_and_its_network() {
        let generated = generated(instance(&[]), "");
        assert_eq!(generated.failures, []);
        assert_eq!(
            generated.settings.get(&key("kubernetes")),
            Some(&serde_json::json!({
                "cluster-dns-ip": "172.20.0.10",
                "hostname-override": "ip-10-1-2-3.eu-south-2.compute.internal",
                "max-pods": 29,
                "node-ip": "10.1.2.3",
                "provider-id": "aws:///eu-south-2b/i-0123456789abcdef0",
            }))
        );
        let name = generated.settings.get(&key("network.hostname"));
        assert_eq!(
            name.and_then(Value::as_str),
            Some("ip-10-1-2-3.eu-south-2.compute.internal")
        );
    }

    #[test]
    fn who_launched_the_instance_is_let_in_by_admin() {
        let admin = "host-containers.admin.user-data";
        let keys = "meta-data/public-keys/";
        let (first, second) = (
            format!("{keys}0/openssh-key"),
            format!("{keys}1/openssh-key"),
        );
        let listed = (keys, Some("0=jo\n1=ann = b"));
        let (of_jo, of_ann) = ("ssh-ed25519 AAAA jo", "ssh-rsa BBBB");
        for (change, expected) in [
            (vec![], None),
            (vec![(keys, Some(""))], None),
            (vec![(keys, Some("0=jo"))], None),
            (vec![listed, (&first, Some(of_jo))], Some(json!([of_jo]))),
            (
                vec![listed, (&first, Some(of_jo)), (&second, Some(of_ann))],
                Some(json!([of_jo, of_ann])),
            ),
        ] {
            let expected = expected.map(|keys| {
                let user_data = json!({ "ssh": { "authorized-keys": keys } });
                Value::from(STANDARD.encode(user_data.to_string()))
            });
            check(admin, "", &change, expected);
        }
        let own = "[settings.host-containers.admin]\nuser-data = 'aGk='";
        check(admin, own, &[listed, (&first, Some(of_jo))], None);
    }

    #[test]
    fn dns_and_address_are_of_one_kind() {
        let blocks = "INTERFACE/vpc-ipv4-cidr-blocks";
        let dns = "kubernetes.cluster-dns-ip";
        let other = [(blocks, Some("172.31.0.0/16\n100.64.0.0/10"))];
        check(dns, "", &other, Some("10.100.0.10".into()));
        check(dns, "", &[(blocks, None)], None);
        let node = "kubernetes.node-ip";
        for (set, expected) in [
            ("'10.5.0.10'", Some("10.1.2.3")),
            ("['10.5.0.10', 'fd01::a']", Some("10.1.2.3")),
            ("'fd01::a'", Some("2001:db8::5")),
            ("['fd01::a', '10.5.0.10']", Some("2001:db8::5")),
        ] {
            let user = format!("[settings.kubernetes]\ncluster-dns-ip = {set}");
            check(node, &user, &[], expected.map(Value::from));
            check(dns, &user, &[], None);
        }
        let user = "[settings.kubernetes]\ncluster-dns-ip = 'fd01::a'";
        check(node, user, &[("INTERFACE/ipv6s", None)], None);
    }

    #[test]
    fn what_is_set_is_not_generated() {
        for (name, value) in [
            ("node-ip", "'10.9.9.9'"),
            ("max-pods", "7"),
            ("provider-id", "'aws:///x/i-1'"),
            ("hostname-override", "'other'"),
        ] {
            let user = format!("[settings.kubernetes]\n{name} = {value}");
            check(&format!("kubernetes.{name}"), &user, &[], None);
        }
        let none = "[settings.kubernetes]\ncloud-provider = ''";
        check("kubernetes.provider-id", none, &[], None);
    }

    #[test]
    fn the_name_that_ec2_has_is_not_that_of_the_vpcs_options() {
        for (hostname, region, expected) in [
            (
                "ip-10-1-2-3.corp.example",
                "eu-west-1",
                "ip-10-1-2-3.eu-west-1.compute.internal",
            ),
            (
                "ip-10-1-2-3.ec2.internal",
                "us-east-1",
                "ip-10-1-2-3.ec2.internal",
            ),
            (
                "i-0123.us-west-2.compute.internal",
                "us-west-2",
                "i-0123.us-west-2.compute.internal",
            ),
            (
                "ip-10-1-2-3",
                "cn-north-1",
                "ip-10-1-2-3.cn-north-1.compute.internal",
            ),
        ] {
            assert_eq!(
                private_dns_name(hostname, region),
                expected,
                "{hostname} {region}"
            );
        }
        let name = "kubernetes.hostname-override";
        let by_id = "[settings.kubernetes]\nhostname-override-source = 'instance-id'";
        check(name, by_id, &[], Some("i-0123456789abcdef0".into()));
        // Two domains in the VPC's options, a dot at the end, no name at all.
        let hostname = "meta-data/local-hostname";
        let expected = Value::from("ip-10-1-2-3.eu-south-2.compute.internal");
        for text in [Some("ip-10-1-2-3.a.example. b.example"), None] {
            check(name, "", &[(hostname, text)], Some(expected.clone()));
        }
        let two = [(hostname, Some("ip-10-1-2-3.a.example. b.example"))];
        let first = Some("ip-10-1-2-3.a.example".into());
        check("network.hostname", "", &two, first);
    }

    #[test]
    fn pods_by_type() {
        for (kind, expected) in [
            ("m5.large", Some(29)),
            ("m5.metal", Some(737)),
            ("t3.micro", Some(4)),
            ("x8g.metal-24xl", Some(737)),
            ("m5", None),
            ("m5.", None),
            ("m5.largest", None),
            ("# Pods", None),
            ("", None),
            ("zz9.large", None),
        ] {
            assert_eq!(pods_of(kind), expected, "{kind:?}");
        }
        let identity = IDENTITY.replace("m7i.large", "zz9.large");
        let unknown = [(imds::IDENTITY_DOCUMENT, Some(&*identity))];
        check("kubernetes.max-pods", "", &unknown, None);
    }

    #[test]
    fn the_table_of_types_is_sound() {
        let mut families = Vec::new();
        let mut types = 0;
        for line in MAX_PODS.lines().filter(|line| !line.starts_with('#')) {
            let (family, sizes) = line.split_once(' ').expect(line);
            families.push(family);
            let mut names = Vec::new();
            for size in sizes.split(' ') {
                let (name, pods) = size.split_once('=').expect(line);
                let pods: u32 = pods.parse().expect(line);
                assert!((4..2000).contains(&pods), "{family}.{name}={pods}");
                names.push(name);
                types += 1;
            }
            assert!(names.is_sorted_by(|a, b| a < b), "{line}");
        }
        assert!(families.is_sorted_by(|a, b| a < b));
        assert!(types > 1000, "{types}");
    }

    #[test]
    fn without_the_service_the_reason_is_told_once_and_soon() {
        let nobody = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port that is free again");
        let root = tempfile::tempdir().expect("a folder");
        let mut machine = machine(root.path(), "aws-k8s-1.36", "", "");
        machine.defaults = document(DEFAULTS);
        machine.metadata = Metadata::at(vec![nobody], true, Duration::from_millis(300));
        let started = Instant::now();
        let generated = generate(&machine);
        assert!(started.elapsed() < Duration::from_secs(5));
        let told = generated.failures_told();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0]
                .starts_with("not generated: settings.kubernetes.cluster-dns-ip, settings.kuber")
                && told[0].contains("the metadata service gave no answer to "),
            "{told:?}"
        );
        // A name there is all the same.
        assert!(generated.settings.get(&key("network.hostname")).is_some());
    }
}
