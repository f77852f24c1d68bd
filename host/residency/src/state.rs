//! What is known of every generation, and the one lock over it.
//!
//! Lock order: the ledger's lock may be taken under the state's, never the other way round. Values, observers
//! and loads run outside both.

use std::{
    collections::BTreeMap,
    fmt::Display,
    hash::Hash,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::PoisonError,
    time::Instant,
};

use crate::{
    byte_ledger::ByteLedger,
    event::{Observer, Outbox},
    loading::Flight,
    lru_order::LruOrder,
    residence::{Residence, ResidenceState, ResidencyTotals},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    wait::Turnstile,
};

/// What identifies a thing on the device: a pack's generation.
pub trait Key: Clone + Eq + Hash + Ord + Display + Send + Sync + 'static {}

impl<T: Clone + Eq + Hash + Ord + Display + Send + Sync + 'static> Key for T {}

pub(crate) struct Shared<K: Key, R> {
    pub(crate) ledger: ByteLedger,
    pub(crate) turnstile: Arc<Turnstile>,
    observer: Arc<Observer<K>>,
    state: Mutex<State<K, R>>,
    changed: Condvar,
}

pub(crate) struct State<K: Key, R> {
    pub(crate) entries: BTreeMap<K, Entry<R>>,
    /// Resident ones without a lease, pinned ones among them.
    pub(crate) idle: LruOrder<K>,
    /// How many are being evicted now.
    pub(crate) evicting: usize,
    pub(crate) outbox: Outbox<K>,
    pub(crate) totals: ResidencyTotals,
}

pub(crate) struct Entry<R> {
    pub(crate) stage: Stage<R>,
    pub(crate) pinned: bool,
    pub(crate) priority: i32,
    pub(crate) retired: bool,
    /// Nothing is to be kept of it once it is gone.
    pub(crate) forgotten: bool,
    pub(crate) last_used: Option<Instant>,
    pub(crate) loads: u64,
}

pub(crate) enum Stage<R> {
    Absent,
    Loading(Arc<Flight>),
    Resident {
        value: Arc<R>,
        bytes: u64,
        leases: usize,
    },
    /// Its value is being dropped by some thread.
    Evicting {
        bytes: u64,
    },
}

impl<R> Default for Entry<R> {
    fn default() -> Self {
        Self {
            stage: Stage::Absent,
            pinned: false,
            priority: 0,
            retired: false,
            forgotten: false,
            last_used: None,
            loads: 0,
        }
    }
}

impl<R> Entry<R> {
    fn is_worth_keeping(&self) -> bool {
        let marked = self.pinned || self.retired || self.priority != 0 || self.loads > 0;
        !matches!(self.stage, Stage::Absent) || (marked && !self.forgotten)
    }

    fn residence<K: Key>(&self, key: &K) -> Option<Residence<K>> {
        let (state, leases, bytes) = match &self.stage {
            Stage::Absent => return None,
            Stage::Loading(_) => (ResidenceState::Loading, 0, 0),
            Stage::Resident { leases: 0, bytes, .. } => (ResidenceState::Idle, 0, *bytes),
            Stage::Resident { leases, bytes, .. } if self.retired => {
                (ResidenceState::Draining, *leases, *bytes)
            }
            Stage::Resident { leases, bytes, .. } => (ResidenceState::Leased, *leases, *bytes),
            Stage::Evicting { bytes } => (ResidenceState::Evicting, 0, *bytes),
        };
        Some(Residence {
            key: key.clone(),
            state,
            leases,
            bytes,
            pinned: self.pinned,
            priority: self.priority,
            last_used: self.last_used,
            loads: self.loads,
        })
    }
}

impl<K: Key, R> State<K, R> {
    /// Drops what is known of one that is not there and that nobody said anything about.
    pub(crate) fn prune(&mut self, key: &K) {
        if self.entries.get(key).is_some_and(|entry| !entry.is_worth_keeping()) {
            self.entries.remove(key);
        }
    }

    pub(crate) fn residence(&self, key: &K) -> Option<Residence<K>> {
        self.entries.get(key)?.residence(key)
    }

    pub(crate) fn residences(&self) -> Vec<Residence<K>> {
        self.entries.iter().filter_map(|(key, entry)| entry.residence(key)).collect()
    }
}

impl<K: Key, R> Shared<K, R> {
    pub(crate) fn new(ledger: ByteLedger, observer: Arc<Observer<K>>) -> Self {
        let state = State {
            entries: BTreeMap::new(),
            idle: LruOrder::default(),
            evicting: 0,
            outbox: Outbox::default(),
            totals: ResidencyTotals::default(),
        };
        Self {
            ledger,
            turnstile: Arc::default(),
            observer,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// The state is valid at every moment, so a holder's panic leaves nothing half-done.
    pub(crate) fn state(&self) -> MutexGuard<'_, State<K, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of a load or of an eviction. `None`: the instant has come.
    pub(crate) fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, State<K, R>>,
        until: Instant,
    ) -> Option<MutexGuard<'a, State<K, R>>> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        Some(self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Lets those who wait for a load or an eviction look again.
    pub(crate) fn wake(&self) {
        self.changed.notify_all();
    }

    /// Tells the observer what happened, unless another thread is doing so: then that one tells this too.
    pub(crate) fn tell(&self) {
        loop {
            let Some(events) = self.state().outbox.begin() else { return };
            for event in events {
                // A panic of the observer has been reported by the panic hook, and is no reason to keep a
                // lease.
                let _ = catch_unwind(AssertUnwindSafe(|| (self.observer)(event)));
            }
            self.state().outbox.end();
        }
    }
}
