//! Hosts and installs that are killed, and disks that are full: what the next host finds.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, SystemTime};

use fixture_packs::Fixture;
use modularbase_loader::{PackFolder, pack_archive};
use serde_json::Value;
use system_tests::seed;

use crate::place::{Chat, Place};
use crate::program::{Ended, names, wait_until};

const ROUNDS: u64 = 8;

/// Two packs of one name, one of them as an archive too.
struct Sources {
    paths: [PathBuf; 3],
    generations: [String; 2],
}

impl Sources {
    fn make(folder: &Path) -> Self {
        let made = [1, 2].map(|seed| {
            let settings = toml::toml! { width = 288
            blocks = 2 };
            let aside = folder.join(format!("version-{seed}"));
            Fixture::of("sized").named("law").seeded(seed).settings(settings).lay_out(&aside)
        });
        let read = made.each_ref().map(|made| PackFolder::read(made).unwrap());
        let archive = folder.join("law.mbpack");
        pack_archive(&read[1], &mut std::fs::File::create(&archive).unwrap()).unwrap();
        let [first, second] = made;
        Self { paths: [first, second, archive], generations: read.map(|read| read.generation.to_hex()) }
    }

    /// The one pack that a host reports, which must be whole: one of the two, and never refused.
    #[track_caller]
    fn holds_one_of(&self, list: &[Value], round: u64) {
        for pack in list {
            assert_eq!(pack["name"], "law", "round {round}: {list:#?}");
            assert_ne!(pack["state"], "quarantined", "round {round}: {list:#?}");
            let generation = pack["generation"].as_str();
            let is_known = generation.is_none_or(|found| self.generations.iter().any(|known| known == found));
            assert!(is_known, "round {round}: {list:#?}");
        }
    }
}

fn install(place: &Place, source: &Path) -> Command {
    place.command(&["packs", "install", source.to_str().unwrap()])
}

/// The same command on a disk that is full for it: no file may grow beyond some kilobytes.
fn with_full_disk(command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 32; exec \"$0\" \"$@\""]);
    limited.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited.stdin(std::process::Stdio::null());
    limited.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    limited
}

fn kill(child: &mut Child) {
    // One that has ended by itself can't be killed.
    child.kill().ok();
    child.wait().unwrap();
}

fn left_half_done(place: &Place) -> Vec<String> {
    let mut left = names(&place.packs());
    left.extend(names(&place.cache().join("packs/unpacked")));
    left.retain(|name| name.starts_with('.') && name != ".modularbase");
    left
}

/// A host after all that happened: one whole pack, and nothing else.
fn a_fresh_host_has_one_whole_pack(place: &Place, sources: &Sources, round: u64) -> Chat {
    let chat = place.chat(&["--mixture", "none"]);
    // Until then it may be unpacking an archive itself, and what others left goes once every pack was looked at.
    place.has_state("law", "registered");
    wait_until(&format!("round {round}: that nothing half-done is left"), || {
        left_half_done(place).is_empty()
    });
    let list = place.list();
    assert_eq!(list.len(), 1, "round {round}: {list:#?}");
    sources.holds_one_of(&list, round);
    let lies_there = PackFolder::read(&place.packs().join("law")).unwrap().generation.to_hex();
    assert_eq!(list[0]["generation"], lies_there, "round {round}");
    chat
}

#[test]
fn nothing_half_installed_is_ever_registered() {
    let place = Place::with_cache();
    let shelf = tempfile::tempdir().unwrap();
    let sources = Sources::make(shelf.path());
    Ended::of(install(&place, &sources.paths[0])).success();
    let mut random = seed();
    let mut below = |limit: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % limit
    };
    let (mut killed_at_work, mut left) = (0, 0);
    for round in 0..ROUNDS {
        let mut chat = place.chat(&["--mixture", "none"]);
        let mut installing = install(&place, &sources.paths[below(3) as usize]).spawn().unwrap();
        let mut installs = 0;
        let until = SystemTime::now() + Duration::from_millis(20 + below(1_000));
        while SystemTime::now() < until {
            if installing.try_wait().unwrap().is_some() {
                installs += 1;
                installing = install(&place, &sources.paths[below(3) as usize]).spawn().unwrap();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // One dies before the other.
        killed_at_work += u64::from(installing.try_wait().unwrap().is_none());
        let host_first = below(2) == 0;
        if host_first {
            kill(&mut chat.child);
            std::thread::sleep(Duration::from_millis(below(30)));
        }
        kill(&mut installing);
        if !host_first {
            sources.holds_one_of(&place.list(), round);
            kill(&mut chat.child);
        }
        left += left_half_done(&place).len();
        println!("round {round}: {installs} installs, left half-done: {:?}", left_half_done(&place));
        drop(a_fresh_host_has_one_whole_pack(&place, &sources, round));
    }
    println!("{killed_at_work} of {ROUNDS} killed at work, {left} things left half-done");
    assert!(killed_at_work > 0, "no kill met an install at work");
}

#[test]
fn a_full_disk_leaves_the_old_pack_and_the_next_host_has_what_fits() {
    let place = Place::with_cache();
    let shelf = tempfile::tempdir().unwrap();
    let sources = Sources::make(shelf.path());
    Ended::of(install(&place, &sources.paths[0])).success();
    for source in &sources.paths[1..] {
        let full = Ended::of(with_full_disk(&install(&place, source)));
        assert_eq!((full.code, full.stdout.as_str()), (Some(1), ""), "{}", full.stderr);
        assert!(full.stderr.contains("room") || full.stderr.contains("space"), "{}", full.stderr);
        let list = place.list();
        assert_eq!(list[0]["generation"], sources.generations[0], "{list:#?}");
        assert_eq!(left_half_done(&place), [] as [&str; 0]);
    }
    // The disk of the host itself is full: it says so, and the next one takes the pack.
    let chat = place.chat_by(with_full_disk(&place.command(&["chat", "--mixture", "none"])));
    wait_until("the host says what is missing", || {
        let list = place.list();
        let reason = list[0]["reason"].as_str().unwrap_or_default();
        list[0]["state"] == "seen" && reason.contains("is there space") && reason.contains("tried again")
    });
    drop(chat);
    drop(a_fresh_host_has_one_whole_pack(&place, &sources, 0));
}
