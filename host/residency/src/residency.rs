//! What is on the device, by generation.

use std::{fmt, fmt::Display, time::Instant};

use crate::{
    byte_ledger::{ByteLedger, Reservation},
    event::Observer,
    eviction::Eviction,
    lease::{Lease, LeaseError},
    owner::{BudgetExceeded, Owner},
    residence::{Residence, ResidencyTotals},
    room::Room,
    state::{Entry, Key, Shared},
    sync::Arc,
    wait::{Pass, Wait},
};

/// What is on the device, by key. Cheap to clone; clones share it.
///
/// A value is expected to own the [`Reservation`]s of its bytes, so that they come back exactly when it is
/// dropped. It is dropped outside every lock, by the thread that evicts it.
///
/// No thread is ever started here, and every wait ends at the instant that the caller gives. Loads, drops of
/// values and the observer take the time they take.
pub struct Residency<K: Key, R: Send + Sync + 'static> {
    shared: Arc<Shared<K, R>>,
}

impl<K: Key, R: Send + Sync + 'static> Clone for Residency<K, R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K: Key, R: Send + Sync + 'static> fmt::Debug for Residency<K, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Residency").field("ledger", &self.shared.ledger).finish_non_exhaustive()
    }
}

impl<K: Key, R: Send + Sync + 'static> Residency<K, R> {
    /// Nothing is on the device but what the ledger's holders have there.
    ///
    /// The observer is called outside every lock, with the events in the order in which they happened, one at
    /// a time. It may use the residency itself. It runs on the threads that use the residency, so it should
    /// be quick; a thread may return before its own events are told, where another one is telling.
    pub fn new(ledger: ByteLedger, observer: Arc<Observer<K>>) -> Self {
        Self { shared: Arc::new(Shared::new(ledger, observer)) }
    }

    /// The budget it works under.
    pub fn ledger(&self) -> &ByteLedger {
        &self.shared.ledger
    }

    /// A lease on `key`: at once where it is on the device, after the load that another thread is at, or
    /// after `load` on this thread, which gives what is loaded and its bytes for reports. While it is being
    /// evicted, waits for the end of that and loads it anew.
    ///
    /// # Errors
    /// [`LeaseError`]. Whoever waited for another thread's load gets that one's error, and does not load
    /// again at once; except for that of a prefetch or of [`Wait::No`], which fails where others may wait.
    pub fn lease<E: Display + Send + Sync + 'static>(
        &self,
        key: &K,
        until: Instant,
        load: impl FnOnce(&Room<'_>) -> Result<(R, u64), E>,
    ) -> Result<Lease<K, R>, LeaseError<E>> {
        self.lease_as(key, Wait::InQueue, until, load)
    }

    /// As [`Residency::lease`], for a caller that holds other leases or bytes; see [`Wait`].
    ///
    /// # Errors
    /// As [`Residency::lease`].
    pub fn lease_as<E: Display + Send + Sync + 'static>(
        &self,
        key: &K,
        wait: Wait,
        until: Instant,
        load: impl FnOnce(&Room<'_>) -> Result<(R, u64), E>,
    ) -> Result<Lease<K, R>, LeaseError<E>> {
        self.shared.lease(key, wait, until, load)
    }

    /// The right to wait for bytes while holding some, for a caller that holds nothing yet. Those for whom bytes are kept
    /// come first. `None`: the instant came before its turn did.
    pub fn pass(&self, until: Instant) -> Option<Pass> {
        let pass = self.shared.turnstile.enter(until)?;
        self.shared.ledger.wait_until_nobody_is_due(until).then_some(pass)
    }

    /// Loads `key` into bytes that are free, evicting nothing and waiting for nobody. It enters as the most
    /// recently used idle one. `false`: it was on the device, or on its way there or out; its place in the
    /// order stays.
    ///
    /// # Errors
    /// [`LeaseError::Load`] and [`LeaseError::Retired`].
    pub fn prefetch<E: Display + Send + Sync + 'static>(
        &self,
        key: &K,
        load: impl FnOnce(&Room<'_>) -> Result<(R, u64), E>,
    ) -> Result<bool, LeaseError<E>> {
        self.shared.prefetch(key, load)
    }

    /// Sets bytes aside, evicting idle generations one by one till they are there, and waiting where none is
    /// idle.
    ///
    /// # Errors
    /// [`BudgetExceeded`]: as it was at the end of the wait. More than the whole budget fails at once.
    pub fn reserve(&self, owner: Owner, bytes: u64, until: Instant) -> Result<Reservation, BudgetExceeded> {
        self.shared.reserve(owner, bytes, until)
    }

    /// As [`Residency::reserve`], for a caller that holds leases or other bytes already: nothing is kept from it for
    /// those who wait, since they may be waiting for what it holds.
    ///
    /// # Errors
    /// As [`Residency::reserve`].
    pub fn reserve_beside(
        &self,
        owner: Owner,
        bytes: u64,
        until: Instant,
    ) -> Result<Reservation, BudgetExceeded> {
        let mut reservation = self.shared.ledger.reserve(owner, 0)?;
        self.shared.grow(&mut reservation, bytes, until)?;
        Ok(reservation)
    }

    /// Makes a reservation of this ledger hold `bytes` in all, as [`Residency::reserve`] does.
    ///
    /// # Errors
    /// [`BudgetExceeded`]: it then holds what it held.
    pub fn grow(
        &self,
        reservation: &mut Reservation,
        bytes: u64,
        until: Instant,
    ) -> Result<(), BudgetExceeded> {
        self.shared.grow(reservation, bytes, until)
    }

    /// Keeps `key` from being evicted, from now on or from when it is loaded; retiring it is still possible.
    pub fn pin(&self, key: &K) {
        self.mark(key, |entry| entry.pinned = true);
    }

    /// Takes [`Residency::pin`] back.
    pub fn unpin(&self, key: &K) {
        self.mark(key, |entry| entry.pinned = false);
        self.shared.ledger.poke();
        self.shared.settle();
    }

    /// Generations of lower priority are evicted first; 0 where nothing was said.
    pub fn set_priority(&self, key: &K, priority: i32) {
        self.mark(key, |entry| entry.priority = priority);
    }

    /// Says something about a generation, which is there, or may come.
    fn mark(&self, key: &K, change: impl FnOnce(&mut Entry<R>)) {
        let mut state = self.shared.state();
        let entry = state.entries.entry(key.clone()).or_default();
        entry.forgotten = false;
        change(entry);
        state.prune(key);
    }

    /// Takes `key` from the device, if it is idle and not pinned.
    pub fn evict(&self, key: &K) -> Eviction {
        self.shared.evict(key)
    }

    /// `key` was replaced or removed: it takes no new leases, and goes when its last one ends, at once if
    /// there is none, or when its load has ended. A pin does not hold it.
    pub fn retire(&self, key: &K) -> Eviction {
        self.shared.retire(key)
    }

    /// Takes [`Residency::retire`] back: `key` takes leases again, and stays where it has not gone yet.
    pub fn revive(&self, key: &K) {
        self.shared.revive(key);
    }

    /// Drops what is remembered of `key` (pin, priority, retirement, count of loads) once it is not on the
    /// device.
    pub fn forget(&self, key: &K) {
        let mut state = self.shared.state();
        if let Some(entry) = state.entries.get_mut(key) {
            entry.forgotten = true;
        }
        state.prune(key);
    }

    /// Changes the budget. Where it is too small for what is held, evicts idle generations till that fits or
    /// none is left; others follow as their leases end. Where another thread is evicting at this moment, that
    /// one goes on.
    pub fn set_budget(&self, bytes: u64) {
        self.shared.ledger.set_budget(bytes);
        self.shared.settle();
    }

    /// What is on the device, or on its way there or out, by key.
    pub fn snapshot(&self) -> Vec<Residence<K>> {
        self.shared.state().residences()
    }

    /// One of [`Residency::snapshot`].
    pub fn residence(&self, key: &K) -> Option<Residence<K>> {
        self.shared.state().residence(key)
    }

    /// How many keys anything is remembered of, on the device or not; [`Residency::forget`] makes it fewer.
    pub fn remembered(&self) -> usize {
        self.shared.state().entries.len()
    }

    /// Counts since the start.
    pub fn totals(&self) -> ResidencyTotals {
        self.shared.state().totals
    }
}
