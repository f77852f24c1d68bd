//! Which base is meant by a name or a path, and whether its file is there and whole.

use std::path::{Path, PathBuf};

use anyhow::Context;
use manifests::{BUILTIN_BASES, BaseManifest, builtin_base};

use super::verified_stamp::{self, Verdict};
use crate::failure::{Exit, Failure};
use crate::settings::cache_folder;
use crate::terminal::byte_bar;

/// The manifest of a base in a folder of its own, and the ending of one beside a model file.
const MANIFEST_IN_FOLDER: &str = "base.toml";

/// A base that the user means.
#[derive(Debug, Clone)]
pub(crate) struct ChosenBase {
    /// What to call it.
    pub(crate) name: String,
    /// Its manifest; `None` for a bare model file or folder.
    pub(crate) manifest: Option<BaseManifest>,
    /// Where its model file or folder is, or belongs.
    pub(crate) path: PathBuf,
}

impl ChosenBase {
    /// The base of this name, else the one at this path.
    pub(crate) fn find(wanted: &str) -> anyhow::Result<Self> {
        if let Some(manifest) = builtin_base(wanted) {
            return Self::in_bases_folder(manifest?);
        }
        let bases = bases_folder()?;
        let added = bases.join(format!("{wanted}.toml"));
        if !wanted.contains('/') && added.is_file() {
            return Self::of_manifest(&added);
        }
        let path = Path::new(wanted);
        let looks_like_a_path = wanted.contains('/') || path.extension().is_some();
        match std::fs::metadata(path) {
            Ok(facts) if facts.is_file() && path.extension().is_some_and(|ending| ending == "toml") => {
                Self::of_manifest(path)
            }
            Ok(_) => Self::of_model(path),
            Err(error) if looks_like_a_path => {
                let failure = Failure::new(Exit::BaseMissing, format!("can't open the base `{wanted}`"));
                let failure = failure.help("--base takes a name from `modularbase base list`, or the path of a .gguf file, a Hugging Face folder or a base manifest");
                Err(anyhow::Error::new(error).context(failure))
            }
            Err(_) => {
                let known: Vec<&str> = BUILTIN_BASES.iter().map(|(name, _)| *name).collect();
                let failure = Failure::usage(format!("there is no base `{wanted}`"));
                Err(failure.help(format!("known by name: {}; or say a path", known.join(", "))).into())
            }
        }
    }

    /// Every base known by name: the built-in ones, then those in the folder of bases.
    pub(crate) fn all_known() -> anyhow::Result<Vec<Self>> {
        let mut known = Vec::new();
        for (name, _) in BUILTIN_BASES {
            known.push(Self::find(name)?);
        }
        let Ok(entries) = std::fs::read_dir(bases_folder()?) else { return Ok(known) };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        let is_hidden =
            |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        for path in paths.iter().filter(|path| !is_hidden(path)) {
            if path.extension().is_some_and(|ending| ending == "toml") {
                known.push(Self::of_manifest(path)?);
            }
        }
        for path in paths.iter().filter(|path| !is_hidden(path)) {
            let is_model = path.extension().is_some_and(|ending| ending == "gguf") || path.is_dir();
            if is_model && !known.iter().any(|base| base.path == *path) {
                known.push(Self::of_model(path)?);
            }
        }
        Ok(known)
    }

    /// Whether the file is there and what its manifest says; without one, whether anything is there.
    pub(crate) fn judge(&self, again: bool) -> anyhow::Result<Verdict> {
        let Some(file) = self.manifest.as_ref().and_then(|manifest| manifest.file.as_ref()) else {
            return Ok(if self.path.exists() { Verdict::Sound } else { Verdict::Missing });
        };
        let bar = byte_bar("Verifying the base", file.size);
        let verdict = verified_stamp::judge(&self.path, file, &cache_folder()?, again, |read| bar.inc(read));
        bar.finish_and_clear();
        verdict.with_context(|| format!("can't read {}", self.path.display()))
    }

    /// Makes sure that the base can be opened. Error: it was never fetched, or it is damaged.
    pub(crate) fn require(&self) -> anyhow::Result<()> {
        let fetch = match builtin_base(&self.name) {
            Some(_) => "run `modularbase base fetch`, or `cargo xtask run` in the repository",
            None => "correct --base, or put the file there",
        };
        let path = self.path.display();
        let message = match self.judge(false)? {
            Verdict::Sound => return Ok(()),
            Verdict::Missing => format!("the base `{}` is not there: {path} does not exist", self.name),
            Verdict::Damaged(why) => format!("the base `{}` is damaged: {path}: {why}", self.name),
        };
        Err(Failure::new(Exit::BaseMissing, message).help(fetch).into())
    }

    fn in_bases_folder(manifest: BaseManifest) -> anyhow::Result<Self> {
        let name = manifest.base.name.to_string();
        let file = manifest.file.as_ref().context("a built-in base names its file")?;
        Ok(Self { path: file.name.in_folder(&bases_folder()?), name, manifest: Some(manifest) })
    }

    /// A manifest file. The model file that it names lies beside it or in the folder of bases; a manifest that names
    /// none describes the folder it is in, if it is called `base.toml`, else what carries its name without `.toml`.
    fn of_manifest(path: &Path) -> anyhow::Result<Self> {
        let manifest = BaseManifest::read(path).map_err(|error| {
            anyhow::Error::new(error).context(Failure::usage("the base's manifest can't be used"))
        })?;
        let name = manifest.base.name.to_string();
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let model = match &manifest.file {
            Some(file) => {
                let beside = file.name.in_folder(folder);
                if beside.exists() { beside } else { file.name.in_folder(&bases_folder()?) }
            }
            None if path.file_name().is_some_and(|name| name == MANIFEST_IN_FOLDER) => folder.to_path_buf(),
            None => {
                let gguf = path.with_extension("gguf");
                if gguf.exists() { gguf } else { path.with_extension("") }
            }
        };
        Ok(Self { name, manifest: Some(manifest), path: model })
    }

    /// A model file or folder, with the manifest that lies with it if there is one.
    fn of_model(path: &Path) -> anyhow::Result<Self> {
        let manifest_path =
            if path.is_dir() { path.join(MANIFEST_IN_FOLDER) } else { path.with_extension("toml") };
        if manifest_path.is_file() {
            let found = Self::of_manifest(&manifest_path)?;
            if found.path.canonicalize().ok() == path.canonicalize().ok() {
                return Ok(Self { path: path.to_path_buf(), ..found });
            }
        }
        let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
        let name = stem.unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { name, manifest: None, path: path.to_path_buf() })
    }
}

/// The folder that bases are fetched into. Error: there is no cache folder.
pub(crate) fn bases_folder() -> anyhow::Result<PathBuf> {
    Ok(cache_folder()?.join("bases"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "schema_version = 1\n[base]\nname = \"tiny\"\ndescription = \"Tiny.\"\nlicense = \"Apache-2.0\"\nslot = { start = 1, end = 2 }\n";

    #[test]
    fn a_manifest_beside_a_model_file_or_in_its_folder_belongs_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let gguf = folder.path().join("tiny.gguf");
        std::fs::write(&gguf, "model").unwrap();
        let bare = ChosenBase::of_model(&gguf).unwrap();
        assert_eq!((bare.name.as_str(), bare.manifest.is_none()), ("tiny", true));
        std::fs::write(folder.path().join("tiny.toml"), MANIFEST).unwrap();
        assert!(ChosenBase::of_model(&gguf).unwrap().manifest.is_some());
        assert_eq!(ChosenBase::of_manifest(&folder.path().join("tiny.toml")).unwrap().path, gguf);

        let hub = folder.path().join("hub");
        std::fs::create_dir(&hub).unwrap();
        std::fs::write(hub.join("base.toml"), MANIFEST).unwrap();
        let found = ChosenBase::of_model(&hub).unwrap();
        assert_eq!((found.name.as_str(), found.path), ("tiny", hub));
    }

    #[test]
    fn what_is_neither_a_name_nor_a_path_is_refused_with_the_known_names() {
        let error = ChosenBase::find("no-such-base").unwrap_err();
        assert_eq!(error.to_string(), "there is no base `no-such-base`");
        let error = ChosenBase::find("/nowhere/model.gguf").unwrap_err();
        assert_eq!(error.to_string(), "can't open the base `/nowhere/model.gguf`");
    }
}
