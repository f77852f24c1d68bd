//! The byte ledger by its behaviour.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use modularbase_residency::{ByteLedger, Owner};

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

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(30)
}

fn late() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[test]
fn a_waiter_gets_bytes_when_they_come_back() {
    let ledger = ByteLedger::new(100);
    let base = ledger.reserve(Owner::Base, 80).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| ledger.reserve_within(Owner::Kv, 50, late()).map(|kv| kv.bytes()));
        thread::sleep(Duration::from_millis(20));
        assert!(!waiter.is_finished());
        drop(base);
        assert_eq!(waiter.join().unwrap(), Ok(50));
    });
    assert_eq!(ledger.free(), 100);
}

#[test]
fn a_waiter_gets_bytes_when_a_holder_shrinks_or_the_budget_grows() {
    let ledger = ByteLedger::new(100);
    let mut base = ledger.reserve(Owner::Base, 80).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| ledger.reserve_within(Owner::Kv, 50, late()).map(|kv| kv.bytes()));
        base.resize(50).unwrap();
        assert_eq!(waiter.join().unwrap(), Ok(50));
        let waiter = scope.spawn(|| ledger.reserve_within(Owner::Kv, 60, late()).map(|kv| kv.bytes()));
        ledger.set_budget(110);
        assert_eq!(waiter.join().unwrap(), Ok(60));
    });
}

#[test]
fn a_wait_ends_at_its_instant_with_the_reason() {
    let ledger = ByteLedger::new(100);
    let _base = ledger.reserve(Owner::Base, 80).unwrap();
    let started = Instant::now();
    let error = ledger.reserve_within(Owner::Kv, 50, soon()).unwrap_err();
    assert!(started.elapsed() >= Duration::from_millis(30), "{:?}", started.elapsed());
    assert_eq!((error.needed, error.free, error.kept), (50, 20, 0));
    assert!(ledger.reserve(Owner::Kv, 20).is_ok(), "nothing is kept for those who have gone");
}

#[test]
fn more_than_the_whole_budget_fails_at_once() {
    let ledger = ByteLedger::new(100);
    let started = Instant::now();
    assert!(ledger.reserve_within(Owner::Kv, 101, late()).is_err());
    let _base = ledger.reserve(Owner::Base, 80).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| ledger.reserve_within(Owner::Kv, 90, late()).map(|kv| kv.bytes()));
        thread::sleep(Duration::from_millis(20));
        ledger.set_budget(85);
        assert_eq!(waiter.join().unwrap().unwrap_err().budget, 85);
    });
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn a_smaller_budget_takes_nothing_away_but_gives_nothing_more_until_it_fits() {
    let ledger = ByteLedger::new(100);
    let base = ledger.reserve(Owner::Base, 60).unwrap();
    let kv = ledger.reserve(Owner::Kv, 30).unwrap();
    ledger.set_budget(50);
    assert_eq!((ledger.budget(), ledger.free(), ledger.overdrawn()), (50, 0, 40));
    assert_eq!((base.bytes(), ledger.held_by(&Owner::Base)), (60, 60));
    assert!(ledger.reserve(Owner::Plan, 1).is_err());
    drop(base);
    assert_eq!((ledger.free(), ledger.overdrawn()), (20, 0));
    assert!(ledger.reserve(Owner::Plan, 20).is_ok());
    drop(kv);
    assert_eq!(ledger.free(), 50);
}

#[test]
fn bytes_are_kept_for_a_large_waiter_that_was_overtaken_often_enough() {
    let ledger = ByteLedger::new(100);
    let mut base = ledger.reserve(Owner::Base, 60).unwrap();
    thread::scope(|scope| {
        let large = scope.spawn(|| ledger.reserve_within(Owner::Kv, 80, late()));
        let mut overtaking = 0;
        let error = loop {
            match ledger.reserve(Owner::Scratch, 10) {
                Ok(small) => drop(small),
                Err(error) => break error,
            }
            overtaking += 1;
            assert!(!large.is_finished());
            if overtaking % 1000 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        };
        assert!(overtaking >= ByteLedger::MOST_OVERTAKEN, "{overtaking}");
        assert_eq!((error.free, error.kept), (40, 40));
        assert!(error.to_string().contains("promised to others"), "{error}");
        assert!(
            ledger.reserve_within(Owner::Scratch, 10, soon()).is_err(),
            "nor do later waiters overtake it"
        );
        base.resize(70).unwrap();
        base.resize(10).unwrap();
        let large = large.join().unwrap().unwrap();
        assert_eq!((large.bytes(), ledger.free()), (80, 10));
        assert!(ledger.reserve(Owner::Scratch, 10).is_ok());
    });
}

#[test]
fn bytes_beyond_what_is_kept_for_a_waiter_are_for_everybody() {
    let ledger = ByteLedger::new(100);
    let base = ledger.reserve(Owner::Base, 60).unwrap();
    thread::scope(|scope| {
        let large = scope.spawn(|| ledger.reserve_within(Owner::Kv, 80, soon()));
        while ledger.reserve(Owner::Scratch, 10).is_ok() && !large.is_finished() {}
        assert!(large.join().unwrap().is_err());
    });
    assert!(ledger.reserve(Owner::Scratch, 40).is_ok(), "nothing is kept for those who have gone");
    drop(base);
}

#[test]
fn a_waiter_goes_on_when_the_one_it_was_held_back_for_gives_up() {
    let ledger = ByteLedger::new(100);
    let _base = ledger.reserve(Owner::Base, 60).unwrap();
    thread::scope(|scope| {
        let large = scope.spawn(|| {
            let until = Instant::now() + Duration::from_millis(300);
            ledger.reserve_within(Owner::Kv, 80, until).is_err()
        });
        while ledger.reserve(Owner::Scratch, 10).is_ok() && !large.is_finished() {}
        let started = Instant::now();
        assert_eq!(ledger.reserve_within(Owner::Scratch, 10, late()).unwrap().bytes(), 10);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        assert!(large.join().unwrap());
    });
}

#[test]
fn small_requests_on_many_threads_do_not_starve_a_large_one() {
    let ledger = ByteLedger::new(100);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let small = ledger.reserve_within(Owner::Kv, 20, late()).unwrap();
                    thread::yield_now();
                    drop(small);
                }
            });
        }
        for _ in 0..200 {
            let large = ledger.reserve_within(Owner::Base, 100, late());
            if large.is_err() {
                done.store(true, Ordering::Relaxed);
            }
            drop(large.unwrap());
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!((ledger.free(), ledger.holders().len()), (100, 0));
}

#[test]
fn what_is_split_off_and_joined_again_stays_reserved() {
    let ledger = ByteLedger::new(100);
    let mut kv = ledger.reserve(Owner::Kv, 50).unwrap();
    let part = kv.split(20).unwrap();
    assert!(kv.split(31).is_none());
    assert_eq!((kv.bytes(), part.bytes(), ledger.free()), (30, 20, 50));
    kv.join(part).unwrap();
    assert_eq!((kv.bytes(), ledger.free()), (50, 50));
    let base = ledger.reserve(Owner::Base, 10).unwrap();
    let base = kv.join(base).unwrap_err();
    assert_eq!((base.bytes(), kv.bytes(), ledger.free()), (10, 50, 40));
    drop((kv, base));
    assert_eq!(ledger.free(), 100);
}
