//! The cargo workspace a command is started in: its folders and the packages in it that are dynamic libraries.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use manifests::PACK_MANIFEST_FILE;

use crate::command::Program;

/// What `cargo metadata` says of a workspace.
#[derive(Debug, Clone)]
pub struct CargoWorkspace {
    /// The folder of the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// Where cargo builds.
    pub target: PathBuf,
    /// Names of its packages.
    pub packages: Vec<String>,
    /// Its packages that build a dynamic library.
    pub cdylibs: Vec<CdylibPackage>,
}

/// A package that builds a dynamic library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdylibPackage {
    /// Name of the package.
    pub package: String,
    /// The folder of its `Cargo.toml`.
    pub folder: PathBuf,
    /// Name of the library's file: `lib<target>.so`.
    pub library: String,
}

#[derive(serde::Deserialize)]
struct Metadata {
    workspace_root: PathBuf,
    target_directory: PathBuf,
    packages: Vec<MetadataPackage>,
}

#[derive(serde::Deserialize)]
struct MetadataPackage {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<MetadataTarget>,
}

#[derive(serde::Deserialize)]
struct MetadataTarget {
    name: String,
    crate_types: Vec<String>,
}

impl CargoWorkspace {
    /// The workspace that `folder` lies in.
    pub fn discover(folder: &Path) -> anyhow::Result<Self> {
        let json = Program::cargo()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .in_folder(folder)
            .output()
            .with_context(|| format!("{} lies in no cargo workspace", folder.display()))?;
        let metadata: Metadata =
            serde_json::from_slice(&json).context("can't read what `cargo metadata` printed")?;
        let cdylibs = metadata.packages.iter().filter_map(MetadataPackage::cdylib).collect();
        Ok(Self {
            root: metadata.workspace_root,
            target: metadata.target_directory,
            packages: metadata.packages.into_iter().map(|package| package.name).collect(),
            cdylibs,
        })
    }

    /// The workspace of the current folder.
    pub fn current() -> anyhow::Result<Self> {
        Self::discover(&std::env::current_dir().context("the current folder is gone")?)
    }

    /// Where cargo puts release builds.
    pub fn release(&self) -> PathBuf {
        self.target.join("release")
    }

    /// Where packs are laid out when nothing else is said.
    pub fn packs_folder(&self) -> PathBuf {
        self.target.join("packs")
    }

    /// Its packs to be served: dynamic libraries with a `pack.toml` beside their `Cargo.toml`, those in a `tests`
    /// folder left out, which are bad on purpose.
    pub fn packs(&self) -> Vec<&CdylibPackage> {
        let tests = self.root.join("tests");
        let served = |package: &&CdylibPackage| {
            package.folder.join(PACK_MANIFEST_FILE).is_file() && !package.folder.starts_with(&tests)
        };
        self.cdylibs.iter().filter(served).collect()
    }

    /// Its packs that are weights alone: folders in `packs` with a `pack.toml` and no crate.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn weight_packs(&self) -> anyhow::Result<Vec<PathBuf>> {
        let packs = self.root.join("packs");
        if !packs.is_dir() {
            return Ok(Vec::new());
        }
        let entries = std::fs::read_dir(&packs).with_context(|| format!("can't read {}", packs.display()))?;
        let mut folders = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| format!("can't read {}", packs.display()))?;
        folders.retain(|folder| {
            folder.join(PACK_MANIFEST_FILE).is_file() && !folder.join("Cargo.toml").is_file()
        });
        folders.sort();
        Ok(folders)
    }

    /// The pack by its package's name, its folder's name or its folder; `None`: the only one.
    pub fn pack(&self, wanted: Option<&str>) -> anyhow::Result<&CdylibPackage> {
        let packs = self.packs();
        let Some(wanted) = wanted else {
            return match packs.as_slice() {
                [pack] => Ok(pack),
                [] => bail!("no pack in {}: a pack is a cdylib crate with a pack.toml", self.root.display()),
                _ => bail!("which pack? name one of {}", names(&packs)),
            };
        };
        let folder = std::fs::canonicalize(wanted).ok();
        let is_wanted = |package: &&&CdylibPackage| {
            package.package == wanted
                || package.folder.file_name().is_some_and(|name| name == wanted)
                || folder.as_ref().is_some_and(|folder| *folder == package.folder)
        };
        match packs.iter().find(is_wanted) {
            Some(pack) => Ok(pack),
            None => bail!("no pack `{wanted}` in {}; there are: {}", self.root.display(), names(&packs)),
        }
    }

    /// Builds every target of every member for release: the host, the packs, the fixture packs that whole-system tests load,
    /// and the tests. These bring features of shared dependencies with them, so with less than all targets cargo would
    /// compile most of the model's dependencies once more as soon as tests are asked for.
    pub fn build_everything(&self) -> anyhow::Result<()> {
        let build = Program::cargo().args(["build", "--release", "--workspace", "--all-targets"]);
        Ok(build.in_folder(&self.root).run_quietly()?)
    }

    /// Builds packages for release; cargo's messages go to stderr.
    pub fn build(&self, packages: &[&str]) -> anyhow::Result<()> {
        let selected = packages.iter().flat_map(|package| ["--package", package]);
        let build = Program::cargo().args(["build", "--release"]).args(selected).in_folder(&self.root);
        Ok(build.run_quietly()?)
    }
}

impl MetadataPackage {
    fn cdylib(&self) -> Option<CdylibPackage> {
        let is_cdylib = |target: &&MetadataTarget| target.crate_types.iter().any(|kind| kind == "cdylib");
        let target = self.targets.iter().find(is_cdylib)?;
        let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        Some(CdylibPackage {
            package: self.name.clone(),
            folder: self.manifest_path.parent()?.to_path_buf(),
            library: format!("{prefix}{}{suffix}", target.name.replace('-', "_")),
        })
    }
}

fn names(packs: &[&CdylibPackage]) -> String {
    if packs.is_empty() {
        return "none".to_string();
    }
    packs.iter().map(|pack| pack.package.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_workspace_has_the_general_pack() {
        let workspace = CargoWorkspace::discover(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        for name in ["pack-general", "general"] {
            let pack = workspace.pack(Some(name)).unwrap();
            assert_eq!(pack.package, "pack-general");
            assert!(pack.library.contains("pack_general"), "{}", pack.library);
        }
        assert!(workspace.packages.iter().any(|package| package == "xtask"));
    }

    #[test]
    fn an_unknown_pack_is_refused_with_the_known_ones() {
        let workspace = CargoWorkspace::discover(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        let message = workspace.pack(Some("unknown")).unwrap_err().to_string();
        assert!(
            message.starts_with("no pack `unknown` in ") && message.contains("pack-general"),
            "{message}"
        );
    }

    #[test]
    fn a_folder_outside_every_workspace_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let message = format!("{:#}", CargoWorkspace::discover(folder.path()).unwrap_err());
        assert!(message.contains("lies in no cargo workspace"), "{message}");
    }
}
