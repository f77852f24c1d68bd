//! The byte ledger by its behaviour.

use std::thread;

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
