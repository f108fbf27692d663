// SPDX-License-Identifier: MIT OR Apache-2.0
//! `XPMEM_DEBUG`: errors, decisions and counters.
//!
//! `XPMEM_DEBUG` is a comma-separated list of `1` (errors and decisions, a
//! line each) and `stats` (one line at exit). Output goes to standard error,
//! or to the regular file that `XPMEM_DEBUG_FILE` names, which is opened for each
//! line and appended to. What is no such file is not opened at all. Without `XPMEM_DEBUG` the library writes nothing.
//!
//! Lines may come from service tasks that have no thread-local storage and
//! must not allocate: a line is formatted on the stack and leaves in one
//! write(2). The environment is read once, by the first API call's own thread.

use crate::fd::{self, Fd, OwnedFd};
use crate::{environment, process, rawsys};
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::fmt::{self, Write};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicU8, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What this process did. Monotonic; a fork child starts with zeros.
        #[derive(Debug)]
        pub struct Counters { $($(#[$doc])* pub $name: AtomicU64,)* }

        impl Counters {
            const fn new() -> Self {
                Counters { $($name: AtomicU64::new(0),)* }
            }

            fn reset(&self) {
                $(self.$name.store(0, Ordering::Relaxed);)*
            }
        }
    };
}

counters! {
    /// Segments made.
    makes,
    /// Access permits got.
    gets,
    /// Attachments made.
    attaches,
    /// Successful calls of detach.
    detaches,
    /// Chunks of this process's memory that were made shareable.
    promotions,
    /// Their sizes, in bytes.
    bytes_promoted,
    /// Mappings that were shared from the start.
    born_shared,
    /// Touches of attached pages that were not there yet and were served.
    faults_served,
    /// Ranges taken away from all attachers.
    revocations,
    /// Revocations that found the address in use again.
    late_revocations,
    /// Times that this process's threads were stopped.
    stops,
    /// The longest of those stops, in microseconds.
    longest_stop_us,
    /// Forks whose child got private copies of promoted memory.
    forks_privatized,
    /// Hooks on libc's memory calls that this process put in place.
    hooks_installed,
    /// Ranges that could not be made shareable.
    refusals,
    /// Attachers that were hung up on, since they did not answer in time.
    peers_cut,
}

/// The counters of this process.
pub static COUNTERS: Counters = Counters::new();

/// Adds one to a counter.
#[inline]
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Name of the back end that serves this process; null before the choice.
static BACK_END: AtomicPtr<&'static str> = AtomicPtr::new(ptr::null_mut());

/// Tells the line of statistics which back end serves.
pub fn set_back_end(name: &'static &'static str) {
    BACK_END.store(ptr::from_ref(name).cast_mut(), Ordering::Release);
}

fn back_end() -> &'static str {
    // SAFETY: null, or what [`set_back_end`] was given, which lives for ever
    // and which nobody writes.
    unsafe { BACK_END.load(Ordering::Acquire).as_ref() }.map_or("none", |name| name)
}

/// Bit of [`LEVEL`]: a line for each error and decision.
const LOG: u8 = 1;
/// Bit of [`LEVEL`]: one line at exit.
const STATS: u8 = 2;

static LEVEL: AtomicU8 = AtomicU8::new(0);

/// Identity of the process that last passed [`enter`]; 0 before the first.
static ENTERED: AtomicU32 = AtomicU32::new(0);

const PATH_MAX: usize = 4096;

/// Where the lines go; an empty path means standard error.
///
/// Written once, under `State::Claimed`; read only after `State::Ready`.
struct Path(UnsafeCell<[u8; PATH_MAX]>);
// SAFETY: written by the one thread that moved STATE from Unread to Claimed,
// read only by threads that saw Ready (release/acquire on STATE).
unsafe impl Sync for Path {}
static PATH: Path = Path(UnsafeCell::new([0; PATH_MAX]));

static STATE: AtomicU8 = AtomicU8::new(0);
const UNREAD: u8 = 0;
const CLAIMED: u8 = 1;
const READY: u8 = 2;

/// Called by every API function: reads the environment at the first call and
/// zeroes the counters at the first call after a fork.
#[inline]
pub fn enter() {
    let me = process::identity();
    let before = ENTERED.load(Ordering::Relaxed);
    if before != me {
        enter_slow(me, before);
    }
}

/// As [`enter`], for calls that count nothing: unless `XPMEM_DEBUG` is set, they take
/// not even the page that [`enter`] knows a fork by.
pub fn enter_uncounted() {
    static SILENT: AtomicBool = AtomicBool::new(false);
    if SILENT.load(Ordering::Relaxed) {
        return;
    }
    if environment::get(&environment::DEBUG).is_some() {
        enter();
    } else {
        SILENT.store(true, Ordering::Relaxed);
    }
}

#[cold]
fn enter_slow(me: u32, before: u32) {
    if ENTERED
        .compare_exchange(before, me, Ordering::AcqRel, Ordering::Relaxed)
        .is_err()
    {
        return;
    }
    if before != 0 {
        COUNTERS.reset();
        // The parent's thread that was reading the environment is not here.
        let _ = STATE.compare_exchange(CLAIMED, UNREAD, Ordering::Relaxed, Ordering::Relaxed);
    }
    if STATE
        .compare_exchange(UNREAD, CLAIMED, Ordering::Acquire, Ordering::Relaxed)
        .is_err()
    {
        return;
    }
    let level =
        environment::get(&environment::DEBUG).map_or(0, |value| parse_level(value.to_bytes()));
    if let Some(path) = environment::get(&environment::DEBUG_FILE) {
        let bytes = path.to_bytes_with_nul();
        if bytes.len() <= PATH_MAX {
            // SAFETY: STATE is CLAIMED by this thread, so nobody else reads or
            // writes PATH; the source is at most PATH_MAX bytes long.
            unsafe { (&mut (*PATH.0.get()))[..bytes.len()].copy_from_slice(bytes) };
        }
    }
    LEVEL.store(level, Ordering::Relaxed);
    STATE.store(READY, Ordering::Release);
    if level & STATS != 0 {
        // SAFETY: the handler is a function of this library, which the dynamic
        // linker never unloads (-z nodelete).
        unsafe { libc::atexit(stats_at_exit) };
    }
}

fn parse_level(value: &[u8]) -> u8 {
    let mut level = 0;
    for word in value.split(|&b| b == b',') {
        match word.trim_ascii() {
            b"" | b"0" => {}
            b"stats" => level |= STATS,
            _ => level |= LOG,
        }
    }
    level
}

/// Whether [`debug_log!`] writes lines.
#[inline]
pub fn enabled() -> bool {
    LEVEL.load(Ordering::Relaxed) & LOG != 0
}

/// Process and thread of the user back end's tasks, which have standard error
/// for themselves.
static HELPERS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

/// Takes note of the tasks whose standard error is the log already. What they
/// open must not hang on a path that the program can write.
pub fn note_helpers(service: u32, anchor: u32) {
    let [first, second] = &HELPERS;
    first.store(service, Ordering::Relaxed);
    second.store(anchor, Ordering::Relaxed);
}

fn is_helper() -> bool {
    let [service, anchor] = &HELPERS;
    let is = |helper: &AtomicU32, own: i32| helper.load(Ordering::Relaxed) == own as u32;
    is(service, rawsys::getpid()) || is(anchor, rawsys::gettid())
}

/// The file for lines, opened: the caller's to close. `None`: standard error,
/// also where the file cannot be had or is none.
pub fn log_file() -> Option<OwnedFd> {
    if STATE.load(Ordering::Acquire) != READY {
        return None;
    }
    // SAFETY: PATH was written before STATE was READY, and never changes again.
    let path = CStr::from_bytes_until_nul(unsafe { &*PATH.0.get() }).ok()?;
    if path.is_empty() {
        return None;
    }
    fd::open_log(path).ok()
}

/// Writes a line when `XPMEM_DEBUG=1`: `debug_log!("no userfaultfd: {}", errno)`.
///
/// Does not allocate, lock, or touch thread-local storage or errno.
macro_rules! debug_log {
    ($($arg:tt)*) => {
        if $crate::debug::enabled() {
            $crate::debug::log(::core::format_args!($($arg)*));
        }
    };
}
pub(crate) use debug_log;

/// Longest line, newline included: the stats line at its longest fits.
const LINE: usize = 768;

/// A line under construction. What does not fit is cut.
struct Line {
    bytes: [u8; LINE],
    len: usize,
}

impl Line {
    const fn new() -> Self {
        Line {
            bytes: [0; LINE],
            len: 0,
        }
    }

    /// Ends the line and sends it off in one piece.
    fn send(mut self) {
        // One byte is kept free by `write_str`.
        self.bytes[self.len] = b'\n';
        let line = &self.bytes[..=self.len];
        // A task of ours has the file open in its place, if there is one.
        match log_file().filter(|_| !is_helper()) {
            Some(log) => {
                let _ = fd::write(log.fd(), line);
            }
            None => {
                let _ = fd::write(Fd::ERROR, line);
            }
        }
    }
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = self.bytes.len() - 1 - self.len;
        let take = room.min(s.len());
        self.bytes[self.len..self.len + take].copy_from_slice(&s.as_bytes()[..take]);
        self.len += take;
        Ok(())
    }
}

/// The function behind [`debug_log!`].
#[cold]
pub fn log(args: fmt::Arguments<'_>) {
    if STATE.load(Ordering::Acquire) != READY {
        return;
    }
    let mut line = Line::new();
    let _ = write!(line, "xpmem[{}]: ", rawsys::getpid());
    let _ = line.write_fmt(args);
    line.send();
}

extern "C" fn stats_at_exit() {
    // A fork child inherits the handler. If it never called the library, the
    // counters are its parent's, and it has nothing to say.
    if ENTERED.load(Ordering::Relaxed) != process::identity() {
        return;
    }
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let c = &COUNTERS;
    let mut line = Line::new();
    let _ = write!(
        line,
        "xpmem: stats pid={} backend={} makes={} gets={} attaches={} detaches={} promotions={} \
         bytes_promoted={} faults={} revocations={} late_revocations={} stops={} \
         longest_stop_us={} forks_privatized={} hooks_installed={} refusals={} peers_cut={} \
         born_shared={}",
        rawsys::getpid(),
        back_end(),
        get(&c.makes),
        get(&c.gets),
        get(&c.attaches),
        get(&c.detaches),
        get(&c.promotions),
        get(&c.bytes_promoted),
        get(&c.faults_served),
        get(&c.revocations),
        get(&c.late_revocations),
        get(&c.stops),
        get(&c.longest_stop_us),
        get(&c.forks_privatized),
        get(&c.hooks_installed),
        get(&c.refusals),
        get(&c.peers_cut),
        get(&c.born_shared),
    );
    line.send();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        assert_eq!(parse_level(b""), 0);
        assert_eq!(parse_level(b"0"), 0);
        assert_eq!(parse_level(b"1"), LOG);
        assert_eq!(parse_level(b"stats"), STATS);
        assert_eq!(parse_level(b"1,stats"), LOG | STATS);
        assert_eq!(parse_level(b" stats , 1"), LOG | STATS);
    }

    #[test]
    fn a_long_line_is_cut_not_lost() {
        let mut line = Line::new();
        for _ in 0..100 {
            let _ = line.write_str("0123456789");
        }
        assert_eq!(line.len, LINE - 1);
        assert!(line.bytes.starts_with(b"0123456789"));
    }
}
