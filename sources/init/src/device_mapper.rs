//! Opening a slot through dm-verity, by the kernel's own interface.

#![allow(unsafe_code)] // the interface is ioctls on a structure

use crate::disks::FoundSlot;
use crate::outcome::Failure;
use boot_slots::gpt::SECTOR_SIZE;
use boot_slots::layout::Role;
use boot_slots::verity::RootHash;
use std::fs::OpenOptions;
use std::mem::size_of;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

const CONTROL: &str = "/dev/mapper/control";
const NAME: &[u8] = b"bulkhead-root";
const TARGET: &[u8] = b"verity";
const READ_ONLY: u32 = 1;
const VERSION: [u32; 3] = [4, 0, 0];
/// Room for the target's parameters, which are about 350 bytes.
const PARAMETERS_MAX: usize = 1024;

/// `struct dm_ioctl`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_number: u32,
    padding: u32,
    device: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

/// `struct dm_target_spec`.
#[repr(C)]
#[derive(Clone, Copy)]
struct TargetSpec {
    sector_start: u64,
    length: u64,
    status: i32,
    next: u32,
    target_type: [u8; 16],
}

/// What is passed: the header and, for a table, one target with its parameters.
#[repr(C)]
struct Request {
    header: Header,
    target: TargetSpec,
    parameters: [u8; PARAMETERS_MAX],
}

const _: () = assert!(size_of::<Header>() == 312 && size_of::<TargetSpec>() == 40);

nix::ioctl_readwrite!(create, 0xfd, 3, Header);
nix::ioctl_readwrite!(suspend, 0xfd, 6, Header);
nix::ioctl_readwrite!(load_table, 0xfd, 9, Header);

type Ioctl = unsafe fn(i32, *mut Header) -> nix::Result<i32>;

/// Opens the slot; returns the device of the verified root.
pub fn open_verity(found: &FoundSlot, root_hash: &RootHash) -> Result<PathBuf, Failure> {
    let data = found.device_number(Role::Root(found.slot))?;
    let hashes = found.device_number(Role::Verity(found.slot))?;
    let parameters = found
        .superblock
        .device_mapper_table(root_hash, &data, &hashes);
    if parameters.len() >= PARAMETERS_MAX {
        return Err(Failure::plain("the parameters of dm-verity are too long"));
    }
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open(CONTROL)
        .map_err(Failure::on("open", Path::new(CONTROL)))?;
    let call = |step: &str, ioctl: Ioctl, request: &mut Request| {
        // SAFETY: the header is the start of a request that has `data_size` bytes,
        // which is what the kernel reads and writes.
        unsafe { ioctl(control.as_raw_fd(), (&raw mut *request).cast()) }
            .map_err(|error| Failure::new(format!("cannot {step} the verified root"), error))
    };
    let mut created = Request::new();
    // Only this one call may name the UUID as well; the others go by name alone.
    let uuid = format!(
        "CRYPT-VERITY-{}-bulkhead-root",
        found.superblock.uuid.simple()
    );
    created.header.uuid[..uuid.len()].copy_from_slice(uuid.as_bytes());
    call("create", create, &mut created)?;

    let mut table = Request::new();
    table.header.flags = READ_ONLY;
    table.header.target_count = 1;
    table.target.length = found.superblock.data_size() / SECTOR_SIZE;
    table.target.target_type[..TARGET.len()].copy_from_slice(TARGET);
    table.parameters[..parameters.len()].copy_from_slice(parameters.as_bytes());
    call("load", load_table, &mut table)?;
    // Without the flag to suspend, this resumes.
    call("start", suspend, &mut Request::new())?;

    let minor = created.header.device & 0xff | created.header.device >> 12 & 0xfff00;
    Ok(PathBuf::from(format!("/dev/dm-{minor}")))
}

impl Request {
    fn new() -> Self {
        let mut name = [0; 128];
        name[..NAME.len()].copy_from_slice(NAME);
        Self {
            header: Header {
                version: VERSION,
                data_size: size_of::<Self>() as u32,
                data_start: size_of::<Header>() as u32,
                target_count: 0,
                open_count: 0,
                flags: 0,
                event_number: 0,
                padding: 0,
                device: 0,
                name,
                uuid: [0; 129],
                data: [0; 7],
            },
            target: TargetSpec {
                sector_start: 0,
                length: 0,
                status: 0,
                next: 0,
                target_type: [0; 16],
            },
            parameters: [0; PARAMETERS_MAX],
        }
    }
}
