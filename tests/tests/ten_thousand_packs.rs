//! Ten thousand packs that nobody asks for, alone in its process so that its memory is its own.

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use modularbase_residency::Owner;
use system_tests::{Base, Folders, Restart, lay_out_many, machine_is_busy, measure_restart, resident_bytes};

const PACKS: usize = 10_000;
const BYTES_A_PACK: i64 = 4_096;
/// What the allocator may keep of the memory in which four workers have read and hashed files.
const WORKING_MEMORY: i64 = 16 << 20;
/// Names the folders of packs and cache to the process that restarts.
const RESTART_ON: &str = "TEN_THOUSAND_PACKS_RESTART_ON";

#[test]
fn ten_thousand_registered_packs_cost_no_weights() {
    if let Some(root) = std::env::var_os(RESTART_ON) {
        let (packs, cache) = (Path::new(&root).join("packs"), Path::new(&root).join("cache"));
        return restart(&packs, &cache);
    }
    let folders = Folders::in_memory(Base::Tiny);
    let host = folders.host();
    let before = resident_bytes();
    lay_out_many(&folders, PACKS);
    let start = Instant::now();
    let mut last = (0, Instant::now());
    while last.0 < PACKS {
        thread::sleep(Duration::from_millis(20));
        let registered = host.manager().registered().len();
        if registered > last.0 {
            last = (registered, Instant::now());
        }
        assert!(
            last.1.elapsed() < Duration::from_secs(60),
            "{registered} packs are registered, and no more come"
        );
    }
    let admission = start.elapsed();
    let first = resident_bytes() - before;
    println!(
        "{PACKS} packs were registered in {admission:.1?}, {} bytes of memory a pack",
        first / PACKS as i64
    );
    let holders = host.ledger().holders();
    assert!(!holders.iter().any(|(owner, _)| matches!(owner, Owner::Pack(_))), "{holders:?}");
    drop(host);

    // Another process: what this one has allocated before says nothing of a host's memory.
    let root = tempfile::tempdir().unwrap();
    for (name, folder) in [("packs", &folders.packs), ("cache", &folders.cache)] {
        std::os::unix::fs::symlink(folder.path(), root.path().join(name)).unwrap();
    }
    let again = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ten_thousand_registered_packs_cost_no_weights", "--nocapture"])
        .env(RESTART_ON, root.path())
        .status();
    assert!(again.unwrap().success());
    assert!(first - WORKING_MEMORY < BYTES_A_PACK * PACKS as i64, "{first} bytes");
}

fn restart(packs: &Path, cache: &Path) {
    let Restart { registered, open, open_without_packs, resident_bytes } = measure_restart(packs, cache);
    let a_pack = resident_bytes / PACKS as i64;
    println!(
        "a restart with {registered} known packs: {open:?}, without any {open_without_packs:?}; {a_pack} bytes of memory a pack"
    );
    // None could be probed.
    assert_eq!(registered, PACKS);
    assert!(a_pack < BYTES_A_PACK, "{resident_bytes} bytes");
    let slack = if machine_is_busy() { 4 } else { 1 };
    assert!(open < Duration::from_secs(3) * slack, "{open:?}");
}
