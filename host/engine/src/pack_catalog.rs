//! The packs of a folder: which there are, which can be used, and why the others can't.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use manifests::{PACK_MANIFEST_FILE, PackKind, PackManifest};
use modularbase_core::Expert;
use modularbase_loader::{Generation, PackFolder, QuarantineReason};
use modularbase_residency::Reservation;

use crate::EngineError;

/// One folder of the packs directory.
#[derive(Debug, Clone)]
pub struct PackEntry {
    /// The folder.
    pub path: PathBuf,
    /// Its manifest's name; the folder's own where the manifest can't be read.
    pub name: String,
    /// Its manifest, where that is sound.
    pub manifest: Option<PackManifest>,
    /// Its identity, where its files are what the manifest says.
    pub generation: Option<Generation>,
    /// How far it has come.
    pub state: PackState,
}

/// How far a pack has come.
#[derive(Debug, Clone)]
pub enum PackState {
    /// Its files are sound; nothing of it is loaded.
    Registered,
    /// On the device.
    Resident(Arc<ResidentPack>),
    /// Kept out until its files change.
    Quarantined(QuarantineReason),
}

impl PackState {
    /// The state in one word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Resident(_) => "resident",
            Self::Quarantined(_) => "quarantined",
        }
    }
}

/// A pack on the device with the memory that is set aside for it.
#[derive(Debug)]
pub struct ResidentPack {
    pub(crate) expert: Arc<Expert>,
    /// Given back when the pack goes.
    pub(crate) _reservation: Reservation,
}

impl ResidentPack {
    /// Device bytes of its own weights.
    pub fn resident_bytes(&self) -> usize {
        self.expert.resident_bytes()
    }
}

impl PackEntry {
    /// Whether it is the pack that answers when no other is chosen.
    pub fn is_general(&self) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| manifest.pack.kind == PackKind::General)
    }
}

/// Reads every folder in `dir` that holds a manifest, in order of their names. A folder that is no sound pack is
/// listed as quarantined. Of packs with one name, all but the first are.
///
/// # Errors
/// The directory exists but can't be read.
pub fn scan(dir: &Path) -> Result<Vec<PackEntry>, EngineError> {
    let read_error = |source| EngineError::Read { path: dir.to_owned(), source };
    let folders = match fs::read_dir(dir) {
        Ok(folders) => folders,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(read_error(error)),
    };
    let mut paths = Vec::new();
    for folder in folders {
        let path = folder.map_err(read_error)?.path();
        if path.join(PACK_MANIFEST_FILE).exists() {
            paths.push(path);
        }
    }
    paths.sort();
    let mut entries: Vec<PackEntry> = Vec::with_capacity(paths.len());
    for path in paths {
        let mut entry = read_entry(path);
        if let Some(first) = entries.iter().find(|known| known.name == entry.name) {
            let reason = format!("the name `{}` is taken by `{}`", entry.name, first.path.display());
            entry.state = PackState::Quarantined(QuarantineReason {
                stage: modularbase_loader::LoadStage::Folder,
                reason,
            });
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn read_entry(path: PathBuf) -> PackEntry {
    match PackFolder::read(&path) {
        Ok(folder) => PackEntry {
            name: folder.manifest.pack.name.to_string(),
            generation: Some(folder.generation),
            manifest: Some(folder.manifest),
            state: PackState::Registered,
            path,
        },
        Err(error) => {
            let manifest = PackManifest::read(&path.join(PACK_MANIFEST_FILE)).ok();
            let folder_name = || path.file_name().map_or_else(String::new, |name| name.display().to_string());
            PackEntry {
                name: manifest.as_ref().map_or_else(folder_name, |manifest| manifest.pack.name.to_string()),
                manifest,
                generation: None,
                state: PackState::Quarantined(QuarantineReason {
                    stage: modularbase_loader::LoadStage::Folder,
                    reason: error.to_string(),
                }),
                path,
            }
        }
    }
}
