//! What the tests put on a device that isn't there, and what they note of it.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use modularbase_residency::{
    BudgetExceeded, ByteLedger, EventKind, Lease, LeaseError, Owner, Reservation, Residency, ResidencyEvent,
    Room,
};

pub type Key = &'static str;

/// Something on the device. It owns its bytes.
pub struct Thing {
    pub bytes: Reservation,
    alive: Arc<AtomicUsize>,
}

impl Drop for Thing {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Why a load of the tests fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadError {
    Budget(BudgetExceeded),
    Broken(&'static str),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Budget(refused) => refused.fmt(f),
            Self::Broken(reason) => f.write_str(reason),
        }
    }
}

/// A device, what is on it, and what its observer was told.
pub struct Device {
    pub residency: Residency<Key, Thing>,
    pub alive: Arc<AtomicUsize>,
    told: Arc<Mutex<Vec<ResidencyEvent<Key>>>>,
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_millis(30)
}

pub fn late() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

impl Device {
    pub fn new(budget: u64) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let ears = told.clone();
        let observer = Arc::new(move |event| ears.lock().unwrap().push(event));
        Self { residency: Residency::new(ByteLedger::new(budget), observer), alive: Arc::default(), told }
    }

    /// A load that reserves its bytes and nothing else.
    pub fn load(&self, key: Key, bytes: u64) -> impl FnOnce(&Room<'_>) -> Result<(Thing, u64), LoadError> {
        let alive = self.alive.clone();
        move |room| {
            let reservation = room.reserve(Owner::Pack(key.to_owned()), bytes).map_err(LoadError::Budget)?;
            alive.fetch_add(1, Ordering::SeqCst);
            Ok((Thing { bytes: reservation, alive }, bytes))
        }
    }

    pub fn lease(&self, key: Key, bytes: u64) -> Result<Lease<Key, Thing>, LeaseError<LoadError>> {
        self.residency.lease(&key, soon(), self.load(key, bytes))
    }

    /// Loads it and gives it back.
    pub fn touch(&self, key: Key, bytes: u64) {
        self.lease(key, bytes).unwrap();
    }

    pub fn prefetch(&self, key: Key, bytes: u64) -> Result<bool, LeaseError<LoadError>> {
        self.residency.prefetch(&key, self.load(key, bytes))
    }

    pub fn free(&self) -> u64 {
        self.residency.ledger().free()
    }

    /// The keys that are on the device.
    pub fn keys(&self) -> Vec<Key> {
        self.residency.snapshot().into_iter().map(|residence| residence.key).collect()
    }

    pub fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }

    /// What happened since this was last asked.
    pub fn events(&self) -> Vec<(Key, EventKind)> {
        self.told.lock().unwrap().drain(..).map(|event| (event.key, event.kind)).collect()
    }
}
