//! What packs cost: to arrive, to load, to be evicted, to lie there by the thousand, and to be beside others.
//!
//! Each figure has the bar beside it that the project has set itself. Measurements are no tests: they depend on the
//! machine, and nothing fails by them.

mod arrival;
mod loads;
mod many;
mod pauses;
mod throughput;

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};

use crate::Base;

/// What is measured, and how often.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "pack_bench", about = "What packs cost, as JSON.")]
pub struct Settings {
    /// How often each measurement is repeated; medians are reported.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Packs in the folder of many.
    #[arg(long, default_value_t = 10_000)]
    pub packs: usize,
    /// What is measured (default: everything); more than once, in any order.
    #[arg(long, value_name = "WHAT")]
    pub only: Vec<Measured>,
    /// Be the process that restarts on the folders `packs` and `cache` in this one.
    #[arg(long, value_name = "FOLDER", hide = true)]
    pub restart_on: Option<PathBuf>,
}

/// A part of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Measured {
    /// Loads, reloads and evictions.
    Loads,
    /// From the last byte to the first answer.
    Arrival,
    /// What a load costs the steps beside it.
    Pauses,
    /// Tokens a second with packs.
    Throughput,
    /// A folder of thousands.
    Many,
}

/// Measures what the settings say. Progress is told on stderr.
///
/// # Panics
/// Where it can't be set up, or a pack does not come to serve.
pub fn run(settings: &Settings) -> Value {
    if let Some(root) = &settings.restart_on {
        return many::restart(root);
    }
    let base = if Base::Real.is_there() { Base::Real } else { Base::Tiny };
    let rounds = settings.rounds.max(1);
    let only = &settings.only;
    let measured = |what: Measured, measure: &dyn Fn() -> Value| {
        let is_wanted = only.is_empty() || only.contains(&what);
        is_wanted.then(|| {
            eprintln!("packs: {what:?}");
            measure()
        })
    };
    json!({
        "base": base.name(),
        "rounds": rounds,
        "loads": measured(Measured::Loads, &|| loads::measure(base, rounds)),
        "arrival": measured(Measured::Arrival, &|| arrival::measure(base, rounds)),
        "pauses": measured(Measured::Pauses, &|| pauses::measure(base, rounds)),
        "throughput": measured(Measured::Throughput, &|| throughput::measure(base, rounds)),
        "many": measured(Measured::Many, &|| many::measure(settings.packs)),
    })
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Median, shortest and longest of some times, with the bar for the median.
fn times(mut of: Vec<Duration>, bar_ms: Option<f64>) -> Value {
    of.sort_unstable();
    let median = millis(median(&of));
    let (shortest, longest) = (of.first().copied().map(millis), of.last().copied().map(millis));
    json!({
        "median_ms": median,
        "min_ms": shortest,
        "max_ms": longest,
        "samples": of.len(),
        "bar_ms": bar_ms,
        "within_bar": bar_ms.map(|bar| median < bar),
    })
}

/// The middle of sorted times; nothing for none.
fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The middle of some ratios, rounded to thousandths.
fn median_ratio(mut of: Vec<f64>) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    of.get(of.len() / 2).map_or(f64::NAN, |ratio| (ratio * 1e3).round() / 1e3)
}
