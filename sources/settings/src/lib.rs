//! The settings model: every setting that the host knows, declared once.
//!
//! A group of settings is one file in [`groups`]: each key with its type (and
//! so its validation), what it means, its default and whether the host
//! generates it. Everything else follows from those declarations: reading
//! with an error for each fault ([`Document`]), defaults, the list of
//! generated settings, and the schema ([`Schema`]).
//!
//! Settings travel and are stored as a [`Document`], a sparse tree of what
//! somebody has set; [`Settings`] is the same in types, for Rust code that
//! reads some of them. A document can only be had checked, so nobody further
//! in checks again.
//!
//! Not every variant has every setting: a declaration says which do
//! ([`Scope`]), [`Settings::schema_for`] is the schema of one [`Variant`], and
//! [`Document::foreign_to`] finds what a document sets in vain. Reading takes
//! every setting there is, so that a document means the same everywhere.
//!
//! To add a setting, open its group; to add a group, write its file and name
//! it in [`Settings`]. Defaults that differ between variants are not here but
//! in the variants' files; storing is `settings-store`'s, rendering
//! `config-templates`'.

mod document;
mod fault;
pub mod groups;
mod json_schema;
mod key;
pub mod limits;
mod model;
#[doc(hidden)]
pub mod planted;
#[doc(hidden)]
pub mod properties;
pub mod secret;
pub mod types;
mod variant;

pub use document::{Document, lay_over, leaves, merge_tables};
pub use fault::{Fault, Faults, nearest};
pub use groups::Settings;
pub use groups::upstream::NEWEST_KUBERNETES_MINOR;
pub use key::{Key, KeyError};
pub use model::{Field, Generator, MapKey, Model, Scalar, Schema};
pub use variant::{Platform, Scope, Variant, VariantError};
