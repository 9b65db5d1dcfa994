//! An allocator that knows how much this thread holds, so that "bounded memory" is a number and not a hope.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, watched.
pub struct Watched;

fn moved(bytes: isize) {
    // A thread that is ending has no such values any more; nobody asks for them then.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is handed to the system's allocator unchanged; counting touches two cells of the thread only.
unsafe impl GlobalAlloc for Watched {
    // SAFETY: the caller's promises are those of `System`.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        moved(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller's promises are those of `System`.
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        moved(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    // SAFETY: the caller's promises are those of `System`.
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both exist while it is copied.
        moved(size as isize);
        moved(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// The most that `work` held at once beyond what was held before, in bytes of this thread, and its result.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, usize::try_from(PEAK.get() - before).unwrap_or(0))
}

#[test]
fn the_peak_is_seen() {
    let (_, bytes) = peak(|| drop(vec![0u8; 100_000]));
    assert!((100_000..110_000).contains(&bytes), "{bytes}");
    let (_, bytes) = peak(|| ());
    assert!(bytes < 1000, "{bytes}");
}
