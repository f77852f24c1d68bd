use std::{sync::mpsc, thread, time::Duration};

use modularbase_residency::{EventKind, LeaseError, ResidenceState};

use crate::support::{Device, LoadError, late};

#[test]
fn a_prefetch_takes_free_bytes_only() {
    let device = Device::new(100);
    device.touch("a", 60);
    let refused = device.prefetch("b", 41).unwrap_err();
    assert!(
        matches!(&refused, LeaseError::Load { error, .. } if matches!(**error, LoadError::Budget(_))),
        "{refused}"
    );
    assert_eq!(device.keys(), ["a"]);
    device.events();
    assert!(device.prefetch("b", 40).unwrap());
    assert_eq!(device.events(), [("b", EventKind::Loading), ("b", EventKind::Resident { bytes: 40 })]);
    let idle = device.residency.residence(&"b").unwrap();
    assert_eq!((idle.state, idle.last_used, idle.loads), (ResidenceState::Idle, None, 1));
}

#[test]
fn a_prefetched_one_is_the_most_recently_used_and_others_keep_their_places() {
    let device = Device::new(100);
    device.touch("a", 30);
    device.touch("b", 30);
    assert!(device.prefetch("c", 30).unwrap());
    assert!(!device.prefetch("a", 30).unwrap(), "it is there");
    for (new, left) in [("d", ["b", "c", "d"]), ("e", ["c", "d", "e"])] {
        device.touch(new, 30);
        assert_eq!(device.keys(), left);
    }
}

#[test]
fn a_lease_on_what_is_being_prefetched_waits_for_it() {
    for (bytes, left) in [(40, 2), (41, 1)] {
        let device = Device::new(100);
        device.touch("idle", 60);
        let (begun, begin) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let (residency, load) = (device.residency.clone(), device.load("a", bytes));
            let prefetch = scope.spawn(move || {
                let fetched = residency.prefetch(&"a", |room| {
                    begun.send(()).unwrap();
                    ended.recv().unwrap();
                    load(room)
                });
                fetched.is_ok()
            });
            begin.recv().unwrap();
            let lease =
                scope.spawn(|| device.residency.lease(&"a", late(), device.load("a", bytes)).map(drop));
            thread::sleep(Duration::from_millis(50));
            end.send(()).unwrap();
            assert_eq!(prefetch.join().unwrap(), bytes == 40);
            lease
                .join()
                .unwrap()
                .unwrap_or_else(|error| panic!("a lease may evict where a prefetch may not: {error}"));
        });
        assert_eq!(device.residency.residence(&"a").unwrap().state, ResidenceState::Idle);
        assert_eq!((device.residency.totals().loads, device.alive()), (2, left));
    }
}
