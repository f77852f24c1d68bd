//! The packs of a folder as they can be known without a host and without running their code.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use manifests::{PACK_MANIFEST_FILE, PackManifest};
use modularbase_loader::{
    BaseContext, Candidate, CandidateKind, Examined, FileCache, Generation, PackFolder, TrustPolicy,
    archive_manifest, candidates, examine, fits_base, inspect, unpack,
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
    /// Its manifest, where that is sound.
    pub(crate) manifest: Option<PackManifest>,
    /// Its files, where all are what the manifest says; an archive's lie in the cache.
    pub(crate) files: Option<Box<PackFolder>>,
    /// Who signed it, in words, once that was judged.
    pub(crate) signer: Option<String>,
    /// How far it would come.
    pub(crate) state: PackState,
    /// What it waits for, or why it is kept out.
    pub(crate) reason: Option<String>,
}

/// Reads the packs of a folder, in order of the entries' names; none where there is no such folder. Of packs with one
/// name, all but the first are kept out.
pub(crate) fn read(folder: &Path) -> anyhow::Result<Vec<FolderPack>> {
    let cache = super::file_cache()?;
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
        let mut pack = look(candidate, &cache);
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
    let trust = &settings.host.trust;
    let policy = TrustPolicy::new(trust.policy, trust.keys.clone());
    for pack in packs.iter_mut().filter(|pack| pack.state == PackState::Registered) {
        if let Err(why) = pack.judge(&policy, base.as_ref()) {
            pack.state = PackState::Quarantined;
            pack.reason = Some(why);
        }
    }
    Ok(packs)
}

fn look(candidate: Candidate, cache: &FileCache) -> FolderPack {
    let is_archive = candidate.kind == CandidateKind::Archive;
    let own_name = candidate.path.file_stem().filter(|_| is_archive).unwrap_or(candidate.name());
    let mut pack = FolderPack {
        name: own_name.to_string_lossy().into_owned(),
        path: candidate.path,
        canonical: candidate.canonical,
        manifest: None,
        files: None,
        signer: None,
        state: PackState::Registered,
        reason: None,
    };
    let examined = if is_archive {
        match unpack(&pack.path, cache) {
            Ok(unpacked) => examine(&unpacked.folder),
            Err(error) if error.is_incomplete() => Examined::Incomplete { reason: error.to_string() },
            Err(error) => {
                pack.refuse(error.to_string());
                pack.name_after(archive_manifest(&pack.path).ok());
                return pack;
            }
        }
    } else {
        examine(&pack.path)
    };
    match examined {
        Examined::Complete(files) => {
            pack.name_after(Some(files.manifest.clone()));
            pack.files = Some(files);
            return pack;
        }
        Examined::Incomplete { reason } => {
            pack.state = PackState::Seen;
            pack.reason = Some(reason);
        }
        Examined::Unsound(error) => pack.refuse(error.to_string()),
    }
    if !is_archive {
        pack.name_after(PackManifest::read(&pack.path.join(PACK_MANIFEST_FILE)).ok());
    }
    pack
}

impl FolderPack {
    /// Its identity, where its files are what the manifest says.
    pub(crate) fn generation(&self) -> Option<Generation> {
        self.files.as_ref().map(|files| files.generation)
    }

    fn name_after(&mut self, manifest: Option<PackManifest>) {
        if let Some(manifest) = &manifest {
            self.name = manifest.pack.name.to_string();
        }
        self.manifest = manifest;
    }

    fn refuse(&mut self, reason: String) {
        self.state = PackState::Quarantined;
        self.reason = Some(reason);
    }

    /// An error where something speaks against its sound files, as far as that can be known without running its code.
    fn judge(&mut self, policy: &TrustPolicy, base: Option<&BaseContext>) -> Result<(), String> {
        let Some(files) = &self.files else { return Ok(()) };
        let signature = policy.judge(files).map_err(|error| error.to_string())?;
        self.signer = Some(signature.to_string());
        if let Some(base) = base {
            fits_base(&files.manifest, base).map_err(|mismatch| mismatch.to_string())?;
        }
        let inspection = inspect(&files.path).map_err(|error| error.failure.to_string())?;
        let refusal = inspection.elf.as_ref().and_then(|elf| elf.refusals().next());
        refusal.map_or(Ok(()), |refusal| Err(refusal.to_string()))
    }

    /// Bytes of the files that its manifest names.
    pub(crate) fn file_bytes(&self) -> Option<u64> {
        let manifest = self.manifest.as_ref()?;
        Some(manifest.files().iter().map(|record| record.size).sum())
    }
}
