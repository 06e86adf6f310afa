//! Settings at boot and on change.
//!
//! At boot ([`boot`]): open the store, take user data once, compute what is
//! unset but can be computed ([`generators`]), make both durable, render every
//! config file. On a change ([`Host::apply`]): render the files that read the
//! changed settings, replace those that differ, restart or reload the units
//! that the files name.
//!
//! Nothing here keeps a machine from its API: damage and bad user data are said
//! on the console, in the journal and in a report, and the defaults hold. What
//! decides the host's identity, its cluster or its security and is faulty in user
//! data stops the boot behind the API. The
//! settings themselves are `settings-store`'s, user data `early-boot`'s, files
//! `config-templates`'; this crate owns the order and what happens in between.

pub mod generators;
mod host;
mod machine_limits;
mod pipeline;
pub mod units;

pub use host::{Applied, Host, layout};
pub use pipeline::{Booted, boot, user_data_report};
pub use units::{Systemd, Units};
