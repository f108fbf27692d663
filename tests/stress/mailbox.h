// SPDX-License-Identifier: MIT OR Apache-2.0
// The mailbox: shared memory that every process of a run maps and that owes
// nothing to the library under test. All protocol state and every verdict
// stands here, so that kill -9 of anybody loses neither.
//
// Who writes what:
//   driver    owner.epoch/doomed/state DEAD, attacher.incarnation, stop
//   owner     owner.* else, the request half of each slot (one worker a slot)
//   attacher  slot.ack/result of its own index, attacher.ready_epoch
//   anybody   stats and the failure log (atomics only)
//
// Publication: the worker makes slot.seq odd, writes the request, then makes it
// even with release order; a reader copies the request and looks at seq again. The request is stable until every wanted attacher has stored
// seq in its ack or has died (its incarnation in attacher[] differs from the one
// noted in the slot). seq only ever grows, over all owners of a run.
#ifndef STRESS_MAILBOX_H
#define STRESS_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NWORKERS 8
#define NATTACHERS 4
#define ATTACHER_THREADS 2
#define PAGE 4096ul

// How the memory of a request came to its address: failures are counted apart.
enum klass {
	K_MALLOC,  // malloc, realloc, free
	K_LIBC,    // mmap and friends called in libc
	K_LIBC_X,  // the same, released by one thread and reused by another at once
	K_RAW,     // inline system calls, one thread releasing and reusing
	K_RAW_X,   // inline system calls, one thread releasing, another reusing
	K_BRK,
	K_STATIC,  // .bss rewritten in place
	K_STACK,   // stacks of threads that come and go
	K_FORK,
	K_SHARED,  // shared anonymous memory as the source
	K_FILE,    // shared mappings of a file
	K_DEVICE,  // what a device writes to
	K_SYSV,    // System V segments
	K_RING,    // buffers of an io_uring, registered with it or not
	K_WRITER,  // what a third process writes to
	K_SEAL,    // sealed memory
	K_VFORK,   // children of vfork, tasks that a raw clone3 makes
	NKLASS,
};
extern const char *const klass_name[NKLASS];

enum fail {
	F_STALE,     // bytes of an older generation
	F_GARBAGE,   // bytes that are neither right nor old
	F_LOST,      // an update by either side did not survive
	F_SIGNAL,    // SIGBUS or SIGSEGV where memory was published
	F_NO_SIGBUS, // a hole or a dead owner's memory could be read
	F_EFAULT,    // a system call refused good memory
	F_WAKE,      // a futex waiter slept through its wake
	F_OWNER_MEM, // the owner's own view of its memory is wrong
	F_FORK,      // a child saw what was not its own
	F_API,       // a library call failed or answered wrongly
	F_CRASH,     // a process died that nobody had killed
	F_HANG,      // no progress
	F_LEAK,      // memory, descriptors, threads, processes, files
	NFAIL,
};
extern const char *const fail_name[NFAIL];

// What the attachers are to do with a request.
enum {
	REQ_VERIFY = 1 << 0, // every word is pattern(key, gen)
	REQ_ANSWER = 1 << 1, // and the second half is answered word by word
	REQ_ZERO = 1 << 2,   // every word is zero
	REQ_HOLE = 1 << 3,   // every page is SIGBUS
	REQ_TOUCH = 1 << 4,  // read a byte of each page, whatever it is
	REQ_COUNT = 1 << 5,  // add to the counters at the start of the buffer
	REQ_POST = 1 << 6,   // sem_post the semaphore at the start
	REQ_WAIT = 1 << 7,   // sem_wait on it
	REQ_SYSCALL = 1 << 8, // after the check, hand it to write(2) as well
};

#define COUNT_ROUNDS 400 // increments of one attacher in a REQ_COUNT
#define POST_ROUNDS 8    // posts or waits in a REQ_POST, REQ_WAIT

// The words of a REQ_COUNT buffer.
enum { CW_ATOMIC = 0, CW_WORKER = 1, CW_MATE = 2, CW_ATTACHER = 8, CW_WORDS = 512 };

enum { INC_NONE = 0 };

struct slot {
	_Atomic uint32_t seq;
	uint32_t flags, klass, want, gen;
	uint64_t addr, len, key;
	uint32_t incarnation[NATTACHERS];
	char op_name[16];
	_Atomic uint32_t ack[NATTACHERS];
	_Atomic uint32_t result[NATTACHERS];
	_Atomic uint32_t acks; // futex: rises at each ack
	_Alignas(64) _Atomic uint64_t beat; // the worker's heartbeat
};

enum owner_state { OWNER_NONE, OWNER_STARTING, OWNER_READY, OWNER_QUIESCED, OWNER_DEAD };

struct owner_box {
	_Atomic uint32_t epoch; // which owner of the run this is, from 1
	_Atomic uint32_t state; // enum owner_state
	_Atomic uint32_t retire; // the driver asks it to end in good order
	_Atomic uint32_t doomed; // the driver is about to kill it: signals are expected
	_Atomic int32_t pid;
	int64_t segid;
	uint64_t mmap_top, brk_base; // landmarks for the attacher with few, giant windows
	uint64_t tomb; // memory that nobody touches before the owner is dead
	uint64_t stack[NWORKERS]; // for touches by the way
	uint64_t bss, bss_len;
};

struct attacher_box {
	_Atomic uint32_t incarnation;
	_Atomic uint32_t ready_epoch;
	_Atomic int32_t pid;
	_Atomic uint32_t bell[ATTACHER_THREADS]; // futex
	_Atomic uint64_t beat[ATTACHER_THREADS];
};

// A process that is neither owner nor attacher writes to the owner's memory.
struct writer_box {
	_Atomic uint32_t epoch; // whose it is
	_Atomic uint32_t quit;
	_Atomic uint32_t wanted; // futex: rises with each job
	_Atomic uint32_t done;   // futex: the last job that has ended
	_Atomic uint32_t stop;   // the job is to end after this round
	uint64_t addr, len, key;
	uint32_t first, rounds; // generations: at most so many, from the first on
	_Atomic uint32_t gen;   // the last one that was written whole
	int error;
};

struct failure {
	_Atomic uint32_t full;
	uint32_t fail, klass;
	char text[240];
};

struct stats {
	_Atomic uint64_t steps; // changes of the owner's memory that an attacher then checked
	_Atomic uint64_t unchecked; // the same with no attacher alive to check
	_Atomic uint64_t per_klass[NKLASS];
	_Atomic uint64_t checks, bytes, answers, holes, strays, attaches, warm_attaches;
	_Atomic uint64_t raw_mremap_refused; // EFAULT: a part of the mapping was promoted
	_Atomic uint64_t unreached; // checks given up for want of a window
	_Atomic uint64_t counts, posts, joins, forks, spawns, io_bytes, rt_signals;
	_Atomic uint64_t eintr; // seen by the owner's program; informative
	_Atomic uint64_t refused; // EFAULT of a third process in the midst of a promotion
	_Atomic uint64_t skipped[NKLASS]; // said once: cannot be done on this machine
	_Atomic uint64_t owner_gone_reads; // attached pages that outlived their owner
	_Atomic uint64_t late[NKLASS]; // wrong at first, right within the patience of the checker
	_Atomic uint64_t late_max_us;
	_Atomic uint64_t fail[NFAIL][NKLASS];
};

struct mailbox {
	uint64_t seed;
	_Atomic uint32_t stop;
	struct owner_box owner;
	struct writer_box writer;
	struct attacher_box attacher[NATTACHERS];
	struct slot slot[NWORKERS];
	struct stats stats;
	_Atomic uint32_t nfailures;
	struct failure failure[64];
};

// Maps the mailbox behind `fd`, creating its size when `create`.
struct mailbox *mailbox_map(int fd, bool create);

// Counts a failure and keeps the text of the first ones.
void fail_note(struct mailbox *mb, enum fail f, enum klass k, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

// Says once that a class does nothing on this machine, and why.
void skip_note(struct mailbox *mb, enum klass k, const char *why);

// Futexes between processes. Waiting ends at a wake, after `ms`, or for no reason.
void futex_wait_ms(_Atomic uint32_t *word, uint32_t value, unsigned ms);
void futex_wake_all(_Atomic uint32_t *word);

uint64_t now_us(void);

static inline void stat_add(_Atomic uint64_t *s, uint64_t n)
{
	atomic_fetch_add_explicit(s, n, memory_order_relaxed);
}

// True when the owner of `epoch` is dead or about to be killed.
static inline bool owner_gone(struct mailbox *mb, uint32_t epoch)
{
	return atomic_load(&mb->owner.epoch) != epoch || atomic_load(&mb->owner.doomed) ||
	       atomic_load(&mb->owner.state) == OWNER_DEAD;
}

#endif
