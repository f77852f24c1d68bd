//! What this process holds of the operating system, to be compared before and after.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use serde::Serialize;

/// Everything that hosts take of the operating system and that has to come back when they are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessState {
    /// Threads by name.
    pub threads: BTreeMap<String, usize>,
    /// What the open file descriptors lead to, and how many each.
    pub descriptors: BTreeMap<String, usize>,
    /// Paths of mapped files of packs: libraries and weights.
    pub pack_files: BTreeSet<String>,
    /// Mapped regions, all of them.
    pub mappings: usize,
    /// Resident memory, bytes.
    pub resident_bytes: i64,
}

impl ProcessState {
    /// As it is now.
    ///
    /// # Panics
    /// Where `/proc` is not there.
    pub fn now() -> Self {
        let maps = fs::read_to_string("/proc/self/maps").expect("/proc/self/maps");
        let files = maps.lines().filter_map(|line| line.splitn(6, ' ').nth(5)).map(str::trim);
        Self {
            threads: count(entries("/proc/self/task").filter_map(|task| {
                // One that ends at this moment is gone.
                let name = fs::read_to_string(task.join("comm")).ok()?;
                Some(name.trim().to_owned())
            })),
            descriptors: count(entries("/proc/self/fd").filter_map(|fd| {
                let target = fs::read_link(fd).ok()?.display().to_string();
                // The folder that is being listed.
                (!target.starts_with("/proc/")).then(|| without_number(&target))
            })),
            pack_files: files.filter(|path| is_of_a_pack(path)).map(str::to_owned).collect(),
            mappings: maps.lines().count(),
            resident_bytes: resident_bytes(),
        }
    }

    /// Whether threads, descriptors and files of packs are the same; regions and memory depend on the allocator.
    pub fn holds_the_same(&self, other: &Self) -> bool {
        (&self.threads, &self.descriptors, &self.pack_files)
            == (&other.threads, &other.descriptors, &other.pack_files)
    }
}

/// Bytes of this process that are in memory, of all its mappings.
pub fn resident_bytes() -> i64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").expect("/proc/self/smaps_rollup");
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).expect("a line of it");
    kib.trim().trim_end_matches("kB").trim().parse::<i64>().expect("a number") * 1024
}

/// Whether others use this machine so much that a limit in seconds says nothing: more than half a thread of others to
/// each core over the last minute.
pub fn machine_is_busy() -> bool {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    load.split(' ').next().unwrap().parse::<f64>().unwrap() > cores / 2.0
}

fn entries(folder: &str) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).expect("/proc").filter_map(|entry| entry.ok().map(|entry| entry.path()))
}

fn count(names: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    names.for_each(|name| *counts.entry(name).or_insert(0) += 1);
    counts
}

/// `socket:[123]` and the like are the same thing whatever the number.
fn without_number(target: &str) -> String {
    target.split_once(":[").map_or(target, |(kind, _)| kind).to_owned()
}

/// A weights file, a fixture's library, or a copy of one: `GENERATION.so`, with 64 hex digits.
fn is_of_a_pack(path: &str) -> bool {
    let path = path.trim_end_matches(" (deleted)");
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.strip_suffix(".so").unwrap_or_default();
    let is_copy = stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_copy || name.ends_with(".safetensors") || name.contains("libfixture")
}
