// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any bytes as messages of a peer, and as a sequence of what they make of the
//! tables that they reach.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use xpmem::fuzzing::Fuzzing;

thread_local! {
    static STATE: RefCell<Fuzzing> = RefCell::new(Fuzzing::new());
}

fuzz_target!(|data: &[u8]| STATE.with(|state| state.borrow_mut().run(data)));
