//! A pack with the slot's own layers (21 million parameters on the default base, q8_0) comes to the device and goes.

use std::time::Instant;

use modularbase_engine::Host;
use modularbase_manager::{EvictOutcome, PackState};
use serde_json::{Value, json};

use super::times;
use crate::{Base, Folders, wait_for_state};

/// Reloads for each cold load.
const RELOADS: usize = 6;

pub(super) fn measure(base: Base, rounds: usize) -> Value {
    let folders = Folders::for_base(base);
    folders.fixture("own-slot").owning_everything().lay_out(folders.packs.path());
    // Admitted once: the copies are in the page cache, and each host of the rounds knows the pack.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let open = || {
        let host = folders.host();
        wait_for_state(&host, "own-slot", &[PackState::Registered]);
        host
    };
    let bytes = load(&open()).1;
    let (mut cold, mut reloads, mut evictions) = (Vec::new(), Vec::new(), Vec::new());
    let mut stages = Value::Null;
    for _ in 0..rounds {
        let host = open();
        cold.push(load(&host).0);
        let report = wait_for_state(&host, "own-slot", &[PackState::Resident]);
        stages = json!(report.load_ms);
        for _ in 0..RELOADS {
            let start = Instant::now();
            let evicted = host.manager().evict("own-slot").expect("an eviction");
            assert!(matches!(evicted, EvictOutcome::Evicted { .. }), "{evicted:?}");
            evictions.push(start.elapsed());
            reloads.push(load(&host).0);
        }
    }
    json!({
        "resident_bytes": bytes,
        // In a process that has not hashed the copies yet.
        "cold_load": times(cold, Some(30.0)),
        "stages_of_last_cold_load_ms": stages,
        "reload_after_eviction": times(reloads, None),
        "eviction": times(evictions, None),
    })
}

/// From a request that wants the pack to the pack on the device; and its bytes there.
fn load(host: &Host) -> (std::time::Duration, u64) {
    let choice = "own-slot".parse().expect("a mixture");
    let start = Instant::now();
    let turn = host.turn(&choice).expect("the pack");
    let took = start.elapsed();
    assert!(turn.omitted().is_empty(), "{:?}", turn.omitted());
    (took, turn.mixture().parts()[0].0.resident_bytes() as u64)
}
