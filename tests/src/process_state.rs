//! What this process and a host hold, to be compared before and after.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use modularbase_engine::Host;

/// Everything that loads and evictions take and must give back, but memory, which [`resident_bytes`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessState {
    /// Threads of this process by name.
    pub threads: BTreeMap<String, usize>,
    /// What the open file descriptors lead to, and how many each.
    pub descriptors: BTreeMap<String, usize>,
    /// Regions mapped from files in the host's cache.
    pub mappings: BTreeSet<String>,
    /// Bytes of the ledger by owner.
    pub held: BTreeMap<String, u64>,
    /// Files of the host's cache.
    pub files: BTreeSet<PathBuf>,
}

impl ProcessState {
    /// As it is now; `cache` is the host's cache folder.
    pub fn of(host: &Host, cache: &Path) -> Self {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let in_cache = |line: &&str| line.contains(&*cache.to_string_lossy());
        let held = host.ledger().holders();
        Self {
            threads: count(entries("/proc/self/task").filter_map(|task| {
                let name = fs::read_to_string(task.join("comm")).ok()?;
                Some(name.trim().to_owned())
            })),
            descriptors: count(entries("/proc/self/fd").filter_map(|fd| {
                let target = fs::read_link(fd).ok()?.display().to_string();
                // The folder that is being listed.
                (!target.starts_with("/proc/")).then(|| without_number(&target))
            })),
            mappings: maps.lines().filter(in_cache).map(str::to_owned).collect(),
            held: held.into_iter().map(|(owner, bytes)| (format!("{owner:?}"), bytes)).collect(),
            files: files_below(cache),
        }
    }
}

/// Bytes of this process that are in memory, of all its mappings.
pub fn resident_bytes() -> i64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    kib.trim().trim_end_matches("kB").trim().parse::<i64>().unwrap() * 1024
}

/// Whether others use this machine so much that a limit in seconds says nothing: more than half a thread of others to
/// each core over the last minute.
pub fn machine_is_busy() -> bool {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    load.split(' ').next().unwrap().parse::<f64>().unwrap() > cores / 2.0
}

fn entries(folder: &str) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).unwrap().filter_map(|entry| entry.ok().map(|entry| entry.path()))
}

fn files_below(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            _ => drop(found.insert(entry.path())),
        }
    }
    found
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
