//! The part of the firmware's interface that this program uses: UEFI 2.10,
//! sections 4 (tables), 7 (boot services), 9 and 10 (images and device paths),
//! 12.4 (text output) and 13.4, 13.5 (files).

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ffi::c_void;
use core::fmt;
use core::mem::size_of;
use core::ptr;

/// A handle of the firmware.
pub type Handle = *mut c_void;

/// What a call to the firmware returned.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Status(usize);

impl Status {
    const ERROR: usize = 1 << (usize::BITS - 1);
    const SUCCESS: Self = Self(0);
    const UNSUPPORTED: Self = Self(Self::ERROR | 3);
    /// Something is not there.
    pub const NOT_FOUND: Self = Self(Self::ERROR | 14);

    fn ok(self) -> Result<(), Self> {
        if self.0 & Self::ERROR == 0 {
            Ok(())
        } else {
            Err(self)
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 & !Self::ERROR {
            0 => "success",
            1 => "load error",
            2 => "invalid parameter",
            3 => "unsupported",
            7 => "device error",
            9 => "out of resources",
            10 => "file system corrupted",
            14 => "not found",
            15 => "access denied: altered, or not signed by a trusted key",
            26 => "security violation: altered, or not signed by a trusted key",
            code => return write!(f, "status {code}"),
        };
        f.write_str(text)
    }
}

#[repr(C)]
#[derive(PartialEq, Eq)]
struct Guid(u32, u16, u16, [u8; 8]);

const LOADED_IMAGE: Guid = Guid(
    0x5b1b31a1,
    0x9562,
    0x11d2,
    [0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b],
);
const SIMPLE_FILE_SYSTEM: Guid = Guid(
    0x964e5b22,
    0x6459,
    0x11d2,
    [0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b],
);
const DEVICE_PATH: Guid = Guid(
    0x09576e91,
    0x6d3f,
    0x11d2,
    [0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b],
);

#[repr(C)]
struct TableHeader {
    signature: u64,
    revision: u32,
    header_size: u32,
    crc32: u32,
    reserved: u32,
}

/// The table that the firmware passes to a program.
#[repr(C)]
pub struct SystemTable {
    header: TableHeader,
    vendor: *const u16,
    revision: u32,
    console_in_handle: Handle,
    console_in: *mut c_void,
    console_out_handle: Handle,
    console_out: *mut TextOutput,
    error_handle: Handle,
    error: *mut TextOutput,
    runtime_services: *mut c_void,
    boot_services: *const BootServices,
}

#[repr(C)]
struct TextOutput {
    reset: usize,
    output_string: unsafe extern "efiapi" fn(*mut TextOutput, *const u16) -> Status,
}

/// Members that are not used are numbers of the same size, so that the others
/// lie where they should.
#[repr(C)]
pub struct BootServices {
    header: TableHeader,
    raise_tpl: usize,
    restore_tpl: usize,
    allocate_pages: usize,
    free_pages: usize,
    get_memory_map: usize,
    /// Takes memory of a type (2: loader data) and a size.
    pub allocate_pool: unsafe extern "efiapi" fn(u32, usize, *mut *mut u8) -> Status,
    /// Gives it back.
    pub free_pool: unsafe extern "efiapi" fn(*mut u8) -> Status,
    create_event: usize,
    set_timer: usize,
    wait_for_event: usize,
    signal_event: usize,
    close_event: usize,
    check_event: usize,
    install_protocol_interface: usize,
    reinstall_protocol_interface: usize,
    uninstall_protocol_interface: usize,
    handle_protocol: unsafe extern "efiapi" fn(Handle, *const Guid, *mut *mut c_void) -> Status,
    reserved: usize,
    register_protocol_notify: usize,
    locate_handle: usize,
    locate_device_path: usize,
    install_configuration_table: usize,
    load_image: unsafe extern "efiapi" fn(
        u8,
        Handle,
        *const u8,
        *const c_void,
        usize,
        *mut Handle,
    ) -> Status,
    start_image: unsafe extern "efiapi" fn(Handle, *mut usize, *mut *mut u16) -> Status,
    exit: usize,
    unload_image: unsafe extern "efiapi" fn(Handle) -> Status,
}

#[repr(C)]
struct LoadedImage {
    revision: u32,
    parent: Handle,
    system_table: *const SystemTable,
    device: Handle,
}

#[repr(C)]
struct FileSystem {
    revision: u64,
    open_volume: unsafe extern "efiapi" fn(*mut FileSystem, *mut *mut File) -> Status,
}

#[repr(C)]
struct File {
    revision: u64,
    open: unsafe extern "efiapi" fn(*mut File, *mut *mut File, *const u16, u64, u64) -> Status,
    close: unsafe extern "efiapi" fn(*mut File) -> Status,
    delete: usize,
    read: unsafe extern "efiapi" fn(*mut File, *mut usize, *mut u8) -> Status,
}

const OPEN_READ: u64 = 1;
/// In EFI_FILE_INFO: offsets of the attributes and of the name.
const INFO_ATTRIBUTES: usize = 72;
const INFO_NAME: usize = 80;
const ATTRIBUTE_FOLDER: u64 = 0x10;
/// The longest name on a FAT file system fits.
const INFO_SIZE_MAX: usize = INFO_NAME + 2 * 256;
/// More than any EFI system partition of ours holds.
const FILES_MAX: usize = 1000;

/// Types of nodes in a device path.
const NODE_END: u8 = 0x7f;
const NODE_MEDIA: u8 = 0x04;
const NODE_FILE_PATH: u8 = 0x04;
const NODE_HEADER_SIZE: usize = 4;
/// Keeps a damaged path from being followed for ever.
const NODES_MAX: usize = 64;

/// The firmware, as seen by this program.
pub struct Firmware {
    image: Handle,
    table: *const SystemTable,
    services: *const BootServices,
}

impl Firmware {
    /// # Safety
    ///
    /// Both must be what the firmware passed to the program, and boot services
    /// must not have ended.
    pub unsafe fn new(image: Handle, table: *const SystemTable) -> Self {
        // SAFETY: the caller vouches for the table.
        let services = unsafe { (*table).boot_services };
        Self {
            image,
            table,
            services,
        }
    }

    /// The table of boot services.
    pub fn boot_services(&self) -> *const BootServices {
        self.services
    }

    /// Prints on the firmware's console.
    pub fn print(&self, text: &str) {
        let text = utf16(text);
        // SAFETY: the table is the firmware's (see `new`), and the text ends with 0.
        unsafe {
            let console = (*self.table).console_out;
            if !console.is_null() {
                // A console that fails can not be told about.
                let _ = ((*console).output_string)(console, text.as_ptr());
            }
        }
    }

    /// Loads and starts a program from the partition that this one came from.
    /// `Err` when it could not be started, which includes that the firmware does
    /// not trust it; `Ok` with what it returned when it ran and ended.
    pub fn start(&self, path: &str) -> Result<Status, Status> {
        let path = self.device_path(path)?;
        let mut program = ptr::null_mut();
        // SAFETY: the path is a sound device path; no buffer is passed, so the
        // firmware reads the file itself, and judges it.
        let loaded = unsafe {
            ((*self.services).load_image)(
                0,
                self.image,
                path.as_ptr(),
                ptr::null(),
                0,
                &mut program,
            )
        };
        if let Err(status) = loaded.ok() {
            // On a security violation the image stays loaded, but must not start.
            if !program.is_null() {
                // SAFETY: the handle is the one just received.
                unsafe { ((*self.services).unload_image)(program) };
            }
            return Err(status);
        }
        // SAFETY: the handle is the one just received; exit data is not asked for.
        Ok(unsafe { ((*self.services).start_image)(program, ptr::null_mut(), ptr::null_mut()) })
    }

    /// Names of the files in a folder of the partition that this program came from.
    pub fn file_names(&self, folder: &str) -> Result<Vec<String>, Status> {
        let file_system: *mut FileSystem = self.protocol(self.device()?, &SIMPLE_FILE_SYSTEM)?;
        let mut root: *mut File = ptr::null_mut();
        // SAFETY: the protocol was given by the firmware for this handle.
        unsafe { ((*file_system).open_volume)(file_system, &mut root) }.ok()?;
        let folder = utf16(folder);
        let mut opened: *mut File = ptr::null_mut();
        // SAFETY: `root` was just opened; the name ends with 0.
        let status = unsafe { ((*root).open)(root, &mut opened, folder.as_ptr(), OPEN_READ, 0) };
        let names = status.ok().and_then(|()| read_names(opened));
        // SAFETY: both are open files and not used after this.
        unsafe {
            if !opened.is_null() {
                ((*opened).close)(opened);
            }
            ((*root).close)(root);
        }
        names
    }

    /// The partition that this program was loaded from.
    fn device(&self) -> Result<Handle, Status> {
        let loaded: *const LoadedImage = self.protocol(self.image, &LOADED_IMAGE)?;
        // SAFETY: the firmware gave this interface for our own handle.
        Ok(unsafe { (*loaded).device })
    }

    fn protocol<T>(&self, handle: Handle, guid: &Guid) -> Result<*mut T, Status> {
        let mut interface = ptr::null_mut();
        // SAFETY: the table is the firmware's; it checks handle and GUID.
        unsafe { ((*self.services).handle_protocol)(handle, guid, &mut interface) }.ok()?;
        if interface.is_null() {
            Err(Status::UNSUPPORTED)
        } else {
            Ok(interface.cast())
        }
    }

    /// The device path of a file on the partition that this program came from.
    fn device_path(&self, file: &str) -> Result<Vec<u8>, Status> {
        let mut node: *const u8 = self.protocol(self.device()?, &DEVICE_PATH)?;
        let mut path = Vec::new();
        for _ in 0..NODES_MAX {
            // SAFETY: a device path is a row of nodes, each with its type and its
            // length (which includes the header), up to an end node.
            let header = unsafe { ptr::read(node.cast::<[u8; NODE_HEADER_SIZE]>()) };
            let length = usize::from(u16::from_le_bytes([header[2], header[3]]));
            if header[0] == NODE_END || length < NODE_HEADER_SIZE {
                break;
            }
            // SAFETY: the node has that many bytes, as it says itself.
            path.extend_from_slice(unsafe { core::slice::from_raw_parts(node, length) });
            // SAFETY: as above, the next node lies behind this one.
            node = unsafe { node.add(length) };
        }
        let name = utf16(file);
        let length = (NODE_HEADER_SIZE + name.len() * size_of::<u16>()) as u16;
        path.extend_from_slice(&[NODE_MEDIA, NODE_FILE_PATH]);
        path.extend_from_slice(&length.to_le_bytes());
        name.iter()
            .for_each(|unit| path.extend_from_slice(&unit.to_le_bytes()));
        path.extend_from_slice(&[NODE_END, 0xff, NODE_HEADER_SIZE as u8, 0]);
        Ok(path)
    }
}

fn read_names(folder: *mut File) -> Result<Vec<String>, Status> {
    let mut names = Vec::new();
    for _ in 0..FILES_MAX {
        let mut info = vec![0u64; INFO_SIZE_MAX.div_ceil(size_of::<u64>())];
        let mut size = info.len() * size_of::<u64>();
        // SAFETY: `folder` is an open folder, and the buffer, aligned as the
        // structure wants it, has the size that is passed.
        unsafe { ((*folder).read)(folder, &mut size, info.as_mut_ptr().cast()) }.ok()?;
        if size == 0 {
            return Ok(names);
        }
        let bytes: Vec<u8> = info
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .take(size)
            .collect();
        if info[INFO_ATTRIBUTES / size_of::<u64>()] & ATTRIBUTE_FOLDER != 0 {
            continue;
        }
        let units: Vec<u16> = bytes
            .get(INFO_NAME..)
            .unwrap_or_default()
            .chunks_exact(size_of::<u16>())
            .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
            .take_while(|unit| *unit != 0)
            .collect();
        names.push(String::from_utf16_lossy(&units));
    }
    Ok(names)
}

/// UTF-16 with the 0 at its end.
fn utf16(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

const _: () = assert!(Status::SUCCESS.0 == 0);
