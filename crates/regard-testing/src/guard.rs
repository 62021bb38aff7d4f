//! Memory that ends, or begins, exactly at a page that nobody may touch: one element too far stops the program.
//!
//! [`Guard`] is the allocator of a test binary. Inside [`guarded`] every allocation of every thread has pages of its own, inputs,
//! results and scratch memory alike, and after it is freed nobody may touch those either; outside, the system's allocator serves.
//!
//! It counts too: [`peak`] is how much some threads held at once.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Which end of an allocation lies at a forbidden page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The last byte is followed by it, but for what the alignment needs.
    End,
    /// The first byte follows it.
    Start,
}

/// The allocator: `#[global_allocator] static GUARD: Guard = Guard;`.
#[derive(Debug)]
pub struct Guard;

/// Addresses that are handed out, each once: they take no memory until they are in use.
const ADDRESSES: usize = 1 << 42;

/// Bytes of a page, of which every larger size is a multiple.
const PAGE: usize = 4096;

const OFF: usize = 0;
static MODE: AtomicUsize = AtomicUsize::new(OFF);
static ARENA: OnceLock<usize> = OnceLock::new();
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Runs `f` with all memory at an edge. One call at a time; the others wait.
pub fn guarded<R>(edge: Edge, f: impl FnOnce() -> R) -> R {
    static ONE: Mutex<()> = Mutex::new(());
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            MODE.store(OFF, Ordering::SeqCst);
        }
    }
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let _off = Off;
    MODE.store(1 + edge as usize, Ordering::SeqCst);
    f()
}

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}
static HELD: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

/// Counts what the calling thread allocates from now on.
pub fn count_this_thread() {
    COUNTED.set(true);
}

/// The most bytes that the counted threads held at once while `f` ran, beyond those they held before. One call at a time.
pub fn peak(f: impl FnOnce()) -> usize {
    HELD.store(0, Ordering::SeqCst);
    PEAK.store(0, Ordering::SeqCst);
    f();
    PEAK.load(Ordering::SeqCst).unsigned_abs()
}

fn count(bytes: isize) {
    if COUNTED.get() {
        PEAK.fetch_max(HELD.fetch_add(bytes, Ordering::Relaxed) + bytes, Ordering::Relaxed);
    }
}

/// Makes addresses readable and writable, or forbids them and forgets what they hold.
fn map(at: usize, bytes: usize, protection: i32) -> Option<usize> {
    let fixed = if at == 0 { 0 } else { libc::MAP_FIXED };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    // SAFETY: without MAP_FIXED the kernel chooses addresses that nobody has; with it they are those of one allocation, inside the
    // arena, which nobody else has.
    let to = unsafe { libc::mmap(at as *mut libc::c_void, bytes, protection, flags, -1, 0) };
    (to != libc::MAP_FAILED).then_some(to as usize)
}

fn arena() -> Option<usize> {
    ARENA.get().copied().or_else(|| {
        let base = map(0, ADDRESSES, libc::PROT_NONE)?;
        Some(*ARENA.get_or_init(|| base))
    })
}

/// Bytes of the pages of an allocation.
fn pages(layout: Layout) -> usize {
    layout.size().next_multiple_of(PAGE)
}

// SAFETY: an allocation is either the system's, or has `layout.size()` bytes of pages that no other allocation is ever given, aligned
// to at most a page; `dealloc` tells them apart by their addresses.
unsafe impl GlobalAlloc for Guard {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        let mode = MODE.load(Ordering::Relaxed);
        if mode == OFF || layout.align() > PAGE {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        }
        let Some(arena) = arena() else { return null_mut() };
        let bytes = pages(layout);
        // One forbidden page before each allocation; the next one's is behind it.
        let first = NEXT.fetch_add(bytes + PAGE, Ordering::Relaxed) + PAGE;
        if first + bytes + PAGE > ADDRESSES || map(arena + first, bytes, libc::PROT_READ | libc::PROT_WRITE).is_none() {
            return null_mut();
        }
        let slack = if mode == 1 + Edge::End as usize { bytes - layout.size() } else { 0 };
        (arena + first + slack / layout.align() * layout.align()) as *mut u8
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        let ours = ARENA.get().is_some_and(|&arena| (arena..arena + ADDRESSES).contains(&(at as usize)));
        if ours {
            map(at as usize / PAGE * PAGE, pages(layout), libc::PROT_NONE);
        } else {
            // SAFETY: the caller's promise; the system made it.
            unsafe { System.dealloc(at, layout) }
        }
    }
}
