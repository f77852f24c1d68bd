//! What the loader's tests share. Not every test uses all of it.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use fixture_packs::{SMOLLM2_SLOT, smollm2_shape};
use manifests::Sha256;
use modularbase_loader::{BaseContext, BuildRequest, FileCache, LoadContext, ProbeLimits, Prober};
use pack_sdk::config_json;
use tempfile::TempDir;

/// A probe that is meant to fail should do so soon; the clock is patient, since the machine may be busy.
pub fn limits() -> ProbeLimits {
    ProbeLimits {
        wall_time: Duration::from_secs(60),
        cpu_seconds: 1,
        address_space: 256 << 20,
        file_descriptors: 32,
    }
}

pub fn prober() -> Prober {
    Prober::new(env!("CARGO_BIN_EXE_pack-probe"), limits())
}

pub fn base() -> BaseContext {
    BaseContext {
        fingerprint: Sha256::of_bytes(b"the base"),
        version: Some(manifests::Version::new(1, 2, 3)),
        shape: smollm2_shape(),
        slot: SMOLLM2_SLOT,
    }
}

/// A folder for packs and a context whose cache lies beside it.
pub struct Host {
    pub root: TempDir,
    pub context: LoadContext,
}

impl Host {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let context = LoadContext::new(FileCache::new(root.path().join("cache")), base(), prober());
        Self { root, context }
    }

    pub fn packs(&self) -> PathBuf {
        self.root.path().join("packs")
    }
}

/// A request to build a library where it lies.
pub fn request(library: &Path) -> BuildRequest {
    let config = config_json(&smollm2_shape(), SMOLLM2_SLOT, &serde_json::json!({}));
    BuildRequest { library: library.to_owned(), config, time_limit: Duration::from_secs(20) }
}

pub fn resident_bytes() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: i64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
