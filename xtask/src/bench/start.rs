//! From the start of the program to its first token, and the most memory it takes.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::Setting;
use super::machine::field;
use super::median::median;

/// How often the running program's peak RSS is read. The kernel keeps the peak, so only what grows within the last
/// interval before the end is missed.
const POLL: Duration = Duration::from_millis(2);

struct Run {
    first_byte_ms: f64,
    total_ms: f64,
    peak_rss_bytes: f64,
}

/// Medians over rounds of `modularbase run` with a short prompt, after one that warms the page cache.
pub(crate) fn measure(setting: &Setting) -> anyhow::Result<Value> {
    let mut runs = Vec::new();
    run_once(setting)?;
    for round in 1..=setting.rounds {
        eprintln!("bench: start, round {round} of {}", setting.rounds);
        runs.push(run_once(setting)?);
    }
    let of = |value: fn(&Run) -> f64| {
        let values: Vec<f64> = runs.iter().map(value).collect();
        json!({ "median": median(&values), "rounds": values })
    };
    Ok(json!({
        "prompt": PROMPT,
        "max_tokens": 32,
        "first_byte_ms": of(|run| run.first_byte_ms),
        "total_ms": of(|run| run.total_ms),
        "peak_rss_bytes": of(|run| run.peak_rss_bytes),
    }))
}

const PROMPT: &str = "What is gravity?";

fn run_once(setting: &Setting) -> anyhow::Result<Run> {
    let threads = setting.threads.to_string();
    let mut program = setting
        .host
        .program()
        .args(["run", PROMPT, "--greedy", "--max-tokens", "32", "--threads", &threads])
        .env("MODULARBASE_PACKS_DIR", &setting.packs_folder);
    if setting.model_is_chosen {
        program = program.args(["--base".as_ref(), setting.model.as_os_str()]);
    }
    let begin = Instant::now();
    let mut child = program.spawn_piped()?;
    let mut stdout = child.stdout.take().context("stdout is piped")?;
    let status_file = format!("/proc/{}/status", child.id());
    let ended = AtomicBool::new(false);
    let (read, peak) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch_peak_rss(&status_file, &ended));
        let read = read_to_end(&mut stdout, begin);
        ended.store(true, Ordering::Relaxed);
        (read, watcher.join().unwrap_or(0))
    });
    let status = child.wait()?;
    let total_ms = begin.elapsed().as_secs_f64() * 1e3;
    if !status.success() {
        bail!("`modularbase run` failed: {status}");
    }
    let first_byte_ms = read?.context("`modularbase run` printed nothing")?;
    Ok(Run { first_byte_ms, total_ms, peak_rss_bytes: peak as f64 })
}

/// Milliseconds until the first byte; `None` when none came.
fn read_to_end(stdout: &mut impl Read, begin: Instant) -> std::io::Result<Option<f64>> {
    let mut first = None;
    let mut buffer = [0; 4096];
    while stdout.read(&mut buffer)? > 0 {
        first.get_or_insert_with(|| begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(first)
}

/// The highest `VmHWM` seen, in bytes; 0 where the kernel tells none.
fn watch_peak_rss(status_file: &str, ended: &AtomicBool) -> u64 {
    let mut peak = 0;
    while !ended.load(Ordering::Relaxed) {
        let status = std::fs::read_to_string(status_file).unwrap_or_default();
        let kib =
            field(&status, "VmHWM").and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) * 1024);
        std::thread::sleep(POLL);
    }
    peak
}
