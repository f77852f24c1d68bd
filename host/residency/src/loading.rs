//! Bringing generations to the device: one load at a time for each, and others wait for it.

use std::{
    any::Any,
    fmt::Display,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use crate::{
    event::{EventKind, EvictionReason},
    eviction::Departure,
    lease::{Lease, LeaseError},
    room::Room,
    state::{Key, Shared, Stage},
    sync::Arc,
    wait::Wait,
};

/// A load under way, for those who wait for it.
#[derive(Default)]
pub(crate) struct Flight {
    /// Set under the state's lock when it did not end well.
    failure: OnceLock<Failure>,
    /// It waits for bytes that others hold. Set under the state's lock.
    waits_for_bytes: AtomicBool,
    /// Its loader or somebody who waits for it goes ahead of the queue.
    ahead: AtomicBool,
}

impl Flight {
    fn waits_for_bytes(&self) -> bool {
        self.waits_for_bytes.load(Ordering::SeqCst)
    }

    pub(crate) fn set_waits_for_bytes(&self, waits: bool) {
        self.waits_for_bytes.store(waits, Ordering::SeqCst);
    }

    pub(crate) fn is_ahead(&self) -> bool {
        self.ahead.load(Ordering::SeqCst)
    }

    /// Lets it go ahead of the queue; says whether it did not yet.
    fn go_ahead(&self) -> bool {
        !self.ahead.swap(true, Ordering::SeqCst)
    }
}

/// How a load ended for those who waited for it.
pub(crate) enum Failure {
    Load {
        error: Arc<dyn Any + Send + Sync>,
        words: String,
    },
    Panicked,
    Retired,
    /// Of one that did not wait for bytes, or evict for them: whoever waits for it may, and tries itself.
    Unwaited,
}

impl Failure {
    /// What a waiter is told; `None`: it loads itself.
    fn to_lease_error<E: Send + Sync + 'static>(&self, key: String) -> Option<LeaseError<E>> {
        match self {
            Self::Load { error, words } => Some(match error.clone().downcast::<E>() {
                Ok(error) => LeaseError::Load { key, error },
                Err(_) => LeaseError::LoadElsewhere { key, reason: words.clone() },
            }),
            Self::Panicked => Some(LeaseError::LoadPanicked { key }),
            Self::Retired => Some(LeaseError::Retired { key }),
            Self::Unwaited => None,
        }
    }
}

/// The duty to end a load; dropped without an end, by a panic, it says so to those who wait.
pub(crate) struct Loading<'a, K: Key, R: Send + Sync + 'static> {
    shared: &'a Arc<Shared<K, R>>,
    key: &'a K,
    flight: Arc<Flight>,
    ended: bool,
}

impl<K: Key, R: Send + Sync + 'static> Shared<K, R> {
    pub(crate) fn lease<E: Display + Send + Sync + 'static>(
        self: &Arc<Self>,
        key: &K,
        wait: Wait,
        until: Instant,
        load: impl FnOnce(&Room<'_>) -> Result<(R, u64), E>,
    ) -> Result<Lease<K, R>, LeaseError<E>> {
        let mut joined: Option<Arc<Flight>> = None;
        let mut waited = false;
        let mut state = self.state();
        let loading = loop {
            let entry = state.entries.entry(key.clone()).or_default();
            if entry.retired {
                return Err(LeaseError::Retired { key: key.to_string() });
            }
            if let Stage::Resident { value, leases, .. } = &mut entry.stage {
                let value = value.clone();
                *leases += 1;
                let first = *leases == 1;
                entry.last_used = Some(Instant::now());
                state.totals.hits += u64::from(!waited);
                if first {
                    state.idle.remove(key);
                    state.outbox.push(key, EventKind::Leased);
                }
                drop(state);
                let lease = Lease::counted(self, key, value);
                self.tell();
                return Ok(lease);
            }
            let failure = joined.as_ref().and_then(|flight| flight.failure.get());
            if let Some(error) = failure.and_then(|failure| failure.to_lease_error(key.to_string())) {
                state.prune(key);
                return Err(error);
            }
            let doing = match &entry.stage {
                Stage::Loading(flight) => {
                    match wait {
                        Wait::No if flight.waits_for_bytes() => {
                            return Err(LeaseError::TimedOut { key: key.to_string(), doing: "loaded" });
                        }
                        Wait::Ahead if flight.go_ahead() => self.ledger.poke(),
                        _ => {}
                    }
                    joined = Some(flight.clone());
                    "loaded"
                }
                Stage::Evicting { .. } => "evicted",
                Stage::Absent | Stage::Resident { .. } => break Loading::begin(self, key, &mut entry.stage),
            };
            waited = true;
            state = match self.wait(state, until) {
                Some(state) => state,
                None => return Err(LeaseError::TimedOut { key: key.to_string(), doing }),
            };
        };
        state.outbox.push(key, EventKind::Loading);
        drop(state);
        self.tell();
        let until = match wait {
            Wait::No => Instant::now(),
            Wait::InQueue | Wait::Ahead => until,
        };
        if wait == Wait::Ahead {
            loading.flight.go_ahead();
        }
        match load(&Room::evicting(self, &loading.flight, until)) {
            Ok((value, bytes)) => {
                let lease = loading.arrive(value, bytes, true);
                lease.ok_or_else(|| LeaseError::Retired { key: key.to_string() })
            }
            Err(error) => {
                let words = error.to_string();
                let error = Arc::new(error);
                loading.fail(match wait {
                    Wait::No => Failure::Unwaited,
                    Wait::InQueue | Wait::Ahead => Failure::Load { error: error.clone(), words },
                });
                Err(LeaseError::Load { key: key.to_string(), error })
            }
        }
    }
}

impl<'a, K: Key, R: Send + Sync + 'static> Loading<'a, K, R> {
    /// Marks one in a locked state as being loaded.
    pub(crate) fn begin(shared: &'a Arc<Shared<K, R>>, key: &'a K, stage: &mut Stage<R>) -> Self {
        let flight = Arc::new(Flight::default());
        *stage = Stage::Loading(flight.clone());
        Self { shared, key, flight, ended: false }
    }

    /// It is on the device. `None` when no lease was wanted, or when it was retired meanwhile and is gone
    /// again.
    pub(crate) fn arrive(mut self, value: R, bytes: u64, leased: bool) -> Option<Lease<K, R>> {
        self.ended = true;
        let value = Arc::new(value);
        let (shared, key) = (self.shared, self.key);
        let mut guard = shared.state();
        let state = &mut *guard;
        let entry = state.entries.entry(key.clone()).or_default();
        let keep = !entry.retired;
        let leased = leased && keep;
        entry.loads += 1;
        let lease = leased.then(|| value.clone());
        entry.stage = Stage::Resident { value, bytes, leases: usize::from(leased) };
        state.totals.loads += 1;
        state.outbox.push(key, EventKind::Resident { bytes });
        let mut departure = None;
        if leased {
            entry.last_used = Some(Instant::now());
            state.outbox.push(key, EventKind::Leased);
        } else if keep {
            state.idle.push(key);
        } else {
            let _ = self.flight.failure.set(Failure::Retired);
            departure = Departure::begin(state, shared, key, EvictionReason::Retired);
        }
        drop(guard);
        shared.wake();
        let lease = lease.map(|value| Lease::counted(shared, key, value));
        shared.finish(departure);
        if lease.is_none() {
            shared.ledger.poke();
            shared.settle();
        }
        shared.tell();
        lease
    }

    pub(crate) fn fail(mut self, failure: Failure) {
        self.end(failure);
    }

    fn end(&mut self, failure: Failure) {
        self.ended = true;
        let mut state = self.shared.state();
        // Before the waiters can see that the load has ended.
        let _ = self.flight.failure.set(failure);
        if let Some(entry) = state.entries.get_mut(self.key) {
            entry.stage = Stage::Absent;
        }
        state.prune(self.key);
        state.outbox.push(self.key, EventKind::LoadFailed);
        drop(state);
        self.shared.wake();
        self.shared.tell();
    }
}

impl<K: Key, R: Send + Sync + 'static> Drop for Loading<'_, K, R> {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Failure::Panicked);
        }
    }
}
