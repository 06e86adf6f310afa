//! The settings model.
