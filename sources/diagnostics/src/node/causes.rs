//! What keeps a node from its work, by what kubelet says of it.

use serde::{Deserialize, Serialize};

/// Why a node is not ready, or does not run what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Nobody has said which cluster the node belongs to.
    NoCluster,
    /// The container runtime does not run, without which kubelet does not, either.
    Runtime,
    /// Certificates are of another time than the clock's.
    Clock,
    /// The API server's certificate is not of the authority in the settings.
    Authority,
    /// The API server does not believe what the node proves itself by.
    Credentials,
    /// Nothing comes back from the API server.
    ApiServer,
    /// No network plugin has said how pods are connected.
    PodNetwork,
    /// The data partition is full.
    DataPartition,
    /// An image does not have the content that its name promises.
    ImageContent,
    /// A registry's connections are refused, or end too early.
    Registry,
    /// kubelet ends by itself, for none of the reasons above.
    Kubelet,
}

/// How a cause shows.
struct Sign {
    cause: Cause,
    /// A message that has all the words of one of these.
    words: &'static [&'static [&'static str]],
}

const TIME: &str = "x509: certificate has expired or is not yet valid";
/// What every request to the API server has, and no probe of a pod.
const API: &str = "https://";
const PULL: &str = "failed to pull";

/// The first that fits is it: messages about images speak of requests, too, and those
/// of a kubelet that ends of what ended it.
const SIGNS: &[Sign] = &[
    Sign {
        cause: Cause::Clock,
        words: &[&[TIME]],
    },
    Sign {
        cause: Cause::DataPartition,
        words: &[
            &["attempting to reclaim", "ephemeral-storage"],
            &["no space left on device"],
        ],
    },
    Sign {
        cause: Cause::ImageContent,
        words: &[
            &[PULL, "unexpected commit digest"],
            &[PULL, "digest mismatch"],
        ],
    },
    Sign {
        cause: Cause::Registry,
        words: &[
            &[PULL, "EOF"],
            &[PULL, "connection reset by peer"],
            &[PULL, "dial tcp"],
            &[PULL, "timeout"],
        ],
    },
    Sign {
        cause: Cause::Authority,
        words: &[&[API, "x509: certificate signed by unknown authority"]],
    },
    Sign {
        cause: Cause::Credentials,
        words: &[
            &["certificate signing request", "Unauthorized"],
            &["node", "Unauthorized"],
        ],
    },
    Sign {
        cause: Cause::ApiServer,
        words: &[
            &[API, "/api", "dial tcp"],
            &[API, "/api", "Client.Timeout exceeded"],
            &[API, "/api", "context deadline exceeded"],
            &[API, "/api", "EOF"],
        ],
    },
    Sign {
        cause: Cause::PodNetwork,
        words: &[&["cni plugin not initialized"]],
    },
    Sign {
        cause: Cause::Kubelet,
        words: &[&["\"command failed\""]],
    },
];

impl Cause {
    /// The cause that a message of kubelet's speaks of, if it is one of these.
    pub(super) fn of(message: &str) -> Option<Self> {
        let has = |words: &&[&str]| words.iter().all(|word| message.contains(word));
        SIGNS
            .iter()
            .find(|sign| sign.words.iter().any(has))
            .map(|sign| sign.cause)
    }

    /// What is wrong.
    pub fn about(self) -> &'static str {
        match self {
            Self::NoCluster => "no cluster is configured, so kubelet does not run",
            Self::Runtime => "the container runtime does not answer",
            Self::Clock => "the clock is wrong, or a certificate's time is over",
            Self::Authority => "the API server's certificate is of another authority",
            Self::Credentials => "the API server refuses the node's credentials",
            Self::ApiServer => "the API server does not answer",
            Self::PodNetwork => "no network plugin is installed",
            Self::DataPartition => "the data partition is full",
            Self::ImageContent => "an image is not what its digest says",
            Self::Registry => "a registry drops or refuses connections",
            Self::Kubelet => "kubelet does not stay up",
        }
    }

    /// What to look at.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NoCluster => "see settings.kubernetes, and apiclient report user-data",
            Self::Runtime => {
                "see the journal of containerd.service, and settings.container-runtime"
            }
            Self::Clock => "see settings.ntp, and when the server's certificate ends",
            Self::Authority => "see settings.kubernetes.cluster-certificate",
            Self::Credentials => {
                "see settings.kubernetes.bootstrap-token and when it ends, or the role's access"
            }
            Self::ApiServer => "see settings.kubernetes.api-server, network and proxy",
            Self::PodNetwork => "install the cluster's network plugin",
            Self::DataPartition => "remove what fills it, or give the node a larger one",
            Self::ImageContent => "push the image anew",
            Self::Registry => "see the registry, settings.container-registry, network and proxy",
            Self::Kubelet => "see what it says, and settings.kubernetes",
        }
    }
}
