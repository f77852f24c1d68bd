//! The whole way from a folder to a pack that can be placed on a device, and its first part alone.

use std::{io::Read, path::Path};

use manifests::{FileRecord, Sha256};

use crate::{
    admission::{admissible, admit, cached_library},
    elf::{ElfInspection, inspect_library},
    error::{LoadError, LoadFailure},
    load_admitted::{LoadedPack, load_admitted},
    load_context::LoadContext,
    pack_folder::{FolderError, PackFolder},
    probe::ProbeReport,
};

/// A pack whose files are sound and whose library may be opened or not; see `elf`.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// Folder, manifest, generation.
    pub folder: PackFolder,
    /// What the library's file tells; `None`: the pack has no library.
    pub elf: Option<ElfInspection>,
}

/// Verifies a pack's files and looks into its library without loading it.
///
/// # Errors
/// The folder is unsound. A library that would be refused is no error here: see [`ElfInspection::refusals`].
pub fn inspect(dir: &Path) -> Result<Inspection, LoadError> {
    let folder = PackFolder::read(dir).map_err(|error| LoadError::of_folder(dir, error))?;
    match folder.manifest.library.as_ref().map(|library| inspect_folder(&folder, library)).transpose() {
        Ok(elf) => Ok(Inspection { folder, elf }),
        Err(failure) => Err(of_folder(&folder, failure)),
    }
}

/// Admits a pack and loads it at once.
///
/// # Errors
/// The stage it stopped at and why. Nothing of the pack stays behind but its copies in the cache.
pub fn open_pack(dir: &Path, context: &LoadContext) -> Result<LoadedPack, LoadError> {
    let admitted = admit(dir, context, &mut |_, _| {})?;
    let mut loaded = load_admitted(&admitted.folder, admitted.generation, context)?;
    let timings = admitted.timings;
    loaded.timings.inspect += timings.verify + timings.inspect;
    loaded.timings.cache += timings.cache;
    loaded.timings.probe = timings.probe;
    Ok(loaded)
}

/// As [`open_pack`] up to the probe, with `cycles` further cycles in the child: for verification.
///
/// # Errors
/// As [`open_pack`].
pub fn probe_pack(
    dir: &Path,
    context: &LoadContext,
    cycles: u32,
) -> Result<(Inspection, ProbeReport), LoadError> {
    let inspection = inspect(dir)?;
    let folder = &inspection.folder;
    let report = (|| {
        let (Some(library), Some(elf)) = (&folder.manifest.library, &inspection.elf) else {
            return Err(LoadFailure::NoLibrary);
        };
        admissible(&folder.manifest, elf, &context.base)?;
        let library = cached_library(folder, library, &context.cache)?;
        Ok(context.prober.probe(&library, &context.config_for(&folder.manifest), cycles)?)
    })();
    match report {
        Ok(report) => Ok((inspection, report)),
        Err(failure) => Err(of_folder(folder, failure)),
    }
}

pub(crate) fn inspect_folder(folder: &PackFolder, record: &FileRecord) -> Result<ElfInspection, LoadFailure> {
    let path = record.file.in_folder(&folder.path);
    let mut bytes = Vec::new();
    folder
        .open(record)?
        .take(record.size.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| FolderError::Read { path: path.clone(), source })?;
    let found = Sha256::of_bytes(&bytes);
    if found != record.sha256 {
        return Err(FolderError::Hash { path, expected: record.sha256, found }.into());
    }
    Ok(inspect_library(&bytes))
}

fn of_folder(folder: &PackFolder, failure: LoadFailure) -> LoadError {
    LoadError::of_pack(&folder.manifest, folder.generation, failure)
}
