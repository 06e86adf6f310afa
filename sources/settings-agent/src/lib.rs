//! The pipeline from user data and defaults to rendered configuration files.
