//! Boot report and support data.
