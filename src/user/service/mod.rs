// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service task: one loop that is owner and attacher for its process.
//!
//! It shares the program's memory and has its own descriptors. It is the only
//! writer of everything in [`Service`] and of the set of promoted ranges, so
//! there are no locks. It never blocks on a peer: what needs an answer is sent,
//! and the answer is met in the loop. It never touches attached memory (the
//! fault would come back to itself), and it unregisters a range before it
//! unmaps it (the event would come back to itself).

pub mod anchor;
pub mod messages;
pub mod questions;
pub mod recall;
pub mod rites;
pub mod start;
pub mod turns;
pub mod withdraw;

use super::arena::{status, Op, Shared, SLOTS};
use super::attacher::sigbus::{FaultingThreads, Poisoned};
use super::attacher::{Attachments, Permit};
use super::hooks::Hooks;
use super::owner::journal::Journal;
use super::owner::lend::{Lent, LENT};
use super::owner::pins::Stuck;
use super::owner::remap::Remap;
use super::owner::requests::Requests;
use super::owner::revoke::{Change, CHANGES};
use super::owner::settings::Settings;
use super::owner::Segment;
use super::patience::Patience;
use super::peers::Connection;
use super::program::fork::ForkPhase;
use super::program::scratch::{Place, Scratch};
use super::program::stop::{Pause, Traced, Unstoppable, THREADS};
use super::protocol::ids::{Id, SLOTS as IDS};
use super::protocol::limits::CONNECTIONS;
use super::protocol::wire::Words;
use super::sys::rights::Rights;
use super::sys::{mem, net, task, uffd, Sys, TOP};
use crate::user::program::alarm;
use crate::user::program::restart;
use crate::user::sys::procfs;
use crate::user::sys::space::Space;
use crate::{debug_log, facilities};
use core::ffi::c_int;
use core::sync::atomic::Ordering;

/// Longest sleep in milliseconds: who watches over the service
/// ([`anchor`]) wants a sign of life, and it watches over the program.
const TICK: c_int = 200;

/// What this kernel lets the service do, probed once at its start.
#[derive(Clone, Copy)]
pub struct Abilities {
    /// Writes to a range can be told afterwards: copy first, stop then.
    pub precopy: bool,
    /// Pinned pages can be told.
    pub move_pages: bool,
    /// Touching a hole can be answered with SIGBUS by userfaultfd.
    pub poison: bool,
    /// A page can be mapped write-protected at once. Without, the threads stand
    /// while it is mapped first and protected then.
    pub map_protected: bool,
}

/// Names of the descriptors in the epoll set; a connection is `CONNECTION + i`, and
/// the process of its owner `PIDFD + i`.
mod token {
    pub const SIGNALS: u64 = 1;
    pub const BELL: u64 = 6;
    pub const LISTENER: u64 = 2;
    pub const EVENTS: u64 = 3;
    pub const FAULTS: u64 = 4;
    pub const OWNER: u64 = 5;
    pub const CONNECTION: u64 = 1 << 32;
    pub const PIDFD: u64 = 1 << 33;
}
pub use token::{CONNECTION as CONNECTION_TOKEN, LISTENER as LISTENER_TOKEN, PIDFD as PIDFD_TOKEN};

/// No errno: the owner that was dialled has too many who wait to be accepted.
pub const OWNER_BUSY: c_int = 1 << 16;

/// Everything that the service knows. Made of integers and booleans, so that
/// all zero is valid; [`Service::start`] gives the real values.
pub struct Service {
    pub tgid: i32,
    pub anchor: i32,
    pub uid: u32,
    /// What this task may do, and when that was last compared with the program.
    pub rights: Option<Rights>,
    pub looked: u64,
    /// Which of the program's threads is compared next.
    pub look_from: usize,
    /// How often it is still asked whether the program is there.
    pub doubt: u32,
    /// Name of this process in ids and in the folder of sockets.
    pub token: u64,
    pub abilities: Abilities,
    pub space: Space,
    /// An address of the main stack: where the program began.
    pub stack_begin: usize,

    pub epoll: c_int,
    pub signals: c_int,
    /// Counts up when a command has come.
    pub bell: c_int,
    pub listener: c_int,
    /// Given up for a moment where a new attacher finds none left; -1: none.
    pub reserve: c_int,
    /// The listener is not looked at before.
    pub deaf_until: u64,
    /// The exported address space: offset = address. Its identity on disk.
    pub memfd: c_int,
    pub memfd_identity: (u64, u64),
    pub pidfd: c_int,
    /// The folder of this user's processes, also the working directory, and the
    /// one that holds it.
    pub folder: c_int,
    pub base: c_int,
    pub task_dir: c_int,
    /// userfaultfd that reports changes of promoted memory. No fault comes here.
    pub events: c_int,
    /// userfaultfd that tells what was written during a copy; -1 without.
    pub precopy: c_int,
    /// userfaultfd of the attachments of this process.
    pub faults: c_int,

    pub segments: [Segment; IDS],
    pub next_segment: usize,
    pub permits: [Permit; IDS],
    pub next_permit: usize,
    pub connections: [Connection; CONNECTIONS],
    /// Of all attachers: answers that have not been acted upon.
    pub unnoted: u64,
    /// How many attachers have been hung up on that have not let go.
    pub cut_off: u32,
    /// What takes the place of a lost owner's memory, a file without a page; -1
    /// before it is needed. And its identity.
    pub gone: c_int,
    pub gone_identity: (u64, u64),
    pub attachments: Attachments,
    pub poisoned: Poisoned,
    pub faulting: FaultingThreads,
    pub requests: Requests,
    /// No stop is tried for [`Self::requests`] meanwhile.
    pub pause: Pause,
    /// Serial number of the last question to a peer.
    pub questions: u64,
    /// Of each command slot: what it waits for.
    pub waiting: [Waiting; SLOTS],
    /// How many do.
    pub commands_waiting: u32,
    /// Why the last owner that hung up did so, as an errno.
    pub refusal: c_int,
    /// A command is tried again soon.
    pub retrying: bool,

    /// With so many ranges promoted no more come to stand alone.
    pub thrifty_from: usize,
    /// Behind which range a gap was looked for last.
    pub gap_looked_at: usize,

    pub scratch: Scratch,
    pub stuck: Stuck,
    pub journal: Journal,
    /// Pages that a promotion has replaced, in [`Self::scratch`]: start and length.
    pub trash: (usize, usize),

    pub traced: [Traced; THREADS],
    pub traced_count: usize,
    pub stop_began: u64,
    /// How many times [`Self::stop`] is ahead of [`Self::resume`].
    pub standing: u32,
    /// Events that have been read and not been acted upon.
    pub changes: [Change; CHANGES],
    pub change_count: usize,
    /// Moved memory could not be made private again: it may still be in use
    /// somewhere.
    pub moved_astray: bool,
    /// When the first stop failed that unread events wait for; 0: none waits.
    pub events_wait_since: u64,

    pub hooks: Hooks,

    /// What the program has said about memory that is promoted.
    pub settings: Settings,
    /// Some of the memfd may have a NUMA policy.
    pub has_policies: bool,

    /// Those that were ever in use are the first ones.
    pub lent: [Lent; LENT],
    pub lent_used: usize,
    /// The program's descriptor of the file that was lent last.
    pub lent_number: c_int,
    /// An answer to a recall is waited for: nothing is shared meanwhile.
    pub recalling: bool,
    /// What the program has unmapped is being recalled, and who did it must not go
    /// on before.
    pub owes_revocation: bool,
    /// An attacher has answered that it cannot let go.
    pub recall_refused: bool,

    pub fork_tid: i32,
    pub fork_phase: ForkPhase,
    pub forks_under_way: u32,
    /// Nobody tells of the end of the fork that is watched.
    pub fork_alone: bool,
    /// How many other system calls its thread has made since.
    pub fork_detours: u32,
}

/// A command that is answered when a peer has answered.
#[derive(Clone, Copy)]
pub struct Waiting {
    /// Index of the connection plus 1; 0: not waiting.
    pub connection: usize,
    /// The question's serial number.
    pub serial: u64,
    pub op: u32,
    /// The question, as long as it is to be sent.
    pub words: Words,
    pub unsent: bool,
    /// Not asked yet: its owner has too much to accept.
    pub retrying: bool,
    pub patience: Patience,
    /// The id that was asked about.
    pub id: i64,
    /// Attach: the address.
    pub value: u64,
    /// Get: the flags; attach: the number of the attachment.
    pub flags: u64,
    /// Of an attach: at an address that the program has chosen.
    pub fixed: bool,
}

/// Entry of the service task: `argument` is the address of nothing in
/// particular, the arena is found by itself.
pub extern "C" fn main(_argument: usize) -> ! {
    if let Some(shared) = super::arena::existing() {
        let service = shared.service.take();
        match service.start(shared) {
            Ok(()) => {
                // Before anybody can ask for something: the bell rings here.
                let pid = task::own_pid() as u32;
                shared.service_pid.store(pid, Ordering::Release);
                let inspects = shared.may_inspect();
                shared
                    .inspects
                    .store(u32::from(inspects), Ordering::Release);
                shared.status.store(status::RUNNING, Ordering::Release);
                task::futex_wake(&shared.status);
                service.run(shared);
            }
            Err(errno) => {
                shared.failure.store(errno as u32, Ordering::Relaxed);
                shared.status.store(status::FAILED, Ordering::Release);
                task::futex_wake(&shared.status);
            }
        }
    }
    task::exit(0)
}

/// Waits until the anchor has let this task trace the program.
pub fn await_permission(shared: &Shared) {
    for _ in 0..200 {
        if shared.traceable.load(Ordering::Acquire) != 0 {
            return;
        }
        task::futex_wait(&shared.traceable, 0, 10);
    }
}

impl Service {
    fn start(&mut self, shared: &Shared) -> Sys<()> {
        task::signal_on_parent_death(task::PARENT_GONE)?;
        task::set_name(c"xpmem-service");
        task::own_session();
        task::lift_descriptor_limit();
        task::announce_child_stops();
        core::mem::swap(&mut self.hooks, shared.hooks.take());
        #[cfg(feature = "fault-injection")]
        super::sys::faults::prepare();
        self.uid = task::geteuid();
        self.anchor = shared.anchor_tid.load(Ordering::Acquire) as i32;
        self.space = Space::open()?;
        self.scratch = Scratch::reserve();
        self.thrifty_from = super::owner::thrift::limit();
        self.stack_begin = procfs::stack_begin().unwrap_or(0);
        self.signals = task::signal_descriptor()?;
        self.bell = shared.bell_counter.load(Ordering::Acquire);
        self.epoll = net::epoll()?;
        self.gone = -1;
        self.keep_reserve();
        net::watch(self.epoll, self.signals, token::SIGNALS)?;
        net::watch(self.epoll, self.bell, token::BELL)?;
        self.tgid = super::sys::task::parent();
        if let Err(errno) = alarm::prepare(self.tgid) {
            debug_log!("no alarm: errno {errno}");
        }
        // Gone before its end could be told.
        task::signal_task(self.tgid, self.anchor, 0)?;
        let mut path = [0u8; 32];
        let path = super::sys::procfs::proc_path(&mut path, self.tgid, b"/task");
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        self.task_dir = crate::rawsys::open(path, flags, 0)?;
        self.pidfd = task::pidfd(self.tgid)?;
        restart::prepare(self.tgid, self.pidfd);
        self.open_userfaultfds()?;
        self.memfd = mem::memfd(c"xpmem")?;
        task::with_file_size_limit_lifted(|| mem::set_size(self.memfd, TOP))?;
        mem::seal_size(self.memfd)?;
        let (device, inode, _) = mem::identity(self.memfd)?;
        self.memfd_identity = (device, inode);
        // Mappings show the identity in the kernel's own words: take those.
        self.memfd_identity = self
            .identity_as_mapped(self.memfd)
            .unwrap_or(self.memfd_identity);
        await_permission(shared);
        self.prove_tracing()?;
        self.compare_all()?;
        self.listener = self.rendezvous(shared)?;
        net::watch(self.epoll, self.listener, token::LISTENER)?;
        net::watch(self.epoll, self.pidfd, token::OWNER)?;
        net::watch(self.epoll, self.events, token::EVENTS)?;
        net::watch(self.epoll, self.faults, token::FAULTS)?;
        debug_log!(
            "service of {}: precopy {}, poison {}, map queries {}",
            self.tgid,
            self.abilities.precopy,
            self.abilities.poison,
            self.space.has_query()
        );
        Ok(())
    }

    fn open_userfaultfds(&mut self) -> Sys<()> {
        const CHANGES: u64 = uffd::FEATURE_EVENT_UNMAP | uffd::FEATURE_EVENT_REMAP;
        const ON_EVENTS: u64 =
            CHANGES | uffd::FEATURE_EVENT_REMOVE | uffd::FEATURE_WP_HUGETLBFS_SHMEM;
        const ON_FAULTS: u64 = CHANGES
            | uffd::FEATURE_MISSING_SHMEM
            | uffd::FEATURE_MINOR_SHMEM
            | uffd::FEATURE_THREAD_ID
            | uffd::FEATURE_WP_HUGETLBFS_SHMEM;
        const { assert!(ON_EVENTS | ON_FAULTS == facilities::REQUIRED) };
        let mut has = uffd::features()?;
        if crate::testing::plays_old_kernel() {
            // As Linux 6.1 has them.
            has &= uffd::FEATURE_POISON - 1;
            self.space.forget_new_ways();
        }
        if has & facilities::REQUIRED != facilities::REQUIRED {
            debug_log!("userfaultfd lacks features: has {has:#x}");
            return Err(libc::ENOSYS);
        }
        // With asynchronous write protection any kind of file can be watched.
        let asynchronous = has & uffd::FEATURE_WP_ASYNC;
        self.events = uffd::open(ON_EVENTS | asynchronous)?;
        let poison = has & uffd::FEATURE_POISON;
        self.abilities.poison = poison != 0;
        // A fault inside a system call could be served too, with a privilege. But
        // a thread in such a fault cannot be stopped before it is answered, and
        // two processes that need each other's pages would wait for each other.
        self.faults = uffd::open(ON_FAULTS | poison)?;
        let here = super::arena::mapping::range::<Shared>().0;
        self.abilities.map_protected =
            !crate::testing::plays_old_kernel() && uffd::can_map_protected(self.faults, here);
        self.abilities.precopy = has & uffd::FEATURE_WP_ASYNC != 0 && self.space.has_scan();
        self.precopy = -1;
        self.abilities.move_pages = false;
        if self.abilities.precopy {
            let moves = has & uffd::FEATURE_MOVE;
            let on_precopy = uffd::FEATURE_WP_ASYNC
                | uffd::FEATURE_WP_HUGETLBFS_SHMEM
                | uffd::FEATURE_MISSING_SHMEM
                | moves;
            match uffd::open(on_precopy) {
                Ok(fd) => {
                    self.precopy = fd;
                    self.abilities.move_pages = moves != 0;
                }
                Err(_) => self.abilities.precopy = false,
            }
        }
        Ok(())
    }

    /// Device and inode of a file as they appear in a mapping of it.
    pub fn identity_as_mapped(&self, fd: c_int) -> Option<(u64, u64)> {
        self.identity_as_mapped_for(fd, false)
    }

    /// As [`Self::identity_as_mapped`]; `None` where it cannot be mapped for
    /// stores, if that is asked.
    pub fn identity_as_mapped_for(&self, fd: c_int, write: bool) -> Option<(u64, u64)> {
        let prot = libc::PROT_READ | if write { libc::PROT_WRITE } else { 0 };
        let len = super::sys::PAGE;
        let addr = self
            .scratch
            .map(Place::Glance, len, prot, libc::MAP_SHARED, fd, 0)
            .ok()?;
        let found = self.space.at(addr).ok().flatten();
        self.scratch.unmap(addr, len);
        found.map(|m| (m.device, m.inode))
    }

    /// Takes `[lo, hi)` from every userfaultfd that tells of changes, mapping by
    /// mapping. To be called before the service changes what is mapped there: it
    /// would wait for itself to read the event of that. Where this fails, it must
    /// leave everything as it is.
    pub fn unwatch(&self, lo: usize, hi: usize) -> Sys<()> {
        let mut at = lo;
        while let Some(m) = self.space.find(at)?.filter(|m| m.start < hi && at < hi) {
            let (start, end) = (m.start.max(at), m.end.min(hi));
            for userfaultfd in [self.events, self.faults] {
                uffd::unwatch(userfaultfd, start, end - start)?;
            }
            at = end;
        }
        Ok(())
    }

    /// Stops and releases all threads once: without that nothing works.
    fn prove_tracing(&mut self) -> Sys<()> {
        for _ in 0..50 {
            match self.stop() {
                Ok(()) => {
                    self.resume();
                    return Ok(());
                }
                Err(Unstoppable::Forbidden) => return Err(libc::EPERM),
                Err(Unstoppable::Ended) => return Err(libc::ESRCH),
                Err(Unstoppable::Busy) => {}
            }
        }
        Ok(())
    }

    fn run(&mut self, shared: &Shared) {
        while !self.is_to_end(shared) {
            let mut happened = [(0, 0); net::EVENTS];
            let n = net::wait(self.epoll, &mut happened, self.timeout());
            task::beat();
            self.look_at_rights(shared);
            for &(token, events) in &happened[..n] {
                match token {
                    token::SIGNALS => self.on_signals(),
                    token::BELL => self.on_bell(shared),
                    token::LISTENER => self.accept(),
                    token::OWNER => return self.farewell(shared),
                    token::EVENTS => self.on_events(),
                    token::FAULTS => self.on_faults(),
                    t if t >= token::PIDFD => self.on_pidfd(shared, (t - token::PIDFD) as usize),
                    t if t >= token::CONNECTION => {
                        self.on_connection(shared, (t - token::CONNECTION) as usize, events);
                    }
                    _ => {}
                }
            }
            if self.doubt > 0 {
                self.doubt -= 1;
                let gone = self.program_has_ended();
                if gone || task::parent() != self.tgid || net::has_input(self.pidfd) {
                    return self.farewell(shared);
                }
            }
            if self.change_count > 0 {
                self.on_events();
            }
            if self.retrying {
                self.take_commands(shared);
            }
            self.serve_requests(shared);
            self.end_long_waits(shared);
            self.take_in();
            self.listen_again();
            self.clear_poison();
            // Their news may have come while another stop was waited for, which
            // takes the signal that would bring us here again.
            self.on_fork_stop();
            self.release_strays();
        }
        self.last_rites(shared);
    }

    /// Milliseconds to sleep at most.
    fn timeout(&self) -> c_int {
        if self.doubt > 0 || !self.poisoned.is_empty() {
            1
        } else {
            let soon = [
                self.next_request(),
                (self.retrying || self.change_count > 0).then_some(1),
                (self.deaf_until != 0).then_some(100),
                (self.commands_waiting > 0).then_some(40),
            ];
            let soonest = soon.into_iter().flatten().min();
            soonest.map_or(TICK, |ms| ms.min(TICK as u64) as c_int)
        }
    }

    /// After there was no descriptor for new attachers.
    fn listen_again(&mut self) {
        if self.deaf_until != 0 && task::now() >= self.deaf_until {
            self.deaf_until = 0;
            let _ = net::watch_for(self.epoll, self.listener, token::LISTENER, net::IN);
            if self.reserve < 0 {
                self.keep_reserve();
            }
        }
    }

    fn on_signals(&mut self) {
        while let Ok(signal) = task::read_signal(self.signals) {
            match signal {
                // The thread that is ending may still be there for a moment.
                task::PARENT_GONE => self.doubt = 1000,
                libc::SIGCHLD => {
                    self.on_fork_stop();
                    self.release_strays();
                }
                _ => {}
            }
        }
    }

    /// Serves the commands of the program's threads.
    fn on_bell(&mut self, shared: &Shared) {
        task::count_down(self.bell);
        self.take_commands(shared);
    }

    fn take_commands(&mut self, shared: &Shared) {
        self.retrying = false;
        let mut from = 0;
        while let Some((slot, op, args)) = shared.take(from) {
            from = slot + 1;
            self.serve(shared, slot, op, args);
        }
    }

    fn serve(&mut self, shared: &Shared, slot: usize, op: Option<Op>, args: [u64; 5]) {
        let [a, b, c, d, e] = args;
        let (start, end) = (a as usize, b as usize);
        let answer = match op {
            Some(Op::Make) => {
                // From now on what a device is to pin is promoted before.
                let _ = self.meet_libc();
                self.make(start, end, c as u32)
            }
            Some(Op::Pin) => self.before_pin(shared, start, end),
            Some(Op::Remove) => match self.remove(shared, slot, a as i64) {
                Some(answer) => answer,
                None => return,
            },
            Some(Op::Get) => match self.get(slot, a as i64, b as c_int) {
                Some(answer) => answer,
                None => return,
            },
            Some(Op::Release) => match self.release(slot, a as i64) {
                Some(answer) => answer,
                None => return,
            },
            Some(Op::Attach) => {
                match self.attach(shared, slot, a as i64, b as i64, c as usize, d as usize) {
                    Some(answer) => answer,
                    None => return,
                }
            }
            Some(Op::Detach) => self.detach(start),
            Some(Op::Retire) => {
                self.retire(start, end);
                Ok(0)
            }
            Some(Op::Demote) => self.demote_stopped(start, end).map(|()| 0),
            Some(Op::Withdraw) => {
                self.withdraw(shared, start, end);
                Ok(0)
            }
            Some(Op::Advise) => self.advise_all(start, end, c as c_int),
            Some(Op::Discard) => self.discard_all(start, end, c as c_int),
            Some(Op::Remap) => {
                let r = Remap {
                    old: start,
                    old_len: end,
                    new_len: c as usize,
                    flags: d as c_int,
                    target: e as usize,
                };
                match self.remap(shared, slot, r) {
                    Some(answer) => answer,
                    None => return,
                }
            }
            Some(Op::RecallSegment) => {
                self.recall_segment(shared, start);
                Ok(0)
            }
            Some(Op::Rearrange) => self.rearrange(shared, start, end),
            Some(Op::ForkBegin) => Ok(self.fork_begin(shared, a as i32, b != 0)),
            // The end of this service is the answer.
            Some(Op::Rights) => return self.on_other_rights(shared, a as i32),
            Some(Op::ForkEnd) => {
                self.fork_end();
                Ok(0)
            }
            None => Err(libc::EINVAL),
        };
        if answer == Err(OWNER_BUSY) {
            return self.try_again(shared, slot);
        }
        self.waiting[slot].retrying = false;
        shared.finish(slot, answer);
    }

    /// The owner that a command is about has more to accept than it can: the
    /// command is looked at again, for a while.
    fn try_again(&mut self, shared: &Shared, slot: usize) {
        let w = &mut self.waiting[slot];
        if !core::mem::replace(&mut w.retrying, true) {
            w.patience = Patience::NEW;
        }
        if w.patience.is_over(super::patience::COMMAND_LIMIT) {
            w.retrying = false;
            return shared.finish(slot, Err(libc::ENOENT));
        }
        self.retrying = true;
        shared.put_back(slot);
    }

    /// The program is gone: so is what it exported.
    fn farewell(&mut self, shared: &Shared) {
        shared.settled.store(1, Ordering::Release);
        let _ = mem::punch(self.memfd, 0, TOP);
        self.unlink_socket();
    }

    /// An id issued here, if it is of this process and well-formed.
    pub fn own_id(&self, id: i64) -> Option<Id> {
        Id::decode(id).filter(|id| id.token == self.token)
    }
}
