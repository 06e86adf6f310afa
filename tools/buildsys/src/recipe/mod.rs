//! How a package's files are obtained: one module per origin.
//!
//! Each recipe fills a folder with a part of the package's tree. Two more
//! origins are part of the design and have their place here: `go` (modules built
//! from a `go.mod` beside the manifest) and `source` (a Debian source package
//! and steps).

pub mod cargo;
pub mod debian;
pub mod efi;
pub mod files;
