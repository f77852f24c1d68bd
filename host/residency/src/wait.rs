//! How requests wait for bytes, and not for each other.
//!
//! Two requests that hold bytes and wait for more may wait for each other, and nothing but the end of their patience would
//! part them. So whoever holds something only tries ([`Wait::No`]). Refused, it gives back what it holds and begins anew
//! with the [`Pass`]: of those that hold something its holder alone waits, so whoever has the bytes that it waits for
//! comes to an end. Whoever holds nothing waits in the ledger's queue as it likes.

use std::{collections::VecDeque, sync::PoisonError, time::Instant};

use crate::sync::{Arc, Condvar, Mutex, MutexGuard};

/// How a lease waits for bytes that others hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// In the queue: for a caller that holds nothing.
    InQueue,
    /// Not at all, neither for bytes nor for another's load that waits for bytes.
    No,
    /// Nothing is kept from it for those who wait: for the holder of the [`Pass`], since they may be waiting for what it
    /// holds.
    Ahead,
}

/// Where the pass is handed on, in the order of coming.
#[derive(Debug, Default)]
pub(crate) struct Turnstile {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    /// The first one has the pass.
    numbers: VecDeque<u64>,
}

/// The right to wait for bytes while holding some; there is one. Dropping it hands it on.
#[derive(Debug)]
pub struct Pass {
    turnstile: Arc<Turnstile>,
    number: u64,
}

impl Turnstile {
    /// `None`: the instant came first.
    pub(crate) fn enter(self: &Arc<Self>, until: Instant) -> Option<Pass> {
        let mut queue = self.queue();
        let number = queue.next;
        queue.next += 1;
        queue.numbers.push_back(number);
        let pass = Pass { turnstile: self.clone(), number };
        while queue.numbers.front() != Some(&number) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Its drop takes the lock.
                drop(queue);
                return None;
            }
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(pass)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.turnstile.queue().numbers.retain(|number| *number != self.number);
        self.turnstile.changed.notify_all();
    }
}
