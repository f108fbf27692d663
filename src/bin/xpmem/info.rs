// SPDX-License-Identifier: MIT OR Apache-2.0
//! `xpmem info`: what is here, and which back end would serve.

#![forbid(unsafe_code)]

use crate::probe::{self, Facility, Need};
use serde_json::json;
use std::fmt::Write as _;
use std::process::{Command, ExitCode, Stdio};
use xpmem::environment::{self, Audience};
use xpmem::{api, uapi};

#[derive(clap::Args)]
pub struct Options {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Only try it; what the library says goes to standard error
    #[arg(long, hide = true)]
    only_try: bool,
}

struct Choice {
    /// XPMEM_BACKEND as the library reads it.
    asked: String,
    serves: Option<Serving>,
    reason: String,
    /// What the library says when it starts.
    log: Vec<String>,
}

struct Serving {
    name: &'static str,
    version: i32,
}

pub fn run(options: &Options) -> Result<ExitCode, String> {
    if options.only_try {
        return Ok(match export_a_page() {
            Ok(_) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        });
    }
    // The facilities first: they fork, and the library may start a thread.
    let facilities = probe::all();
    let choice = choose(&facilities);
    let text = if options.json {
        as_json(&facilities, &choice)?
    } else {
        as_text(&facilities, &choice)
    };
    crate::print_text(format_args!("{text}"))?;
    Ok(if choice.serves.is_some() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Lets the library choose, and exports a page for an instant to see that it works.
fn choose(facilities: &[Facility]) -> Choice {
    let asked = std::env::var("XPMEM_BACKEND").unwrap_or_else(|_| "auto".to_string());
    let outcome = export_a_page();
    let missing: Vec<&str> = facilities
        .iter()
        .filter(|facility| facility.need == Need::User && !facility.found)
        .map(|facility| facility.name)
        .collect();
    let device = facilities
        .iter()
        .any(|facility| facility.name == "dev-xpmem" && facility.found);
    let reason = match &outcome {
        Ok(serving) if serving.name == "kernel" => "/dev/xpmem answers".to_string(),
        Ok(_) if device => "XPMEM_BACKEND asks for it, though /dev/xpmem answers".to_string(),
        Ok(_) => "no /dev/xpmem, and all that the user back end needs is here".to_string(),
        Err(_) if asked == "off" => "XPMEM_BACKEND=off".to_string(),
        Err(error) => {
            let mut reason = format!("xpmem_make fails: {error}");
            if !device && (asked == "kernel" || asked == "auto") {
                reason.push_str("; no /dev/xpmem");
            }
            if asked != "kernel" && !missing.is_empty() {
                let _ = write!(reason, "; the user back end lacks {}", missing.join(", "));
            }
            reason
        }
    };
    Choice {
        asked,
        serves: outcome.ok(),
        reason,
        log: what_the_library_says(),
    }
}

fn export_a_page() -> xpmem::error::Result<Serving> {
    let name = api::back_end()?;
    let page = vec![0_u8; 2 * crate::sys::page_size()];
    let size = crate::sys::page_size();
    let start = (page.as_ptr() as usize).next_multiple_of(size);
    let segid = api::make(start, size, uapi::PERMIT_MODE, 0o600)?;
    api::remove(segid)?;
    Ok(Serving {
        name,
        version: api::version()?,
    })
}

/// The lines of `XPMEM_DEBUG=1`, of another process of this tool: why the folder
/// for the sockets is not used, say.
fn what_the_library_says() -> Vec<String> {
    let Ok(tool) = std::env::current_exe() else {
        return Vec::new();
    };
    let said = Command::new(tool)
        .args(["info", "--only-try"])
        .env("XPMEM_DEBUG", "1")
        .env_remove("XPMEM_DEBUG_FILE")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    let text = said.map(|output| output.stderr).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| line.strip_prefix("xpmem[")?.split_once("]: "))
        .map(|(_, said)| said.to_string())
        .collect()
}

fn as_json(facilities: &[Facility], choice: &Choice) -> Result<String, String> {
    let list: Vec<_> = facilities
        .iter()
        .map(|facility| {
            json!({
                "name": facility.name,
                "found": facility.found,
                "need": facility.need.name(),
                "detail": facility.detail,
                "why": facility.why,
                "without": facility.without,
            })
        })
        .collect();
    let variables: serde_json::Map<_, _> = variables()
        .map(|(name, value)| (name.to_string(), json!(value)))
        .collect();
    let object = json!({
        "tool": env!("CARGO_PKG_VERSION"),
        "kernel": kernel_release(),
        "uid": crate::sys::effective_uid(),
        "facilities": list,
        "environment": variables,
        "backend": {
            "asked": choice.asked,
            "serves": choice.serves.as_ref().map(|serving| serving.name),
            "version": choice.serves.as_ref().map(|serving| serving.version),
            "reason": choice.reason,
            "log": choice.log,
        },
    });
    let mut text = serde_json::to_string_pretty(&object).map_err(|error| error.to_string())?;
    text.push('\n');
    Ok(text)
}

fn as_text(facilities: &[Facility], choice: &Choice) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "xpmem {} on Linux {}, uid {}",
        env!("CARGO_PKG_VERSION"),
        kernel_release(),
        crate::sys::effective_uid()
    );
    let mut heading = None;
    for facility in facilities_by_need(facilities) {
        if heading != Some(facility.need) {
            heading = Some(facility.need);
            let title = match facility.need {
                Need::Kernel => "The kernel back end needs",
                Need::User => "The user back end needs",
                Need::Better => "The user back end does better with",
                Need::Fact => "For comparison",
            };
            let _ = writeln!(text, "\n{title}:");
        }
        let mark = if facility.found { "yes" } else { "no " };
        let _ = writeln!(text, "  {mark}  {:<20} {}", facility.name, facility.detail);
        let _ = writeln!(text, "       {:<20} {}", "", plain(facility.why));
        if !facility.found && !facility.without.is_empty() {
            let without = plain(facility.without);
            let _ = writeln!(text, "       {:<20} without it: {without}", "");
        }
    }
    text.push_str("\nThe environment:\n");
    for (name, value) in variables() {
        let value = value.as_deref().unwrap_or("(not set)");
        let _ = writeln!(text, "       {name:<20} {value}");
    }
    text.push_str("\nWhat the library says when it starts:\n");
    for line in &choice.log {
        let _ = writeln!(text, "       {line}");
    }
    let _ = match &choice.serves {
        Some(serving) => writeln!(
            text,
            "\nThe {} back end would serve (version {:#x}): {}",
            serving.name, serving.version, choice.reason
        ),
        None => writeln!(text, "\nNo back end would serve: {}", choice.reason),
    };
    text
}

fn facilities_by_need(facilities: &[Facility]) -> impl Iterator<Item = &Facility> {
    [Need::Kernel, Need::User, Need::Better, Need::Fact]
        .into_iter()
        .flat_map(|need| {
            facilities
                .iter()
                .filter(move |facility| facility.need == need)
        })
}

/// Text of the documentation's table, without its marks.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// The library's variables for users, and what they are set to.
fn variables() -> impl Iterator<Item = (&'static str, Option<String>)> {
    environment::ALL
        .iter()
        .filter(|variable| variable.audience == Audience::Users)
        .filter_map(|variable| variable.name.to_str().ok())
        .map(|name| {
            let value = std::env::var_os(name);
            (
                name,
                value.map(|value| value.to_string_lossy().into_owned()),
            )
        })
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "?".to_string(), |release| release.trim().to_string())
}
