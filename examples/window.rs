// SPDX-License-Identifier: MIT OR Apache-2.0
//! A window on another process's memory, as a type: it is attached when it is
//! made and detached when it goes.
//!
//! `cargo run --example window` exports some numbers, starts itself again as the
//! attacher, and shows what that has done to them.

use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use xpmem::error::Result;
use xpmem::{api, uapi};

const NUMBERS: usize = 1000;
const PAGE: usize = 4096;

/// Numbers of another process. Both sides may change them at any time, so each
/// is atomic. A touch of what the owner has unmapped ends the process by SIGBUS.
struct Window {
    apid: i64,
    attached: usize,
    first: usize,
    count: usize,
}

impl Window {
    /// The `count` numbers at `address` of the process that exported `segid`, its
    /// whole address space.
    fn new(segid: i64, address: usize, count: usize) -> Result<Self> {
        let apid = api::get(segid, uapi::RDWR, uapi::PERMIT_MODE)?;
        let (start, offset) = (address - address % PAGE, address % PAGE);
        match api::attach(apid, start as i64, offset + count * 8) {
            Ok(attached) => Ok(Self {
                apid,
                attached,
                first: attached + offset,
                count,
            }),
            Err(error) => {
                let _ = api::release(apid);
                Err(error)
            }
        }
    }

    fn numbers(&self) -> &[AtomicU64] {
        let first = std::ptr::with_exposed_provenance(self.first);
        // SAFETY: the attachment covers these bytes and lives as long as `self`;
        // they are aligned as in the owner, which has them as AtomicU64 too.
        unsafe { std::slice::from_raw_parts(first, self.count) }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let _ = api::detach(self.attached);
        let _ = api::release(self.apid);
    }
}

fn attacher(segid: i64, address: usize) -> Result<()> {
    let window = Window::new(segid, address, NUMBERS)?;
    for number in window.numbers() {
        number.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn owner() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<AtomicU64> = (0..NUMBERS as u64).map(AtomicU64::new).collect();
    let segid = api::make(0, uapi::MAXADDR_SIZE, uapi::PERMIT_MODE, 0o600)?;
    let address = numbers.as_ptr().expose_provenance();
    let status = Command::new(std::env::current_exe()?)
        .args([segid.to_string(), address.to_string()])
        .status()?;
    if !status.success() {
        return Err(format!("the attacher: {status}").into());
    }
    let right = (1..).zip(&numbers);
    let right = right.filter(|(wanted, number)| number.load(Ordering::Relaxed) == *wanted);
    println!("{} of {NUMBERS} numbers are one more", right.count());
    Ok(api::remove(segid)?)
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let outcome = match (words.next(), words.next()) {
        (Some(Ok(segid)), Some(Ok(address))) => {
            attacher(segid as i64, address as usize).map_err(Into::into)
        }
        _ => owner(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("window: {error}");
            ExitCode::FAILURE
        }
    }
}
