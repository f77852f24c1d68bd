//! The child's side of a probe.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    os::fd::OwnedFd,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use super::{
    limits::resident_bytes,
    report::{Answer, CycleReport, ProbeReport, Request},
};
use crate::library::{BuildRequest, build_graph, mapped_regions};

/// The hidden first argument with which a program starts itself as a probe.
pub const PROBE_ARGUMENT: &str = "__probe-pack";

/// Cycles before memory is measured: the allocator and abi_stable settle in the first few.
const WARM_UP_CYCLES: u32 = 10;

/// What a program does whose arguments (without its own name) begin with [`PROBE_ARGUMENT`]; `None` if they do not.
/// Call it first in `main`, before any thread starts.
pub fn probe_child_main(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if args.next()?.to_str() != Some(PROBE_ARGUMENT) {
        return None;
    }
    let Some(request) = args.next() else {
        return Some(ExitCode::FAILURE);
    };
    match probe(Path::new(&request)) {
        Ok(never) => match never {},
        Err(error) => {
            // The parent shows what a failed child wrote to standard error.
            let _ = writeln!(io::stderr(), "the probe itself failed: {error}");
            Some(ExitCode::FAILURE)
        }
    }
}

enum Never {}

fn probe(request: &Path) -> io::Result<Never> {
    let mut results = take_standard_output()?;
    let request: Request = serde_json::from_slice(&fs::read(request)?)?;
    request.limits.apply()?;
    let answer = match first_contact(&request)? {
        Ok(report) => Answer::Built(Box::new(report)),
        Err(reason) => Answer::Failed(reason),
    };
    results.write_all(&serde_json::to_vec(&answer)?)?;
    drop(results);
    // SAFETY: ends the process without running anything that a pack which is still mapped has left behind.
    unsafe { libc::_exit(0) }
}

/// Standard output carries the answer, so a pack that prints must not reach it: it prints to standard error instead.
fn take_standard_output() -> io::Result<File> {
    let results: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    Ok(results.into())
}

fn first_contact(request: &Request) -> io::Result<Result<ProbeReport, String>> {
    let build = BuildRequest {
        library: request.library.clone(),
        config: request.config.clone(),
        // The parent's clock decides; this one only has to be later.
        time_limit: request.limits.wall_time + Duration::from_secs(60),
    };
    let built = match build_graph(&build) {
        Ok(built) => built,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let cycles = match request.cycles {
        0 => None,
        cycles => match run_cycles(&build, cycles)? {
            Ok(report) => Some(report),
            Err(reason) => return Ok(Err(reason)),
        },
    };
    Ok(Ok(ProbeReport {
        info: built.info,
        graph: built.graph,
        unload: built.unload,
        log: built.log,
        printed: String::new(), // the parent knows
        build_micros: built.elapsed.as_micros() as u64,
        threads_left: built.threads_left,
        cycles,
    }))
}

fn run_cycles(build: &BuildRequest, cycles: u32) -> io::Result<Result<CycleReport, String>> {
    let mut micros = Vec::with_capacity(cycles as usize);
    let mut resident_before = 0;
    for cycle in 0..WARM_UP_CYCLES + cycles {
        if cycle == WARM_UP_CYCLES {
            resident_before = resident_bytes()?;
        }
        let start = Instant::now();
        if let Err(error) = build_graph(build) {
            return Ok(Err(format!("in cycle {}: {error}", cycle + 1)));
        }
        if cycle >= WARM_UP_CYCLES {
            micros.push(start.elapsed().as_micros() as u64);
        }
    }
    let resident_growth_bytes = resident_bytes()? as i64 - resident_before as i64;
    micros.sort_unstable();
    Ok(Ok(CycleReport {
        cycles,
        resident_growth_bytes,
        median_micros: micros[micros.len() / 2],
        regions_left: mapped_regions(&build.library)?,
    }))
}
