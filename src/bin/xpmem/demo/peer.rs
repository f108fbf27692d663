// SPDX-License-Identifier: MIT OR Apache-2.0
//! The second process of `xpmem demo`: attaches, reads, writes, measures.

#![forbid(unsafe_code)]

use super::{first_wrong, milliseconds, write_all, MIB, WARM_ROUNDS};
use crate::sys::{self, Mapping, Memory};
use std::hint::black_box;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use xpmem::{api, uapi};

/// What the peer holds once it has attached.
struct Attached {
    memory: Memory,
    owner: i32,
    source: usize,
}

/// The second process: carries out the owner's orders, one a line.
pub fn peer() -> Result<ExitCode, String> {
    // Its end is a crash, on purpose.
    sys::no_core_file();
    let mut attached = None;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let answer = obey(&line, &mut attached);
        let mut out = io::stdout().lock();
        match answer {
            Ok(text) => writeln!(out, "ok {text}"),
            Err(text) => writeln!(out, "{text}"),
        }
        .and_then(|()| out.flush())
        .map_err(|error| error.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn obey(line: &str, attached: &mut Option<Attached>) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let order = words.next().unwrap_or_default();
    let numbers: Vec<i64> = words.map_while(|word| word.parse().ok()).collect();
    if let ("attach", &[segid, source, size]) = (order, numbers.as_slice()) {
        let (state, answer) = attach(segid, source as usize, size as usize)?;
        *attached = Some(state);
        return Ok(answer);
    }
    let state = attached.as_ref().ok_or("no attachment yet")?;
    match (order, numbers.as_slice()) {
        ("first", &[round]) => {
            let started = Instant::now();
            check(&state.memory, round as u64)?;
            let time = milliseconds(started.elapsed());
            let again = Instant::now();
            check(&state.memory, round as u64)?;
            let warm = milliseconds(again.elapsed());
            Ok(format!(
                "read every byte right; first touch {time:.1} ms, again {warm:.1} ms"
            ))
        }
        ("write", &[round]) => {
            write_all(&state.memory, round as u64);
            Ok(String::new())
        }
        ("check", &[round]) => check(&state.memory, round as u64).map(|()| String::new()),
        ("warm", &[size]) => warm(state, size as usize),
        ("touch", []) => Ok(format!("{:#x}", state.memory.read_word(0))),
        _ => Err(format!("unknown order {line:?}")),
    }
}

fn check(memory: &Memory, round: u64) -> Result<(), String> {
    match first_wrong(memory, round) {
        None => Ok(()),
        Some(index) => Err(format!("wrong data from byte {}", index * 8)),
    }
}

fn attach(segid: i64, source: usize, size: usize) -> Result<(Attached, String), String> {
    let apid = api::get(segid, uapi::RDWR, uapi::PERMIT_MODE)
        .map_err(|error| format!("xpmem_get: {error}"))?;
    let attach =
        || api::attach(apid, source as i64, size).map_err(|error| format!("xpmem_attach: {error}"));
    let started = Instant::now();
    let address = attach()?;
    let first = started.elapsed();
    // A second one shows what an attach costs once the way to the owner is known.
    let started = Instant::now();
    let second = attach()?;
    let again = started.elapsed();
    api::detach(second).map_err(|error| format!("xpmem_detach: {error}"))?;
    let memory = Memory::attached(address, size).ok_or("xpmem_attach answered NULL")?;
    let answer = format!(
        "attached {} MiB at {address:#x} in {:.0} us (again: {:.0} us); the owner has it at {source:#x}",
        size / MIB,
        first.as_secs_f64() * 1e6,
        again.as_secs_f64() * 1e6
    );
    let owner = std::os::unix::process::parent_id() as i32;
    Ok((
        Attached {
            memory,
            owner,
            source,
        },
        answer,
    ))
}

/// One size: attached memory, own memory and CMA into the same buffer.
fn warm(state: &Attached, size: usize) -> Result<String, String> {
    let mut target = vec![0_u8; size];
    let own = Mapping::anonymous(state.memory.len()).map_err(|error| error.to_string())?;
    write_all(&own, 0);
    // Each round reads another part, so that no cache holds the source already.
    let places = state.memory.len() / size;
    let offset = |round: usize| round % places * size;

    let attached = best(|round| {
        state.memory.copy_out(offset(round), &mut target);
        black_box(&target);
        Ok(())
    })?;
    let own = best(|round| {
        own.copy_out(offset(round), &mut target);
        black_box(&target);
        Ok(())
    })?;
    let cma =
        best(|round| sys::read_process(state.owner, state.source + offset(round), &mut target));
    let rate = |time: Duration| size as f64 / time.as_secs_f64() / 1e9;
    let name = if size < MIB {
        format!("{} KiB", size >> 10)
    } else {
        format!("{} MiB", size / MIB)
    };
    let (cma_text, ratio) = match cma {
        Ok(time) => (
            format!("{:.2}", rate(time)),
            format!("{:.2}x", rate(attached) / rate(time)),
        ),
        Err(_) => ("refused".to_string(), "-".to_string()),
    };
    Ok(format!(
        "{name:>9}  {:>12.2}  {:>12.2}  {cma_text:>12}  {ratio:>9}",
        rate(attached),
        rate(own)
    ))
}

fn best(mut body: impl FnMut(usize) -> io::Result<()>) -> Result<Duration, String> {
    let mut best = Duration::MAX;
    for round in 0..WARM_ROUNDS {
        let started = Instant::now();
        body(round).map_err(|error| error.to_string())?;
        best = best.min(started.elapsed());
    }
    Ok(best)
}
