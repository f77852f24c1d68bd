//! The folder of a pack as the host wants it: files first, the manifest that names their hashes last.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use manifests::{FileName, MemoryDeclaration, PACK_MANIFEST_FILE, PackManifest, PackSource, Sha256};

/// Where the parts of a pack come from.
#[derive(Debug, Clone)]
pub struct PackParts {
    /// The folder of `pack.toml` in source form and of the data files.
    pub source: PathBuf,
    /// The built library; `None` for a pack of weights alone.
    pub library: Option<PathBuf>,
}

/// What a host adds to a pack that its author left open.
pub trait HostHelp {
    /// Creates the weights file that the manifest in `folder` names and that does not exist: the graph's own initial
    /// values. `folder` holds the library and `pack.toml` in source form.
    fn init_weights(&mut self, folder: &Path) -> anyhow::Result<()>;

    /// The resident bytes by dtype of the pack in `folder`, whose weights are there.
    fn measure_memory(&mut self, folder: &Path) -> anyhow::Result<MemoryDeclaration>;
}

/// Lays a pack out in `out`: everything is prepared beside it and moved in, each file at once, `pack.toml` last. On
/// failure nothing of it is left, and a pack that was there before is as it was. Gives the manifest.
pub fn lay_out(parts: &PackParts, out: &Path, host: &mut dyn HostHelp) -> anyhow::Result<PackManifest> {
    let source_manifest = parts.source.join(PACK_MANIFEST_FILE);
    let source = PackSource::read(&source_manifest)?;
    let staging = Staging::new(out)?;
    let manifest = stage(parts, &source, &source_manifest, staging.path(), host)?;
    staging.install(&manifest)?;
    Ok(manifest)
}

/// Puts every file of the pack and its manifest into `staging`.
fn stage(
    parts: &PackParts,
    source: &PackSource,
    source_manifest: &Path,
    staging: &Path,
    host: &mut dyn HostHelp,
) -> anyhow::Result<PackManifest> {
    match (&parts.library, &source.library) {
        (Some(built), Some(library)) => copy(built, &library.file.in_folder(staging))
            .context("the library was not built; does [library] in pack.toml name lib<crate>.so?")?,
        (None, Some(library)) => {
            bail!("{} names `{}`, which no crate builds", source_manifest.display(), library.file)
        }
        (_, None) => {}
    }
    let weights = source.weights.as_ref().map(|weights| &weights.file);
    let mut init_weights = false;
    for file in data_files(source) {
        let from = file.in_folder(&parts.source);
        if from.is_file() {
            copy(&from, &file.in_folder(staging))?;
        } else if Some(file) == weights {
            init_weights = true;
        } else {
            bail!("{} names `{file}`, which is not beside it", source_manifest.display());
        }
    }
    if init_weights || source.memory.is_none() {
        // The host reads the source form here and never the unfinished pack of the packs folder.
        copy(source_manifest, &staging.join(PACK_MANIFEST_FILE))?;
    }
    if init_weights {
        host.init_weights(staging).context("the pack has no weights file and the host made none")?;
    }
    let memory = match &source.memory {
        Some(memory) => memory.clone(),
        None => {
            host.measure_memory(staging).context("pack.toml has no [memory] and the host measured none")?
        }
    };
    let manifest = source.complete(memory, |file| {
        let path = file.in_folder(staging);
        Sha256::of_file(&path).with_context(|| format!("can't hash {}", path.display()))
    })?;
    if let Some(problem) = manifest.problems().into_iter().next() {
        let help = problem.help.map(|help| format!("; {help}")).unwrap_or_default();
        bail!("{}: {}: {}{help}", source_manifest.display(), problem.path.join("."), problem.message);
    }
    let text = manifest.to_toml().context("the manifest can't be written as TOML")?;
    manifests::write_atomically(&staging.join(PACK_MANIFEST_FILE), text.as_bytes())?;
    Ok(manifest)
}

/// Every file of the pack but the library; the signature only where it is there, since it is made after the build.
fn data_files(source: &PackSource) -> Vec<&FileName> {
    let library = source.library.as_ref().map(|library| &library.file);
    source.files().into_iter().filter(|file| Some(*file) != library).collect()
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to).with_context(|| format!("can't copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// A folder inside the pack's own, so that moving out of it is a rename on one file system; removed with its content
/// when dropped, and the pack's folder with it if it was made for nothing.
struct Staging {
    out: PathBuf,
    path: PathBuf,
    made_out: bool,
}

impl Staging {
    fn new(out: &Path) -> anyhow::Result<Self> {
        let made_out = !out.exists();
        fs::create_dir_all(out).with_context(|| format!("can't create {}", out.display()))?;
        let path = out.join(format!(".staging-{}", std::process::id()));
        let staging = Self { out: out.to_path_buf(), path, made_out };
        fs::create_dir(&staging.path).with_context(|| {
            format!("can't create {}; remove what is in its place", staging.path.display())
        })?;
        Ok(staging)
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the staged files in, the manifest last. A file that is already there with the same content is left alone:
    /// its path may be mapped, and a watcher has nothing to see.
    fn install(mut self, manifest: &PackManifest) -> anyhow::Result<()> {
        for record in manifest.files() {
            let (from, to) = (record.file.in_folder(&self.path), record.file.in_folder(&self.out));
            let is_there =
                to.is_file() && Sha256::of_file(&to).is_ok_and(|(sha256, _)| sha256 == record.sha256);
            if !is_there {
                fs::rename(&from, &to).with_context(|| format!("can't move {} into place", to.display()))?;
            }
        }
        let (from, to) = (self.path.join(PACK_MANIFEST_FILE), self.out.join(PACK_MANIFEST_FILE));
        if !(to.is_file() && fs::read(&from)? == fs::read(&to)?) {
            fs::rename(&from, &to).with_context(|| format!("can't move {} into place", to.display()))?;
        }
        self.made_out = false;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Nothing sensible is left to do when cleaning up fails; the error that led here is the one reported.
        fs::remove_dir_all(&self.path).ok();
        if self.made_out {
            fs::remove_dir(&self.out).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifests::Dtype;

    /// Stands for the `modularbase` binary, which is another crate's concern.
    struct Host {
        fails: bool,
    }

    impl HostHelp for Host {
        fn init_weights(&mut self, folder: &Path) -> anyhow::Result<()> {
            let source = PackSource::read(&folder.join(PACK_MANIFEST_FILE))?;
            assert!(
                source.library.unwrap().file.in_folder(folder).is_file(),
                "the library is there to be asked"
            );
            if self.fails {
                bail!("no base");
            }
            let weights = source.weights.context("called only when weights are declared")?;
            Ok(fs::write(weights.file.in_folder(folder), b"initial")?)
        }

        fn measure_memory(&mut self, _: &Path) -> anyhow::Result<MemoryDeclaration> {
            Ok(MemoryDeclaration { resident_bytes: [(Dtype::F32, 7)].into() })
        }
    }

    const SOURCE: &str = "schema_version = 1\n[pack]\nid = \"org.example.law\"\nname = \"law\"\nversion = \"0.1.0\"\n\
        kind = \"expert\"\ndescription = \"Law.\"\nlicense = \"Apache-2.0\"\n[abi]\nversion = \"1.0.0\"\nopset = 1\n\
        [base]\nfingerprint = \"any\"\n[library]\nfile = \"liblaw.so\"\n[weights]\nfile = \"weights.safetensors\"\n\
        dtype = \"f32\"\n[data_card]\nfile = \"DATA.md\"\n";

    /// A crate folder with a built library, and an out folder that does not exist yet.
    fn example(folder: &Path) -> (PackParts, PathBuf) {
        let source = folder.join("crate");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("pack.toml"), SOURCE).unwrap();
        fs::write(source.join("DATA.md"), "# Data").unwrap();
        let library = folder.join("built.so");
        fs::write(&library, b"library").unwrap();
        (PackParts { source, library: Some(library) }, folder.join("packs/law"))
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_laid_out_pack_holds_its_files_and_a_manifest_with_their_hashes() {
        let folder = tempfile::tempdir().unwrap();
        let (parts, out) = example(folder.path());
        let manifest = lay_out(&parts, &out, &mut Host { fails: false }).unwrap();
        assert_eq!(names(&out), ["DATA.md", "liblaw.so", "pack.toml", "weights.safetensors"]);
        assert_eq!(PackManifest::read(&out.join("pack.toml")).unwrap(), manifest);
        for record in manifest.files() {
            let found = Sha256::of_file(&record.file.in_folder(&out)).unwrap();
            assert_eq!(found, (record.sha256, record.size), "{}", record.file);
        }
        assert_eq!(manifest.memory.resident_bytes[&Dtype::F32], 7);
        assert!(!parts.source.join("weights.safetensors").exists(), "the crate is not written to");
    }

    #[test]
    fn weights_beside_the_source_manifest_are_taken_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let (parts, out) = example(folder.path());
        fs::write(parts.source.join("weights.safetensors"), b"trained").unwrap();
        lay_out(&parts, &out, &mut Host { fails: true }).unwrap();
        assert_eq!(fs::read(out.join("weights.safetensors")).unwrap(), b"trained");
    }

    #[test]
    fn a_failure_leaves_neither_a_folder_nor_a_file_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (parts, out) = example(folder.path());
        let error = lay_out(&parts, &out, &mut Host { fails: true }).unwrap_err();
        assert_eq!(format!("{error:#}"), "the pack has no weights file and the host made none: no base");
        assert!(!out.exists());
    }

    #[test]
    fn a_failure_leaves_the_pack_that_was_there_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (parts, out) = example(folder.path());
        lay_out(&parts, &out, &mut Host { fails: false }).unwrap();
        let before = fs::read(out.join("pack.toml")).unwrap();
        fs::write(parts.library.as_ref().unwrap(), b"another library").unwrap();
        lay_out(&parts, &out, &mut Host { fails: true }).unwrap_err();
        assert_eq!(fs::read(out.join("pack.toml")).unwrap(), before);
        assert_eq!(fs::read(out.join("liblaw.so")).unwrap(), b"library");
        assert_eq!(names(&out).len(), 4);
    }

    #[test]
    fn a_rebuilt_library_replaces_the_old_one_by_a_new_file_and_an_equal_one_is_left_alone() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let (parts, out) = example(folder.path());
        let inode = |name: &str| fs::metadata(out.join(name)).unwrap().ino();
        lay_out(&parts, &out, &mut Host { fails: false }).unwrap();
        let (library, card) = (inode("liblaw.so"), inode("DATA.md"));
        fs::write(parts.library.as_ref().unwrap(), b"another library").unwrap();
        lay_out(&parts, &out, &mut Host { fails: false }).unwrap();
        assert_ne!(inode("liblaw.so"), library, "a mapped library is never overwritten in place");
        assert_eq!(inode("DATA.md"), card);
    }

    #[test]
    fn a_missing_data_file_and_a_missing_library_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (parts, out) = example(folder.path());
        fs::remove_file(parts.source.join("DATA.md")).unwrap();
        let message = format!("{:#}", lay_out(&parts, &out, &mut Host { fails: false }).unwrap_err());
        assert!(message.ends_with("pack.toml names `DATA.md`, which is not beside it"), "{message}");
        fs::remove_file(parts.library.as_ref().unwrap()).unwrap();
        let message = format!("{:#}", lay_out(&parts, &out, &mut Host { fails: false }).unwrap_err());
        assert!(message.contains("does [library] in pack.toml name lib<crate>.so?"), "{message}");
        assert!(!out.exists());
    }
}
