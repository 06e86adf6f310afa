//! How much of anything is taken, so that no document can exhaust the host.

/// Bytes of one settings document, as text or as JSON.
pub const DOCUMENT_BYTES: usize = 2 * 1024 * 1024;

/// Keys of one document, tables included.
pub const DOCUMENT_KEYS: usize = 10_000;

/// Bytes of one dotted key.
pub const KEY_BYTES: usize = 1024;

/// Faults told one by one; of more only the number is told.
pub const FAULTS: usize = 32;
