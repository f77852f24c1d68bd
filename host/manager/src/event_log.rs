//! The latest events of a host, in memory, for operators to read and to follow.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::PackEvent;

/// Events kept; older ones are in the log that `tracing` writes.
const CAPACITY: usize = 4096;

#[derive(Default)]
struct Events {
    kept: VecDeque<PackEvent>,
    /// Of the event to come, from 1.
    next: u64,
}

/// A ring of events with someone to wait for the next one.
pub(crate) struct EventLog {
    events: Mutex<Events>,
    more: Condvar,
}

impl EventLog {
    pub(crate) fn new() -> Self {
        Self { events: Mutex::new(Events { kept: VecDeque::new(), next: 1 }), more: Condvar::new() }
    }

    /// Adds an event; its sequence number is set here.
    pub(crate) fn push(&self, mut event: PackEvent) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        event.sequence = events.next;
        events.next += 1;
        if events.kept.len() == CAPACITY {
            events.kept.pop_front();
        }
        events.kept.push_back(event);
        self.more.notify_all();
    }

    /// The kept events with a higher sequence number; where there are none, waits up to `wait` for one.
    pub(crate) fn after(&self, sequence: u64, wait: Duration) -> Vec<PackEvent> {
        let until = Instant::now() + wait;
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        while events.next <= sequence.saturating_add(1) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            events = self.more.wait_timeout(events, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        events.kept.iter().filter(|event| event.sequence > sequence).cloned().collect()
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;
    use crate::PackState;

    fn event(pack: &str) -> PackEvent {
        PackEvent {
            sequence: 0,
            at_ms: now_ms(),
            pack: pack.to_owned(),
            generation: None,
            state: PackState::Seen,
            reason: None,
            took_ms: Default::default(),
        }
    }

    #[test]
    fn the_oldest_events_go_and_the_numbers_go_on() {
        let log = EventLog::new();
        (0..CAPACITY + 3).for_each(|index| log.push(event(&index.to_string())));
        let kept = log.after(0, Duration::ZERO);
        assert_eq!((kept.len(), kept[0].sequence, kept[0].pack.as_str()), (CAPACITY, 4, "3"));
        assert_eq!(log.after(CAPACITY as u64 + 2, Duration::ZERO).len(), 1);
        assert!(log.after(u64::MAX, Duration::ZERO).is_empty());
    }

    #[test]
    fn a_follower_is_woken_by_the_next_event_and_not_before() {
        let log = Arc::new(EventLog::new());
        assert!(log.after(0, Duration::from_millis(20)).is_empty());
        let writer = thread::spawn({
            let log = Arc::clone(&log);
            move || {
                thread::sleep(Duration::from_millis(50));
                log.push(event("late"));
            }
        });
        let started = Instant::now();
        let events = log.after(0, Duration::from_secs(30));
        assert_eq!(events.len(), 1);
        assert!(started.elapsed() < Duration::from_secs(10), "woken, not timed out");
        writer.join().unwrap();
    }
}
