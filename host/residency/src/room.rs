//! What a load reserves its bytes with.

use std::time::Instant;

use crate::{
    byte_ledger::Reservation,
    owner::{BudgetExceeded, Owner},
    state::{Key, Shared},
    sync::Arc,
};

/// Gives a load the bytes it needs. May be used from any thread while the load runs.
pub struct Room<'a> {
    source: &'a (dyn Source + Sync),
    /// `None`: only bytes that are free.
    until: Option<Instant>,
}

impl<'a> Room<'a> {
    pub(crate) fn evicting<K: Key, R: Send + Sync + 'static>(
        shared: &'a Arc<Shared<K, R>>,
        until: Instant,
    ) -> Self {
        Self { source: shared, until: Some(until) }
    }

    pub(crate) fn of_free_bytes<K: Key, R: Send + Sync + 'static>(shared: &'a Arc<Shared<K, R>>) -> Self {
        Self { source: shared, until: None }
    }

    /// Sets bytes aside, to be kept by what is loaded. In a lease's load it evicts idle generations one by
    /// one till the bytes are there, and waits till the lease's instant where none is idle; in a prefetch it
    /// does neither.
    ///
    /// # Errors
    /// [`BudgetExceeded`]: nothing is reserved then.
    pub fn reserve(&self, owner: Owner, bytes: u64) -> Result<Reservation, BudgetExceeded> {
        self.source.take(owner, bytes, self.until)
    }
}

trait Source {
    fn take(&self, owner: Owner, bytes: u64, until: Option<Instant>) -> Result<Reservation, BudgetExceeded>;
}

impl<K: Key, R: Send + Sync + 'static> Source for Arc<Shared<K, R>> {
    fn take(&self, owner: Owner, bytes: u64, until: Option<Instant>) -> Result<Reservation, BudgetExceeded> {
        match until {
            Some(until) => self.reserve(owner, bytes, until),
            None => self.ledger.reserve(owner, bytes),
        }
    }
}
