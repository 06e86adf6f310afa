//! The formats of an image: root file system, verity, initrd, unified kernel
//! image, signatures, EFI system partition, disk.
//!
//! Pure: files and bytes in, files and bytes out. No module starts a program,
//! asks for the time or draws random numbers, and each makes the same bytes from
//! the same inputs. What a disk looks like is `boot-slots`' to say; which files,
//! keys and arguments go into it is the caller's.
//!
//! An image is made in this order:
//!
//! 1. [`rootfs_tar::write`] → `mkfs.erofs` with [`rootfs_tar::erofs_arguments`]
//! 2. [`boot_slots::verity::build`] over the result gives the root hash
//! 3. [`cpio::write`] makes the initrd
//! 4. [`uki::build`] joins kernel, initrd and the command line with the root hash
//! 5. [`authenticode::sign`] signs it, as it does the boot loader and the helper
//! 6. [`esp::build`] lays the signed files into a FAT file system
//! 7. [`disk::write`] puts everything into a partitioned disk
//!
//! ```no_run
//! use boot_slots::layout::{Architecture, DATA_SIZE_MIN, Role, Slot};
//! use disk_image::authenticode::{self, Signer};
//! use disk_image::{cpio, disk, esp, rootfs_tar, uki};
//! use std::fs::{self, File};
//! use std::path::Path;
//!
//! # fn main() -> anyhow::Result<()> {
//! # let (entries, initrd_files, stub, kernel): (Vec<rootfs_tar::Entry>, Vec<cpio::Entry>, Vec<u8>, Vec<u8>) = Default::default();
//! # let (key_pem, certificate_pem, boot_loader, fallback) = ("", "", vec![], vec![]);
//! rootfs_tar::write(&entries, File::create("root.tar")?)?;
//! // mkfs.erofs, with the arguments of `rootfs_tar::erofs_arguments`
//! let verity = boot_slots::verity::build(&File::open("root.erofs")?)?;
//! fs::write("root.verity", &verity.bytes)?;
//!
//! let signer = Signer::from_pem(key_pem, certificate_pem)?;
//! let image = uki::build(&uki::Options {
//!     stub: &stub,
//!     os_release: "ID=bulkhead\nIMAGE_ID=bulkhead\nIMAGE_VERSION=1.2.0\n",
//!     command_line: &format!("bulkhead.root={} panic=5", verity.root_hash),
//!     kernel_release: "6.12.0-cloud-amd64",
//!     kernel: &kernel,
//!     initrd: &cpio::write(&initrd_files)?,
//! })?;
//! let image = authenticode::sign(&image, &signer)?;
//!
//! let files = [
//!     ("EFI/BOOT/BOOTX64.EFI", authenticode::sign(&fallback, &signer)?),
//!     ("EFI/systemd/systemd-bootx64.efi", authenticode::sign(&boot_loader, &signer)?),
//!     ("EFI/Linux/bulkhead_1.2.0.efi", image),
//! ];
//! let esp = esp::build(&files)?;
//! disk::write(
//!     Path::new("disk.img"),
//!     &disk::Options { architecture: Architecture::X86_64, data_size: DATA_SIZE_MIN },
//!     &[
//!         (Role::Esp, disk::Content::Bytes(&esp)),
//!         (Role::Root(Slot::A), disk::Content::File(Path::new("root.erofs"))),
//!         (Role::Verity(Slot::A), disk::Content::Bytes(&verity.bytes)),
//!     ],
//! )?;
//! # Ok(())
//! # }
//! ```

pub mod authenticode;
pub mod certificate;
pub mod cpio;
mod der;
pub mod disk;
pub mod esp;
pub mod pe;
pub mod rootfs_tar;
pub mod uki;
