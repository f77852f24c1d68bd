//! What goes to the child and what comes back.

use std::path::PathBuf;

use modularbase_graph::Graph;
use serde::{Deserialize, Serialize};

use super::ProbeLimits;
use crate::library::{LogLine, PackInfo, Unload};

/// What a child is asked, as JSON in its folder.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) library: PathBuf,
    pub(super) config: String,
    pub(super) limits: ProbeLimits,
    /// Further cycles of open, check, build, close, to see whether every byte comes back.
    pub(super) cycles: u32,
}

/// What a child answers, as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Built(Box<ProbeReport>),
    Failed(String),
}

/// What a probe saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// What the pack says of itself.
    pub info: PackInfo,
    /// Its graph: typed and sorted, shapes not inferred yet.
    pub graph: Graph,
    /// What became of the library.
    pub unload: Unload,
    /// What it wrote to the log.
    pub log: Vec<LogLine>,
    /// What it wrote to standard output or error; the host's own streams are not reached from a graph, so a pack
    /// should log instead.
    pub printed: String,
    /// From opening to closed, microseconds.
    pub build_micros: u64,
    /// Threads it left behind.
    pub threads_left: usize,
    /// The further cycles, if any were asked for.
    pub cycles: Option<CycleReport>,
}

/// Many cycles of open, check, build, close.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CycleReport {
    /// How many.
    pub cycles: u32,
    /// Growth of the process's resident memory over them, bytes; below 0 when it shrank.
    pub resident_growth_bytes: i64,
    /// Median time of one, microseconds.
    pub median_micros: u64,
    /// Regions of the library still mapped at the end.
    pub regions_left: usize,
}

impl CycleReport {
    /// Growth that the host's own allocator explains, bytes.
    pub const ALLOWED_GROWTH_BYTES: i64 = 1 << 20;

    /// Whether nothing stayed behind.
    pub fn returns_every_byte(&self) -> bool {
        self.resident_growth_bytes < Self::ALLOWED_GROWTH_BYTES && self.regions_left == 0
    }
}
