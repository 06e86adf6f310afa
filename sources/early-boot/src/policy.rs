//! What a fault in user data costs.
//!
//! A fault in a setting that decides which host this is, which cluster it joins
//! or how it is protected stops the boot: such a host would do harm, or nothing.
//! Any other setting is left at its default, and the host goes on. [`TABLE`] says
//! which is which, and nothing else does.

use api_types::Severity;
use serde_json::Value;
use settings::{Document, Faults, Key, Model, Settings};

/// What faults at or below a key cost.
pub struct Rule {
    /// The key, without the leading `settings`. `*` stands for any one name.
    pub key: &'static str,
    /// What a fault costs.
    pub severity: Severity,
    /// Why.
    pub reason: &'static str,
}

const fn fatal(key: &'static str, reason: &'static str) -> Rule {
    Rule {
        key,
        severity: Severity::Fatal,
        reason,
    }
}

const fn skipped(key: &'static str, reason: &'static str) -> Rule {
    Rule {
        key,
        severity: Severity::Skipped,
        reason,
    }
}

/// All rules. The longest key that fits decides; where none fits, a fault is
/// skipped.
pub const TABLE: &[Rule] = &[
    fatal(
        "user-data-policy",
        "It says how all other faults are to be judged.",
    ),
    skipped(
        "autoscaling",
        "The host joins without waiting for its turn.",
    ),
    fatal(
        "aws",
        "With whose rights the host acts, and in which region.",
    ),
    skipped("boot", "The kernel starts with the image's own parameters."),
    fatal(
        "bootstrap-commands",
        "What must have run before the host may be used.",
    ),
    fatal(
        "bootstrap-containers",
        "What must have run before the host may be used.",
    ),
    skipped(
        "cloudformation",
        "Whoever waits for the signal notices that it does not come.",
    ),
    skipped(
        "container-registry",
        "Images come from where their names say.",
    ),
    skipped("container-runtime", "The runtime's defaults hold."),
    skipped("dns", "Name servers come from the lease."),
    skipped(
        "host-containers",
        "A container that is not started can be set right by the API.",
    ),
    fatal(
        "host-containers.*.superpowered",
        "A container's rights over the host.",
    ),
    fatal(
        "image-verifier-plugins",
        "Images that were to be checked would run unchecked.",
    ),
    skipped("kernel.hugepages", "The host has the kernel's own pages."),
    fatal("kernel.lockdown", "Protection of the kernel."),
    fatal(
        "kernel.modules",
        "A module that was to be blocked would load.",
    ),
    skipped("kernel.sysctl", "The host's own value holds."),
    skipped("kubernetes", "kubelet's default holds."),
    fatal("kubernetes.api-server", "Which cluster the host joins."),
    fatal(
        "kubernetes.authentication-mode",
        "How the host proves who it is.",
    ),
    fatal(
        "kubernetes.bootstrap-token",
        "How the host proves who it is.",
    ),
    fatal(
        "kubernetes.cloud-provider",
        "Who completes the node's identity.",
    ),
    fatal(
        "kubernetes.cluster-certificate",
        "Which cluster is believed.",
    ),
    fatal(
        "kubernetes.cluster-dns-ip",
        "Pods would ask a wrong name server, or none.",
    ),
    fatal(
        "kubernetes.cluster-domain",
        "Pods would find no service by name.",
    ),
    fatal("kubernetes.cluster-name", "Which cluster the host joins."),
    fatal("kubernetes.hostname-override", "The node's name."),
    fatal("kubernetes.hostname-override-source", "The node's name."),
    fatal("kubernetes.node-ip", "The node's address."),
    fatal(
        "kubernetes.node-taints",
        "The node would take pods that are not meant for it.",
    ),
    fatal("kubernetes.provider-id", "Which machine the node is."),
    fatal(
        "kubernetes.seccomp-default",
        "Protection from what pods run.",
    ),
    fatal(
        "kubernetes.server-certificate",
        "By what the kubelet is known.",
    ),
    fatal("kubernetes.server-key", "By what the kubelet is known."),
    fatal(
        "kubernetes.server-tls-bootstrap",
        "By what the kubelet is known.",
    ),
    fatal(
        "kubernetes.standalone-mode",
        "Whether the host joins a cluster at all.",
    ),
    skipped(
        "metrics",
        "The host sends nothing that it was not asked for.",
    ),
    skipped("motd", "A greeting."),
    fatal("network.hostname", "The host's name."),
    skipped("network.hosts", "Names are resolved as usual."),
    fatal(
        "network.https-proxy",
        "What was to go through the proxy would go past it.",
    ),
    fatal(
        "network.no-proxy",
        "What was to stay inside would go to the proxy.",
    ),
    skipped("ntp", "The default time servers serve."),
    skipped("oci-defaults", "The runtime's defaults hold."),
    fatal(
        "oci-defaults.capabilities",
        "Protection from what containers run.",
    ),
    fatal("pki", "Whom the host trusts."),
    skipped(
        "updates",
        "The host stays at its version until it is told otherwise.",
    ),
];

/// The table as a page of the documentation.
pub fn page() -> String {
    let mut page = String::from(
        "# What faults in user data cost\n\n\
         Made from the table in `sources/early-boot/src/policy.rs`; `UPDATE_EXPECT=1 cargo test\n\
         -p early-boot` writes it anew. [User data](../user-data.md) says what follows from it.\n\n\
         The longest key at or above a faulty one decides; where there is none, the setting is\n\
         left at its default. `*` stands for any name. A faulty table weighs as much as the worst\n\
         that can be in it, and an unknown key as much as the one that was most likely meant.\n\n\
         | key | a fault | why |\n|---|---|---|\n",
    );
    for rule in TABLE {
        let costs = match rule.severity {
            Severity::Fatal => "**stops the boot**",
            Severity::Skipped => "is skipped",
        };
        page.push_str(&format!(
            "| `settings.{}` | {costs} | {} |\n",
            rule.key, rule.reason
        ));
    }
    page
}

/// How the faults of a machine's user data are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// By [`TABLE`].
    Lenient,
    /// Every fault stops the boot.
    Strict,
}

/// What is known of the policy once a document was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stated {
    /// The document says nothing about it.
    Nothing,
    /// It says this.
    Policy(Policy),
    /// What it says cannot be understood, so the strict one holds.
    Unclear,
}

const KEY: &str = "user-data-policy";

impl Policy {
    /// What `settings` say, which are known to be valid. Lenient without a word.
    pub fn of(settings: &Document) -> Self {
        match stated(settings, &Faults::default()) {
            Stated::Policy(policy) => policy,
            Stated::Nothing | Stated::Unclear => Self::Lenient,
        }
    }

    /// The policy that holds after a document said something about it.
    pub fn then(self, stated: Stated) -> Self {
        match stated {
            Stated::Nothing => self,
            Stated::Policy(policy) => policy,
            Stated::Unclear => Self::Strict,
        }
    }

    /// What a fault at `key` costs.
    pub fn severity(self, key: &Key) -> Severity {
        match self {
            Self::Strict => Severity::Fatal,
            Self::Lenient => by_table(key),
        }
    }
}

/// What a document says about the policy: its valid part, and its faults.
pub fn stated(document: &Document, faults: &Faults) -> Stated {
    let key = Key::from_parts([KEY]);
    if faults.iter().any(|fault| fault.key.is_within(&key)) {
        return Stated::Unclear;
    }
    match document.get(&key).and_then(Value::as_str) {
        None => Stated::Nothing,
        Some("lenient") => Stated::Policy(Policy::Lenient),
        // The model knows one other word.
        Some(_) => Stated::Policy(Policy::Strict),
    }
}

/// What a fault at `key` costs. A whole table that is faulty weighs as much as the
/// worst that can be in it, and an unknown key as much as the one that was most
/// likely meant.
fn by_table(key: &Key) -> Severity {
    let meant = Settings::schema().nearest(key);
    let is_fatal = [Some(key), meant.as_ref()]
        .into_iter()
        .flatten()
        .any(|key| severity_of(key) == Severity::Fatal);
    if is_fatal {
        Severity::Fatal
    } else {
        Severity::Skipped
    }
}

fn severity_of(key: &Key) -> Severity {
    let rules = || TABLE.iter().map(|rule| (rule, rule.key.split('.')));
    let depth = key.parts().len();
    let is_worse_below = rules().any(|(rule, parts)| {
        rule.severity == Severity::Fatal
            && parts.clone().count() > depth
            && fits(parts.take(depth), key)
    });
    if is_worse_below {
        return Severity::Fatal;
    }
    let above = rules()
        .filter(|(_, parts)| fits(parts.clone(), key))
        .max_by_key(|(_, parts)| parts.clone().count());
    above.map_or(Severity::Skipped, |(rule, _)| rule.severity)
}

/// Whether `key` begins with the parts of a rule.
fn fits<'p>(parts: impl Iterator<Item = &'p str>, key: &Key) -> bool {
    let mut names = key.parts().iter();
    parts
        .into_iter()
        .all(|part| names.next().is_some_and(|name| part == "*" || part == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities() {
        let key = |text: &str| text.parse::<Key>().expect(text);
        for (text, expected) in [
            ("settings", Severity::Fatal),
            ("motd", Severity::Skipped),
            ("ntp", Severity::Skipped),
            ("ntp.time-server", Severity::Skipped),
            ("network.hostname", Severity::Fatal),
            ("network.hosts", Severity::Skipped),
            // What was most likely meant counts.
            ("network.hostnam", Severity::Fatal),
            ("netwrok.hostname", Severity::Fatal),
            ("netwrok.hosts", Severity::Skipped),
            ("user-data-polcy", Severity::Fatal),
            ("image-verifier-plugins.enabled", Severity::Fatal),
            ("timezone", Severity::Skipped),
            // A whole table weighs as much as the worst in it.
            ("network", Severity::Fatal),
            ("netwrok", Severity::Fatal),
            ("kubernetes", Severity::Fatal),
            ("dns", Severity::Skipped),
            // Below a rule.
            ("pki.corp", Severity::Fatal),
            ("pki.corp.data", Severity::Fatal),
            ("kernel.modules.xfs.alowed", Severity::Fatal),
            ("kernel.sysctl.\"a.b\"", Severity::Skipped),
            ("host-containers", Severity::Fatal),
            ("host-containers.admin", Severity::Fatal),
            ("host-containers.admin.superpowered", Severity::Fatal),
            ("host-containers.admin.source", Severity::Skipped),
            ("kubernetes.node-taints.\"a/b\"", Severity::Fatal),
            ("kubernetes.node-labels.\"a/b\"", Severity::Skipped),
        ] {
            assert_eq!(Policy::Lenient.severity(&key(text)), expected, "{text}");
            assert_eq!(Policy::Strict.severity(&key(text)), Severity::Fatal);
        }
    }

    #[test]
    fn the_table_is_in_order_and_says_each_thing_once() {
        let keys: Vec<&str> = TABLE.iter().map(|rule| rule.key).skip(1).collect();
        assert!(keys.is_sorted(), "{keys:?}");
        for rule in TABLE {
            let same = TABLE.iter().filter(|other| other.key == rule.key);
            assert_eq!(same.count(), 1, "{}", rule.key);
        }
    }

    #[test]
    fn every_rule_is_about_a_setting_that_there_is() {
        let schema = Settings::schema();
        for rule in TABLE {
            let key = Key::from_parts(rule.key.split('.').map(|part| match part {
                "*" => "any",
                part => part,
            }));
            assert!(schema.knows(&key), "{}", rule.key);
        }
    }

    #[test]
    fn what_documents_say_about_the_policy() {
        for (text, expected) in [
            ("[settings]", Stated::Nothing),
            (
                "[settings]\nuser-data-policy = 'lenient'",
                Stated::Policy(Policy::Lenient),
            ),
            (
                "[settings]\nuser-data-policy = 'strict'\nmtod = 1",
                Stated::Policy(Policy::Strict),
            ),
            ("[settings]\nuser-data-policy = 'kind'", Stated::Unclear),
            ("[settings.user-data-policy]\nx = 1", Stated::Unclear),
        ] {
            let read = Document::salvage_toml(text).expect(text).expect(text);
            assert_eq!(stated(&read.0, &read.1), expected, "{text}");
        }
        assert_eq!(Policy::of(&Document::default()), Policy::Lenient);
        assert_eq!(Policy::of(&Document::defaults()), Policy::Lenient);
        assert_eq!(Policy::Strict.then(Stated::Nothing), Policy::Strict);
        assert_eq!(Policy::Lenient.then(Stated::Unclear), Policy::Strict);
    }
}
