//! Debian formats: versions, control files, indexes, archives, signatures.
