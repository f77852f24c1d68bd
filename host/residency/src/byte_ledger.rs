//! The byte ledger: reserve first, then allocate.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What an allocation on the device is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// Weights of the base core.
    Base,
    /// Key and value caches and hidden states of requests.
    Kv,
    /// Weights of a pack, by its generation.
    Pack(String),
    /// Working memory of the executor.
    Scratch,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str("base"),
            Self::Kv => f.write_str("kv"),
            Self::Pack(generation) => write!(f, "pack {}", generation.get(..12).unwrap_or(generation)),
            Self::Scratch => f.write_str("scratch"),
        }
    }
}

/// A reservation that the budget does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{owner} needs {needed} bytes, but of the budget of {budget} bytes only {free} are free ({}): raise --budget or use less",
    holders(.held)
)]
pub struct BudgetExceeded {
    /// Who asked.
    pub owner: Owner,
    /// Bytes asked for.
    pub needed: u64,
    /// Bytes of the whole budget.
    pub budget: u64,
    /// Bytes of it that nobody holds.
    pub free: u64,
    /// Who holds the rest.
    pub held: Vec<(Owner, u64)>,
}

fn holders(held: &[(Owner, u64)]) -> String {
    match held {
        [] => "nothing is held".to_owned(),
        _ => held.iter().map(|(owner, bytes)| format!("{owner}: {bytes}")).collect::<Vec<_>>().join(", "),
    }
}

/// A budget of device memory in bytes, and who holds how much of it. Cheap to clone; clones share the budget.
#[derive(Debug, Clone)]
pub struct ByteLedger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    budget: u64,
    held: Mutex<BTreeMap<Owner, u64>>,
}

impl Inner {
    /// The map is valid at every moment, so a holder's panic leaves nothing half-done.
    fn held(&self) -> MutexGuard<'_, BTreeMap<Owner, u64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, owner: &Owner, bytes: u64) -> Result<(), BudgetExceeded> {
        let mut held = self.held();
        let free = self.budget.saturating_sub(held.values().sum());
        if bytes > free {
            return Err(BudgetExceeded {
                owner: owner.clone(),
                needed: bytes,
                budget: self.budget,
                free,
                held: held.iter().map(|(owner, &bytes)| (owner.clone(), bytes)).collect(),
            });
        }
        if bytes > 0 {
            *held.entry(owner.clone()).or_default() += bytes;
        }
        Ok(())
    }

    fn give_back(&self, owner: &Owner, bytes: u64) {
        let mut held = self.held();
        if let Some(sum) = held.get_mut(owner) {
            *sum -= bytes;
            if *sum == 0 {
                held.remove(owner);
            }
        }
    }
}

impl ByteLedger {
    /// A ledger with nothing held.
    pub fn new(budget: u64) -> Self {
        Self { inner: Arc::new(Inner { budget, held: Mutex::default() }) }
    }

    /// Bytes in all.
    pub fn budget(&self) -> u64 {
        self.inner.budget
    }

    /// Bytes that nobody holds.
    pub fn free(&self) -> u64 {
        self.budget() - self.inner.held().values().sum::<u64>()
    }

    /// Bytes held by an owner.
    pub fn held_by(&self, owner: &Owner) -> u64 {
        self.inner.held().get(owner).copied().unwrap_or(0)
    }

    /// Every owner with what it holds.
    pub fn holders(&self) -> Vec<(Owner, u64)> {
        self.inner.held().iter().map(|(owner, &bytes)| (owner.clone(), bytes)).collect()
    }

    /// Sets bytes aside. To be called before the allocation they are for.
    ///
    /// # Errors
    /// [`BudgetExceeded`]: nothing is reserved then.
    pub fn reserve(&self, owner: Owner, bytes: u64) -> Result<Reservation, BudgetExceeded> {
        self.inner.take(&owner, bytes)?;
        Ok(Reservation { ledger: self.clone(), owner, bytes })
    }
}

/// Bytes set aside; dropping it gives them back.
#[derive(Debug)]
pub struct Reservation {
    ledger: ByteLedger,
    owner: Owner,
    bytes: u64,
}

impl Reservation {
    /// Bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it hold `bytes`.
    ///
    /// # Errors
    /// [`BudgetExceeded`] when it would grow beyond the budget; it then holds what it held.
    pub fn resize(&mut self, bytes: u64) -> Result<(), BudgetExceeded> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.ledger.inner.take(&self.owner, more)?,
            None => self.ledger.inner.give_back(&self.owner, self.bytes - bytes),
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.ledger.inner.give_back(&self.owner, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn pack(name: &str) -> Owner {
        Owner::Pack(name.to_owned())
    }

    #[test]
    fn what_is_dropped_comes_back() {
        let ledger = ByteLedger::new(100);
        let base = ledger.reserve(Owner::Base, 60).unwrap();
        assert_eq!((ledger.free(), ledger.held_by(&Owner::Base)), (40, 60));
        drop(base);
        assert_eq!((ledger.free(), ledger.holders().len()), (100, 0));
    }

    #[test]
    fn the_budget_is_never_exceeded_and_the_refusal_says_who_holds_it() {
        let ledger = ByteLedger::new(100);
        let _base = ledger.reserve(Owner::Base, 60).unwrap();
        let error = ledger.reserve(pack("a"), 41).unwrap_err();
        assert_eq!((error.needed, error.free, error.held.clone()), (41, 40, vec![(Owner::Base, 60)]));
        assert!(error.to_string().contains("base: 60"), "{error}");
        assert!(ledger.reserve(pack("a"), 40).is_ok());
    }

    #[test]
    fn a_reservation_that_cannot_grow_keeps_what_it_has() {
        let ledger = ByteLedger::new(100);
        let mut kv = ledger.reserve(Owner::Kv, 50).unwrap();
        assert!(kv.resize(101).is_err());
        assert_eq!((kv.bytes(), ledger.free()), (50, 50));
        kv.resize(100).unwrap();
        kv.resize(10).unwrap();
        assert_eq!(ledger.free(), 90);
        drop(kv);
        assert_eq!(ledger.free(), 100);
    }

    #[test]
    fn an_absurd_request_does_not_overflow() {
        let ledger = ByteLedger::new(u64::MAX);
        let _all = ledger.reserve(Owner::Base, u64::MAX - 1).unwrap();
        assert!(ledger.reserve(Owner::Kv, u64::MAX).is_err());
    }

    #[test]
    fn threads_that_reserve_at_once_stay_within_the_budget() {
        let ledger = ByteLedger::new(1000);
        thread::scope(|scope| {
            for index in 0..8 {
                let ledger = ledger.clone();
                scope.spawn(move || {
                    for round in 0..2000_u64 {
                        let reservation = ledger.reserve(pack(&index.to_string()), round % 400);
                        let held: u64 = ledger.holders().iter().map(|(_, bytes)| bytes).sum();
                        assert!(held <= 1000, "{held}");
                        drop(reservation);
                    }
                });
            }
        });
        assert_eq!(ledger.free(), 1000);
    }
}
