//! The byte ledger: reserve first, then allocate.

use std::{collections::BTreeMap, sync::PoisonError, time::Instant};

use crate::{
    owner::{BudgetExceeded, Owner},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    waiters::{Number, Waiters},
};

/// A budget of device memory in bytes, and who holds how much of it. Cheap to clone; clones share the budget.
///
/// # Who gets bytes first
/// [`ByteLedger::reserve_within`] waits in a queue. Others may be served before a waiter (a small request
/// need not stand behind a large one that can't be served yet), but at most [`ByteLedger::MOST_OVERTAKEN`]
/// times: after that free bytes are kept for it, and neither later waiters nor [`ByteLedger::reserve`] get
/// them. So no number of small requests starves a large one; it gets its bytes as soon as those who hold them
/// now give them back, if that happens before its wait ends. A [`Reservation`] that grows is never held back
/// for waiters: its holder has to come to its end for bytes to come back at all.
#[derive(Debug, Clone)]
pub struct ByteLedger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    books: Mutex<Books>,
    changed: Condvar,
}

#[derive(Debug)]
struct Books {
    budget: u64,
    held: BTreeMap<Owner, u64>,
    /// Of what everybody holds.
    sum: u64,
    waiters: Waiters,
    /// Rises with everything that may let a waiter go on.
    epoch: u64,
}

impl Books {
    fn free(&self) -> u64 {
        self.budget.saturating_sub(self.sum)
    }

    /// Takes bytes for an owner, `kept` of the free ones being out of its reach.
    fn take(&mut self, owner: &Owner, bytes: u64, kept: u64) -> Result<(), BudgetExceeded> {
        let free = self.free();
        if bytes > 0 && bytes > free.saturating_sub(kept) {
            return Err(BudgetExceeded {
                owner: owner.clone(),
                needed: bytes,
                budget: self.budget,
                free,
                kept: kept.min(free),
                held: self.held.iter().map(|(owner, &bytes)| (owner.clone(), bytes)).collect(),
            });
        }
        if bytes > 0 {
            *self.held.entry(owner.clone()).or_default() += bytes;
            self.sum += bytes;
        }
        Ok(())
    }

    /// Takes from an owner what it holds, or a part of it.
    fn release(&mut self, owner: &Owner, bytes: u64) {
        if let Some(held) = self.held.get_mut(owner) {
            *held -= bytes;
            if *held == 0 {
                self.held.remove(owner);
            }
        }
        self.sum -= bytes;
    }

    fn hand_over(&mut self, from: &Owner, to: &Owner, bytes: u64) {
        if bytes > 0 {
            self.release(from, bytes);
            *self.held.entry(to.clone()).or_default() += bytes;
            self.sum += bytes;
        }
    }
}

impl Inner {
    /// The books are valid at every moment, so a holder's panic leaves nothing half-done.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, owner: &Owner, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let mut books = self.books();
        books.release(owner, bytes);
        self.wake(books);
    }

    fn wake(&self, mut books: MutexGuard<'_, Books>) {
        books.epoch += 1;
        drop(books);
        self.changed.notify_all();
    }
}

impl ByteLedger {
    /// How many reservations may be served before one that waits longer.
    pub const MOST_OVERTAKEN: u32 = 16;

    /// A ledger with nothing held.
    pub fn new(budget: u64) -> Self {
        let books = Books { budget, held: BTreeMap::new(), sum: 0, waiters: Waiters::default(), epoch: 0 };
        Self { inner: Arc::new(Inner { books: Mutex::new(books), changed: Condvar::new() }) }
    }

    /// Bytes in all.
    pub fn budget(&self) -> u64 {
        self.inner.books().budget
    }

    /// Changes the bytes in all. Nothing is taken from anybody: where more is held than the new budget,
    /// nothing more is reserved until enough has come back ([`ByteLedger::overdrawn`]).
    pub fn set_budget(&self, bytes: u64) {
        let mut books = self.inner.books();
        books.budget = bytes;
        self.inner.wake(books);
    }

    /// Bytes by which more is held than the budget, after it was made smaller; else 0.
    pub fn overdrawn(&self) -> u64 {
        let books = self.inner.books();
        books.sum.saturating_sub(books.budget)
    }

    /// Bytes that nobody holds.
    pub fn free(&self) -> u64 {
        self.inner.books().free()
    }

    /// Bytes held by an owner.
    pub fn held_by(&self, owner: &Owner) -> u64 {
        self.inner.books().held.get(owner).copied().unwrap_or(0)
    }

    /// Every owner with what it holds.
    pub fn holders(&self) -> Vec<(Owner, u64)> {
        self.inner.books().held.iter().map(|(owner, &bytes)| (owner.clone(), bytes)).collect()
    }

    /// Sets bytes aside. To be called before the allocation they are for.
    ///
    /// # Errors
    /// [`BudgetExceeded`]: nothing is reserved then.
    pub fn reserve(&self, owner: Owner, bytes: u64) -> Result<Reservation, BudgetExceeded> {
        let mut books = self.inner.books();
        let kept = books.waiters.kept_from(None);
        books.take(&owner, bytes, kept)?;
        books.waiters.served(None, bytes);
        drop(books);
        Ok(Reservation { ledger: self.clone(), owner, bytes })
    }

    /// Sets bytes aside, and waits for them until an instant where they are not free yet.
    ///
    /// # Errors
    /// [`BudgetExceeded`]: as it was when the wait ended. A request for more than the whole budget fails at
    /// once.
    pub fn reserve_within(
        &self,
        owner: Owner,
        bytes: u64,
        until: Instant,
    ) -> Result<Reservation, BudgetExceeded> {
        let claim = self.claim(owner, bytes);
        loop {
            let epoch = self.epoch();
            match claim.attempt(false) {
                Ok(reservation) => return Ok(reservation),
                Err(refused) if refused.needed > refused.budget => return Err(refused),
                Err(refused) => {
                    if !self.wait_past(epoch, until) {
                        return Err(refused);
                    }
                }
            }
        }
    }

    /// A place in the queue.
    pub(crate) fn claim(&self, owner: Owner, bytes: u64) -> Claim {
        let number = self.inner.books().waiters.join(bytes);
        Claim { ledger: self.clone(), owner, bytes, number }
    }

    /// Says which state of the ledger a caller is about to look at; see [`ByteLedger::wait_past`].
    pub(crate) fn epoch(&self) -> u64 {
        self.inner.books().epoch
    }

    /// Waits until something has changed since `epoch` was read. `false`: the instant came first.
    pub(crate) fn wait_past(&self, epoch: u64, until: Instant) -> bool {
        let mut books = self.inner.books();
        while books.epoch == epoch {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            books = self.inner.changed.wait_timeout(books, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Waits until bytes are kept for nobody. `false`: the instant came first.
    pub(crate) fn wait_until_nobody_is_due(&self, until: Instant) -> bool {
        loop {
            let books = self.inner.books();
            if books.waiters.kept_from(None) == 0 {
                return true;
            }
            let epoch = books.epoch;
            drop(books);
            if !self.wait_past(epoch, until) {
                return false;
            }
        }
    }

    /// Lets those who wait for bytes look again: there may be something new to evict.
    pub(crate) fn poke(&self) {
        self.inner.wake(self.inner.books());
    }
}

/// A place in the ledger's queue; dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Claim {
    ledger: ByteLedger,
    owner: Owner,
    bytes: u64,
    number: Number,
}

impl Claim {
    /// Takes the bytes if they can be had now; those that are kept for others too where it goes `ahead`.
    pub(crate) fn attempt(&self, ahead: bool) -> Result<Reservation, BudgetExceeded> {
        let mut books = self.ledger.inner.books();
        let kept = if ahead { 0 } else { books.waiters.kept_from(Some(self.number)) };
        books.take(&self.owner, self.bytes, kept)?;
        let was_due = books.waiters.served(Some(self.number), self.bytes);
        if was_due {
            self.ledger.inner.wake(books);
        }
        Ok(Reservation { ledger: self.ledger.clone(), owner: self.owner.clone(), bytes: self.bytes })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut books = self.ledger.inner.books();
        if books.waiters.leave(self.number) {
            self.ledger.inner.wake(books);
        }
    }
}

/// Bytes set aside; dropping it, on any thread, gives them back.
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
            Some(more) => self.ledger.inner.books().take(&self.owner, more, 0)?,
            None => self.ledger.inner.give_back(&self.owner, self.bytes - bytes),
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Hands `bytes` of it over to a reservation of their own; `None` where it holds fewer.
    pub fn split(&mut self, bytes: u64) -> Option<Self> {
        self.bytes = self.bytes.checked_sub(bytes)?;
        Some(Self { ledger: self.ledger.clone(), owner: self.owner.clone(), bytes })
    }

    /// Hands `bytes` of it, or all where it holds fewer, over to another owner.
    pub(crate) fn hand_over(&mut self, owner: Owner, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.ledger.inner.books().hand_over(&self.owner, &owner, bytes);
        Self { ledger: self.ledger.clone(), owner, bytes }
    }

    /// Takes over what `other` holds, if both have one owner in one ledger; else gives it back unchanged.
    pub fn join(&mut self, mut other: Self) -> Result<(), Self> {
        if self.owner != other.owner || !Arc::ptr_eq(&self.ledger.inner, &other.ledger.inner) {
            return Err(other);
        }
        self.bytes += std::mem::take(&mut other.bytes);
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.ledger.inner.give_back(&self.owner, self.bytes);
    }
}
