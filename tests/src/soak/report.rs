//! What a soak gave.

use serde::Serialize;

use super::latencies::Quantiles;
use crate::ProcessState;

/// Counts, times and what the process held. `faults` is empty when all is well.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `SmolLM2-135M-Instruct` or `tiny`.
    pub base: String,
    /// Minutes of requests.
    pub minutes: f64,
    /// Of the random choices.
    pub seed: u64,
    /// Packs in the folder.
    pub packs: usize,
    /// Device memory for everything, bytes.
    pub budget_bytes: u64,
    /// Most that was held of it, bytes.
    pub most_held_bytes: u64,
    /// Packs on the device, on average.
    pub resident_packs: f64,
    /// Most packs on the device at once.
    pub most_resident_packs: usize,
    /// Bytes of caches and working memory, on average.
    pub caches_bytes: u64,
    /// Resident memory every five seconds, bytes.
    pub resident_memory: Vec<i64>,
    /// What was allocated at the same moments, bytes.
    pub allocated: Vec<i64>,
    /// Bytes that were allocated more at the end than after the warm-up.
    pub allocated_growth: i64,
    /// Streams beside each other.
    pub streams: usize,
    /// Requests begun.
    pub requests: u64,
    /// Tokens answered.
    pub tokens: u64,
    /// Answers compared with what the packs give alone.
    pub checked: u64,
    /// Answers that were wrong.
    pub wrong: u64,
    /// Requests refused, for packs whose files had just changed or gone.
    pub refused: u64,
    /// Requests refused, for want of room for their caches.
    pub without_room: u64,
    /// Answers that had to go without a pack for a moment.
    pub with_omitted: u64,
    /// Packs brought to the device.
    pub loads: u64,
    /// Packs taken from the device.
    pub evictions: u64,
    /// Requests for a pack that found it on the device, by all of them.
    pub hit_rate: f64,
    /// Packs put into quarantine.
    pub quarantines: u64,
    /// Changes of files.
    pub file_changes: u64,
    /// A load, from its begin to the pack on the device, milliseconds.
    pub load_ms: Quantiles,
    /// A decode step beside the other streams and their loads, milliseconds.
    pub step_ms: Quantiles,
    /// Before the host was opened.
    pub before: ProcessState,
    /// After the warm-up.
    pub start: ProcessState,
    /// When the streams had ended.
    pub end: ProcessState,
    /// When the host was gone.
    pub after: ProcessState,
    /// What was wrong, in words.
    pub faults: Vec<String>,
}

impl Report {
    /// For people, a line for each matter.
    pub fn text(&self) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let held = |at: &ProcessState| {
            format!(
                "{:.1} MiB, {} threads, {} descriptors, {} mappings",
                mib(at.resident_bytes as u64),
                at.threads.values().sum::<usize>(),
                at.descriptors.values().sum::<usize>(),
                at.mappings
            )
        };
        let series = |of: &[i64]| {
            let each = of.iter().map(|bytes| format!("{:.0}", mib(*bytes as u64)));
            each.collect::<Vec<_>>().join(" ")
        };
        let times = |of: &Quantiles| {
            format!(
                "p50 {:.2} ms, p99 {:.2} ms, longest {:.1} ms of {}",
                of.p50, of.p99, of.longest, of.samples
            )
        };
        let mut lines = vec![
            format!(
                "soak of {} for {:.1} min, seed {}: {} packs, {} streams, budget {:.1} MiB, most held {:.1} MiB",
                self.base,
                self.minutes,
                self.seed,
                self.packs,
                self.streams,
                mib(self.budget_bytes),
                mib(self.most_held_bytes)
            ),
            format!(
                "  requests {} ({} tokens, {} checked, {} wrong), refused {}, without room {}, without a pack {}",
                self.requests,
                self.tokens,
                self.checked,
                self.wrong,
                self.refused,
                self.without_room,
                self.with_omitted
            ),
            format!(
                "  loads {}, evictions {}, hit rate {:.2}, on the device {:.1} packs, at most {}; quarantined {}, changes of \
                 files {}",
                self.loads,
                self.evictions,
                self.hit_rate,
                self.resident_packs,
                self.most_resident_packs,
                self.quarantines,
                self.file_changes
            ),
            format!("  load: {}", times(&self.load_ms)),
            format!("  decode step beside: {}", times(&self.step_ms)),
            format!("  caches and working memory {:.2} MiB on average", mib(self.caches_bytes)),
            format!("  resident memory every 5 s, MiB: {}", series(&self.resident_memory)),
            format!(
                "  allocated at the same moments, MiB: {}; from the warm-up to the end {:+.1} MiB",
                series(&self.allocated),
                self.allocated_growth as f64 / f64::from(1 << 20)
            ),
            format!("  before the host: {}", held(&self.before)),
            format!("  after warm-up:   {}", held(&self.start)),
            format!("  at the end:      {}", held(&self.end)),
            format!("  host gone:       {}", held(&self.after)),
        ];
        lines.extend(self.faults.iter().map(|fault| format!("  FAULT: {fault}")));
        lines.join("\n")
    }

    /// All in one line.
    pub fn line(&self) -> String {
        let growth = self.end.resident_bytes as f64 - self.start.resident_bytes as f64;
        format!(
            "soak: {} faults in {:.1} min on {}: {} requests, {} checked, {} loads, {} evictions, load p50 {:.1} p99 \
             {:.1} ms, step p50 {:.2} p99 {:.2} ms, RSS {:+.1} MiB, allocated {:+.1} MiB, {:.1} packs on the device",
            self.faults.len(),
            self.minutes,
            self.base,
            self.requests,
            self.checked,
            self.loads,
            self.evictions,
            self.load_ms.p50,
            self.load_ms.p99,
            self.step_ms.p50,
            self.step_ms.p99,
            growth / f64::from(1 << 20),
            self.allocated_growth as f64 / f64::from(1 << 20),
            self.resident_packs
        )
    }
}
