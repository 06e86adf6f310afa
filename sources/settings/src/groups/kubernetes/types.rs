//! Value types that only Kubernetes has.

use crate::model::describe;
use crate::types::{
    choice_type, name_type, number_type, number_within, shown, text, text_type, whole_number,
};
use crate::{Faults, Key, Model, Scalar, Schema};
use serde_json::{Number, Value};

text_type! {
    /// Name of a cluster, by the rule of EKS.
    ClusterName, "the name of a cluster", example "my-cluster"
    pattern "^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$",
    |name| {
        let good = name.len() <= 100
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
        if good {
            Ok(())
        } else {
            Err(format!(
                "{} is not the name of a cluster: a letter or digit, then up to 99 letters, \
                 digits, '-' and '_'",
                shown(name)
            ))
        }
    }
}

text_type! {
    /// A DNS domain: no dot in front, and no IP address.
    Domain, "a DNS domain", example "cluster.local"
    pattern "^[A-Za-z0-9-]{1,63}(\\.[A-Za-z0-9-]{1,63})*$",
    |name| {
        let label_is_good = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        if name.len() <= 253 && name.split('.').all(label_is_good) && !is_address {
            Ok(())
        } else {
            Err(format!("{} is not a DNS domain, such as cluster.local", shown(name)))
        }
    }
}

/// True if `text` is empty or begins and ends with a letter or digit, with
/// `-`, `_` and `.` allowed between, and has at most 63 characters.
fn is_label_value(text: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_alphanumeric();
    text.is_empty()
        || (text.len() <= 63
            && text.starts_with(is_alphanumeric)
            && text.ends_with(is_alphanumeric)
            && text
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c)))
}

name_type! {
    /// Key of a label or a taint.
    LabelKey,
    "the key of a label: a name of at most 63 letters, digits, '-', '_' and '.', which may have a DNS domain and '/' in front",
    example "example.com/rack",
    |key| {
        let (prefix, name) = match key.split_once('/') {
            Some((prefix, name)) => (Some(prefix), name),
            None => (None, key),
        };
        let prefix_is_good = |prefix: &str| {
            (1..=253).contains(&prefix.len())
                && prefix.split('.').all(|label| {
                    !label.is_empty()
                        && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
                        && !label.starts_with('-')
                        && !label.ends_with('-')
                })
        };
        !name.is_empty() && is_label_value(name) && prefix.is_none_or(prefix_is_good)
    }
}

text_type! {
    /// Value of a label, which can be empty.
    LabelValue, "the value of a label", example "value"
    pattern "^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$",
    |value| {
        if is_label_value(value) {
            Ok(())
        } else {
            Err(format!(
                "{} is not the value of a label: at most 63 letters, digits, '-', '_' and '.', \
                 with a letter or digit at each end",
                shown(value)
            ))
        }
    }
}

text_type! {
    /// Value and effect of a taint.
    Taint, "\"value:Effect\", of which the value can be empty", example "db:NoSchedule"
    pattern "^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?:[A-Za-z0-9]{1,63}$",
    |taint| {
        let parts = taint.split_once(':');
        let good = parts.is_some_and(|(value, effect)| {
            is_label_value(value)
                && (1..=63).contains(&effect.len())
                && effect.bytes().all(|c| c.is_ascii_alphanumeric())
        });
        if good {
            Ok(())
        } else {
            Err(format!(
                "{} is not a taint's value and effect, as in \"db:NoSchedule\" or \":NoExecute\"",
                shown(taint)
            ))
        }
    }
}

/// The values and effects of the taints of one key: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taints(Vec<Taint>);

impl Taints {
    /// The values and effects.
    pub fn list(&self) -> &[Taint] {
        &self.0
    }
}

impl Model for Taints {
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self> {
        match value {
            Value::String(_) => Taint::read(value, at, faults).map(|taint| Self(vec![taint])),
            Value::Array(items) if items.is_empty() => {
                faults.add(
                    at,
                    "the list is empty; leave the key out if there is no taint",
                );
                None
            }
            _ => Vec::read(value, at, faults).map(Self),
        }
    }

    fn write(&self) -> Value {
        self.0.write()
    }

    fn schema() -> Schema {
        Schema::Either(Box::new((Vec::<Taint>::schema(), Taint::schema())))
    }
}

/// One value, or a list of them; returned as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OneOrMany<T> {
    /// One by itself.
    One(T),
    /// A list.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The values.
    pub fn list(&self) -> &[T] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

impl<T: Model> Model for OneOrMany<T> {
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self> {
        match value {
            Value::Array(_) => Vec::read(value, at, faults).map(Self::Many),
            _ => T::read(value, at, faults).map(Self::One),
        }
    }

    fn write(&self) -> Value {
        match self {
            Self::One(value) => value.write(),
            Self::Many(values) => values.write(),
        }
    }

    fn schema() -> Schema {
        Schema::Either(Box::new((T::schema(), Vec::<T>::schema())))
    }
}

choice_type! {
    /// How the node proves to the cluster who it is.
    AuthenticationMode {
        /// By its role in AWS.
        Aws = "aws",
        /// By certificates, the first of which it gets for a bootstrap token.
        Tls = "tls",
    }
}

text_type! {
    /// A bootstrap token.
    BootstrapToken, "a bootstrap token", example "abcdef.0123456789abcdef"
    pattern "^[a-z0-9]{6}\\.[a-z0-9]{16}$",
    |token| {
        let is_word = |word: &str, length: usize| {
            word.len() == length && word.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        if token.split_once('.').is_some_and(|(id, secret)| is_word(id, 6) && is_word(secret, 16)) {
            Ok(())
        } else {
            // The token is a secret, so it is not shown.
            Err("not a bootstrap token: 6 and 16 lower-case letters and digits with a dot between".into())
        }
    }
}

/// Where the node's cloud provider runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloudProvider {
    /// Within kubelet, for AWS.
    Aws,
    /// In the cluster.
    External,
    /// Nowhere.
    Nowhere,
}

impl CloudProvider {
    const NOWHERE: &str = "\"\"";

    /// What kubelet's flag takes, in quotes if it is nothing.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::External => "external",
            Self::Nowhere => Self::NOWHERE,
        }
    }
}

impl Scalar for CloudProvider {
    const WHAT: &'static str = "\"aws\", \"external\" or an empty text";
    const EXAMPLE: &'static str = "\"external\"";

    fn check(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some("aws") => Ok(Self::Aws),
            Some("external") => Ok(Self::External),
            Some("" | Self::NOWHERE) => Ok(Self::Nowhere),
            _ => Err(format!("expected {}", Self::WHAT)),
        }
    }

    fn value(&self) -> Value {
        self.as_str().into()
    }

    fn choices() -> Option<&'static [&'static str]> {
        Some(&["aws", "external", "", Self::NOWHERE])
    }
}

text_type! {
    /// A quantity as Kubernetes writes them.
    Quantity, "a quantity", example "512Mi"
    pattern "^[+-]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$",
    |quantity| if is_quantity(quantity) { Ok(()) } else { Err(not_a_quantity(quantity)) }
}

fn not_a_quantity(text: &str) -> String {
    format!(
        "{} is not a quantity such as \"512Mi\", \"90m\" or \"2\"",
        shown(text)
    )
}

fn is_quantity(text: &str) -> bool {
    let rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    let number = rest
        .bytes()
        .take_while(|c| c.is_ascii_digit() || *c == b'.')
        .count();
    let (number, suffix) = rest.split_at(number);
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    let exponent_is_good = |exponent: &str| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        (1..=4).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_digit())
    };
    let suffix_is_good = match suffix {
        "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" => true,
        "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => true,
        _ => suffix
            .strip_prefix(['e', 'E'])
            .is_some_and(exponent_is_good),
    };
    text.len() <= 64 && digits > 0 && number.len() - digits <= 1 && suffix_is_good
}

text_type! {
    /// How little may be left of something.
    Threshold, "a quantity, or a percentage below 100", example "10%"
    pattern "^([0-9]+\\.?[0-9]*%|[+-]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?)$",
    |threshold| match threshold.strip_suffix('%') {
        None if is_quantity(threshold) => Ok(()),
        None => Err(format!("{}, and no percentage such as \"10%\"", not_a_quantity(threshold))),
        Some(percent) => {
            let plain = !percent.is_empty() && percent.bytes().all(|c| c.is_ascii_digit() || c == b'.');
            match percent.parse::<f64>() {
                Ok(number) if plain && (0.0..100.0).contains(&number) => Ok(()),
                _ => Err(format!("{} is not a percentage from 0 to below 100", shown(threshold))),
            }
        }
    }
}

text_type! {
    /// A length of time as Go writes it.
    Duration, "a length of time", example "30s"
    pattern "^(0|([0-9]+\\.?[0-9]*|\\.[0-9]+)(ns|us|µs|ms|s|m|h))+$",
    |duration| {
        if is_duration(duration) {
            Ok(())
        } else {
            Err(format!("{} is not a length of time such as \"1m30s\" or \"500ms\"", shown(duration)))
        }
    }
}

fn is_duration(text: &str) -> bool {
    let mut rest = text;
    if rest == "0" {
        return true;
    }
    while !rest.is_empty() {
        let number = rest
            .bytes()
            .take_while(|c| c.is_ascii_digit() || *c == b'.')
            .count();
        let (number, after) = rest.split_at(number);
        let digits = number.bytes().filter(u8::is_ascii_digit).count();
        if digits == 0 || digits > 18 || number.len() - digits > 1 {
            return false;
        }
        // The longer units first, since "m" begins "ms" too.
        let units = ["ns", "us", "µs", "ms", "s", "m", "h"];
        match units.iter().find_map(|unit| after.strip_prefix(unit)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    !text.is_empty() && text.len() <= 64
}

number_type! {
    /// Seconds, or none.
    GraceSeconds, "a whole number of seconds from 0", 0..=(i32::MAX as i64), example "45"
}

choice_type! {
    /// How containers get CPUs.
    CpuManagerPolicy {
        /// From those that all share.
        None = "none" or "None",
        /// Some get CPUs of their own.
        Static = "static" or "Static",
    }
}

choice_type! {
    /// An option of the CPU manager's policy `static`.
    CpuManagerOption {
        /// Whole cores only.
        FullPcpusOnly = "full-pcpus-only",
        /// Pods never run on reserved CPUs.
        StrictCpuReservation = "strict-cpu-reservation",
        /// Evenly over NUMA nodes.
        DistributeCpusAcrossNuma = "distribute-cpus-across-numa",
        /// Whole sockets before more than one.
        AlignBySocket = "align-by-socket",
        /// One thread of as many cores as possible.
        DistributeCpusAcrossCores = "distribute-cpus-across-cores",
        /// Behind one cache where that is possible.
        PreferAlignCpusByUncorecache = "prefer-align-cpus-by-uncorecache",
    }
}

choice_type! {
    /// What has to fit together on NUMA nodes.
    TopologyScope {
        /// Each container by itself.
        Container = "container",
        /// All containers of a pod.
        Pod = "pod",
    }
}

choice_type! {
    /// What happens to what does not fit together on NUMA nodes.
    TopologyPolicy {
        /// Nothing is asked for.
        None = "none",
        /// It is refused.
        Restricted = "restricted",
        /// It runs all the same.
        BestEffort = "best-effort",
        /// It is refused unless it fits on one.
        SingleNumaNode = "single-numa-node",
    }
}

/// A percentage, given as a number or as a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Percent {
    /// Given as a number.
    Number(u8),
    /// Given as a text.
    Text(u8),
}

impl Percent {
    const WHAT: &str = "a whole number from 0 to 100, or a text of one";

    /// The percentage.
    pub fn get(self) -> u8 {
        match self {
            Self::Number(percent) | Self::Text(percent) => percent,
        }
    }
}

impl Model for Percent {
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self> {
        let checked = match value.as_str() {
            Some(text) => {
                let plain = (1..=3).contains(&text.len())
                    && text.bytes().all(|c| c.is_ascii_digit())
                    && (text == "0" || !text.starts_with('0'));
                let number = text.parse().ok().filter(|number| plain && *number <= 100);
                number
                    .map(Self::Text)
                    .ok_or_else(|| format!("expected {}", Self::WHAT))
            }
            None => number_within(value, Self::WHAT, (0, 100))
                .map(|number| Self::Number(number.unsigned_abs() as u8)),
        };
        checked.map_err(|reason| faults.add(at, reason)).ok()
    }

    fn write(&self) -> Value {
        match self {
            Self::Number(percent) => (*percent).into(),
            Self::Text(percent) => percent.to_string().into(),
        }
    }

    fn schema() -> Schema {
        let scalar = |kind, pattern, range| Schema::Scalar {
            kind,
            what: "a percentage",
            choices: None,
            pattern,
            range,
            example: "80",
        };
        Schema::Either(Box::new((
            scalar("integer", None, Some((0, 100))),
            scalar("string", Some("^(100|[1-9]?[0-9])$"), None),
        )))
    }
}

/// Ids of a pod with a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdsPerPod(i64);

impl IdsPerPod {
    const UNIT: i64 = 65536;

    /// The number.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl Scalar for IdsPerPod {
    const WHAT: &'static str = "a multiple of 65536";
    const KIND: &'static str = "integer";
    const EXAMPLE: &'static str = "65536";
    const RANGE: Option<(i64, i64)> = Some((Self::UNIT, u32::MAX as i64));

    fn check(value: &Value) -> Result<Self, String> {
        let number = whole_number(value, Self::WHAT)?;
        if number % Self::UNIT == 0 && (Self::UNIT..=u32::MAX.into()).contains(&number) {
            Ok(Self(number))
        } else {
            Err(format!("expected {}, got the number {number}", Self::WHAT))
        }
    }

    fn value(&self) -> Value {
        self.0.into()
    }
}

choice_type! {
    /// Whether pods may swap.
    SwapBehavior {
        /// They may not.
        NoSwap = "NoSwap",
        /// Burstable pods may, in proportion to what they ask for.
        LimitedSwap = "LimitedSwap",
    }
}

choice_type! {
    /// What the kernel keeps of the memory that pods ask for.
    MemoryReservationPolicy {
        /// Nothing.
        None = "None",
        /// All for guaranteed pods, what can be for burstable ones.
        TieredReservation = "TieredReservation",
    }
}

/// A share: above 0, and at most 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Factor(Number);

impl Factor {
    /// The share.
    pub fn get(&self) -> f64 {
        self.0.as_f64().unwrap_or(1.0)
    }
}

impl Scalar for Factor {
    const WHAT: &'static str = "a number above 0 and up to 1";
    const KIND: &'static str = "number";
    const EXAMPLE: &'static str = "0.9";
    const RANGE: Option<(i64, i64)> = Some((0, 1));

    fn check(value: &Value) -> Result<Self, String> {
        match value {
            Value::Number(number) if number.as_f64().is_some_and(|n| n > 0.0 && n <= 1.0) => {
                Ok(Self(number.clone()))
            }
            other => Err(format!("expected {}, got {}", Self::WHAT, describe(other))),
        }
    }

    fn value(&self) -> Value {
        Value::Number(self.0.clone())
    }
}

text_type! {
    /// Name of the node at its cloud provider: a URL, of which the host can be empty.
    ProviderId, "a URL such as \"aws:///eu-central-1a/i-0123456789abcdef0\"",
    example "aws:///eu-central-1a/i-0123456789abcdef0",
    |id| {
        let good = id.split_once("://").is_some_and(|(scheme, rest)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c))
                && !rest.is_empty()
                && rest.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&()*+,;=%".contains(&c))
        });
        if good && id.len() <= 2048 {
            Ok(())
        } else {
            Err(format!("{} is not {}", shown(id), ProviderId::WHAT))
        }
    }
}

name_type! {
    /// Name of an environment variable.
    EnvironmentName, "the name of an environment variable: letters, digits and '_', and no digit in front",
    example "AWS_PROFILE",
    |name| (1..=256).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

name_type! {
    /// Number of a NUMA node.
    NumaNode, "the number of a NUMA node", example "0",
    |name| (1..=4).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_digit())
        && (name == "0" || !name.starts_with('0'))
}

choice_type! {
    /// How containers get memory of NUMA nodes.
    MemoryManagerPolicy {
        /// Guaranteed pods get memory of nodes of their own.
        Static = "Static" or "static",
        /// From all.
        None = "None" or "none",
    }
}

/// A list of CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuSet(String);

impl CpuSet {
    /// The list as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for CpuSet {
    const WHAT: &'static str = "a list of CPUs such as \"0-3,7\"";
    const EXAMPLE: &'static str = "\"0-3,7\"";
    const PATTERN: Option<&'static str> = Some("^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$");

    fn check(value: &Value) -> Result<Self, String> {
        let list = text(value, Self::WHAT)?;
        let number = |text: &str| -> Option<u32> {
            let plain = (1..=5).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
            text.parse().ok().filter(|_| plain)
        };
        let range_is_good = |range: &str| match range.split_once('-') {
            Some((first, last)) => {
                matches!((number(first), number(last)), (Some(a), Some(b)) if a <= b)
            }
            None => number(range).is_some(),
        };
        if list.len() <= 1024 && list.split(',').all(range_is_good) {
            Ok(Self(list.to_string()))
        } else {
            Err(format!("{} is not {}", shown(list), Self::WHAT))
        }
    }

    fn value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

choice_type! {
    /// Where the host gets the name of the node from.
    HostnameSource {
        /// The private DNS name that EC2 knows.
        PrivateDnsName = "private-dns-name",
        /// The id of the instance.
        InstanceId = "instance-id",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::tests::{check, check_names};
    use serde_json::json;

    /// Checks what is returned for what is given; `None` where it is refused.
    fn returned<T: Model>(cases: &[(Value, Option<Value>)]) {
        for (given, expected) in cases {
            let mut faults = Faults::default();
            let read = T::read(given, &mut Key::root(), &mut faults);
            assert_eq!(read.map(|value| value.write()), *expected, "{given}");
            assert_eq!(faults.is_empty(), expected.is_some(), "{given}: {faults}");
        }
    }

    #[test]
    fn clusters() {
        check::<ClusterName>(
            &[
                json!("a"),
                json!("My_cluster-2"),
                json!("9"),
                json!("a".repeat(100)),
            ],
            &[
                json!(""),
                json!("-a"),
                json!("_a"),
                json!("a.b"),
                json!("a\n"),
                json!("a".repeat(101)),
            ],
        );
        check::<Domain>(
            &[json!("cluster.local"), json!("Corp.example")],
            &[
                json!(""),
                json!(".local"),
                json!("10.0.0.1"),
                json!("a..b"),
                json!("a b"),
                json!("a."),
            ],
        );
        check::<BootstrapToken>(
            &[json!("abcdef.0123456789abcdef")],
            &[
                json!("ABCDEF.0123456789abcdef"),
                json!("abcdef"),
                json!("abcdef.0123456789abcdef\n"),
            ],
        );
        check::<ProviderId>(
            &[json!("aws:///us-west-2a/i-0123"), json!("qemu://cellar/1")],
            &[
                json!(""),
                json!("aws:"),
                json!("://x"),
                json!("aws:///a b"),
                json!("aws:///a\nb"),
                json!("x"),
            ],
        );
    }

    #[test]
    fn labels_and_taints() {
        let long = format!("{}/{}", "a".repeat(253), "b".repeat(63));
        check_names::<LabelKey>(
            &[
                "a",
                "example.com/rack",
                "karpenter.sh/do-not-sync-taints",
                "A_b.c",
                &long,
            ],
            &[
                "",
                "/a",
                "a/",
                "a/b/c",
                "-a",
                "a-",
                "a b",
                "a=b",
                "a,b",
                "ex_ample.com/a",
                "a\n",
                "-a/b",
            ],
        );
        check::<LabelValue>(
            &[
                json!(""),
                json!("r7"),
                json!("a_b.c-d"),
                json!("a".repeat(63)),
            ],
            &[
                json!("-a"),
                json!("a b"),
                json!("a,b=c"),
                json!("a\n"),
                json!("a".repeat(64)),
                json!(1),
            ],
        );
        check::<Taint>(
            &[json!("db:NoSchedule"), json!(":NoExecute")],
            &[
                json!(""),
                json!("db"),
                json!("db:"),
                json!("d b:NoSchedule"),
                json!("db:No,Schedule"),
                json!("db:No:Schedule"),
                json!("a,b=c:NoSchedule"),
                json!("db:NoSchedule\n"),
            ],
        );
        returned::<Taints>(&[
            (json!("a:NoSchedule"), Some(json!(["a:NoSchedule"]))),
            (
                json!([":NoExecute", "a:NoSchedule"]),
                Some(json!([":NoExecute", "a:NoSchedule"])),
            ),
            (json!([]), None),
            (json!(["a"]), None),
            (json!(""), None),
            (json!(1), None),
            (json!({}), None),
        ]);
    }

    #[test]
    fn forms_are_returned_as_they_were_given() {
        returned::<OneOrMany<std::net::IpAddr>>(&[
            (json!("10.0.0.10"), Some(json!("10.0.0.10"))),
            (json!(["10.0.0.10"]), Some(json!(["10.0.0.10"]))),
            (
                json!(["fd00::a", "10.0.0.10"]),
                Some(json!(["fd00::a", "10.0.0.10"])),
            ),
            (json!("x"), None),
            (json!(["x"]), None),
            (json!(1), None),
        ]);
        returned::<Percent>(&[
            (json!(0), Some(json!(0))),
            (json!(100), Some(json!(100))),
            (json!("83"), Some(json!("83"))),
            (json!("0"), Some(json!("0"))),
            (json!(101), None),
            (json!(-1), None),
            (json!("101"), None),
            (json!("083"), None),
            (json!("+8"), None),
            (json!("8%"), None),
            (json!(""), None),
            (json!(83.0), None),
        ]);
        returned::<CloudProvider>(&[
            (json!("external"), Some(json!("external"))),
            (json!(""), Some(json!("\"\""))),
            (json!("\"\""), Some(json!("\"\""))),
            (json!("gcp"), None),
            (json!(null), None),
        ]);
        returned::<CpuManagerPolicy>(&[
            (json!("static"), Some(json!("static"))),
            (json!("Static"), Some(json!("static"))),
            (json!("STATIC"), None),
        ]);
        returned::<MemoryManagerPolicy>(&[
            (json!("static"), Some(json!("Static"))),
            (json!("None"), Some(json!("None"))),
            (json!("some"), None),
        ]);
        returned::<Factor>(&[
            (json!(0.9), Some(json!(0.9))),
            (json!(1), Some(json!(1))),
            (json!(1.0), Some(json!(1.0))),
            (json!(0), None),
            (json!(1.1), None),
            (json!("0.9"), None),
        ]);
    }

    #[test]
    fn amounts() {
        let quantities = [
            "0", "2", "90m", "512Mi", "1Gi", "0.5", ".5", "1.", "1e3", "1E-2", "5G", "-1", "100k",
            "1E",
        ];
        let not = [
            "", ".", "Mi", "1mi", "1KB", "1K", "1 Mi", "1Mi\n", "1.2.3", "1e", "0x10", "1e99999",
            "Mi1",
        ];
        check::<Quantity>(
            &quantities.map(|text| json!(text)),
            &not.map(|text| json!(text)),
        );
        check::<Quantity>(&[], &[json!(1), json!("10%")]);
        check::<Threshold>(
            &[
                json!("10%"),
                json!("0%"),
                json!("99.9%"),
                json!("250Mi"),
                json!("0"),
            ],
            &[
                json!("100%"),
                json!("-1%"),
                json!("%"),
                json!("1e1%"),
                json!("10%%"),
                json!("10 %"),
                json!(10),
                json!("ten"),
            ],
        );
        check::<Duration>(
            &[
                json!("0"),
                json!("30s"),
                json!("1m30s"),
                json!("2h0m0.5s"),
                json!("500ms"),
                json!("1.5h"),
            ],
            &[
                json!(""),
                json!("30"),
                json!("s"),
                json!("-1s"),
                json!("1d"),
                json!("1m 30s"),
                json!("1s\n"),
                json!("1..5s"),
                json!(30),
            ],
        );
        check::<GraceSeconds>(
            &[json!(0), json!(45)],
            &[json!(-1), json!(1u64 << 31), json!("45")],
        );
        check::<IdsPerPod>(
            &[json!(65536), json!(131_072)],
            &[
                json!(0),
                json!(1000),
                json!(-65536),
                json!(1u64 << 32),
                json!("65536"),
            ],
        );
    }

    #[test]
    fn processors_and_nodes() {
        check::<CpuSet>(
            &[json!("0"), json!("0-3,7"), json!("1,3,5-6")],
            &[
                json!(""),
                json!("3-0"),
                json!("a"),
                json!("0-"),
                json!("0,,1"),
                json!("0-3\n"),
                json!(0),
                json!("0-3-5"),
            ],
        );
        check_names::<NumaNode>(&["0", "12"], &["", "00", "-1", "a", "1.0", "99999"]);
        check_names::<EnvironmentName>(&["HOME", "_x1"], &["", "1a", "a-b", "a=b", "a b", "a\n"]);
    }
}
