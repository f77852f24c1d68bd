//! Taking generations from the device: for the budget, on request, and when they are retired.

use std::{
    mem,
    time::{Duration, Instant},
};

use crate::{
    byte_ledger::Reservation,
    event::{EventKind, EvictionReason},
    loading::Flight,
    owner::{BudgetExceeded, Owner},
    state::{Key, Shared, Stage, State},
    sync::Arc,
};

/// How long an eviction that is under way is waited for at least: it comes to its end by itself.
const EVICTION: Duration = Duration::from_millis(100);

/// What became of a wish to take a generation from the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// It is gone.
    Evicted {
        /// Bytes that came back, as its load had told them.
        bytes: u64,
    },
    /// It is in use. A retired one goes when the last lease ends, another one stays.
    InUse {
        /// How many leases there are.
        leases: usize,
    },
    /// It is being loaded. A retired one goes when that has ended, another one stays.
    Loading,
    /// It was not there, or another thread is taking it away at this moment.
    NotResident,
    /// It is pinned, and stays.
    Pinned,
}

/// A value that has left the state and is not dropped yet.
pub(crate) struct Departure<K: Key, R: Send + Sync + 'static> {
    value: Arc<R>,
    end: End<K, R>,
}

impl<K: Key, R: Send + Sync + 'static> Departure<K, R> {
    /// Takes a resident one out of a state that is locked. To be completed outside the lock.
    pub(crate) fn begin(
        state: &mut State<K, R>,
        shared: &Arc<Shared<K, R>>,
        key: &K,
        why: EvictionReason,
    ) -> Option<Self> {
        let entry = state.entries.get_mut(key)?;
        let Stage::Resident { bytes, .. } = entry.stage else { return None };
        let before = mem::replace(&mut entry.stage, Stage::Evicting { bytes });
        let Stage::Resident { value, .. } = before else { return None };
        state.idle.remove(key);
        state.evicting += 1;
        Some(Self { value, end: End { shared: shared.clone(), key: key.clone(), bytes, why } })
    }

    /// Drops the value, then says that it is gone.
    pub(crate) fn complete(self) {
        let Self { value, end } = self;
        drop(value);
        drop(end);
    }
}

/// The end of an eviction: also when dropping the value panics, so that its key is not stuck.
struct End<K: Key, R: Send + Sync + 'static> {
    shared: Arc<Shared<K, R>>,
    key: K,
    bytes: u64,
    why: EvictionReason,
}

impl<K: Key, R: Send + Sync + 'static> Drop for End<K, R> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(entry) = state.entries.get_mut(&self.key) {
            entry.stage = Stage::Absent;
        }
        state.prune(&self.key);
        state.evicting -= 1;
        state.totals.evictions += 1;
        state.outbox.push(&self.key, EventKind::Evicted { bytes: self.bytes, why: self.why });
        drop(state);
        self.shared.wake();
        self.shared.ledger.poke();
        self.shared.tell();
    }
}

/// What came of the search for something to evict.
enum Search<K: Key, R: Send + Sync + 'static> {
    Found(Departure<K, R>),
    /// An eviction is under way, and may bring enough: wait for it.
    Busy,
    /// The ledger has changed: it may be enough now.
    Changed,
    NothingIdle,
}

impl<K: Key, R: Send + Sync + 'static> Shared<K, R> {
    /// Reserves, evicting what is idle, and waits where nothing is.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        owner: Owner,
        bytes: u64,
        until: Instant,
    ) -> Result<Reservation, BudgetExceeded> {
        let claim = self.ledger.claim(owner, bytes);
        self.make_room(bytes, until, || claim.attempt(false), || {})
    }

    /// As [`Shared::reserve`], and those who wait for the load learn that it waits.
    pub(crate) fn reserve_for_load(
        self: &Arc<Self>,
        owner: Owner,
        bytes: u64,
        flight: &Flight,
        until: Instant,
    ) -> Result<Reservation, BudgetExceeded> {
        let claim = self.ledger.claim(owner, bytes);
        let attempt = || claim.attempt(flight.is_ahead());
        let before_wait = || {
            let state = self.state();
            flight.set_waits_for_bytes(true);
            drop(state);
            self.wake();
        };
        let reserved = self.make_room(bytes, until, attempt, before_wait);
        flight.set_waits_for_bytes(false);
        reserved
    }

    pub(crate) fn grow(
        self: &Arc<Self>,
        reservation: &mut Reservation,
        bytes: u64,
        until: Instant,
    ) -> Result<(), BudgetExceeded> {
        self.make_room(bytes, until, || reservation.resize(bytes), || {})
    }

    /// Tries, and evicts one idle generation after the other, until it succeeds. `before_wait` is called where others hold
    /// what it needs.
    fn make_room<T>(
        self: &Arc<Self>,
        bytes: u64,
        until: Instant,
        mut attempt: impl FnMut() -> Result<T, BudgetExceeded>,
        before_wait: impl Fn(),
    ) -> Result<T, BudgetExceeded> {
        let mut evicted = false;
        let outcome = loop {
            let epoch = self.ledger.epoch();
            let refused = match attempt() {
                Ok(done) => break Ok(done),
                Err(refused) if bytes > refused.budget => break Err(refused),
                Err(refused) => refused,
            };
            match self.search(epoch, EvictionReason::Budget) {
                Search::Found(departure) => {
                    departure.complete();
                    evicted = true;
                }
                Search::Changed => {}
                Search::Busy => {
                    if !self.ledger.wait_past(epoch, until.max(Instant::now() + EVICTION)) {
                        break Err(refused);
                    }
                }
                Search::NothingIdle => {
                    if Instant::now() < until {
                        before_wait();
                    }
                    if !self.ledger.wait_past(epoch, until) {
                        break Err(refused);
                    }
                }
            }
        };
        if evicted {
            self.settle();
        }
        outcome
    }

    /// Looks for the one to evict: never pinned, never leased, lowest priority first, then the least recently
    /// used.
    ///
    /// One at a time for the whole device, and only if the ledger is as it was at `epoch`: so nothing is
    /// evicted for bytes that are coming back anyway.
    fn search(self: &Arc<Self>, epoch: u64, why: EvictionReason) -> Search<K, R> {
        let mut state = self.state();
        if state.evicting > 0 {
            return Search::Busy;
        }
        if self.ledger.epoch() != epoch {
            return Search::Changed;
        }
        let rank = |key: &K| state.entries.get(key).filter(|entry| !entry.pinned).map(|entry| entry.priority);
        let victim = state.idle.victim(rank);
        victim
            .and_then(|key| Departure::begin(&mut state, self, &key, why))
            .map_or(Search::NothingIdle, Search::Found)
    }

    /// Evicts what is idle while more is held than the budget. Called after everything that makes one idle,
    /// and after every eviction, since a search does not begin beside another one.
    pub(crate) fn settle(self: &Arc<Self>) {
        loop {
            let epoch = self.ledger.epoch();
            if self.ledger.overdrawn() == 0 {
                return;
            }
            match self.search(epoch, EvictionReason::BudgetShrunk) {
                Search::Found(departure) => departure.complete(),
                Search::Changed => {}
                Search::Busy | Search::NothingIdle => return,
            }
        }
    }

    pub(crate) fn evict(self: &Arc<Self>, key: &K) -> Eviction {
        let mut state = self.state();
        let outcome = match state.entries.get(key) {
            None => Eviction::NotResident,
            Some(entry) => match entry.stage {
                Stage::Absent | Stage::Evicting { .. } => Eviction::NotResident,
                Stage::Loading(_) => Eviction::Loading,
                Stage::Resident { .. } if entry.pinned => Eviction::Pinned,
                Stage::Resident { leases: 0, bytes, .. } => Eviction::Evicted { bytes },
                Stage::Resident { leases, .. } => Eviction::InUse { leases },
            },
        };
        if let Eviction::Evicted { .. } = outcome {
            let departure = Departure::begin(&mut state, self, key, EvictionReason::Asked);
            drop(state);
            self.finish(departure);
        }
        outcome
    }

    pub(crate) fn retire(self: &Arc<Self>, key: &K) -> Eviction {
        let mut state = self.state();
        let entry = state.entries.entry(key.clone()).or_default();
        let anew = !entry.retired;
        entry.retired = true;
        let outcome = match entry.stage {
            Stage::Absent | Stage::Evicting { .. } => Eviction::NotResident,
            Stage::Loading(_) => Eviction::Loading,
            Stage::Resident { leases: 0, bytes, .. } => Eviction::Evicted { bytes },
            Stage::Resident { leases, .. } => Eviction::InUse { leases },
        };
        let departure = match outcome {
            Eviction::Evicted { .. } => Departure::begin(&mut state, self, key, EvictionReason::Retired),
            Eviction::InUse { leases } if anew => {
                state.outbox.push(key, EventKind::Draining { leases });
                None
            }
            _ => None,
        };
        drop(state);
        self.wake();
        self.finish(departure);
        self.tell();
        outcome
    }

    pub(crate) fn revive(&self, key: &K) {
        let mut state = self.state();
        let Some(entry) = state.entries.get_mut(key) else { return };
        entry.forgotten = false;
        let was_draining = entry.retired && matches!(entry.stage, Stage::Resident { .. });
        entry.retired = false;
        if was_draining {
            state.outbox.push(key, EventKind::Leased);
        }
        state.prune(key);
        drop(state);
        self.tell();
    }

    /// Completes an eviction, where there is one, and those that had to wait for its end.
    pub(crate) fn finish(self: &Arc<Self>, departure: Option<Departure<K, R>>) {
        if let Some(departure) = departure {
            departure.complete();
            self.settle();
        }
    }
}
