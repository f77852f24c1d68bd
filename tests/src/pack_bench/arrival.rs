//! From the last byte of a pack in the folder to registered, and to its first answer.

use std::{fs, path::Path, time::Instant};

use serde_json::{Value, json};

use super::times;
use crate::{Base, Folders, answer, wait_for};

pub(super) fn measure(base: Base, rounds: usize) -> Value {
    let folders = Folders::for_base(base);
    let host = folders.host();
    let aside = tempfile::tempdir().expect("a temporary folder");
    // 3 million parameters: 6 MB in bf16.
    let settings = toml::toml! { width = 288
    blocks = 4 };
    let mut bytes = 0;
    let mut arrive = |name: &str, seed: usize| {
        let made = folders.fixture("sized").named(name).seeded(seed as u64).settings(settings.clone());
        let made = made.lay_out(aside.path());
        bytes = copy(&made, &folders.packs.path().join(name));
        Instant::now()
    };
    let (mut registered, mut answered) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let name = format!("seen-{round}");
        let dropped = arrive(&name, 2 * round);
        let took = wait_for("the pack", || {
            let packs = host.manager().registered();
            packs.iter().any(|pack| pack.name == name).then(|| dropped.elapsed())
        });
        registered.push(took);
        let name = format!("asked-{round}");
        let dropped = arrive(&name, 2 * round + 1);
        let answer = answer(&host, &name, 1).expect("an answer");
        answered.push(dropped.elapsed());
        assert_eq!(answer.mixture[0].pack, name);
    }
    json!({
        "file_bytes": bytes,
        "last_byte_to_registered": times(registered, Some(300.0)),
        "last_byte_to_first_answer": times(answered, Some(500.0)),
    })
}

/// The manifest first, the largest file last; gives the bytes.
fn copy(made: &Path, target: &Path) -> u64 {
    fs::create_dir(target).expect("a folder");
    let files = ["pack.toml", "libfixture_sized.so", "weights.safetensors"];
    files.iter().map(|file| fs::copy(made.join(file), target.join(file)).expect("a copy")).sum()
}
