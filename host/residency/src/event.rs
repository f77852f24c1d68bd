//! What an observer is told, and how it is told in order and outside every lock.

use std::{collections::VecDeque, mem};

/// A change of what is on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResidencyEvent<K> {
    /// Of which generation.
    pub key: K,
    /// What happened to it.
    pub kind: EventKind,
}

/// What happened to a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A load has begun.
    Loading,
    /// The load ended well. It is idle unless `Leased` follows at once.
    Resident {
        /// Device memory it says it holds, bytes.
        bytes: u64,
    },
    /// The load did not end well; nothing of it is on the device.
    LoadFailed,
    /// Its first lease began, or a draining one was revived.
    Leased,
    /// Its last lease ended.
    Idle,
    /// It was retired while in use, and goes when its last lease ends.
    Draining {
        /// How many leases there are.
        leases: usize,
    },
    /// It is gone, and its bytes are back.
    Evicted {
        /// Device memory it held, bytes.
        bytes: u64,
        /// Why it had to go.
        why: EvictionReason,
    },
}

/// Why a generation was taken from the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EvictionReason {
    /// Others needed the bytes.
    Budget,
    /// Somebody asked for it.
    Asked,
    /// It was replaced or removed.
    Retired,
    /// The budget was made smaller.
    BudgetShrunk,
}

/// Tells what it is told to somebody outside; called by whichever thread made the change.
pub type Observer<K> = dyn Fn(ResidencyEvent<K>) + Send + Sync;

/// Events that wait to be told. One thread at a time tells them, in the order in which they happened.
pub(crate) struct Outbox<K> {
    queue: VecDeque<ResidencyEvent<K>>,
    being_told: bool,
}

impl<K> Default for Outbox<K> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), being_told: false }
    }
}

impl<K: Clone> Outbox<K> {
    pub(crate) fn push(&mut self, key: &K, kind: EventKind) {
        self.queue.push_back(ResidencyEvent { key: key.clone(), kind });
    }

    /// Makes the caller the one who tells, unless there is one or nothing is to be told.
    pub(crate) fn begin(&mut self) -> Option<VecDeque<ResidencyEvent<K>>> {
        if self.being_told || self.queue.is_empty() {
            return None;
        }
        self.being_told = true;
        Some(mem::take(&mut self.queue))
    }

    pub(crate) fn end(&mut self) {
        self.being_told = false;
    }
}
