//! Whether the steps of the model come to an end.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Steps in flight with their starts.
#[derive(Default)]
pub(crate) struct StepWatch {
    steps: Mutex<Steps>,
}

#[derive(Default)]
struct Steps {
    in_flight: HashMap<u64, Instant>,
    next: u64,
}

/// A step in flight; it ends when this is dropped, also by a panic.
pub(crate) struct Step<'a> {
    watch: &'a StepWatch,
    number: u64,
}

impl StepWatch {
    pub(crate) fn begin(&self) -> Step<'_> {
        let mut steps = self.lock();
        let number = steps.next;
        steps.next += 1;
        steps.in_flight.insert(number, Instant::now());
        Step { watch: self, number }
    }

    /// How long the oldest step has been in flight.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        self.lock().in_flight.values().min().map(Instant::elapsed)
    }

    fn lock(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.watch.lock().in_flight.remove(&self.number);
    }
}
