//! Boots images under QEMU and talks to them.
