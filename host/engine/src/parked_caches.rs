//! Caches behind the slot of sessions that no request uses at the moment.
//!
//! Between two answers a session keeps no pack on the device: its leases have ended. The caches that were made with
//! the packs are kept for the next answer, here, where they go when a pack that they belong to is evicted.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use modularbase_core::BehindCaches;
use modularbase_residency::Reservation;

/// Caches with the bytes that are reserved for them.
pub(crate) struct Parked {
    pub(crate) caches: BehindCaches,
    pub(crate) memory: Reservation,
}

/// The caches of all idle sessions, by session.
#[derive(Default)]
pub(crate) struct ParkedCaches {
    sessions: Mutex<HashMap<u64, Parked>>,
    next: AtomicU64,
}

/// A session's place. Dropping it drops what is parked there.
pub(crate) struct ParkingPlace {
    all: Arc<ParkedCaches>,
    session: u64,
}

impl ParkedCaches {
    pub(crate) fn place(self: &Arc<Self>) -> ParkingPlace {
        ParkingPlace { all: Arc::clone(self), session: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    /// Drops every cache that was made with a generation.
    pub(crate) fn forget(&self, generation: &str) {
        let made_with =
            |_: &u64, parked: &mut Parked| parked.caches.generations().any(|known| known == generation);
        // Dropped after the lock is released: the reservations wake those who wait for memory.
        let gone: Vec<_> = self.lock().extract_if(made_with).collect();
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Parked>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ParkingPlace {
    pub(crate) fn put(&self, parked: Parked) {
        self.all.lock().insert(self.session, parked);
    }

    pub(crate) fn take(&self) -> Option<Parked> {
        self.all.lock().remove(&self.session)
    }
}

impl Drop for ParkingPlace {
    fn drop(&mut self) {
        drop(self.take());
    }
}
