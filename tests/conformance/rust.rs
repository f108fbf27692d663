// SPDX-License-Identifier: MIT OR Apache-2.0
//! The suite over the Rust API: the same cases, whose every call goes to the
//! functions of [`xpmem::api`].
//!
//! The cases are C and come as a shared object (`make conformance`), whose path
//! is in `XPMEM_CASES`.

use std::ffi::{c_char, c_int, c_void, CString};
use std::process::ExitCode;
use xpmem::api;
use xpmem::error::Result;

/// `struct xpmem_addr` of xpmem.h.
#[repr(C)]
struct Place {
    apid: i64,
    offset: i64,
}

/// `struct xpmem_api` of harness.h.
#[repr(C)]
struct Table {
    version: extern "C" fn() -> c_int,
    init: extern "C" fn() -> c_int,
    ioctl: extern "C" fn(c_int, *mut c_void) -> c_int,
    make: extern "C" fn(*mut c_void, usize, c_int, *mut c_void) -> i64,
    remove: extern "C" fn(i64) -> c_int,
    get: extern "C" fn(i64, c_int, c_int, *mut c_void) -> i64,
    release: extern "C" fn(i64) -> c_int,
    attach: extern "C" fn(Place, usize, *mut c_void) -> *mut c_void,
    detach: extern "C" fn(*mut c_void) -> c_int,
}

static TABLE: Table = Table {
    version,
    init,
    ioctl,
    make,
    remove,
    get,
    release,
    attach,
    detach,
};

/// The value, or `failure` with errno set, which is left alone on success.
fn answer<T>(failure: T, call: impl FnOnce() -> Result<T>) -> T {
    // SAFETY: errno of this thread.
    let errno = unsafe { &mut *libc::__errno_location() };
    let before = *errno;
    match call() {
        Ok(value) => {
            *errno = before;
            value
        }
        Err(error) => {
            *errno = error.errno();
            failure
        }
    }
}

extern "C" fn version() -> c_int {
    answer(-1, api::version)
}

extern "C" fn init() -> c_int {
    answer(-1, || api::init().map(|()| 0))
}

extern "C" fn ioctl(cmd: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: the cases hand out structures, or mean to be refused.
    answer(-1, || unsafe { api::ioctl(cmd, arg.expose_provenance()) })
}

extern "C" fn make(
    vaddr: *mut c_void,
    size: usize,
    permit_type: c_int,
    permit: *mut c_void,
) -> i64 {
    answer(-1, || {
        api::make(
            vaddr.expose_provenance(),
            size,
            permit_type,
            permit.addr() as u64,
        )
    })
}

extern "C" fn remove(segid: i64) -> c_int {
    answer(-1, || api::remove(segid).map(|()| 0))
}

extern "C" fn get(segid: i64, flags: c_int, permit_type: c_int, _permit: *mut c_void) -> i64 {
    answer(-1, || api::get(segid, flags, permit_type))
}

extern "C" fn release(apid: i64) -> c_int {
    answer(-1, || api::release(apid).map(|()| 0))
}

extern "C" fn attach(addr: Place, size: usize, vaddr: *mut c_void) -> *mut c_void {
    let address = answer(usize::MAX, || {
        if vaddr.is_null() {
            api::attach(addr.apid, addr.offset, size)
        } else {
            // SAFETY: the cases give up what they name.
            unsafe { api::attach_at(addr.apid, addr.offset, size, vaddr.expose_provenance()) }
        }
    });
    std::ptr::with_exposed_provenance_mut(address)
}

extern "C" fn detach(vaddr: *mut c_void) -> c_int {
    answer(-1, || api::detach(vaddr.addr()).map(|()| 0))
}

type Main = extern "C" fn(c_int, *const *const c_char, *const Table) -> c_int;

fn main() -> ExitCode {
    let Some(cases) = std::env::var_os("XPMEM_CASES") else {
        eprintln!("XPMEM_CASES must name libconformance-cases.so; see `make conformance`");
        return ExitCode::from(2);
    };
    let path = CString::new(cases.into_encoded_bytes()).expect("a path");
    // SAFETY: the cases have no constructors beyond the C library's own.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    assert!(!library.is_null(), "cannot load {path:?}");
    // SAFETY: looks up a name in a library that is loaded.
    let main = unsafe { libc::dlsym(library, c"conformance_main".as_ptr()) };
    assert!(!main.is_null(), "{path:?} has no conformance_main");
    // SAFETY: harness.h declares it so.
    let main: Main = unsafe { std::mem::transmute::<*mut c_void, Main>(main) };
    let arguments: Vec<CString> = std::env::args()
        .map(|a| CString::new(a).expect("no NUL in arguments"))
        .collect();
    let mut argv: Vec<*const c_char> = arguments.iter().map(|a| a.as_ptr()).collect();
    argv.push(std::ptr::null());
    let status = main(arguments.len() as c_int, argv.as_ptr(), &TABLE);
    ExitCode::from(status as u8)
}
