//! The packs of a soak, made before it begins, and what lies in the folder at every moment.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use modularbase_loader::{PackFolder, pack_archive};
use tempfile::TempDir;

use crate::{Base, Folders};

/// Every pack comes in two versions of the same name.
pub(crate) const VERSIONS: usize = 2;
/// After so long without a change the host has certainly seen what lies there, also on a busy machine.
const CERTAINLY_SEEN: Duration = Duration::from_secs(30);

/// One version of a pack.
pub(crate) struct Made {
    pub(crate) folder: PathBuf,
    pub(crate) archive: PathBuf,
    pub(crate) generation: String,
}

/// What lies under a name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lying {
    /// `None`: nothing, or something damaged.
    pub(crate) version: Option<usize>,
    changed: Option<Instant>,
}

/// All packs.
pub(crate) struct Collection {
    _shelf: TempDir,
    made: Vec<[Made; VERSIONS]>,
    of_generation: HashMap<String, (usize, usize)>,
    lying: Mutex<Vec<Lying>>,
}

/// The network of a pack: its settings and the seed of its weights. Beside the default base it has up to half a million
/// parameters, so that packs, and not caches, are what fills the budget.
pub(crate) fn network(base: Base, pack: usize, version: usize) -> (toml::Table, u64) {
    let widths: [i64; 3] = match base {
        Base::Tiny => [32, 48, 64],
        Base::Real => [96, 128, 160],
    };
    let width = widths[pack % 3];
    let blocks = 1 + (pack / 3 % 2) as i64;
    let settings = toml::toml! { width = width
    blocks = blocks };
    (settings, (pack * VERSIONS + version) as u64 + 1)
}

/// A pack's name.
pub(crate) fn name(pack: usize) -> String {
    format!("pack-{pack}")
}

impl Collection {
    /// Makes the packs on a shelf; all versions share the file of their library.
    pub(crate) fn make(base: Base, folders: &Folders, packs: usize) -> Self {
        let shelf = tempfile::tempdir().expect("a temporary folder");
        let common = shelf.path().join("library.so");
        let make = |pack: usize, version: usize| {
            let (settings, seed) = network(base, pack, version);
            let fixture = folders.fixture("sized").named(&name(pack)).settings(settings).seeded(seed);
            let folder = fixture.lay_out(&shelf.path().join(format!("version-{version}")));
            let library = folder.join("libfixture_sized.so");
            if common.exists() {
                fs::remove_file(&library).expect("the copy goes");
                fs::hard_link(&common, &library).expect("a link");
            } else {
                fs::hard_link(&library, &common).expect("a link");
            }
            let read = PackFolder::read(&folder).expect("a sound pack");
            let archive = folder.with_extension("mbpack");
            // Few come as archives, and each is as large as a library.
            if pack.is_multiple_of(8) {
                let mut file = File::create(&archive).expect("an archive");
                pack_archive(&read, &mut file).expect("an archive");
            }
            Made { generation: read.generation.to_hex(), folder, archive }
        };
        let made: Vec<[Made; VERSIONS]> = (0..packs).map(|pack| [make(pack, 0), make(pack, 1)]).collect();
        let mut of_generation = HashMap::new();
        for (pack, versions) in made.iter().enumerate() {
            for (version, made) in versions.iter().enumerate() {
                of_generation.insert(made.generation.clone(), (pack, version));
            }
        }
        let lying = vec![Lying { version: None, changed: None }; packs];
        Self { _shelf: shelf, made, of_generation, lying: Mutex::new(lying) }
    }

    pub(crate) fn len(&self) -> usize {
        self.made.len()
    }

    pub(crate) fn made(&self, pack: usize, version: usize) -> &Made {
        &self.made[pack][version]
    }

    /// Pack and version of a generation.
    pub(crate) fn of_generation(&self, generation: &str) -> Option<(usize, usize)> {
        self.of_generation.get(generation).copied()
    }

    /// Lays a version out as a folder that shares the library's file.
    pub(crate) fn link_to(&self, pack: usize, version: usize, target: &Path) {
        fs::create_dir(target).expect("a folder");
        for entry in fs::read_dir(&self.made(pack, version).folder).expect("the shelf").flatten() {
            let target = target.join(entry.file_name());
            if entry.path().extension().is_some_and(|ending| ending == "so") {
                fs::hard_link(entry.path(), target).expect("a link");
            } else {
                // Some are damaged in place.
                fs::copy(entry.path(), target).expect("a copy");
            }
        }
    }

    /// Something else lies under a name from now on.
    pub(crate) fn lies(&self, pack: usize, version: Option<usize>) {
        self.lock()[pack] = Lying { version, changed: Some(Instant::now()) };
    }

    pub(crate) fn lying(&self, pack: usize) -> Lying {
        self.lock()[pack]
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Lying>> {
        self.lying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lying {
    /// The version that a request that begins now must get; `None`: that depends on how far the host has come.
    pub(crate) fn certain(&self) -> Option<usize> {
        let rests = self.changed.is_none_or(|changed| changed.elapsed() > CERTAINLY_SEEN);
        self.version.filter(|_| rests)
    }
}
