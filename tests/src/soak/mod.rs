//! A host under requests for minutes: many more packs than fit, streams of requests, files that change underneath,
//! evictions by an operator.

mod changes;
mod collection;
mod latencies;
mod random;
mod reference;
mod report;
mod run;
mod streams;

use std::path::PathBuf;

pub use report::Report;
pub use run::run;

/// What is run, and for how long.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "soak", about = "A host under requests for minutes, with packs that come and go.")]
pub struct Settings {
    /// Minutes of requests.
    #[arg(long, default_value_t = 2.0)]
    pub minutes: f64,
    /// Packs in the folder.
    #[arg(long, default_value_t = 200)]
    pub packs: usize,
    /// The budget has room for so many of the largest.
    #[arg(long, default_value_t = 8)]
    pub room_for: usize,
    /// Streams of requests beside each other.
    #[arg(long, default_value_t = 4)]
    pub streams: usize,
    /// Of the random choices.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Most MiB that resident memory may grow from the end of the warm-up to the end.
    #[arg(long, default_value_t = 64)]
    pub growth: i64,
    /// Use the small checkpoint of the repository although the default base is there.
    #[arg(long)]
    pub tiny: bool,
    /// Where to write the report.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}
