//! Ten thousand registered packs that nobody asks for: memory and restart, in a process of their own.

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::millis;
use crate::{Base, Folders, lay_out_many, measure_restart};

pub(super) fn measure(packs: usize) -> Value {
    let folders = Folders::in_memory(Base::Tiny);
    let host = folders.host();
    let start = Instant::now();
    lay_out_many(&folders, packs);
    while host.manager().registered().len() < packs {
        thread::sleep(Duration::from_millis(20));
        assert!(start.elapsed() < Duration::from_secs(600), "the packs are not all registered");
    }
    let admission = start.elapsed();
    drop(host);
    let root = tempfile::tempdir().expect("a temporary folder");
    for (name, folder) in [("packs", &folders.packs), ("cache", &folders.cache)] {
        std::os::unix::fs::symlink(folder.path(), root.path().join(name)).expect("a link");
    }
    let restarted = Command::new(std::env::current_exe().expect("this program"))
        .arg("--restart-on")
        .arg(root.path())
        .output()
        .expect("this program once more");
    assert!(restarted.status.success(), "{}", String::from_utf8_lossy(&restarted.stderr));
    let restart: Value = serde_json::from_slice(&restarted.stdout).expect("JSON");
    let of = |field: &str| restart[field].as_f64().unwrap_or(f64::NAN);
    let bytes = of("resident_bytes") / packs as f64;
    json!({
        "packs": packs,
        "laid_out_and_admitted_ms": millis(admission),
        "registered_after_restart": restart["registered"],
        "bytes_a_pack": bytes.round(),
        "bytes_a_pack_bar": 4096,
        "bytes_within_bar": bytes < 4096.0,
        "restart_ms": restart["open_ms"],
        "restart_without_packs_ms": restart["open_without_packs_ms"],
        "restart_bar_ms": 3000,
        "restart_within_bar": of("open_ms") < 3000.0,
    })
}

/// What the process measures that restarts.
pub(super) fn restart(root: &Path) -> Value {
    let restart = measure_restart(&root.join("packs"), &root.join("cache"));
    json!({
        "registered": restart.registered,
        "open_ms": millis(restart.open),
        "open_without_packs_ms": millis(restart.open_without_packs),
        "resident_bytes": restart.resident_bytes,
    })
}
