use std::{
    cell::Cell,
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use modularbase_residency::{EventKind, Eviction, EvictionReason, LeaseError, Owner, ResidenceState};

use crate::support::{Device, LoadError, late, soon};

#[test]
fn a_second_lease_finds_what_the_first_one_loaded() {
    let device = Device::new(100);
    let first = device.lease("a", 40).unwrap();
    let second = device.residency.lease(&"a", soon(), |_| Err(LoadError::Broken("loaded twice"))).unwrap();
    assert!(Arc::ptr_eq(first.resident(), second.resident()));
    assert_eq!((*first.key(), first.bytes.bytes(), device.free()), ("a", 40, 60));
    let totals = device.residency.totals();
    assert_eq!((totals.loads, totals.hits, totals.evictions), (1, 1, 0));
    assert_eq!(device.residency.residence(&"a").unwrap().leases, 2);
}

#[test]
fn the_snapshot_tells_state_leases_bytes_and_last_use() {
    let device = Device::new(100);
    device.residency.set_priority(&"a", 3);
    let lease = device.lease("a", 40).unwrap();
    let clone = lease.clone();
    let leased = device.residency.residence(&"a").unwrap();
    assert_eq!((leased.state, leased.leases, leased.bytes), (ResidenceState::Leased, 2, 40));
    assert_eq!((leased.priority, leased.pinned, leased.loads), (3, false, 1));
    drop(lease);
    assert_eq!(device.residency.residence(&"a").unwrap().leases, 1);
    drop(clone);
    let idle = device.residency.residence(&"a").unwrap();
    assert_eq!((idle.state, idle.leases), (ResidenceState::Idle, 0));
    assert!(idle.last_used > leased.last_used);
    assert_eq!(device.residency.snapshot(), [idle]);
}

#[test]
fn events_come_in_the_order_in_which_things_happened() {
    let device = Device::new(100);
    let lease = device.lease("a", 40).unwrap();
    drop(lease.clone());
    drop(lease);
    assert_eq!(device.residency.evict(&"a"), Eviction::Evicted { bytes: 40 });
    assert!(device.residency.lease(&"a", soon(), |_| Err(LoadError::Broken("torn"))).is_err());
    let evicted = EventKind::Evicted { bytes: 40, why: EvictionReason::Asked };
    let resident = EventKind::Resident { bytes: 40 };
    let kinds: Vec<_> = device.events().into_iter().map(|(_, kind)| kind).collect();
    let begun = [EventKind::Loading, resident, EventKind::Leased, EventKind::Idle, evicted];
    assert_eq!(kinds, [&begun[..], &[EventKind::Loading, EventKind::LoadFailed]].concat());
}

#[test]
fn an_observer_may_use_the_residency_and_panic() {
    let device = Device::new(100);
    let (sender, receiver) = mpsc::channel();
    let slot = Arc::new(std::sync::Mutex::new(None::<modularbase_residency::Residency<&str, u64>>));
    let own = slot.clone();
    let residency = modularbase_residency::Residency::new(
        device.residency.ledger().clone(),
        Arc::new(move |event: modularbase_residency::ResidencyEvent<&'static str>| {
            let residency = own.lock().unwrap().clone().unwrap();
            sender.send((event.kind, residency.snapshot().len())).unwrap();
            if event.kind == EventKind::Idle {
                assert_eq!(residency.evict(&event.key), Eviction::Evicted { bytes: 1 });
            }
            assert_ne!(event.kind, EventKind::Loading, "a panic of the observer, which is to be survived");
        }),
    );
    *slot.lock().unwrap() = Some(residency.clone());
    drop(residency.lease(&"a", soon(), |_| Ok::<_, Infallible>((7, 1))).unwrap());
    let told: Vec<_> = receiver.try_iter().collect();
    assert_eq!(told.len(), 5, "{told:?}");
    assert_eq!(told[4], (EventKind::Evicted { bytes: 1, why: EvictionReason::Asked }, 0));
    *slot.lock().unwrap() = None;
}

#[test]
fn requests_for_one_generation_at_once_load_it_once() {
    let device = Device::new(100);
    let (loads, barrier) = (AtomicUsize::new(0), Barrier::new(8));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                let lease = device.residency.lease(&"a", late(), |room| {
                    loads.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(20));
                    device.load("a", 40)(room)
                });
                assert_eq!(lease.unwrap().bytes.bytes(), 40);
                barrier.wait();
            });
        }
    });
    assert_eq!((loads.load(Ordering::SeqCst), device.free(), device.alive()), (1, 60, 1));
}

#[test]
fn whoever_waited_for_a_load_that_fails_gets_its_error_and_does_not_load_itself() {
    let device = Device::new(100);
    let (begun, begin) = mpsc::channel();
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            device.residency.lease(&"a", late(), |_| {
                begun.send(()).unwrap();
                thread::sleep(Duration::from_millis(50));
                Err(LoadError::Broken("torn weights"))
            })
        });
        begin.recv().unwrap();
        let same = scope.spawn(|| device.lease_until_late_without_loading("a"));
        let other = scope.spawn(|| {
            let lease =
                device.residency.lease(&"a", late(), |_| Err::<_, String>("loaded itself".to_owned()));
            lease.unwrap_err()
        });
        let first = first.join().unwrap().unwrap_err();
        assert!(
            matches!(&first, LeaseError::Load { error, .. } if **error == LoadError::Broken("torn weights"))
        );
        let same = same.join().unwrap();
        assert!(
            matches!(&same, LeaseError::Load { error, .. } if **error == LoadError::Broken("torn weights"))
        );
        let other = other.join().unwrap();
        assert!(
            matches!(&other, LeaseError::LoadElsewhere { reason, .. } if reason == "torn weights"),
            "{other}"
        );
    });
    assert!(device.lease("a", 40).is_ok(), "the next request tries again");
}

impl Device {
    fn lease_until_late_without_loading(&self, key: &'static str) -> LeaseError<LoadError> {
        self.residency.lease(&key, late(), |_| Err(LoadError::Broken("loaded itself"))).unwrap_err()
    }
}

#[test]
fn a_panic_in_a_load_does_not_wedge_its_key() {
    let device = Device::new(100);
    let (begun, begin) = mpsc::channel();
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            let load = AssertUnwindSafe(|| {
                device.residency.lease(&"a", late(), |room| {
                    let kept = device.load("a", 40)(room);
                    begun.send(()).unwrap();
                    thread::sleep(Duration::from_millis(50));
                    assert!(kept.is_err(), "a panic with bytes reserved, which is to be survived");
                    kept
                })
            });
            catch_unwind(load).is_err()
        });
        begin.recv().unwrap();
        let waiter = device.lease_until_late_without_loading("a");
        assert!(matches!(waiter, LeaseError::LoadPanicked { .. }), "{waiter}");
        assert!(first.join().unwrap());
    });
    assert_eq!((device.free(), device.alive()), (100, 0));
    assert!(device.lease("a", 40).is_ok());
}

#[test]
fn a_wait_for_anothers_load_ends_at_its_instant() {
    let device = Device::new(100);
    let (begun, begin) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let residency = device.residency.clone();
        let load = device.load("a", 40);
        scope.spawn(move || {
            let lease = residency.lease(&"a", late(), |room| {
                begun.send(()).unwrap();
                ended.recv().unwrap();
                load(room)
            });
            assert!(lease.is_ok());
        });
        begin.recv().unwrap();
        let error = device.lease("a", 40).unwrap_err();
        assert!(matches!(error, LeaseError::TimedOut { doing: "loaded", .. }), "{error}");
        assert_eq!(device.residency.evict(&"a"), Eviction::Loading);
        assert_eq!(device.residency.residence(&"a").unwrap().state, ResidenceState::Loading);
        end.send(()).unwrap();
    });
    assert_eq!(device.free(), 60);
}

#[test]
fn a_load_may_lease_what_it_depends_on() {
    let device = Device::new(100);
    let dependency = Cell::new(None);
    let lease = device.residency.lease(&"a", soon(), |room| {
        dependency.set(Some(device.lease("b", 30).unwrap()));
        device.load("a", 40)(room)
    });
    assert!(lease.is_ok() && dependency.take().is_some());
    assert_eq!((device.keys(), device.free()), (vec!["a", "b"], 30));
}

#[test]
fn a_load_that_fails_leaves_nothing_behind() {
    let device = Device::new(100);
    for _ in 0..3 {
        let error = device.residency.lease(&"a", soon(), |room| {
            let _half = room.reserve(Owner::Plan, 50).unwrap();
            Err(LoadError::Broken("torn weights"))
        });
        assert_eq!(error.unwrap_err().to_string(), "a could not be loaded: torn weights");
    }
    assert_eq!((device.free(), device.keys().len(), device.residency.remembered()), (100, 0, 0));
}
