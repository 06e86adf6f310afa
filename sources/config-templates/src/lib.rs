//! Configuration files rendered from settings.
//!
//! Packages declare their files in `[[config]]` tables; the build merges the
//! tables into one [`Catalog`], which lies in the image beside the templates.
//! [`render`] turns settings into texts without touching the file system;
//! [`Rendered::write`] replaces those files that differ and says which units
//! have to hear of it. A file that cannot be rendered, or does not parse as
//! the format that it declares, fails the whole rendering before anything is
//! written.
//!
//! Templates are in minijinja, strict: an undefined value is an error. They see
//! `settings` (tables always exist, settings only when they have a value),
//! reduced to what the file declares that it reads, and `os`. [`filters`] has
//! what they can call. At build time [`check`] renders everything with the
//! variant's defaults.
//!
//! A template may be written in TOML and become JSON (`from`), have a table of
//! settings laid over it (`overlay`), and make a folder of files (`folder`).
//!
//! Restarting units is left to the caller.

mod catalog;
mod data;
mod filters;
mod folder;
mod render;
mod reserved;
mod write;

pub use catalog::{Catalog, ConfigFile, Format};
pub use render::{Os, RenderedFile, check, render};
pub use write::{Rendered, Replaced};
