//! What a host can tell about itself beyond its settings: where the time of its
//! boot went ([`BootReport`], which the API server makes), what keeps a node of a
//! cluster from its work ([`node`]), everything that is needed to understand a problem
//! ([`bundle`]), and that it is well ([`health_ping`]). The program `diagnostics` does
//! the latter three, so that the API server needs no right to read all of it, and no
//! memory for it.
//!
//! Each parses recorded text into values; only a function at its edge touches the
//! system.

mod boot;
pub mod bundle;
pub mod health_ping;
pub mod node;

pub use boot::{BootReport, Mark, Phase, Step, boot_report};
