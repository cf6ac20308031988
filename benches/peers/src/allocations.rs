//! An allocator that counts only during [`during`].
//!
//! Crates for this purpose always count, which takes a dozen instructions for each allocation and
//! would slow down the peers that allocate. Here an allocation that is not counted costs one read
//! of a flag, which does not show in any figure.
#![allow(unsafe_code, reason = "an allocator cannot be written without it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

struct Counting;

impl Counting {
    #[cold]
    fn count(allocations: u64, grown: usize, shrunk: usize) {
        ALLOCATIONS.fetch_add(allocations, Relaxed);
        LIVE_BYTES.fetch_add(grown as i64 - shrunk as i64, Relaxed);
    }
}

// SAFETY: every call is passed unchanged to the system's allocator, and its result is returned.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS.load(Relaxed) {
            Self::count(1, layout.size(), 0);
        }
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if COUNTS.load(Relaxed) {
            Self::count(1, layout.size(), 0);
        }
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if COUNTS.load(Relaxed) {
            Self::count(1, size, layout.size());
        }
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if COUNTS.load(Relaxed) {
            Self::count(0, 0, layout.size());
        }
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The allocations during some work.
#[derive(Clone, Copy)]
pub(crate) struct Allocated {
    /// The number of allocations and reallocations.
    pub(crate) count: u64,
    /// The increase of the allocated bytes.
    pub(crate) live_bytes: i64,
}

/// Does the work, and returns the allocations of all threads meanwhile, and its result.
pub(crate) fn during<T>(work: impl FnOnce() -> T) -> (Allocated, T) {
    let (count, live) = (ALLOCATIONS.load(Relaxed), LIVE_BYTES.load(Relaxed));
    COUNTS.store(true, Relaxed);
    let result = work();
    COUNTS.store(false, Relaxed);
    (Allocated { count: ALLOCATIONS.load(Relaxed) - count, live_bytes: LIVE_BYTES.load(Relaxed) - live }, result)
}
