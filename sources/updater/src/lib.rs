//! Brings a new image into the slot that does not run, and makes it boot next.
//!
//! One program, started by the API server once for each command, through the units
//! `update@…`. Start at [`state::State`], the states and what leads from one to another,
//! and at [`commands::Host::run`], the commands. [`repository`] is the signed repository as
//! a host sees it, [`http`] and [`connect`] how it is reached, [`delta`] what need not be
//! fetched, [`fill`] how a file is put together from that and the rest, and [`slot`] and
//! [`kernel_image`] what is special about the two files that are. Names and order of kernel images are `boot-slots`'
//! business, blessing `system-config`'s, and which update a host takes
//! `update-metadata`'s.
//!
//! The slot that runs is never written; the other one only while the running image is
//! known to boot. A half-filled slot has no superblock and no kernel image that names it.

pub mod commands;
pub mod connect;
pub mod delta;
pub mod fill;
pub mod http;
pub mod kernel_image;
pub mod repository;
pub mod slot;
pub mod state;
