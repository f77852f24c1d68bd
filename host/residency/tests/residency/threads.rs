//! Many threads at once, on one device.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use modularbase_residency::{
    BudgetExceeded, ByteLedger, EventKind, Owner, Reservation, ResidenceState, Residency, ResidencyEvent,
    Room,
};

use crate::support::late;

const KEYS: usize = 12;
const LARGEST_BUDGET: u64 = 120;

/// Numbers from a seed (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// On the device; knows whether it has been taken from there, and that it is there once.
struct Once {
    there: Arc<[AtomicUsize; KEYS]>,
    key: usize,
    gone: AtomicBool,
    bytes: Reservation,
}

impl Once {
    fn check(&self, key: usize) {
        assert!(!self.gone.load(Ordering::SeqCst), "{key} was taken away while in use");
        assert_eq!((self.key, self.bytes.bytes()), (key, size(key)));
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
        assert_eq!(self.there[self.key].fetch_sub(1, Ordering::SeqCst), 1);
    }
}

fn size(key: usize) -> u64 {
    10 + (key as u64 * 7) % 30
}

fn load(
    there: &Arc<[AtomicUsize; KEYS]>,
    key: usize,
) -> impl FnOnce(&Room<'_>) -> Result<(Once, u64), BudgetExceeded> {
    let there = there.clone();
    move |room| {
        let bytes = room.reserve(Owner::Pack(key.to_string()), size(key))?;
        assert_eq!(there[key].fetch_add(1, Ordering::SeqCst), 0, "{key} is on the device twice");
        Ok((Once { there, key, gone: AtomicBool::new(false), bytes }, size(key)))
    }
}

/// Whether one generation's events can follow each other.
fn follows(before: Option<EventKind>, after: EventKind) -> bool {
    use EventKind::{Draining, Evicted, Idle, Leased, LoadFailed, Loading, Resident};
    match after {
        Loading => matches!(before, None | Some(LoadFailed | Evicted { .. })),
        LoadFailed | Resident { .. } => before == Some(Loading),
        Leased => matches!(before, Some(Resident { .. } | Idle | Draining { .. })),
        Idle => before == Some(Leased),
        Draining { .. } => before == Some(Leased),
        Evicted { .. } => matches!(before, Some(Resident { .. } | Idle | Draining { .. })),
    }
}

#[test]
fn everything_at_once_keeps_the_budget_and_returns_every_byte() {
    let told = Arc::new(Mutex::new(BTreeMap::<usize, Vec<EventKind>>::new()));
    let ears = told.clone();
    let observer = Arc::new(move |event: ResidencyEvent<usize>| {
        ears.lock().unwrap().entry(event.key).or_default().push(event.kind);
    });
    let residency = Residency::new(ByteLedger::new(100), observer);
    let there = Arc::new(std::array::from_fn::<_, KEYS, _>(|_| AtomicUsize::new(0)));
    let (working, leased) = (AtomicUsize::new(8), AtomicU64::new(0));
    thread::scope(|scope| {
        for index in 0..8_u64 {
            let (residency, there, working, leased) = (&residency, &there, &working, &leased);
            scope.spawn(move || {
                let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ (index + 1));
                for _ in 0..1500 {
                    let key = dice.below(KEYS as u64) as usize;
                    let until = Instant::now() + Duration::from_millis(dice.below(4));
                    match dice.below(24) {
                        0 => drop(residency.prefetch(&key, load(there, key))),
                        1 => drop(residency.evict(&key)),
                        2 => drop(residency.retire(&key)),
                        3..=5 => residency.revive(&key),
                        6 => residency.pin(&key),
                        7..=9 => residency.unpin(&key),
                        10 => residency.set_priority(&key, dice.below(3) as i32),
                        11 => residency.forget(&key),
                        12 => residency.set_budget(70 + dice.below(LARGEST_BUDGET - 69)),
                        13..=14 => {
                            if let Ok(mut cache) = residency.reserve(Owner::Kv, 1 + dice.below(40), until) {
                                drop(residency.grow(&mut cache, dice.below(60), until));
                            }
                        }
                        _ => {
                            let Ok(lease) = residency.lease(&key, until, load(there, key)) else { continue };
                            lease.check(key);
                            let clone = lease.clone();
                            drop(lease);
                            thread::yield_now();
                            clone.check(key);
                            leased.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                working.fetch_sub(1, Ordering::SeqCst);
            });
        }
        scope.spawn(|| {
            while working.load(Ordering::SeqCst) > 0 {
                let held: u64 = residency.ledger().holders().iter().map(|(_, bytes)| bytes).sum();
                assert!(held <= LARGEST_BUDGET, "{held}");
                let snapshot = residency.snapshot();
                // The bytes of one that is going may be somebody else's already.
                let there = snapshot.iter().filter(|residence| residence.state != ResidenceState::Evicting);
                let resident: u64 = there.map(|residence| residence.bytes).sum();
                assert!(resident <= LARGEST_BUDGET, "{resident}");
                thread::sleep(Duration::from_micros(200));
            }
        });
    });
    let leased = leased.into_inner();
    assert!(leased > 1000, "{leased} leases");
    for key in 0..KEYS {
        residency.retire(&key);
        residency.forget(&key);
    }
    assert_eq!((residency.ledger().holders(), residency.snapshot()), (vec![], vec![]));
    assert!(there.iter().all(|count| count.load(Ordering::SeqCst) == 0));
    assert_eq!(residency.remembered(), 0);
    let totals = residency.totals();
    assert_eq!(totals.loads, totals.evictions, "{totals:?}");
    for (key, kinds) in &*told.lock().unwrap() {
        let mut before = None;
        for &kind in kinds {
            assert!(follows(before, kind), "{key}: {kind:?} after {before:?}");
            before = Some(kind);
        }
    }
}

#[test]
fn requests_for_more_generations_than_fit_all_make_progress() {
    let residency = Residency::new(ByteLedger::new(39), Arc::new(|_| {}));
    let there = Arc::new(std::array::from_fn::<_, KEYS, _>(|_| AtomicUsize::new(0)));
    thread::scope(|scope| {
        for index in 0..6 {
            let (residency, there) = (&residency, &there);
            scope.spawn(move || {
                for round in 0..400 {
                    let key = (index + round) % 5;
                    let lease = residency.lease(&key, late(), load(there, key)).unwrap();
                    lease.check(key);
                    if round % 3 == 0 {
                        thread::yield_now();
                    }
                }
            });
        }
    });
    let totals = residency.totals();
    assert!(totals.evictions > 100, "{totals:?}");
    residency.set_budget(0);
    assert_eq!((residency.ledger().holders(), residency.snapshot().len()), (vec![], 0));
}
