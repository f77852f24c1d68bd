//! The ledger and the residency under schedulers that choose who runs next: the crate's own source files,
//! with the schedulers' locks. Time does not pass there and no wait times out, so a wake-up that is lost is a
//! deadlock, which they report with the schedule that leads to it.
//!
//! Whatever this program never calls is unused code to the compiler: what the crate learns is to be tried
//! here too.

mod sync {
    pub(crate) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};
}

#[path = "../src/byte_ledger.rs"]
mod byte_ledger;
#[path = "../src/event.rs"]
mod event;
#[path = "../src/eviction.rs"]
mod eviction;
#[path = "../src/lease.rs"]
mod lease;
#[path = "../src/loading.rs"]
mod loading;
#[path = "../src/lru_order.rs"]
mod lru_order;
#[path = "../src/owner.rs"]
mod owner;
#[path = "../src/prefetch.rs"]
mod prefetch;
#[path = "../src/residence.rs"]
mod residence;
#[path = "../src/residency.rs"]
mod residency;
#[path = "../src/room.rs"]
mod room;
#[path = "../src/state.rs"]
mod state;
#[path = "../src/wait.rs"]
mod wait;
#[path = "../src/waiters.rs"]
mod waiters;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler},
    thread,
};

use byte_ledger::{ByteLedger, Reservation};
use eviction::Eviction;
use lease::{Lease, LeaseError};
use owner::{BudgetExceeded, Owner};
use residency::Residency;
use room::Room;
use wait::Wait;

/// Schedules of each kind that a test tries.
const SCHEDULES: usize = 2000;

/// Tries schedules at random, then ones with few well-placed switches (PCT, Burckhardt et al. 2010).
fn under_many_schedules(test: impl Fn() + Send + Sync + 'static) {
    let seed = std::env::var("SHUTTLE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(2026);
    println!("SHUTTLE_SEED={seed}");
    let test = Arc::new(test);
    let again = test.clone();
    let random = RandomScheduler::new_from_seed(seed, SCHEDULES);
    assert_eq!(Runner::new(random, Config::new()).run(move || again()), SCHEDULES);
    let few_switches = PctScheduler::new_from_seed(seed, 3, SCHEDULES);
    assert_eq!(Runner::new(few_switches, Config::new()).run(move || test()), SCHEDULES);
}

/// So far away that only a wake-up ends a wait.
fn never() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}

/// On the device, with its bytes; `there` counts how many of its kind are.
struct Thing {
    there: Arc<AtomicUsize>,
    _bytes: [Reservation; 2],
}

impl Drop for Thing {
    fn drop(&mut self) {
        // A thread can be interrupted in the middle of an eviction, too.
        thread::yield_now();
        self.there.fetch_sub(1, Ordering::SeqCst);
    }
}

fn load(there: &Arc<AtomicUsize>) -> impl FnOnce(&Room<'_>) -> Result<(Thing, u64), BudgetExceeded> + use<> {
    let there = there.clone();
    move |room| {
        let bytes = room.reserve_all([(Owner::Pack(String::new()), 6), (Owner::Plan, 4)])?;
        assert_eq!(there.fetch_add(1, Ordering::SeqCst), 0, "loaded while it was there, or twice at once");
        thread::yield_now();
        Ok((Thing { there, _bytes: bytes }, 10))
    }
}

fn device(budget: u64) -> Residency<u8, Thing> {
    Residency::new(ByteLedger::new(budget), Arc::new(|_| {}))
}

fn assert_empty(residency: &Residency<u8, Thing>) {
    assert!(residency.snapshot().is_empty(), "{:?}", residency.snapshot());
    let ledger = residency.ledger();
    assert_eq!((ledger.free(), ledger.holders(), ledger.overdrawn()), (ledger.budget(), vec![], 0));
}

#[test]
fn two_requests_and_an_evictor_of_one_key_all_end() {
    under_many_schedules(|| {
        let (residency, there) = (device(10), Arc::new(AtomicUsize::new(0)));
        let requests = [0, 1].map(|_| {
            let (residency, there) = (residency.clone(), there.clone());
            thread::spawn(move || {
                for _ in 0..2 {
                    let lease = residency.lease(&1, never(), load(&there)).unwrap();
                    assert_eq!(lease.there.load(Ordering::SeqCst), 1);
                }
            })
        });
        let evictor = thread::spawn({
            let residency = residency.clone();
            move || [(); 3].map(|()| residency.evict(&1))
        });
        let evicted = evictor.join().unwrap();
        for request in requests {
            request.join().unwrap();
        }
        let evicted =
            evicted.iter().filter(|outcome| matches!(outcome, Eviction::Evicted { .. })).count() as u64;
        let totals = residency.totals();
        assert_eq!(
            (totals.evictions, totals.loads),
            (evicted, evicted + u64::from(there.load(Ordering::SeqCst) > 0))
        );
        residency.retire(&1);
        assert_empty(&residency);
    });
}

#[test]
fn three_keys_that_fit_one_at_a_time_are_all_served() {
    under_many_schedules(|| {
        let residency = device(19);
        let requests = [1, 2, 3].map(|key| {
            let residency = residency.clone();
            thread::spawn(move || {
                let there = Arc::new(AtomicUsize::new(0));
                for _ in 0..2 {
                    let lease = residency.lease(&key, never(), load(&there)).unwrap();
                    let held: u64 = residency.ledger().holders().iter().map(|(_, bytes)| bytes).sum();
                    assert_eq!((held, *lease.key()), (10, key));
                }
            })
        });
        for request in requests {
            request.join().unwrap();
        }
        assert_eq!(residency.snapshot().len(), 1);
        residency.set_budget(0);
        assert_empty(&residency);
    });
}

/// Leases of several keys at once, as [`wait`] says.
fn lease_all(
    residency: &Residency<u8, Thing>,
    there: &[Arc<AtomicUsize>; 5],
    keys: [u8; 2],
) -> [Lease<u8, Thing>; 2] {
    let lease = |key: u8, wait| residency.lease_as(&key, wait, never(), load(&there[usize::from(key)]));
    let tried = keys.map(|key| lease(key, Wait::No));
    if let [Ok(first), Ok(second)] = tried {
        return [first, second];
    }
    drop(tried);
    let _pass = residency.pass(never()).unwrap();
    keys.map(|key| lease(key, Wait::Ahead).unwrap())
}

#[test]
fn requests_for_several_keys_do_not_wait_for_each_other() {
    under_many_schedules(|| {
        let residency = device(29);
        let there: Arc<[Arc<AtomicUsize>; 5]> = Arc::default();
        let requests = [[1, 2], [3, 4], [2, 3]].map(|keys| {
            let (residency, there) = (residency.clone(), there.clone());
            thread::spawn(move || {
                let leases = lease_all(&residency, &there, keys);
                thread::yield_now();
                assert_eq!(leases.each_ref().map(|lease| *lease.key()), keys);
            })
        });
        let one = thread::spawn({
            let (residency, there) = (residency.clone(), there.clone());
            move || drop(residency.lease(&3, never(), load(&there[3])).unwrap())
        });
        let cache = thread::spawn({
            let residency = residency.clone();
            move || drop(residency.reserve(Owner::Kv, 25, never()).unwrap())
        });
        for request in requests.into_iter().chain([one, cache]) {
            request.join().unwrap();
        }
        residency.set_budget(0);
        assert_empty(&residency);
    });
}

#[test]
fn two_that_evict_at_once_both_get_their_bytes_and_neither_waits_for_ever() {
    under_many_schedules(|| {
        let residency = device(30);
        for key in [1, 2, 3] {
            drop(residency.lease(&key, never(), load(&Arc::default())).unwrap());
        }
        let caches = [10, 20].map(|bytes| {
            let residency = residency.clone();
            thread::spawn(move || residency.reserve(Owner::Kv, bytes, never()).unwrap())
        });
        drop(caches.map(|cache| cache.join().unwrap()));
        assert_empty(&residency);
        assert_eq!(residency.totals().evictions, 3);
    });
}

#[test]
fn a_budget_that_shrinks_beside_other_evictions_is_kept_by_whoever_ends_last() {
    under_many_schedules(|| {
        let residency = device(40);
        for key in [1, 2, 3, 4] {
            drop(residency.lease(&key, never(), load(&Arc::default())).unwrap());
        }
        let asked = thread::spawn({
            let residency = residency.clone();
            move || residency.evict(&3)
        });
        let cache = thread::spawn({
            let residency = residency.clone();
            move || drop(residency.reserve(Owner::Kv, 10, never()))
        });
        residency.set_budget(0);
        asked.join().unwrap();
        cache.join().unwrap();
        assert_empty(&residency);
    });
}

#[test]
fn retiring_what_is_being_leased_lets_nobody_wait_for_ever() {
    under_many_schedules(|| {
        let (residency, there) = (device(10), Arc::new(AtomicUsize::new(0)));
        let requests = [0, 1].map(|_| {
            let (residency, there) = (residency.clone(), there.clone());
            thread::spawn(move || match residency.lease(&1, never(), load(&there)) {
                Ok(lease) => {
                    let clone = lease.clone();
                    drop(lease);
                    assert_eq!(clone.there.load(Ordering::SeqCst), 1, "a lease holds what it began with");
                }
                Err(error) => assert!(matches!(error, LeaseError::Retired { .. }), "{error}"),
            })
        });
        let other = thread::spawn({
            let residency = residency.clone();
            move || drop(residency.reserve(Owner::Kv, 10, never()).unwrap())
        });
        residency.retire(&1);
        let refused = residency.lease(&1, never(), load(&there));
        assert!(matches!(refused, Err(LeaseError::Retired { .. })));
        for request in requests.into_iter().chain([other]) {
            request.join().unwrap();
        }
        assert_empty(&residency);
        residency.revive(&1);
        drop(residency.lease(&1, never(), load(&there)).unwrap());
    });
}

#[test]
fn a_failed_load_and_a_prefetch_leave_no_waiter_behind() {
    under_many_schedules(|| {
        let (residency, there) = (device(10), Arc::new(AtomicUsize::new(0)));
        let requests = [0, 1].map(|_| {
            let (residency, there) = (residency.clone(), there.clone());
            thread::spawn(move || {
                let broken = residency.lease(&1, never(), |_| Err::<(Thing, u64), _>("broken"));
                if let Ok(lease) = broken {
                    assert_eq!(lease.there.load(Ordering::SeqCst), 1);
                }
                drop(residency.lease(&2, never(), load(&there)));
            })
        });
        let fetched = residency.prefetch(&1, load(&Arc::default()));
        assert!(fetched.is_ok() || residency.totals().loads > 0 || residency.residence(&2).is_some());
        for request in requests {
            request.join().unwrap();
        }
        residency.retire(&1);
        residency.retire(&2);
        assert_empty(&residency);
    });
}

#[test]
fn a_budget_that_shrinks_and_grows_again_serves_everybody() {
    under_many_schedules(|| {
        let residency = device(20);
        let requests = [1, 2].map(|key| {
            let residency = residency.clone();
            thread::spawn(move || {
                let there = Arc::new(AtomicUsize::new(0));
                drop(residency.lease(&key, never(), load(&there)).unwrap());
            })
        });
        residency.set_budget(11);
        for request in requests {
            request.join().unwrap();
        }
        let ledger = residency.ledger();
        assert_eq!(
            (ledger.overdrawn(), residency.snapshot().len()),
            (0, 1),
            "what is idle went until it fitted"
        );
        residency.set_budget(20);
        residency.set_budget(0);
        assert_empty(&residency);
    });
}

#[test]
fn caches_that_grow_get_the_bytes_of_one_that_is_unpinned() {
    under_many_schedules(|| {
        let residency = device(20);
        let pinned = thread::spawn({
            let residency = residency.clone();
            move || {
                residency.pin(&1);
                let lease = residency.lease(&1, never(), load(&Arc::default())).unwrap();
                let there = lease.resident().there.clone();
                drop(lease);
                assert_eq!(there.load(Ordering::SeqCst), 1, "a pinned one stays");
                residency.unpin(&1);
            }
        });
        let caches = [(Owner::Plan, 14), (Owner::Scratch, 15)].map(|(owner, bytes)| {
            let residency = residency.clone();
            thread::spawn(move || {
                let mut cache = residency.reserve_beside(owner, 2, never()).unwrap();
                residency.set_priority(&1, 2);
                residency.grow(&mut cache, 5, never()).unwrap();
                assert_eq!(cache.bytes(), 5);
                drop(cache);
                drop(residency.reserve(Owner::Kv, bytes, never()).unwrap());
            })
        });
        pinned.join().unwrap();
        for cache in caches {
            cache.join().unwrap();
        }
        residency.forget(&1);
        residency.evict(&1);
        assert_empty(&residency);
        assert_eq!(residency.remembered(), 0);
    });
}

#[test]
fn whoever_waits_for_bytes_of_the_ledger_gets_them() {
    under_many_schedules(|| {
        let ledger = ByteLedger::new(10);
        let filler = ledger.reserve(Owner::Base, 10).unwrap();
        let waiters = [10, 4, 7].map(|bytes| {
            let ledger = ledger.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    let mut reservation = ledger.reserve_within(Owner::Kv, bytes, never()).unwrap();
                    assert!(ledger.held_by(&Owner::Kv) <= 10);
                    reservation.resize(1).unwrap();
                    let part = reservation.split(1).unwrap();
                    assert!(reservation.join(part).is_ok());
                }
            })
        });
        drop(filler);
        for waiter in waiters {
            waiter.join().unwrap();
        }
        assert_eq!((ledger.free(), ledger.holders()), (10, vec![]));
    });
}

#[test]
fn a_large_waiter_is_served_among_small_ones_that_never_stop_on_their_own() {
    under_many_schedules(|| {
        let ledger = ByteLedger::new(4);
        let served = Arc::new(AtomicUsize::new(0));
        let small = [0, 1].map(|_| {
            let (ledger, served) = (ledger.clone(), served.clone());
            thread::spawn(move || {
                while served.load(Ordering::SeqCst) == 0 {
                    let reservation = ledger.reserve_within(Owner::Kv, 2, never()).unwrap();
                    thread::yield_now();
                    drop(reservation);
                    thread::yield_now();
                }
            })
        });
        drop(ledger.reserve_within(Owner::Base, 4, never()).unwrap());
        served.store(1, Ordering::SeqCst);
        for small in small {
            small.join().unwrap();
        }
        assert_eq!(ledger.free(), 4);
    });
}
