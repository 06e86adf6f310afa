//! Formats of the disk: partition table, root file system, verity, ESP, unified kernel image.
