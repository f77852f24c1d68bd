//! A request's hold on a generation.

use std::{fmt, ops::Deref, time::Instant};

use crate::{
    event::{EventKind, EvictionReason},
    eviction::Departure,
    state::{Key, Shared, Stage, State},
    sync::Arc,
};

/// A hold on a generation: while there is one, it is not evicted. Dropping it gives it back; a clone is
/// another lease.
///
/// The value should not be kept beyond the lease: an [`Arc`] that outlives it keeps bytes that an eviction is
/// expected to bring back.
pub struct Lease<K: Key, R: Send + Sync + 'static> {
    // Dropped before the hold, so that whoever evicts it holds the last reference.
    value: Arc<R>,
    hold: Hold<K, R>,
}

struct Hold<K: Key, R: Send + Sync + 'static> {
    shared: Arc<Shared<K, R>>,
    key: K,
}

impl<K: Key, R: Send + Sync + 'static> Lease<K, R> {
    /// Takes over a lease that is already counted.
    pub(crate) fn counted(shared: &Arc<Shared<K, R>>, key: &K, value: Arc<R>) -> Self {
        Self { value, hold: Hold { shared: shared.clone(), key: key.clone() } }
    }

    /// What it is a lease on.
    pub fn key(&self) -> &K {
        &self.hold.key
    }

    /// What is on the device.
    pub fn resident(&self) -> &Arc<R> {
        &self.value
    }
}

impl<K: Key, R: Send + Sync + 'static> Deref for Lease<K, R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.value
    }
}

impl<K: Key, R: Send + Sync + 'static> fmt::Debug for Lease<K, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&format_args!("{}", self.hold.key)).finish()
    }
}

impl<K: Key, R: Send + Sync + 'static> Clone for Lease<K, R> {
    fn clone(&self) -> Self {
        let Hold { shared, key } = &self.hold;
        if let Some(Stage::Resident { leases, .. }) =
            shared.state().entries.get_mut(key).map(|entry| &mut entry.stage)
        {
            *leases += 1;
        }
        Self::counted(shared, key, self.value.clone())
    }
}

impl<K: Key, R: Send + Sync + 'static> Drop for Hold<K, R> {
    fn drop(&mut self) {
        let departure = give_back(&mut self.shared.state(), &self.shared, &self.key);
        match departure {
            Some(departure) => departure.complete(),
            None => self.shared.ledger.poke(),
        }
        self.shared.tell();
        self.shared.settle();
    }
}

fn give_back<K: Key, R: Send + Sync + 'static>(
    state: &mut State<K, R>,
    shared: &Arc<Shared<K, R>>,
    key: &K,
) -> Option<Departure<K, R>> {
    let entry = state.entries.get_mut(key)?;
    entry.last_used = Some(Instant::now());
    let Stage::Resident { leases, .. } = &mut entry.stage else { return None };
    *leases -= 1;
    if *leases > 0 {
        return None;
    }
    if entry.retired {
        return Departure::begin(state, shared, key, EvictionReason::Retired);
    }
    state.idle.push(key);
    state.outbox.push(key, EventKind::Idle);
    None
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError<E> {
    /// Its load failed: this caller's, or the one that this caller waited for.
    #[error("{key} could not be loaded: {error}")]
    Load {
        /// Of what.
        key: String,
        /// Why.
        error: Arc<E>,
    },
    /// The load that this caller waited for failed, with an error of another type.
    #[error("{key} could not be loaded: {reason}")]
    LoadElsewhere {
        /// Of what.
        key: String,
        /// Why.
        reason: String,
    },
    /// The load that this caller waited for ended in a panic.
    #[error("{key} could not be loaded: its load ended in a panic; the next request tries again")]
    LoadPanicked {
        /// Of what.
        key: String,
    },
    /// It is still being loaded or evicted by another thread.
    #[error("{key} is still being {doing} by another request; try again later, or wait longer")]
    TimedOut {
        /// Of what.
        key: String,
        /// `loaded` or `evicted`.
        doing: &'static str,
    },
    /// It was replaced or removed.
    #[error("{key} was retired: it was replaced or removed, and takes no new leases")]
    Retired {
        /// What.
        key: String,
    },
}
