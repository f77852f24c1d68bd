//! A packs directory and a cache of a test's own, and hosts on them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use fixture_packs::{Fixture, lay_out};
use manifests::{DeltaWeights, DeviceChoice, Dtype, Sha256};
use modularbase_core::BaseFile;
use modularbase_engine::{EngineError, Host, HostOptions, derived_slot};
use modularbase_loader::{ProbeLimits, Prober, TrustPolicy};
use modularbase_manager::ManagerOptions;
use pack_sdk::{BaseShape, SlotRange};
use tempfile::TempDir;

/// The base of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// SmolLM2-135M-Instruct, 98 MB.
    Real,
    /// A checkpoint of four layers with random weights, in the repository: everything is as with the real one, and a
    /// step takes a tenth of a millisecond.
    Tiny,
}

/// The two folders of a host; they go when this is dropped.
pub struct Folders {
    /// Watched by the host.
    pub packs: TempDir,
    /// Copies, index, fingerprints.
    pub cache: TempDir,
    base: Base,
}

impl Base {
    /// Whether its file is here: the small checkpoint always is.
    pub fn is_there(self) -> bool {
        self.file().exists()
    }

    /// For reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Real => manifests::DEFAULT_BASE,
            Self::Tiny => "the tiny checkpoint",
        }
    }

    pub(crate) fn path(self) -> PathBuf {
        let path = self.file();
        assert!(path.exists(), "{} is missing: run `cargo xtask test`, which fetches it", path.display());
        path
    }

    fn file(self) -> PathBuf {
        match self {
            Self::Tiny => Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny-checkpoints/tiny-llama3"),
            Self::Real => {
                let manifest = manifests::builtin_base(manifests::DEFAULT_BASE).unwrap().unwrap();
                let folder = manifests::folders::bases_folder().unwrap();
                manifest.file.unwrap().name.in_folder(&folder)
            }
        }
    }

    pub(crate) fn shape(self) -> (BaseShape, SlotRange) {
        match self {
            Self::Real => (fixture_packs::smollm2_shape(), fixture_packs::SMOLLM2_SLOT),
            Self::Tiny => {
                let shape = modularbase_core::BaseFile::open(self.path()).unwrap().shape().clone();
                let slot = derived_slot(shape.num_layers);
                (shape, slot)
            }
        }
    }
}

/// A checkpoint of six layers that was trained, in the repository: its losses mean something.
pub fn small_base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/small-base")
}

/// A checkpoint of six layers that was trained to find pass keys, several in one text of up to 8,192 tokens, in the repository.
pub fn passkey_base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/passkey-base")
}

impl Folders {
    /// A packs directory with these fixtures, for the real base.
    pub fn with(fixtures: &[&str]) -> Self {
        let folders = Self::for_base(Base::Real);
        fixtures.iter().for_each(|name| drop(lay_out(name, folders.packs.path())));
        folders
    }

    /// A packs directory with links to these packs of the project, as `cargo xtask` lays them out, for the real base.
    pub fn with_shipped(packs: &[&str]) -> Self {
        let folders = Self::for_base(Base::Real);
        let shipped = std::env::var_os("MODULARBASE_PACKS_DIR").map(PathBuf::from);
        let shipped =
            shipped.expect("MODULARBASE_PACKS_DIR names no folder of packs: run `cargo xtask test`");
        for pack in packs {
            std::os::unix::fs::symlink(shipped.join(pack), folders.packs.path().join(pack)).unwrap();
        }
        folders
    }

    /// An empty packs directory.
    pub fn for_base(base: Base) -> Self {
        Self { packs: tempfile::tempdir().unwrap(), cache: tempfile::tempdir().unwrap(), base }
    }

    /// The same on a file system in memory, where there is one: for measurements that are not to be of the disk.
    pub fn in_memory(base: Base) -> Self {
        let shared_memory = Path::new("/dev/shm");
        if !shared_memory.is_dir() {
            return Self::for_base(base);
        }
        let folder = || tempfile::tempdir_in(shared_memory).unwrap();
        Self { packs: folder(), cache: folder(), base }
    }

    /// A fixture that fits the base.
    pub fn fixture(&self, name: &str) -> Fixture {
        let (shape, slot) = self.base.shape();
        Fixture::of(name).for_base(shape, slot)
    }

    /// The base's fingerprint.
    pub fn fingerprint(&self) -> Sha256 {
        let file = BaseFile::open(self.base.path()).unwrap();
        file.cached_fingerprint(self.cache.path()).unwrap().parse().unwrap()
    }

    /// Settings with short waits; the folder is watched.
    pub fn options(&self) -> HostOptions {
        host_options(self.base, self.packs.path(), self.cache.path())
    }

    /// A host with the settings of [`Folders::options`].
    pub fn host(&self) -> Host {
        self.host_with(|_| {}).unwrap()
    }

    /// A host with some settings changed.
    pub fn host_with(&self, change: impl FnOnce(&mut HostOptions)) -> Result<Host, EngineError> {
        let mut options = self.options();
        change(&mut options);
        Host::open(options, &mut |_, _| {})
    }

    /// A host that holds matrices as `dtype`.
    pub fn host_in(&self, dtype: Option<Dtype>) -> Host {
        self.host_with(|options| options.dtype = dtype).unwrap()
    }
}

/// Settings for a host on these folders, with short waits; the folder of packs is watched.
pub fn host_options(base: Base, packs: &Path, cache: &Path) -> HostOptions {
    HostOptions {
        base: base.path(),
        base_name: "test".to_owned(),
        base_version: None,
        slot: Some(base.shape().1),
        device: DeviceChoice::Cpu,
        dtype: None,
        delta: DeltaWeights::default(),
        threads: 2,
        packs: ManagerOptions {
            packs_dir: Some(packs.to_owned()),
            watch: true,
            rescan: Duration::from_millis(500),
            settle: Duration::from_millis(500),
            keep: Vec::new(),
            priorities: Default::default(),
            cache_limit: 8 << 30,
        },
        admission_wait: Duration::from_secs(30),
        trust: TrustPolicy::default(),
        budget: None,
        context: None,
        routing: Default::default(),
        cache_dir: cache.to_owned(),
        prober: Prober::new(probe_program(), ProbeLimits::default()),
    }
}

/// `target/release/pack-probe`, which cargo builds with the loader's tests.
pub fn probe_program() -> PathBuf {
    let program = fixture_packs::profile_folder().join("pack-probe");
    assert!(program.exists(), "{} is missing: run `cargo xtask test`", program.display());
    program
}
