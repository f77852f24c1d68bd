//! The packs of a folder as they can be known without a host and without running their code.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use manifests::{PACK_MANIFEST_FILE, PackManifest};
use modularbase_loader::{
    BaseContext, Candidate, CandidateKind, Examined, Generation, candidates, examine, fits_base, inspect,
};
use modularbase_manager::PackState;

use crate::failure::{Exit, Failure};
use crate::settings::Settings;
use crate::terminal::notice;

/// A pack of the folder.
pub(crate) struct FolderPack {
    /// Its manifest's name; the folder's or archive's own where there is no sound manifest.
    pub(crate) name: String,
    /// The folder or archive.
    pub(crate) path: PathBuf,
    /// The same without symbolic links.
    pub(crate) canonical: PathBuf,
    pub(crate) manifest: Option<PackManifest>,
    pub(crate) generation: Option<Generation>,
    /// How far it would come.
    pub(crate) state: PackState,
    /// What it waits for, or why it is kept out.
    pub(crate) reason: Option<String>,
}

/// Reads the packs of a folder, in order of the entries' names; none where there is no such folder. Of packs with one
/// name, all but the first are kept out.
pub(crate) fn read(folder: &Path) -> anyhow::Result<Vec<FolderPack>> {
    let found = match candidates(folder) {
        Ok(found) => found,
        Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let message = format!("can't read {}", folder.display());
            return Err(anyhow::Error::new(error).context(Failure::new(Exit::Failed, message)));
        }
    };
    let mut first_of: HashMap<String, PathBuf> = HashMap::new();
    let mut packs = Vec::with_capacity(found.len());
    for candidate in found {
        let mut pack = look(candidate);
        if let Some(first) = first_of.get(&pack.name) {
            pack.state = PackState::Quarantined;
            pack.reason = Some(format!("the name `{}` is taken by `{}`", pack.name, first.display()));
        } else {
            first_of.insert(pack.name.clone(), pack.path.clone());
        }
        packs.push(pack);
    }
    Ok(packs)
}

/// The same, judged as far as the base of the settings and the libraries' bytes tell.
pub(crate) fn judged(settings: &Settings) -> anyhow::Result<Vec<FolderPack>> {
    let mut packs = read(settings.packs_dir()?)?;
    if packs.is_empty() {
        return Ok(packs);
    }
    // Without a base, what can be known of the files alone is still worth showing.
    let base = match super::base_context(settings) {
        Ok(base) => Some(base),
        Err(error) => {
            notice(&format!("note: {error}; whether packs fit it is not checked"));
            None
        }
    };
    for pack in packs.iter_mut().filter(|pack| pack.state == PackState::Registered) {
        if let Some(why) = refusal(pack, base.as_ref()) {
            pack.state = PackState::Quarantined;
            pack.reason = Some(why);
        }
    }
    Ok(packs)
}

fn look(candidate: Candidate) -> FolderPack {
    let own_name = candidate.path.file_stem().filter(|_| candidate.kind == CandidateKind::Archive);
    let own_name = own_name.unwrap_or(candidate.name()).to_string_lossy().into_owned();
    let mut pack = FolderPack {
        name: own_name,
        path: candidate.path,
        canonical: candidate.canonical,
        manifest: None,
        generation: None,
        state: PackState::Registered,
        reason: None,
    };
    if candidate.kind == CandidateKind::Archive {
        pack.state = PackState::Seen;
        pack.reason = Some("an archive: a host unpacks it".to_owned());
        return pack;
    }
    match examine(&pack.path) {
        Examined::Complete(folder) => {
            pack.generation = Some(folder.generation);
            pack.manifest = Some(folder.manifest);
        }
        Examined::Incomplete { reason } => {
            pack.state = PackState::Seen;
            pack.reason = Some(reason);
        }
        Examined::Unsound(error) => {
            pack.state = PackState::Quarantined;
            pack.reason = Some(error.to_string());
        }
    }
    if pack.manifest.is_none() {
        pack.manifest = PackManifest::read(&pack.path.join(PACK_MANIFEST_FILE)).ok();
    }
    if let Some(manifest) = &pack.manifest {
        pack.name = manifest.pack.name.to_string();
    }
    pack
}

/// What speaks against a pack whose files are sound, as far as it can be known without running its code.
fn refusal(pack: &FolderPack, base: Option<&BaseContext>) -> Option<String> {
    if let (Some(manifest), Some(base)) = (&pack.manifest, base)
        && let Err(mismatch) = fits_base(manifest, base)
    {
        return Some(mismatch.to_string());
    }
    match inspect(&pack.path) {
        Ok(inspection) => inspection.elf.refusals().next().map(ToString::to_string),
        Err(error) => Some(error.failure.to_string()),
    }
}

impl FolderPack {
    /// Bytes of the files that its manifest names.
    pub(crate) fn file_bytes(&self) -> Option<u64> {
        let manifest = self.manifest.as_ref()?;
        Some(manifest.files().iter().map(|record| record.size).sum())
    }
}
