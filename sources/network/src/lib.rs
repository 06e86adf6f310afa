//! What the host needs between its network manager (networkd) and the programs
//! that use the network.
//!
//! [`net_toml`] reads the network configuration into the types of [`model`],
//! [`networkd`] turns those into units of networkd, and [`sources`] knows where a
//! configuration comes from and where the units go.

mod command_line;
mod fault;
pub mod model;
pub mod net_toml;
pub mod networkd;
#[doc(hidden)]
pub mod properties;
pub mod sources;

pub use fault::{Fault, Faults};
