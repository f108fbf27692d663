// SPDX-License-Identifier: MIT OR Apache-2.0
//! The exported C symbols.
//!
//! Every one of them is defined by [`export!`], so none can forget what all of
//! them owe a C caller.

mod hwloc;
mod xpmem;

use crate::error::Result;

/// Runs the body of an exported function and translates its result: on
/// failure errno is set and `failure` returned; on success errno is what it was
/// before, whatever the body's own system calls did to it.
///
/// A panic cannot come through: the crate is built with `panic = "abort"`,
/// since a promotion that is half done must not go on.
#[inline]
pub(crate) fn guard<T>(failure: T, body: impl FnOnce() -> Result<T>) -> T {
    let before = errno();
    match body() {
        Ok(value) => {
            set_errno(before);
            value
        }
        Err(error) => {
            set_errno(error.errno());
            failure
        }
    }
}

fn errno() -> libc::c_int {
    // SAFETY: libc returns the address of this thread's errno, valid while the
    // thread lives.
    unsafe { *libc::__errno_location() }
}

fn set_errno(value: libc::c_int) {
    // SAFETY: as in `errno`.
    unsafe { *libc::__errno_location() = value };
}

/// Defines one exported C function:
///
/// ```text
/// export! {
///     /// Documentation, which becomes the header's comment.
///     fn name(argument: type, ...) -> type, or failure_value { body }
/// }
/// ```
///
/// The body returns `Result<type, Error>`. What is exported is an
/// `unsafe extern "C"` function under its own name that returns the value, or
/// sets errno and returns `failure_value`.
macro_rules! export {
    ($(
        $(#[$attribute:meta])*
        fn $name:ident($($argument:ident: $type:ty),* $(,)?) -> $return:ty, or $failure:expr;
        $body:block
    )*) => {$(
        $(#[$attribute])*
        #[allow(clippy::missing_safety_doc)] // The documentation is the C header's.
        #[no_mangle]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> $return {
            $crate::capi::guard($failure, || $body)
        }
    )*};
}
pub(crate) use export;
