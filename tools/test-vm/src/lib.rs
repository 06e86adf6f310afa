//! Boots images under QEMU and talks to them.
//!
//! Start reading at [`Builder`], which puts a machine together, and [`Machine`],
//! which watches its console and presses its buttons. The emulator is never the
//! workstation's: everything that runs comes from the emulator toolchain, in its
//! sandbox, and a machine's network is a namespace of its own unless it is asked
//! to reach further.
//!
//! What is judged is the processor time of the emulator, which repeats within a
//! few per cent on a loaded workstation, never the time on the clock.
//!
//! What an image should do is not known here; that is the crate `scenarios`.

mod accel;
pub mod api;
pub mod cluster;
mod console;
pub mod disk;
mod ec2;
mod ecr;
mod emulator;
pub mod files;
pub mod firmware;
mod machine;
mod network;
mod platform;
pub mod probe;
pub mod process;
mod qmp;
pub mod services;
pub mod socket;
pub mod wire;
pub mod write_log;

pub use accel::Acceleration;
pub use console::Line;
pub use ec2::Ec2;
pub use ecr::Ecr;
pub use emulator::Emulator;
pub use machine::{Builder, DOOR_PORT, Disk, ExtraDisk, Machine, Reach, Wait};
pub use network::TestNetwork;
pub use services::Services;
