//! Settings on disk and in transactions.
//!
//! The store keeps what the user set and what the host generated, apart from
//! each other, in one file per state: a commit writes the next state beside
//! the current one, makes it durable and renames it into place, and the state
//! before it is kept. A power cut leaves the old state or the new one; a file
//! that does not match its checksum is passed over for the one before it.
//!
//! Defaults are never stored: they come with the image ([`Layers`] puts the
//! layers on top of each other), so an update can change them. Transactions
//! that are not committed live in memory and end with the process.
//!
//! The last changes are kept with what was before them ([`history`]), and what
//! another release stored is brought to this one's names ([`migrations`]).
//!
//! Start at [`Store`]; [`disk`] has the file format, [`files`] the file
//! operations and what they promise. What a change leads to on the host is
//! `settings-agent`'s business.

pub mod disk;
pub mod files;
pub mod history;
pub mod migrations;
mod pending;
mod store;

pub use disk::{Release, State};
pub use history::{Entry, History, Origin};
pub use pending::{Change, Pending, Strength};
pub use store::{Error, Layers, Opened, Store};
