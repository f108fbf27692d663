// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a panic prints of its callers: nothing, in the final libraries.
//!
//! A panic ends the program with its message and place. A third of the library
//! would be the standard library's reader of debugging information, which finds
//! names for the callers. It is reached only by way of this function, and link-time
//! optimization leaves out what nobody reaches. The Makefile asks for it by a
//! `cfg`; a library that cargo builds by itself has backtraces.
//!
//! The symbol is this library's alone: hidden in the shared one, local in the
//! static one (Makefile). Others who unwind never see it.

use core::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK`: there is no caller.
const END_OF_STACK: c_int = 5;

core::arch::global_asm!(".hidden _Unwind_Backtrace");

/// Calls `trace` for each caller: for none.
// SAFETY: the signature is the unwinder's, and only the standard library, which is
// linked into this one, finds the symbol.
#[unsafe(no_mangle)]
extern "C-unwind" fn _Unwind_Backtrace(trace: *const c_void, argument: *mut c_void) -> c_int {
    let _ = (trace, argument);
    END_OF_STACK
}
