//! From counts to rates: what happened in the last seconds.

use std::collections::VecDeque;

use modularbase_manager::{HostStatus, Totals};

/// Rates are means over about so long, ms: long enough to be read, short enough to be now.
const WINDOW_MS: u64 = 3_000;
/// The part of packs found on the device is a mean over about so long, ms: packs are asked for less often.
const HIT_WINDOW_MS: u64 = 60_000;
/// Points of the little diagram.
const POINTS: usize = 120;

/// The counts of the last minute, and what they make.
#[derive(Debug, Clone, Default)]
pub(super) struct Rates {
    /// Uptime, ms, and counts; the newest last.
    samples: VecDeque<(u64, Totals)>,
    /// Tokens a second between two looks, the newest last.
    tokens: VecDeque<u64>,
}

/// What happens in a second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct PerSecond {
    pub(super) requests: f64,
    pub(super) tokens: f64,
    pub(super) loads: f64,
    pub(super) evictions: f64,
    /// Of the packs asked for, the part that was on the device, 0 to 1; `None`: none was asked for.
    pub(super) hits: Option<f64>,
}

impl Rates {
    /// Adds a look at the host.
    pub(super) fn add(&mut self, status: &HostStatus) {
        let now = (status.uptime_ms, status.totals);
        if let Some(last) = self.samples.back() {
            if status.uptime_ms <= last.0 {
                return;
            }
            let tokens = rate(last.1.tokens, now.1.tokens, now.0 - last.0);
            self.tokens.push_back(tokens.round() as u64);
        }
        self.samples.push_back(now);
        while self.samples.len() > 2 && self.samples[1].0 + HIT_WINDOW_MS < now.0 {
            self.samples.pop_front();
        }
        while self.tokens.len() > POINTS {
            self.tokens.pop_front();
        }
    }

    pub(super) fn per_second(&self) -> PerSecond {
        let Some((now, counts)) = self.samples.back() else { return PerSecond::default() };
        let since = |window: u64| {
            let mut before = self.samples.iter().rev().skip(1);
            // The youngest sample that is old enough, else the oldest.
            before.find(|(at, _)| at + window <= *now).or(self.samples.front())
        };
        let mut rates = PerSecond::default();
        if let Some((at, before)) = since(WINDOW_MS) {
            let ms = now - at;
            rates.requests = rate(before.requests, counts.requests, ms);
            rates.tokens = rate(before.tokens, counts.tokens, ms);
            rates.loads = rate(before.loads, counts.loads, ms);
            rates.evictions = rate(before.evictions, counts.evictions, ms);
        }
        rates.hits = since(HIT_WINDOW_MS).and_then(|(_, before)| {
            let hits = counts.hits.saturating_sub(before.hits);
            let misses = (counts.loads + counts.omitted).saturating_sub(before.loads + before.omitted);
            (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64)
        });
        rates
    }

    /// Tokens a second, a value a look, the newest last.
    pub(super) fn tokens(&self) -> impl DoubleEndedIterator<Item = u64> {
        self.tokens.iter().copied()
    }
}

fn rate(before: u64, now: u64, ms: u64) -> f64 {
    if ms == 0 { 0.0 } else { now.saturating_sub(before) as f64 * 1e3 / ms as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(uptime_ms: u64, totals: Totals) -> HostStatus {
        HostStatus { uptime_ms, totals, ..super::super::view::tests::status(0) }
    }

    #[test]
    fn rates_are_of_the_last_seconds_and_hits_of_the_last_minute() {
        let mut rates = Rates::default();
        assert_eq!(rates.per_second(), PerSecond::default());
        let before = Totals { requests: 100, tokens: 5000, loads: 10, hits: 50, ..Totals::default() };
        for ms in (0..=40_000).step_by(500) {
            rates.add(&status(ms, before));
        }
        assert_eq!(rates.per_second(), PerSecond::default(), "what was before the first look does not count");
        let now = Totals { requests: 103, tokens: 5300, loads: 11, evictions: 6, hits: 53, ..before };
        rates.add(&status(40_500, now));
        let found = rates.per_second();
        assert_eq!((found.requests, found.tokens, found.evictions), (1.0, 100.0, 2.0));
        assert_eq!(found.hits, Some(0.75));
        assert_eq!(rates.tokens().next_back(), Some(600));
        for ms in (41_000..=50_000).step_by(500) {
            rates.add(&status(ms, now));
        }
        assert_eq!((rates.per_second().tokens, rates.per_second().hits), (0.0, Some(0.75)));
    }

    #[test]
    fn two_looks_are_enough_and_memory_does_not_grow() {
        let mut rates = Rates::default();
        rates.add(&status(1_000, Totals::default()));
        rates.add(&status(1_500, Totals { tokens: 10, ..Totals::default() }));
        assert_eq!(rates.per_second().tokens, 20.0);
        for look in 1..10_000 {
            rates.add(&status(1_500 + look * 500, Totals::default()));
        }
        assert!(rates.samples.len() < 130 && rates.tokens.len() <= POINTS);
    }
}
