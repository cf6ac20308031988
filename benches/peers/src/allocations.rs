//! An allocator that counts while it is asked to.
//!
//! Crates that do this count always, a dozen instructions for each allocation: peers that allocate would be timed slower
//! than they are. Here an allocation that is not counted costs one look at a flag, which no figure shows.
#![allow(unsafe_code, reason = "an allocator cannot be written without")]

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

// SAFETY: every call goes to the system's allocator as it comes, and what that answers is answered.
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

/// What was allocated while something was done.
#[derive(Clone, Copy)]
pub(crate) struct Allocated {
    /// How often; a buffer that grows counts again.
    pub(crate) times: u64,
    /// How many bytes more are held afterwards.
    pub(crate) live_bytes: i64,
}

/// Does it, and tells what was allocated meanwhile, by whatever thread.
pub(crate) fn during<T>(work: impl FnOnce() -> T) -> (Allocated, T) {
    let (times, live) = (ALLOCATIONS.load(Relaxed), LIVE_BYTES.load(Relaxed));
    COUNTS.store(true, Relaxed);
    let made = work();
    COUNTS.store(false, Relaxed);
    (Allocated { times: ALLOCATIONS.load(Relaxed) - times, live_bytes: LIVE_BYTES.load(Relaxed) - live }, made)
}
