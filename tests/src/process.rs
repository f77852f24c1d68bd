//! What this process holds of the operating system, as Linux tells it.

use std::fs;

use serde::Serialize;

/// Everything that has to come back when a host is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessResources {
    /// Names of the threads, sorted.
    pub threads: Vec<String>,
    /// Open file descriptors.
    pub descriptors: usize,
    /// Mapped regions, all of them.
    pub mappings: usize,
    /// Paths of mapped files of packs: libraries and weights. Sorted.
    pub pack_files: Vec<String>,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
}

impl ProcessResources {
    /// As they are now.
    ///
    /// # Panics
    /// Where `/proc` is not there.
    pub fn now() -> Self {
        let entries = |path: &str| fs::read_dir(path).expect("/proc").flatten().collect::<Vec<_>>();
        let mut threads: Vec<String> = entries("/proc/self/task")
            .iter()
            // One that ends at this moment is gone.
            .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
            .map(|name| name.trim().to_owned())
            .collect();
        threads.sort();
        let maps = fs::read_to_string("/proc/self/maps").expect("/proc/self/maps");
        let files = maps.lines().filter_map(|line| line.splitn(6, ' ').nth(5)).map(str::trim);
        let mut pack_files: Vec<String> = files
            .filter(|path| {
                let path = path.trim_end_matches(" (deleted)");
                path.ends_with(".safetensors") || path.contains("libfixture") || is_copied_library(path)
            })
            .map(str::to_owned)
            .collect();
        pack_files.sort();
        pack_files.dedup();
        Self {
            threads,
            // The descriptor of the listing is among them.
            descriptors: entries("/proc/self/fd").len().saturating_sub(1),
            mappings: maps.lines().count(),
            pack_files,
            resident_bytes: resident_bytes(),
        }
    }
}

/// `GENERATION.so`, with 64 hex digits.
fn is_copied_library(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.strip_suffix(".so").unwrap_or_default();
    stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Resident memory of this process, bytes.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
