//! What an operator wished of packs while a host ran: kept beside the packs, so that it holds after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::atomic_file::write_atomically;
use crate::document::{self, Document, Problem, SCHEMA_VERSION};
use crate::error::ManifestError;
use crate::names::PackName;

/// Wishes by the packs' names: they hold for whatever version has the name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorWishes {
    /// Version of this format.
    pub schema_version: u32,
    /// Packs that stay on the device once they are there.
    #[serde(default)]
    pub keep: BTreeSet<PackName>,
    /// Packs of higher priority are evicted later; 0 is where nothing is said.
    #[serde(default)]
    pub priorities: BTreeMap<PackName, i32>,
}

impl Default for OperatorWishes {
    fn default() -> Self {
        Self { schema_version: SCHEMA_VERSION, keep: BTreeSet::new(), priorities: BTreeMap::new() }
    }
}

impl OperatorWishes {
    /// The file of a folder of packs: `.modularbase/wishes.toml` in it.
    pub fn file(packs_dir: &Path) -> PathBuf {
        packs_dir.join(".modularbase").join("wishes.toml")
    }

    /// Reads the wishes of a folder of packs; none where nobody wished anything yet.
    ///
    /// # Errors
    /// The file is there and can't be read or is not what it should be.
    pub fn read(packs_dir: &Path) -> Result<Self, ManifestError> {
        match document::read(&Self::file(packs_dir)) {
            Err(ManifestError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            read => read,
        }
    }

    /// Changes the wishes of a folder of packs and gives what holds now. Of several processes that do so at once, each
    /// builds on what the one before wrote.
    ///
    /// # Errors
    /// The file can't be read, is not what it should be (it is then left as it is), or can't be written.
    pub fn change(packs_dir: &Path, change: impl FnOnce(&mut Self)) -> Result<Self, ManifestError> {
        let path = Self::file(packs_dir);
        let write_error = |source| ManifestError::Write { path: path.clone(), source };
        let folder = packs_dir.join(".modularbase");
        std::fs::create_dir_all(&folder).map_err(write_error)?;
        let lock = File::open(&folder).map_err(write_error)?;
        lock.lock().map_err(write_error)?;
        let before = Self::read(packs_dir)?;
        let mut wishes = before.clone();
        change(&mut wishes);
        wishes.priorities.retain(|_, priority| *priority != 0);
        if wishes != before {
            let text = toml::to_string_pretty(&wishes).map_err(std::io::Error::other).map_err(write_error)?;
            write_atomically(&path, text.as_bytes()).map_err(write_error)?;
        }
        Ok(wishes)
    }

    /// Wishes that a pack be kept on the device, or no longer; see [`Self::change`].
    pub fn set_keep(packs_dir: &Path, pack: &PackName, keep: bool) -> Result<Self, ManifestError> {
        Self::change(packs_dir, |wishes| {
            if keep {
                wishes.keep.insert(pack.clone());
            } else {
                wishes.keep.remove(pack);
            }
        })
    }

    /// Wishes a priority for a pack; see [`Self::change`].
    pub fn set_priority(packs_dir: &Path, pack: &PackName, priority: i32) -> Result<Self, ManifestError> {
        Self::change(packs_dir, |wishes| {
            wishes.priorities.insert(pack.clone(), priority);
        })
    }
}

impl Document for OperatorWishes {
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> PackName {
        text.parse().unwrap()
    }

    #[test]
    fn wishes_hold_after_they_are_read_again_and_go_when_they_are_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(OperatorWishes::read(folder.path()).unwrap(), OperatorWishes::default());
        OperatorWishes::set_keep(folder.path(), &name("law"), true).unwrap();
        OperatorWishes::set_priority(folder.path(), &name("code"), -2).unwrap();
        let wishes = OperatorWishes::read(folder.path()).unwrap();
        assert_eq!(wishes.keep, BTreeSet::from([name("law")]));
        assert_eq!(wishes.priorities, BTreeMap::from([(name("code"), -2)]));
        OperatorWishes::set_keep(folder.path(), &name("law"), false).unwrap();
        OperatorWishes::set_priority(folder.path(), &name("code"), 0).unwrap();
        assert_eq!(OperatorWishes::read(folder.path()).unwrap(), OperatorWishes::default());
    }

    #[test]
    fn a_file_that_says_something_else_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = OperatorWishes::file(folder.path());
        std::fs::create_dir(file.parent().unwrap()).unwrap();
        for (text, words) in [
            ("keep = []\n", "schema_version"),
            ("schema_version = 1\nkeep = [\"Not a name\"]\n", "Not a name"),
            ("schema_version = 1\nwish = 1\n", "wish"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = OperatorWishes::set_keep(folder.path(), &name("law"), true).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("wishes.toml:"), "{error}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
    }

    #[test]
    fn of_wishes_at_the_same_time_none_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for index in 0..8 {
                let folder = folder.path();
                scope.spawn(move || {
                    OperatorWishes::set_keep(folder, &name(&format!("pack-{index}")), true).unwrap();
                });
            }
        });
        assert_eq!(OperatorWishes::read(folder.path()).unwrap().keep.len(), 8);
    }
}
