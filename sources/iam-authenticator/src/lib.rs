//! The token by which a node on EC2 proves to its cluster who it is.
//!
//! It is a question to AWS' token service, "who am I?", signed with the credentials
//! of the instance's role and never asked by us: the cluster asks it, and learns the
//! role from the answer. kubelet starts the program `aws-iam-authenticator` for it, the
//! name that its configuration has everywhere, as an exec credential plugin.
//!
//! [`token`] makes the question and what kubelet reads; `aws-client` finds the credentials
//! and signs. Nothing here talks to AWS but to the metadata service. With the feature
//! `fake`, [`fake`] judges a token as AWS would.

#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod token;
