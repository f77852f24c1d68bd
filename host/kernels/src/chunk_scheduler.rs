//! Hands out pieces of a range to workers: each works through a part of its own, then helps the others.
//!
//! Parts of their own keep each worker's memory accesses in one forward stream; helping evens out rows of unequal
//! cost and cores that are shared with other processes.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::thread_pool::split_range;

/// Workers beyond this many share lanes.
const LANES: usize = 16;

#[repr(align(128))]
struct Lane {
    next: AtomicUsize,
    end: usize,
}

/// A range that is being handed out.
pub struct ChunkScheduler {
    lanes: [Lane; LANES],
    used: usize,
    grain: usize,
}

impl ChunkScheduler {
    /// Hands out `0..total` in pieces of `grain` items to `workers` workers.
    pub fn new(total: usize, grain: usize, workers: usize) -> Self {
        let used = workers.clamp(1, LANES);
        let lanes = std::array::from_fn(|lane| {
            let range = split_range(total, used, lane);
            Lane { next: AtomicUsize::new(range.start), end: range.end }
        });
        Self { lanes, used, grain: grain.max(1) }
    }

    /// The next piece for `worker`, or `None` when everything has been handed out.
    pub fn next(&self, worker: usize) -> Option<Range<usize>> {
        for offset in 0..self.used {
            let lane = &self.lanes[(worker + offset) % self.used];
            // The load keeps the counter from growing without end while others finish.
            if lane.next.load(Ordering::Relaxed) >= lane.end {
                continue;
            }
            let first = lane.next.fetch_add(self.grain, Ordering::Relaxed);
            if first < lane.end {
                return Some(first..(first + self.grain).min(lane.end));
            }
        }
        None
    }
}
