use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use modularbase_residency::{EventKind, Eviction, EvictionReason, LeaseError, ResidenceState};

use crate::support::{Device, LoadError, late};

fn is_retired<T>(lease: Result<T, LeaseError<LoadError>>) -> bool {
    matches!(lease, Err(LeaseError::Retired { .. }))
}

#[test]
fn a_pinned_one_stays_whatever_the_budget_wants() {
    let device = Device::new(100);
    device.residency.pin(&"a");
    device.touch("a", 50);
    device.touch("b", 50);
    device.touch("c", 50);
    assert_eq!(device.keys(), ["a", "c"]);
    assert!(device.residency.residence(&"a").unwrap().pinned);
    assert!(device.lease("d", 51).is_err());
    device.residency.unpin(&"a");
    device.touch("d", 51);
    assert_eq!(device.keys(), ["d"]);
}

#[test]
fn a_waiter_gets_the_bytes_of_one_that_is_unpinned() {
    let device = Device::new(100);
    device.residency.pin(&"a");
    device.touch("a", 60);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| device.residency.lease(&"b", late(), device.load("b", 60)).map(drop));
        device.residency.unpin(&"a");
        waiter.join().unwrap().unwrap();
    });
    assert_eq!(device.keys(), ["b"]);
}

#[test]
fn marks_survive_an_eviction_until_they_are_forgotten() {
    let device = Device::new(100);
    device.residency.set_priority(&"a", 7);
    device.touch("a", 60);
    device.residency.evict(&"a");
    device.touch("a", 60);
    let again = device.residency.residence(&"a").unwrap();
    assert_eq!((again.priority, again.loads), (7, 2));
    device.residency.forget(&"a");
    assert_eq!(device.residency.residence(&"a").unwrap().priority, 7, "while it is there");
    device.residency.evict(&"a");
    assert_eq!(device.residency.remembered(), 0);
    device.touch("a", 60);
    let anew = device.residency.residence(&"a").unwrap();
    assert_eq!((anew.priority, anew.loads), (0, 1));
}

#[test]
fn a_retired_one_drains_and_goes_with_its_last_lease() {
    let device = Device::new(100);
    let (first, second) = (device.lease("a", 60).unwrap(), device.lease("a", 60).unwrap());
    device.residency.pin(&"a");
    device.events();
    assert_eq!(device.residency.retire(&"a"), Eviction::InUse { leases: 2 });
    assert_eq!(device.residency.retire(&"a"), Eviction::InUse { leases: 2 });
    assert!(is_retired(device.lease("a", 60)));
    assert!(is_retired(device.prefetch("a", 60)));
    drop(first);
    let draining = device.residency.residence(&"a").unwrap();
    assert_eq!((draining.state, draining.leases), (ResidenceState::Draining, 1));
    assert_eq!((second.bytes.bytes(), device.free()), (60, 40), "the request ends on what it began with");
    drop(second);
    assert_eq!((device.free(), device.alive(), device.keys().len()), (100, 0, 0));
    let evicted = EventKind::Evicted { bytes: 60, why: EvictionReason::Retired };
    assert_eq!(device.events(), [("a", EventKind::Draining { leases: 2 }), ("a", evicted)]);
    assert!(is_retired(device.lease("a", 60)));
}

#[test]
fn an_idle_one_that_is_retired_goes_at_once_even_if_pinned() {
    let device = Device::new(100);
    device.residency.pin(&"a");
    device.touch("a", 60);
    assert_eq!(device.residency.retire(&"a"), Eviction::Evicted { bytes: 60 });
    assert_eq!((device.free(), device.alive()), (100, 0));
    assert_eq!(device.residency.retire(&"a"), Eviction::NotResident);
}

#[test]
fn a_retire_during_a_load_takes_effect_when_that_ends() {
    let device = Device::new(100);
    let started = Instant::now();
    let (begun, begin) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let (residency, load) = (device.residency.clone(), device.load("a", 60));
        let loader = scope.spawn(move || {
            let lease = residency.lease(&"a", late(), |room| {
                begun.send(()).unwrap();
                ended.recv().unwrap();
                load(room)
            });
            is_retired(lease)
        });
        begin.recv().unwrap();
        let waiter = scope.spawn(|| is_retired(device.residency.lease(&"a", late(), device.load("a", 60))));
        thread::sleep(Duration::from_millis(50));
        let outcome = device.residency.retire(&"a");
        let refused = waiter.join();
        let told_after = started.elapsed();
        end.send(()).unwrap();
        assert_eq!(outcome, Eviction::Loading);
        assert!(refused.unwrap() && loader.join().unwrap());
        assert!(
            told_after < Duration::from_secs(10),
            "nobody waits for what takes no leases: {told_after:?}"
        );
    });
    assert_eq!((device.free(), device.alive(), device.keys().len()), (100, 0, 0));
    let last = device.events().pop().unwrap();
    assert_eq!(last.1, EventKind::Evicted { bytes: 60, why: EvictionReason::Retired });
}

#[test]
fn one_that_comes_back_is_leased_again() {
    let device = Device::new(100);
    let old = device.lease("a", 60).unwrap();
    device.residency.retire(&"a");
    device.residency.revive(&"a");
    let new = device.lease("a", 60).unwrap();
    assert!(std::ptr::eq(&*old, &*new), "it had not gone yet");
    drop((old, new));
    assert_eq!(device.residency.residence(&"a").unwrap().state, ResidenceState::Idle);
    device.residency.retire(&"a");
    assert!(is_retired(device.lease("a", 60)));
    device.residency.revive(&"a");
    assert!(device.lease("a", 60).is_ok());
}

#[test]
fn nothing_accumulates_over_ten_thousand_generations() {
    let residency = modularbase_residency::Residency::<String, u64>::new(
        modularbase_residency::ByteLedger::new(100),
        std::sync::Arc::new(|_| {}),
    );
    for generation in 0..10_000_u64 {
        let key = format!("{generation:064x}");
        residency.pin(&key);
        residency.set_priority(&key, 1);
        let lease = residency.lease(&key, late(), |_| Ok::<_, String>((generation, 8))).unwrap();
        assert_eq!(*lease, generation);
        residency.retire(&key);
        residency.forget(&key);
        assert_eq!(residency.remembered(), 1);
        drop(lease);
        assert_eq!((residency.remembered(), residency.snapshot().len()), (0, 0));
        residency.forget(&key);
        residency.unpin(&key);
        assert_eq!(residency.remembered(), 0);
    }
    assert_eq!(residency.totals().evictions, 10_000);
}
