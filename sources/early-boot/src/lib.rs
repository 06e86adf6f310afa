//! User data from each platform.
