//! EC2 as a machine sees it: the metadata service at its link-local address, in the
//! network that the emulator is in.

use anyhow::{Context, Result, bail, ensure};
use aws_client::signature::Credentials;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use imds::fake::{Behaviour, Fake, Instance};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::Path;
use sysutil::time::Time;

/// What the firmware of a machine of EC2 says its maker is.
pub(crate) const VENDOR: &str = "Amazon EC2";
/// Where the service is.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const MAC: &str = "52:54:00:12:34:56";
/// The account that it is of.
pub(crate) const ACCOUNT: &str = "111122223333";
/// The key of who has launched it, as SSH has it.
const SSH_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f jo";
/// Seconds that the role's credentials are good for: longer than anybody runs a test.
const CREDENTIALS_LAST: u64 = 24 * 3600;

/// An instance of EC2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ec2 {
    /// Its region.
    pub region: String,
    /// Its availability zone.
    pub zone: String,
    /// Its name.
    pub instance_id: String,
    /// Its type.
    pub instance_type: String,
    /// Its address, which the emulator gives it.
    pub address: Ipv4Addr,
    /// The name of its role.
    pub role: String,
    /// Name of the role's key.
    pub access_key: String,
    /// The key.
    pub secret_key: String,
    /// The session that goes with the key.
    pub session_token: String,
    /// Its user data.
    pub user_data: Option<Vec<u8>>,
}

impl Ec2 {
    /// An instance that nobody has seen before, with a role and its credentials.
    pub fn new() -> Result<Self> {
        let mut chance = [0; 64];
        fs::File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut chance))
            .context("cannot read /dev/urandom")?;
        Ok(Self {
            region: "eu-south-2".to_string(),
            zone: "eu-south-2b".to_string(),
            instance_id: format!("i-0{}", &hex::encode(&chance[..8])),
            instance_type: "m7i.large".to_string(),
            address: crate::cluster::node_address(0),
            role: "nodes".to_string(),
            access_key: format!("ASIA{}", hex::encode_upper(&chance[8..16])),
            secret_key: STANDARD.encode(&chance[16..46]),
            session_token: STANDARD.encode(&chance[46..]),
            user_data: None,
        })
    }

    /// The name that EC2 has for it, and its cluster for its node.
    pub fn private_dns_name(&self) -> String {
        let address = self.address.to_string().replace('.', "-");
        format!("ip-{address}.{}.compute.internal", self.region)
    }

    /// The name that Kubernetes has for it as a machine of AWS.
    pub fn provider_id(&self) -> String {
        format!("aws:///{}/{}", self.zone, self.instance_id)
    }

    /// The key by which it lets in who has launched it.
    pub fn ssh_key(&self) -> &'static str {
        SSH_KEY
    }

    /// What its role signs with.
    pub(crate) fn credentials(&self) -> Credentials {
        Credentials {
            access_key: self.access_key.clone(),
            secret_key: self.secret_key.clone(),
            session_token: Some(self.session_token.clone()),
        }
    }

    /// What the service says, by path below its date.
    fn metadata(&self, now: Time) -> Instance {
        let identity = json!({
            "accountId": ACCOUNT,
            "architecture": "x86_64",
            "availabilityZone": self.zone,
            "imageId": "ami-0123456789abcdef0",
            "instanceId": self.instance_id,
            "instanceType": self.instance_type,
            "pendingTime": now.to_string(),
            "privateIp": self.address,
            "region": self.region,
            "version": "2017-09-30",
        });
        let role = json!({
            "Code": "Success",
            "LastUpdated": now.to_string(),
            "Type": "AWS-HMAC",
            "AccessKeyId": self.access_key,
            "SecretAccessKey": self.secret_key,
            "Token": self.session_token,
            "Expiration": now.plus(CREDENTIALS_LAST).to_string(),
        });
        let interface = format!("meta-data/network/interfaces/macs/{MAC}");
        let roles = "meta-data/iam/security-credentials";
        let mut texts = BTreeMap::from(
            [
                (imds::IDENTITY_DOCUMENT, identity.to_string()),
                ("meta-data/instance-id", self.instance_id.clone()),
                ("meta-data/instance-type", self.instance_type.clone()),
                ("meta-data/local-hostname", self.private_dns_name()),
                ("meta-data/local-ipv4", self.address.to_string()),
                ("meta-data/mac", MAC.to_string()),
                ("meta-data/network/interfaces/macs/", format!("{MAC}/")),
                ("meta-data/placement/availability-zone", self.zone.clone()),
                ("meta-data/placement/region", self.region.clone()),
                ("meta-data/public-keys/", "0=jo".to_string()),
                ("meta-data/public-keys/0/openssh-key", SSH_KEY.to_string()),
                ("meta-data/services/domain", "amazonaws.com".to_string()),
                ("meta-data/services/partition", "aws".to_string()),
            ]
            .map(|(path, text)| (path.to_string(), text.into_bytes())),
        );
        texts.insert(
            format!("{interface}/vpc-ipv4-cidr-blocks"),
            b"10.0.0.0/16".to_vec(),
        );
        texts.insert(format!("{roles}/"), self.role.clone().into_bytes());
        texts.insert(format!("{roles}/{}", self.role), role.to_string().into());
        if let Some(user_data) = &self.user_data {
            texts.insert("user-data".to_string(), user_data.clone());
        }
        texts
    }

    /// Writes what the service is to say to a file, for the helper that runs it.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let encoded: BTreeMap<String, String> = self
            .metadata(Time::now())
            .into_iter()
            .map(|(path, content)| (path, STANDARD.encode(content)))
            .collect();
        fs::write(path, json!(encoded).to_string())
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Serves what [`Ec2::write`] has written, in the network of this process, which must
/// be one of a test's own. The service ends with what is returned.
pub(crate) fn serve(path: &Path) -> Result<Fake> {
    let read = || format!("cannot read {}", path.display());
    let text = fs::read_to_string(path).with_context(read)?;
    let encoded: BTreeMap<String, String> = serde_json::from_str(&text).with_context(read)?;
    let instance: Instance = encoded
        .into_iter()
        .map(|(path, content)| Ok((path, STANDARD.decode(content)?)))
        .collect::<Result<_>>()
        .with_context(read)?;
    add_to_loopback(ADDRESS)?;
    let listener = TcpListener::bind((ADDRESS, 80))
        .with_context(|| format!("cannot listen at {ADDRESS}, port 80"))?;
    Fake::listen(listener, instance, Behaviour::default())
        .context("cannot start the metadata service")
}

/// Gives the loopback of this network namespace one more address. What the emulator
/// connects to for its guest is then in the namespace itself.
fn add_to_loopback(address: Ipv4Addr) -> Result<()> {
    let add = || format!("cannot give the loopback the address {address}");
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )
    .with_context(add)?;
    let to_the_kernel = NetlinkAddr::new(0, 0);
    sendto(
        socket.as_raw_fd(),
        &new_address(address),
        &to_the_kernel,
        MsgFlags::empty(),
    )
    .with_context(add)?;
    let mut answer = [0; 256];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).with_context(add)?;
    // A header of 16 bytes, then the error's number: 0 if there is none.
    let Some(error) = answer[..length].get(16..20) else {
        bail!("{}: the kernel's answer is too short", add());
    };
    let error = i32::from_ne_bytes(error.try_into()?);
    ensure!(
        error == 0,
        "{}: {}",
        add(),
        nix::errno::Errno::from_raw(-error)
    );
    Ok(())
}

/// The message of rtnetlink(7) that adds `address` to the first interface, which is
/// the loopback of every network namespace.
fn new_address(address: Ipv4Addr) -> Vec<u8> {
    const RTM_NEWADDR: u16 = 20;
    const REQUEST_ACK_REPLACE_CREATE: u16 = 0x1 | 0x4 | 0x100 | 0x400;
    const LOOPBACK: u32 = 1;
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    const HOST_SCOPE: u8 = 254;
    const INET: u8 = 2;
    let mut body = vec![INET, 32, 0, HOST_SCOPE];
    body.extend(LOOPBACK.to_ne_bytes());
    for kind in [IFA_LOCAL, IFA_ADDRESS] {
        body.extend(8_u16.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(address.octets());
    }
    let length = 16 + body.len() as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(RTM_NEWADDR.to_ne_bytes());
    message.extend(REQUEST_ACK_REPLACE_CREATE.to_ne_bytes());
    message.extend([0; 8]); // sequence and sender
    message.extend(body);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_served() {
        let ec2 = Ec2 {
            user_data: Some(vec![0x1f, 0x8b, 0xff]),
            ..Ec2::new().unwrap()
        };
        let instance = ec2.metadata(Time(0));
        assert_eq!(instance["user-data"], [0x1f, 0x8b, 0xff]);
        let role = &instance["meta-data/iam/security-credentials/nodes"];
        let role: serde_json::Value = serde_json::from_slice(role).unwrap();
        assert_eq!(role["SecretAccessKey"], ec2.secret_key.as_str());
        assert_eq!(role["Expiration"], "1970-01-02T00:00:00Z");
        assert!(instance.contains_key(&format!(
            "meta-data/network/interfaces/macs/{MAC}/vpc-ipv4-cidr-blocks"
        )));
        assert_ne!(ec2.secret_key, Ec2::new().unwrap().secret_key);
        assert_eq!(
            ec2.private_dns_name(),
            "ip-10-0-2-15.eu-south-2.compute.internal"
        );
    }

    #[test]
    fn the_message_is_of_the_length_that_it_says() {
        let message = new_address(ADDRESS);
        assert_eq!(message.len(), 40);
        assert_eq!(message[..4], 40_u32.to_ne_bytes());
        assert_eq!(message[28..32], [169, 254, 169, 254]);
    }
}
