//! What a host can tell about itself beyond its settings: for now, where the
//! time of its boot went. Support bundles and compliance reports come here.
//!
//! Each report is a module that parses recorded text into a value which can be
//! shown (`Display`) and sent (`Serialize`); only a `gather` at its end touches
//! the system.

mod boot;

pub use boot::{BootReport, Mark, Phase, Step, boot_report};
