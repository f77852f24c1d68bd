//! Packs that are made before the test begins, to be dropped in by copying, linking or renaming.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use modularbase_loader::{PackFolder, pack_archive};
use system_tests::{Base, Folders};
use tempfile::TempDir;

/// The names that packs have in this test.
pub const NAMES: [&str; 5] = ["ant", "bee", "cat", "dog", "elk"];

/// Networks, width and blocks and seed; each gives other logits. Every name comes in every look.
pub const LOOKS: [(i64, i64, u64); 4] = [(32, 1, 1), (32, 1, 2), (64, 1, 3), (32, 2, 4)];

/// Fixtures that fail their probe, each in its own way.
pub const BAD: [&str; 3] = ["panics", "crashes", "loops"];

/// A pack on the shelf.
pub struct Made {
    /// As a folder.
    pub folder: PathBuf,
    /// As an archive.
    pub archive: PathBuf,
    /// Its identity, 64 hex digits.
    pub generation: String,
}

/// All of them.
pub struct Shelf {
    _root: TempDir,
    good: Vec<Vec<Made>>,
    bad: Vec<Vec<Made>>,
}

impl Shelf {
    /// Makes every pack.
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::for_base(Base::Tiny);
        let good = |name: &str| {
            let look = |index: usize| {
                let shelf = root.path().join(format!("look-{index}"));
                let fixture = folders.fixture("sized").named(name);
                let (width, blocks, seed) = LOOKS[index];
                let settings = toml::toml! { width = width
                blocks = blocks };
                Made::of(fixture.settings(settings).seeded(seed).lay_out(&shelf))
            };
            (0..LOOKS.len()).map(look).collect()
        };
        let bad = |name: &str| {
            let made = |fixture: &&str| {
                Made::of(folders.fixture(fixture).named(name).lay_out(&root.path().join(fixture)))
            };
            BAD.iter().map(made).collect()
        };
        Self {
            good: NAMES.iter().map(|name| good(name)).collect(),
            bad: NAMES.iter().map(|name| bad(name)).collect(),
            _root: root,
        }
    }

    /// A good pack by the indices of its name and look.
    pub fn good(&self, name: usize, look: usize) -> &Made {
        &self.good[name][look]
    }

    /// A pack that fails its probe, by the indices of its name and fixture.
    pub fn bad(&self, name: usize, fixture: usize) -> &Made {
        &self.bad[name][fixture]
    }

    /// The look of a generation.
    pub fn look_of(&self, generation: &str) -> Option<usize> {
        let mut looks = self.good.iter().flat_map(|looks| looks.iter().enumerate());
        looks.find(|(_, made)| made.generation == generation).map(|(look, _)| look)
    }
}

impl Made {
    fn of(folder: PathBuf) -> Self {
        let pack = PackFolder::read(&folder).unwrap();
        let archive = folder.with_extension("mbpack");
        pack_archive(&pack, &mut File::create(&archive).unwrap()).unwrap();
        Self { generation: pack.generation.to_hex(), folder, archive }
    }

    /// The files of the folder, the manifest last.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort_by_key(|path| (path.ends_with("pack.toml"), path.clone()));
        files
    }

    /// Copies the folder to `target`, which must not be there.
    pub fn copy_to(&self, target: &Path) {
        fs::create_dir(target).unwrap();
        for file in self.files() {
            fs::copy(&file, target.join(file.file_name().unwrap())).unwrap();
        }
    }
}
