//! System calls that neither std nor nix wraps: resizing a partition that is
//! in use, growing a mounted ext4, SELinux labels, the size of a terminal, whether the clock
//! is right.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;

mod ioctls {
    use super::BlkpgArgument;

    nix::ioctl_write_ptr_bad!(blkpg, 0x1269, BlkpgArgument);
    nix::ioctl_read!(block_device_size, 0x12, 114, u64);
    nix::ioctl_write_ptr!(ext4_resize, b'f', 16, u64);
    nix::ioctl_readwrite!(nvme_admin, b'N', 0x41, super::NvmeCommand);
    nix::ioctl_read_bad!(window_size, nix::libc::TIOCGWINSZ, nix::libc::winsize);
}

/// `struct blkpg_ioctl_arg` of linux/blkpg.h.
#[repr(C)]
struct BlkpgArgument {
    operation: libc::c_int,
    flags: libc::c_int,
    length: libc::c_int,
    data: *mut BlkpgPartition,
}

/// `struct blkpg_partition` of linux/blkpg.h.
#[repr(C)]
struct BlkpgPartition {
    start: libc::c_longlong,
    length: libc::c_longlong,
    number: libc::c_int,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// `struct nvme_passthru_cmd` of linux/nvme_ioctl.h.
#[repr(C)]
#[derive(Default)]
struct NvmeCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    words_2_and_3: [u32; 2],
    metadata: u64,
    address: u64,
    metadata_length: u32,
    data_length: u32,
    words_10_to_15: [u32; 6],
    timeout_ms: u32,
    result: u32,
}

const NVME_IDENTIFY: u8 = 6;
const NVME_IDENTIFY_CONTROLLER: u32 = 1;

const BLKPG_RESIZE_PARTITION: libc::c_int = 3;

/// Tells the kernel that partition `number` of `disk` now has another length,
/// in bytes, while it or its neighbours are in use.
pub fn resize_partition(disk: &File, number: u32, start: u64, length: u64) -> Result<()> {
    let mut partition = BlkpgPartition {
        start: start.try_into().context("partition start")?,
        length: length.try_into().context("partition length")?,
        number: number.try_into().context("partition number")?,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let argument = BlkpgArgument {
        operation: BLKPG_RESIZE_PARTITION,
        flags: 0,
        length: size_of::<BlkpgPartition>() as libc::c_int,
        data: &mut partition,
    };
    // SAFETY: the argument and the partition it points to have the kernel's
    // layout and live until the call returns.
    unsafe { ioctls::blkpg(disk.as_raw_fd(), &argument) }
        .with_context(|| format!("telling the kernel of partition {number}'s new size"))?;
    Ok(())
}

/// The size of an open block device in bytes.
pub fn block_device_size(device: &File) -> Result<u64> {
    let mut size = 0;
    // SAFETY: BLKGETSIZE64 writes one u64 to the address it is given.
    unsafe { ioctls::block_device_size(device.as_raw_fd(), &mut size) }
        .context("asking for the size of the block device")?;
    Ok(size)
}

/// How the controller of an open NVMe disk describes itself: the data structure of
/// Identify Controller.
pub fn nvme_controller(disk: &File) -> Result<[u8; 4096]> {
    let mut description = [0; 4096];
    let mut command = NvmeCommand {
        opcode: NVME_IDENTIFY,
        address: description.as_mut_ptr() as u64,
        data_length: description.len() as u32,
        words_10_to_15: [NVME_IDENTIFY_CONTROLLER, 0, 0, 0, 0, 0],
        ..NvmeCommand::default()
    };
    // SAFETY: the command has the kernel's layout, and the buffer that it points to is
    // as long as it says and outlives the call.
    unsafe { ioctls::nvme_admin(disk.as_raw_fd(), &mut command) }
        .context("identifying the NVMe controller")?;
    Ok(description)
}

/// How many lines a terminal has, and how many characters in each.
pub fn window_size(terminal: BorrowedFd<'_>) -> Result<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one winsize to the address it is given.
    unsafe { ioctls::window_size(terminal.as_raw_fd(), &mut size) }
        .context("asking a terminal for its size")?;
    Ok((size.ws_row, size.ws_col))
}

/// Grows the mounted ext4 that `folder` lies on to `blocks` of its blocks.
pub fn grow_ext4(folder: &Path, blocks: u64) -> Result<()> {
    let handle = File::open(folder).with_context(|| format!("opening {}", folder.display()))?;
    // SAFETY: EXT4_IOC_RESIZE_FS reads one u64 from the address it is given.
    unsafe { ioctls::ext4_resize(handle.as_raw_fd(), &blocks) }
        .with_context(|| format!("growing the file system at {}", folder.display()))?;
    Ok(())
}

/// Sets the SELinux label of `path` itself (links are not followed). Without
/// SELinux, or on a file system without labels, nothing happens.
pub fn set_selinux_label(path: &Path, label: &str) -> Result<()> {
    let c_path = CString::new(path.as_os_str().as_bytes()).context("path with a zero byte")?;
    // The kernel keeps labels with their terminating zero byte.
    let c_label = CString::new(label).context("label with a zero byte")?;
    let value = c_label.as_bytes_with_nul();
    // SAFETY: both names are C strings, and the value is as long as we say.
    let status = unsafe {
        libc::lsetxattr(
            c_path.as_ptr(),
            c"security.selinux".as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    match Errno::result(status) {
        Ok(_) | Err(Errno::ENOTSUP) => Ok(()),
        Err(error) => Err(error)
            .with_context(|| format!("setting the SELinux label of {} to {label}", path.display())),
    }
}

/// The SELinux label of `path` itself (links are not followed); none without
/// SELinux, or on a file system without labels.
pub fn selinux_label(path: &Path) -> Result<Option<String>> {
    let label = attribute(path, c"security.selinux")
        .with_context(|| format!("reading the SELinux label of {}", path.display()))?;
    Ok(label.map(|label| {
        let label = label.strip_suffix(b"\0").unwrap_or(&label);
        String::from_utf8_lossy(label).into_owned()
    }))
}

/// The extended attribute `name` of `path` itself (links are not followed), if it has it. One
/// of more than a page is an error.
pub fn attribute(path: &Path, name: &CStr) -> Result<Option<Vec<u8>>> {
    let c_path = CString::new(path.as_os_str().as_bytes()).context("path with a zero byte")?;
    // Longer than any label: the kernel keeps them below a page.
    let mut value = vec![0_u8; 4096];
    // SAFETY: both names are C strings, and the buffer is as long as we say.
    let length = unsafe {
        libc::lgetxattr(
            c_path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    match Errno::result(length) {
        Ok(length) => {
            value.truncate(length.unsigned_abs());
            Ok(Some(value))
        }
        Err(Errno::ENODATA | Errno::ENOTSUP) => Ok(None),
        Err(error) => {
            let name = name.to_string_lossy();
            Err(error).with_context(|| format!("reading {name} of {}", path.display()))
        }
    }
}

/// Whether something keeps the clock right, as whoever does tells the kernel.
pub fn clock_is_synchronised() -> bool {
    // SAFETY: zeros are a valid `timex`, which asks for nothing to be changed.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: it is written to by the call alone.
    let clock = unsafe { libc::adjtimex(&mut state) };
    clock != -1 && clock != libc::TIME_ERROR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_size() {
        assert_eq!(size_of::<BlkpgPartition>(), 152);
        assert_eq!(size_of::<BlkpgArgument>(), 24);
        assert_eq!(size_of::<NvmeCommand>(), 72);
    }

    #[test]
    fn errors_name_what_was_tried() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "").expect("file");
        let file = File::open(&path).expect("open");
        let error = block_device_size(&file).expect_err("no block device");
        assert!(format!("{error:#}").contains("size of the block device"));
        let error = resize_partition(&file, 7, 0, 1).expect_err("no disk");
        assert!(format!("{error:#}").contains("partition 7"));
        let error = nvme_controller(&file).expect_err("no disk");
        assert!(format!("{error:#}").contains("NVMe controller"));
        let none = folder.path().join("none");
        let error = set_selinux_label(&none, "a:b:c:s0").expect_err("none");
        assert!(format!("{error:#}").contains("a:b:c:s0"));
        let error = selinux_label(&none).expect_err("none");
        assert!(format!("{error:#}").contains("reading the SELinux label"));
    }
}
