// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory that the back end keeps for itself.
//!
//! All state that more than one task touches lives in one mapping: it is never
//! exported, a fork child finds it zeroed, and the program's allocator is not
//! involved.

use crate::errno::Errno;
use crate::fd::Fd;
use crate::user::sys::{held, mem, Span, Sys};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

/// State that one task at a time has, which knows that from elsewhere.
pub struct ServiceOnly<T>(UnsafeCell<T>);

// SAFETY: whoever takes the content promises to be alone with it, see `take`.
unsafe impl<T> Sync for ServiceOnly<T> {}

impl<T> ServiceOnly<T> {
    /// The content.
    ///
    /// # Safety
    /// Nobody else has it, or takes it before the caller is done with it.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn take(&self) -> &mut T {
        // SAFETY: the caller is alone with it.
        unsafe { &mut *self.0.get() }
    }
}

/// Where the arena is; 0 before the first start. A fork child inherits the
/// address and finds the content wiped.
static ARENA: AtomicUsize = AtomicUsize::new(0);

/// Types for which all bytes zero is a valid value, and which the arena begins with.
///
/// # Safety
/// That is the promise: what [`get`] is called with, or its first field.
pub unsafe trait Zeroable {}

const STACK: usize = 256 * 1024;
const SECOND_STACK: usize = 64 * 1024;
const ANCHOR_STACK: usize = 64 * 1024;

/// Its size, state and stacks.
static SIZE: AtomicUsize = AtomicUsize::new(0);

fn size() -> usize {
    SIZE.load(Ordering::Acquire)
}

/// The one `T` of this process, if the arena has been made.
#[inline]
pub fn existing<T: Zeroable + Sync>() -> Option<&'static T> {
    match ARENA.load(Ordering::Acquire) {
        0 => None,
        // SAFETY: the mapping is for ever, large enough, zeroed at first and
        // after each fork, and T is valid when zeroed.
        addr => Some(unsafe { &*core::ptr::with_exposed_provenance::<T>(addr) }),
    }
}

/// The one `T` of this process; made at the first call.
pub fn get<T: Zeroable + Sync>() -> Sys<&'static T> {
    if let Some(state) = existing() {
        return Ok(state);
    }
    let stacks = ANCHOR_STACK + SECOND_STACK + STACK;
    let size = crate::user::sys::page_up(core::mem::size_of::<T>()) + stacks;
    SIZE.store(size, Ordering::Release);
    replace::<T>(0)
}

/// Arenas that have been replaced. Somebody may look into them still, so they
/// stay; their number is bounded by that of starts.
static OLD: [AtomicUsize; 16] = [const { AtomicUsize::new(0) }; 16];

/// A new `T` in place of the one that begins with `old`, or what another thread has
/// put there.
pub fn renew<T: Zeroable + Sync>(old: &impl Zeroable) -> Sys<&'static T> {
    let old = core::ptr::from_ref(old).expose_provenance();
    if ARENA.load(Ordering::Acquire) == old {
        let free = OLD.iter().find(|place| {
            let (empty, taken) = (Ordering::AcqRel, Ordering::Relaxed);
            place.compare_exchange(0, old, empty, taken).is_ok()
        });
        free.ok_or(Errno::ENOMEM)?;
        return replace::<T>(old);
    }
    existing().ok_or(Errno::ENOMEM)
}

fn replace<T: Zeroable + Sync>(old: usize) -> Sys<&'static T> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the kernel finds a place where nothing is.
    let addr = unsafe { mem::map(0, size(), prot, flags, Fd::NONE, 0) }?;
    let installed = || {
        ARENA
            .compare_exchange(old, addr, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    };
    // SAFETY: it is the mapping just made: no reference leads there yet.
    let ready = unsafe { mem::advise(addr, size(), libc::MADV_WIPEONFORK) };
    if ready.is_ok() {
        // SAFETY: as above.
        let _ = unsafe { mem::advise(addr, size(), libc::MADV_DONTDUMP) };
    }
    if ready.is_ok() && installed() {
        held::keep(Span::of(addr, size()));
    } else {
        // SAFETY: as above, and nobody else has been told of it.
        let _ = unsafe { mem::unmap(addr, size()) };
    }
    ready?;
    existing().ok_or(Errno::ENOMEM)
}

/// The ranges of all arenas there ever were: never to be promoted.
pub fn ranges() -> impl Iterator<Item = Span> {
    OLD.iter()
        .chain(core::iter::once(&ARENA))
        .map(|place| place.load(Ordering::Acquire))
        .filter(|&start| start != 0)
        .map(|start| Span::of(start, size()))
}

/// The range of the arena.
pub fn range() -> Span {
    Span::of(ARENA.load(Ordering::Acquire), size())
}

/// Top of the service task's stack, at the end of the arena.
pub fn stack_top() -> usize {
    range().end() - 64
}

/// Top of the stack of the service's second thread, below the first one's.
pub fn second_stack_top() -> usize {
    stack_top() - STACK
}

/// Top of the anchor's stack, below that one's.
pub fn anchor_stack_top() -> usize {
    second_stack_top() - SECOND_STACK
}
