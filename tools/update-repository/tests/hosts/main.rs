//! Hosts and a repository: what `updater` does with what this crate makes.

#![allow(clippy::unwrap_used, reason = "a test")]

mod aws;
mod disks;
mod far;
mod fixture;
mod hostile;
mod kernel_images;
mod killed;
mod tls;
mod updates;
