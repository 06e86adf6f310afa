//! Debian formats: versions, control files, indexes, archives, signatures.
//!
//! Everything here reads bytes that come from elsewhere. Each parser takes a
//! reader or a text, gives checked values ([`version::Version`],
//! [`index::Package`], [`release::Release`], [`archive::Entry`]) or an [`Error`],
//! never panics and never needs more memory than a fixed bound; [`properties`]
//! states that for property tests and fuzzers alike.
//!
//! Start at [`release`] (what a signed index is), then [`index`] (what packages
//! there are), then [`archive`] (what is in one). Nothing here fetches, resolves
//! dependencies, or knows about mirrors: that is the crate `buildsys`.

pub mod archive;
pub mod control;
pub mod digest;
pub mod index;
pub mod openpgp;
pub mod properties;
pub mod relation;
pub mod release;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod version;

use std::io;

/// What can be wrong with foreign bytes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They are not what they should be.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// They could not be read.
    #[error("cannot read {what}")]
    Read {
        /// What was read.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A file could not be written when unpacking.
    #[error("cannot unpack {path}")]
    Unpack {
        /// Where it was to go.
        path: String,
        /// Why not.
        source: io::Error,
    },
}
