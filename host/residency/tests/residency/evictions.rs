use std::{
    sync::{Arc, Barrier, mpsc},
    thread,
    time::Duration,
};

use modularbase_residency::{
    ByteLedger, EventKind, Eviction, EvictionReason, LeaseError, Owner, Reservation, ResidenceState,
    Residency,
};

use crate::support::{Device, LoadError, late, soon};

#[test]
fn the_least_recently_used_idle_one_is_evicted_and_no_more_than_needed() {
    let device = Device::new(100);
    for key in ["a", "b", "c", "d"] {
        device.touch(key, 25);
    }
    device.touch("a", 25);
    device.events();
    device.touch("e", 40);
    assert_eq!(device.keys(), ["a", "d", "e"]);
    let evicted = EventKind::Evicted { bytes: 25, why: EvictionReason::Budget };
    assert_eq!(device.events()[1..3], [("b", evicted), ("c", evicted)]);
    assert_eq!((device.free(), device.residency.totals().evictions), (10, 2));
}

#[test]
fn the_end_of_a_lease_is_a_use() {
    let device = Device::new(100);
    let a = device.lease("a", 40).unwrap();
    device.touch("b", 40);
    drop(a);
    device.touch("c", 40);
    assert_eq!(device.keys(), ["a", "c"]);
}

#[test]
fn lower_priorities_are_evicted_first() {
    let device = Device::new(100);
    for key in ["a", "b", "c", "d"] {
        device.touch(key, 25);
    }
    device.residency.set_priority(&"a", 1);
    device.residency.set_priority(&"d", -1);
    for (new, gone) in [("e", "d"), ("f", "b"), ("g", "c")] {
        device.residency.set_priority(&new, 5);
        device.touch(new, 25);
        assert!(device.residency.residence(&gone).is_none(), "{gone} goes for {new}: {:?}", device.keys());
        assert_eq!(device.keys().len(), 4);
    }
}

#[test]
fn what_is_leased_is_never_evicted_and_the_wait_for_it_ends() {
    let device = Device::new(100);
    let _a = device.lease("a", 60).unwrap();
    let error = device.lease("b", 60).unwrap_err();
    let LeaseError::Load { error, .. } = error else { panic!("{error}") };
    let LoadError::Budget(refused) = &*error else { panic!("{error}") };
    assert_eq!((refused.needed, refused.free), (60, 40));
    assert_eq!((device.keys(), device.alive()), (vec!["a"], 1));
}

#[test]
fn a_load_waits_until_a_lease_ends_and_then_evicts() {
    let device = Device::new(100);
    let a = device.lease("a", 60).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| device.residency.lease(&"b", late(), device.load("b", 60)).map(drop));
        thread::sleep(Duration::from_millis(20));
        assert!(!waiter.is_finished());
        drop(a);
        waiter.join().unwrap().unwrap();
    });
    assert_eq!((device.keys(), device.free(), device.alive()), (vec!["b"], 40, 1));
}

#[test]
fn a_load_waits_until_bytes_come_back_that_it_can_not_evict() {
    let device = Device::new(100);
    let kv = device.residency.reserve(Owner::Kv, 60, soon()).unwrap();
    device.touch("a", 20);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| device.residency.lease(&"b", late(), device.load("b", 60)).map(drop));
        thread::sleep(Duration::from_millis(20));
        assert!(!waiter.is_finished());
        drop(kv);
        waiter.join().unwrap().unwrap();
    });
    assert_eq!(device.free(), 40);
}

#[test]
fn a_reservation_for_caches_evicts_and_grows_at_the_cost_of_what_is_idle() {
    let device = Device::new(100);
    for key in ["a", "b", "c"] {
        device.touch(key, 30);
    }
    let mut kv = device.residency.reserve(Owner::Kv, 30, soon()).unwrap();
    assert_eq!(device.keys(), ["b", "c"]);
    device.residency.grow(&mut kv, 70, soon()).unwrap();
    assert_eq!((device.keys(), kv.bytes(), device.free()), (vec!["c"], 70, 0));
    let c = device.lease("c", 30).unwrap();
    assert!(device.residency.grow(&mut kv, 71, soon()).is_err());
    assert!(device.residency.grow(&mut kv, 101, late()).is_err(), "more than the budget fails at once");
    assert_eq!((kv.bytes(), c.bytes.bytes()), (70, 30));
    device.residency.grow(&mut kv, 10, soon()).unwrap();
    assert_eq!(device.free(), 60);
}

#[test]
fn more_than_the_whole_budget_fails_at_once_and_evicts_nothing() {
    let device = Device::new(100);
    device.touch("a", 60);
    let lease = device.residency.lease(&"b", late(), device.load("b", 101));
    assert!(matches!(lease, Err(LeaseError::Load { .. })));
    assert!(device.residency.reserve(Owner::Kv, 101, late()).is_err());
    assert_eq!(device.keys(), ["a"]);
}

#[test]
fn evict_takes_idle_ones_only_and_says_why_not() {
    let device = Device::new(100);
    assert_eq!(device.residency.evict(&"a"), Eviction::NotResident);
    let lease = device.lease("a", 60).unwrap();
    let other = lease.clone();
    assert_eq!(device.residency.evict(&"a"), Eviction::InUse { leases: 2 });
    drop((lease, other));
    device.residency.pin(&"a");
    assert_eq!(device.residency.evict(&"a"), Eviction::Pinned);
    device.residency.unpin(&"a");
    assert_eq!(device.residency.evict(&"a"), Eviction::Evicted { bytes: 60 });
    assert_eq!((device.free(), device.alive()), (100, 0));
    assert_eq!(device.residency.evict(&"a"), Eviction::NotResident);
    device.touch("a", 60);
    assert_eq!(device.residency.residence(&"a").unwrap().loads, 2);
}

/// Takes its time to go: until the test lets it.
struct Slow {
    going: mpsc::Sender<()>,
    gate: Arc<Barrier>,
    _bytes: Reservation,
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.going.send(()).unwrap();
        self.gate.wait();
    }
}

#[test]
fn a_victim_that_is_requested_again_while_it_goes_is_loaded_anew() {
    let residency = Residency::new(ByteLedger::new(120), Arc::new(|_| {}));
    let (going, gone) = mpsc::channel();
    let gate = Arc::new(Barrier::new(2));
    let load = |room: &modularbase_residency::Room<'_>| {
        let bytes = room.reserve(Owner::Pack("a".to_owned()), 60)?;
        Ok::<_, modularbase_residency::BudgetExceeded>((
            Slow { going: going.clone(), gate: gate.clone(), _bytes: bytes },
            60,
        ))
    };
    drop(residency.lease(&"a", soon(), load).unwrap());
    let filler = residency.reserve(Owner::Scratch, 60, soon()).unwrap();
    thread::scope(|scope| {
        // Two that need its bytes, of whom one takes it away, and two that need it while it goes.
        let needs_bytes =
            [(); 2].map(|()| scope.spawn(|| residency.reserve(Owner::Kv, 20, late()).unwrap().bytes()));
        gone.recv().unwrap();
        assert_eq!(residency.residence(&"a").unwrap().state, ResidenceState::Evicting);
        assert_eq!(residency.evict(&"a"), Eviction::NotResident);
        let refused = residency.lease(&"a", soon(), load).unwrap_err();
        assert!(matches!(refused, LeaseError::TimedOut { doing: "evicted", .. }), "{refused}");
        let again = [(); 2].map(|()| scope.spawn(|| residency.lease(&"a", late(), load).unwrap()));
        thread::sleep(Duration::from_millis(20));
        drop(filler);
        gate.wait();
        for request in needs_bytes {
            assert_eq!(request.join().unwrap(), 20);
        }
        let leases = again.map(|request| request.join().unwrap());
        assert!(Arc::ptr_eq(leases[0].resident(), leases[1].resident()));
        assert_eq!(residency.residence(&"a").unwrap().leases, 2);
        scope.spawn(|| gate.wait());
        assert_eq!(residency.retire(&"a"), Eviction::InUse { leases: 2 });
        drop(leases);
    });
    assert_eq!((residency.ledger().free(), residency.snapshot().len()), (120, 0));
}

/// A value whose drop panics once it is on the device.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("a value that can't go in peace, which is to be survived");
        }
    }
}

#[test]
fn a_value_that_panics_as_it_goes_does_not_wedge_its_key() {
    let residency = Residency::new(ByteLedger::new(100), Arc::new(|_| {}));
    let load = |_: &modularbase_residency::Room<'_>| Ok::<_, String>((Bomb, 1));
    assert!(residency.prefetch(&"a", load).unwrap());
    let other = residency.clone();
    assert!(thread::spawn(move || other.evict(&"a")).join().is_err());
    assert_eq!((residency.snapshot().len(), residency.totals().evictions), (0, 1));
    assert!(residency.prefetch(&"a", load).unwrap());
    let other = residency.clone();
    assert!(thread::spawn(move || other.evict(&"a")).join().is_err());
}
