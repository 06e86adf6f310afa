//! Memory: the allocator over the firmware's pool, and the functions on memory
//! that compiled code calls by name.

use crate::uefi::{BootServices, Firmware};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

const LOADER_DATA: u32 = 2;
/// What the firmware's pool guarantees.
const POOL_ALIGNMENT: usize = 8;

static SERVICES: AtomicPtr<BootServices> = AtomicPtr::new(ptr::null_mut());

#[global_allocator]
static ALLOCATOR: Pool = Pool;

/// From now on memory can be taken.
pub fn init(firmware: &Firmware) {
    SERVICES.store(firmware.boot_services().cast_mut(), Ordering::Relaxed);
}

/// From now on none can be taken or given back.
pub fn forget() {
    SERVICES.store(ptr::null_mut(), Ordering::Relaxed);
}

struct Pool;

// SAFETY: the pool's memory is ours until it is given back, has the size asked
// for and the alignment checked for; this program has one thread.
unsafe impl GlobalAlloc for Pool {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let services = SERVICES.load(Ordering::Relaxed);
        if services.is_null() || layout.align() > POOL_ALIGNMENT {
            return ptr::null_mut();
        }
        let mut memory = ptr::null_mut();
        // SAFETY: the table is the firmware's. On failure it leaves the null.
        unsafe { ((*services).allocate_pool)(LOADER_DATA, layout.size(), &mut memory) };
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
        let services = SERVICES.load(Ordering::Relaxed);
        if !services.is_null() {
            // SAFETY: the memory came from `alloc`.
            unsafe { ((*services).free_pool)(memory) };
        }
    }
}

// The linker of binutils does not take these from compiler_builtins, where they
// are weak. They are loops that the compiler must not turn into calls of
// themselves, hence the volatile accesses; nothing here is large.

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(target: *mut u8, source: *const u8, length: usize) -> *mut u8 {
    for at in 0..length {
        // SAFETY: the caller vouches for both areas.
        unsafe {
            target
                .add(at)
                .write_volatile(source.add(at).read_volatile())
        };
    }
    target
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(target: *mut u8, source: *const u8, length: usize) -> *mut u8 {
    if (target as usize) <= source as usize {
        // SAFETY: copying upwards reads each byte before it can be overwritten.
        return unsafe { memcpy(target, source, length) };
    }
    for at in (0..length).rev() {
        // SAFETY: as above, downwards.
        unsafe {
            target
                .add(at)
                .write_volatile(source.add(at).read_volatile())
        };
    }
    target
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(target: *mut u8, value: i32, length: usize) -> *mut u8 {
    for at in 0..length {
        // SAFETY: the caller vouches for the area.
        unsafe { target.add(at).write_volatile(value as u8) };
    }
    target
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, length: usize) -> i32 {
    for at in 0..length {
        // SAFETY: the caller vouches for both areas.
        let (a, b) = unsafe { (a.add(at).read_volatile(), b.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}
