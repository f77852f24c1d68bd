use std::thread;

use modularbase_residency::{EventKind, EvictionReason, Owner};

use crate::support::{Device, late, soon};

#[test]
fn a_smaller_budget_evicts_what_is_idle_one_by_one_until_it_fits() {
    let device = Device::new(100);
    for key in ["a", "b", "c", "d"] {
        device.touch(key, 25);
    }
    device.events();
    device.residency.set_budget(70);
    assert_eq!(device.keys(), ["c", "d"]);
    let evicted = EventKind::Evicted { bytes: 25, why: EvictionReason::BudgetShrunk };
    assert_eq!(device.events(), [("a", evicted), ("b", evicted)]);
    assert_eq!((device.free(), device.residency.ledger().overdrawn()), (20, 0));
}

#[test]
fn leased_ones_go_as_their_leases_end_while_it_is_overdrawn() {
    let device = Device::new(100);
    let (a, b) = (device.lease("a", 40).unwrap(), device.lease("b", 40).unwrap());
    device.residency.pin(&"c");
    device.touch("c", 20);
    device.residency.set_budget(30);
    assert_eq!((device.keys().len(), device.residency.ledger().overdrawn()), (3, 70));
    drop(b);
    assert_eq!((device.keys(), device.residency.ledger().overdrawn()), (vec!["a", "c"], 30));
    drop(a);
    assert_eq!((device.keys(), device.free()), (vec!["c"], 10));
    device.residency.set_budget(10);
    assert_eq!((device.keys(), device.residency.ledger().overdrawn()), (vec!["c"], 10));
    device.residency.unpin(&"c");
    assert_eq!((device.keys().len(), device.free()), (0, 10));
}

#[test]
fn a_load_that_ends_after_the_budget_shrank_is_used_and_then_goes() {
    let device = Device::new(100);
    let lease = device.residency.lease(&"a", soon(), |room| {
        let loaded = device.load("a", 60)(room);
        device.residency.set_budget(50);
        loaded
    });
    assert_eq!(lease.as_ref().unwrap().bytes.bytes(), 60);
    drop(lease);
    assert_eq!((device.free(), device.alive()), (50, 0));
    device.residency.set_budget(100);
    let fetched = device.residency.prefetch(&"b", |room| {
        let loaded = device.load("b", 60)(room);
        device.residency.set_budget(50);
        loaded
    });
    assert!(fetched.is_ok());
    assert_eq!((device.keys().len(), device.free()), (0, 50));
}

#[test]
fn a_waiter_goes_on_when_the_budget_grows() {
    let device = Device::new(50);
    let _a = device.lease("a", 40).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| device.residency.reserve(Owner::Kv, 40, late()).map(|kv| kv.bytes()));
        device.residency.set_budget(80);
        assert_eq!(waiter.join().unwrap(), Ok(40));
    });
    assert_eq!(device.keys(), ["a"]);
}
