//! How a package's files are obtained: one module per origin.
//!
//! Each recipe fills a folder with a part of the package's tree. One more origin is
//! part of the design and has its place here: `source` (a Debian source package
//! and steps).

pub mod cache;
pub mod cargo;
pub mod debian;
pub mod efi;
pub mod files;
pub mod go;
