//! The build system: definitions → plan → fetch → toolchain → packages → image.
//!
//! Start reading at [`image`], whose `build` is the list of these steps. Formats
//! of Debian live in the crate `deb`, formats of the disk in `disk-image`,
//! namespaces in `sandbox`; the command line is the crate `bulkhead`.

pub mod check;
pub mod executor;
pub mod fetch;
pub mod image;
pub mod keys;
pub mod kits;
pub mod lock;
pub mod manifest;
pub mod mirror;
pub mod package;
pub mod plan;
pub mod progress;
pub mod project;
pub mod recipe;
pub mod resolve;
pub mod rootfs;
pub mod sdk;
pub mod selinux;
pub mod signals;
pub mod store;
