//! Which entries are looked at again although nothing tells of a change, and when.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    time::{Duration, Instant},
};

/// Pause before the second attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long to wait after so many failures in a row, from 1: twice as long each time.
pub(crate) fn pause_after(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

/// At most one time for each entry. Entries that wait for nothing cost nothing.
#[derive(Debug, Default)]
pub(crate) struct WakeUps {
    in_order: BTreeSet<(Instant, OsString)>,
    of_entries: BTreeMap<OsString, Instant>,
}

impl WakeUps {
    /// Sets an entry's time, in the place of an earlier one.
    pub(crate) fn set(&mut self, entry: &OsStr, at: Instant) {
        self.cancel(entry);
        self.in_order.insert((at, entry.to_owned()));
        self.of_entries.insert(entry.to_owned(), at);
    }

    pub(crate) fn cancel(&mut self, entry: &OsStr) {
        if let Some((entry, at)) = self.of_entries.remove_entry(entry) {
            self.in_order.remove(&(at, entry));
        }
    }

    /// Takes out the entries whose time has come, in order of their times.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<OsString> {
        let mut due = Vec::new();
        while let Some((_, entry)) = self.in_order.first().filter(|(at, _)| *at <= now) {
            let entry = entry.clone();
            self.cancel(&entry);
            due.push(entry);
        }
        due
    }

    /// When the next time comes.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.in_order.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_in_the_order_of_their_times_each_once_and_at_its_latest_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut times = WakeUps::default();
        assert_eq!(times.next(), None);
        for (entry, seconds) in [("late", 9), ("moved", 1), ("soon", 2), ("gone", 1), ("moved", 3)] {
            times.set(entry.as_ref(), at(seconds));
        }
        times.cancel("gone".as_ref());
        times.cancel("never".as_ref());
        assert_eq!(times.next(), Some(at(2)));
        assert_eq!(times.take_due(at(1)), [] as [OsString; 0]);
        assert_eq!(times.take_due(at(3)), ["soon", "moved"]);
        assert_eq!(times.take_due(at(3)), [] as [OsString; 0]);
        assert_eq!(times.next(), Some(at(9)));
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<u128> =
            [1, 2, 3, 9, u32::MAX].map(|failures| pause_after(failures).as_millis()).into();
        assert_eq!(pauses, [250, 500, 1000, 60_000, 60_000]);
    }
}
