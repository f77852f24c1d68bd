//! What a load reserves its bytes with.

use std::time::Instant;

use crate::{
    byte_ledger::Reservation,
    loading::Flight,
    owner::{BudgetExceeded, Owner},
    state::{Key, Shared},
    sync::Arc,
};

/// Gives a load the bytes it needs. May be used from any thread while the load runs.
pub struct Room<'a> {
    source: &'a (dyn Source + Sync),
    /// The lease's load, and up to when it waits; `None`: only bytes that are free.
    lease: Option<(&'a Flight, Instant)>,
}

impl<'a> Room<'a> {
    pub(crate) fn evicting<K: Key, R: Send + Sync + 'static>(
        shared: &'a Arc<Shared<K, R>>,
        flight: &'a Flight,
        until: Instant,
    ) -> Self {
        Self { source: shared, lease: Some((flight, until)) }
    }

    pub(crate) fn of_free_bytes<K: Key, R: Send + Sync + 'static>(shared: &'a Arc<Shared<K, R>>) -> Self {
        Self { source: shared, lease: None }
    }

    /// Sets bytes aside, to be kept by what is loaded. In a lease's load it evicts idle generations one by
    /// one till the bytes are there, and where none is idle waits as the lease does; in a prefetch it does
    /// neither.
    ///
    /// # Errors
    /// [`BudgetExceeded`]: nothing is reserved then.
    pub fn reserve(&self, owner: Owner, bytes: u64) -> Result<Reservation, BudgetExceeded> {
        self.source.take(owner, bytes, self.lease)
    }

    /// As [`Room::reserve`] for several owners: all of it at once, so that no load holds a part of what it needs while
    /// it waits for the rest. A refusal tells the sum, as the first owner's.
    ///
    /// # Errors
    /// As [`Room::reserve`].
    pub fn reserve_all<const N: usize>(
        &self,
        wanted: [(Owner, u64); N],
    ) -> Result<[Reservation; N], BudgetExceeded> {
        let sum = wanted.iter().map(|(_, bytes)| bytes).sum();
        let first = wanted.first().map_or(Owner::Scratch, |(owner, _)| owner.clone());
        let mut whole = self.reserve(first, sum)?;
        Ok(wanted.map(|(owner, bytes)| whole.hand_over(owner, bytes)))
    }
}

trait Source {
    fn take(
        &self,
        owner: Owner,
        bytes: u64,
        lease: Option<(&Flight, Instant)>,
    ) -> Result<Reservation, BudgetExceeded>;
}

impl<K: Key, R: Send + Sync + 'static> Source for Arc<Shared<K, R>> {
    fn take(
        &self,
        owner: Owner,
        bytes: u64,
        lease: Option<(&Flight, Instant)>,
    ) -> Result<Reservation, BudgetExceeded> {
        match lease {
            Some((flight, until)) => self.reserve_for_load(owner, bytes, flight, until),
            None => self.ledger.reserve(owner, bytes),
        }
    }
}
