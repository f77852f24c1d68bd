//! What people do with the files of a packs folder while it is served, and what an operator does.

use std::{
    collections::HashSet,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use modularbase_engine::Host;

use super::{
    collection::{Collection, VERSIONS, name},
    random::Random,
};

/// Every so many packs, one whose files change; the others lie still, so that nothing excuses a wrong answer.
const RESTLESS: usize = 3;

/// A packs folder.
pub(crate) struct Folder<'a> {
    pub(crate) packs: &'a Path,
    /// On the same file system.
    pub(crate) aside: &'a Path,
    pub(crate) collection: &'a Collection,
}

impl Folder<'_> {
    fn path(&self, pack: usize) -> PathBuf {
        self.packs.join(name(pack))
    }

    fn archive(&self, pack: usize) -> PathBuf {
        self.packs.join(format!("{}.mbpack", name(pack)))
    }

    /// Puts a version there at one stroke, as a folder.
    pub(crate) fn put(&self, pack: usize, version: usize) {
        let ready = self.aside.join("ready");
        self.collection.link_to(pack, version, &ready);
        self.take(pack);
        self.collection.lies(pack, Some(version));
        fs::rename(ready, self.path(pack)).expect("a rename");
    }

    fn put_archive(&self, pack: usize, version: usize) {
        let made = &self.collection.made(pack, version).archive;
        let ready = self.aside.join("ready.mbpack");
        fs::copy(made, &ready).expect("a copy");
        self.take(pack);
        self.collection.lies(pack, Some(version));
        fs::rename(ready, self.archive(pack)).expect("a rename");
    }

    /// Takes away what lies there.
    pub(crate) fn take(&self, pack: usize) {
        self.collection.lies(pack, None);
        if self.path(pack).exists() {
            let old = self.aside.join("old");
            fs::rename(self.path(pack), &old).expect("a rename");
            fs::remove_dir_all(old).expect("the old pack goes");
        }
        if self.archive(pack).exists() {
            fs::remove_file(self.archive(pack)).expect("the archive goes");
        }
    }

    fn damage(&self, pack: usize) {
        let weights = self.path(pack).join("weights.safetensors");
        if let Ok(file) = File::options().write(true).open(weights) {
            self.collection.lies(pack, None);
            file.set_len(100).expect("a shorter file");
        }
    }

    /// Changes files until it is told to stop; then everything lies there again.
    pub(crate) fn change(&self, mut random: Random, stop: &AtomicBool) -> u64 {
        let mut changes = 0;
        let mut spoiled: HashSet<usize> = HashSet::new();
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20 + random.below(40) as u64));
            changes += 1;
            let pack = random.below(self.collection.len()) / RESTLESS * RESTLESS;
            let version = random.below(VERSIONS);
            // Whatever was taken or damaged comes back after some others were.
            if spoiled.len() > 6 {
                let back: Vec<usize> = spoiled.drain().collect();
                back.into_iter().for_each(|pack| self.put(pack, version));
                continue;
            }
            match random.below(10) {
                0..5 => {
                    self.put(pack, version);
                    spoiled.remove(&pack);
                }
                5 | 6 => {
                    self.take(pack);
                    spoiled.insert(pack);
                }
                7 | 8 => {
                    self.damage(pack);
                    spoiled.insert(pack);
                }
                _ if pack.is_multiple_of(8) => {
                    self.put_archive(pack, version);
                    spoiled.remove(&pack);
                }
                _ => {}
            }
        }
        spoiled.into_iter().for_each(|pack| self.put(pack, 0));
        changes
    }
}

/// Evicts, keeps and favours packs until it is told to stop.
pub(crate) fn operate(host: &Host, packs: usize, mut random: Random, stop: &AtomicBool) {
    let manager = host.manager();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(15));
        let pack = name(random.below(packs));
        match random.below(20) {
            0 => {
                // One at a time: a kept pack is out of the streams' reach.
                manager.keep(&pack, true);
                thread::sleep(Duration::from_millis(30));
                manager.keep(&pack, false);
            }
            1 => manager.set_priority(&pack, random.below(3) as i32 - 1),
            2 => manager.prefetch(&[&pack]),
            // Whether it is there, in use or unknown is for the host to say.
            _ => drop(manager.evict(&pack)),
        }
    }
}
