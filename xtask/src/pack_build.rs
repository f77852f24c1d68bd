//! `pack build`: the crate's library, its data and the finished manifest in one folder.

use std::path::{Path, PathBuf};

use anyhow::Context;
use manifests::{MemoryDeclaration, PACK_MANIFEST_FILE, PackManifest, PackSource};

use crate::cargo_workspace::{CargoWorkspace, CdylibPackage};
use crate::host_binary::HostBinary;
use crate::pack_layout::{HostHelp, PackParts, lay_out};

/// Builds the pack `wanted` (a name, a folder, or the only one here) and lays it out in `out`.
pub(crate) fn build(wanted: Option<&str>, out: Option<&Path>) -> anyhow::Result<()> {
    let folder = wanted.map(Path::new).filter(|folder| folder.join(PACK_MANIFEST_FILE).is_file());
    if let Some(folder) = folder.filter(|folder| !folder.join("Cargo.toml").is_file()) {
        return build_weights(folder, out);
    }
    let workspace = match folder {
        Some(folder) => CargoWorkspace::discover(folder)?,
        None => CargoWorkspace::current()?,
    };
    let pack = workspace.pack(wanted)?;
    let out = match out {
        Some(out) => out.to_path_buf(),
        None => default_out(&workspace, pack)?,
    };
    // A wrong manifest is said before minutes of compiling.
    PackSource::read(&pack.folder.join(PACK_MANIFEST_FILE))?;
    workspace.build(&[&pack.package])?;
    let manifest = lay_out_built(&workspace, pack, &out, &mut LazyHost::new(Some(&workspace)))?;
    println!("{}", summary(&manifest, &out));
    Ok(())
}

/// Lays out a pack that is weights alone.
fn build_weights(folder: &Path, out: Option<&Path>) -> anyhow::Result<()> {
    let out = match out {
        Some(out) => out.to_path_buf(),
        None => weights_out(&CargoWorkspace::discover(folder)?, folder)?,
    };
    let manifest = lay_out_weights(folder, &out)?;
    println!("{}", summary(&manifest, &out));
    Ok(())
}

/// Where a pack of weights alone is laid out when nothing is said.
pub(crate) fn weights_out(workspace: &CargoWorkspace, folder: &Path) -> anyhow::Result<PathBuf> {
    let source = PackSource::read(&folder.join(PACK_MANIFEST_FILE))?;
    Ok(workspace.packs_folder().join(source.pack.name.as_str()))
}

/// Lays out a pack that no crate belongs to.
pub(crate) fn lay_out_weights(folder: &Path, out: &Path) -> anyhow::Result<PackManifest> {
    let parts = PackParts { source: folder.to_path_buf(), library: None };
    lay_out(&parts, out, &mut LazyHost::new(None))
        .with_context(|| format!("can't lay out the pack in {}", folder.display()))
}

/// Where a pack is laid out when nothing is said: `target/packs/<name in its manifest>`.
pub(crate) fn default_out(workspace: &CargoWorkspace, pack: &CdylibPackage) -> anyhow::Result<PathBuf> {
    let source = PackSource::read(&pack.folder.join(PACK_MANIFEST_FILE))?;
    Ok(workspace.packs_folder().join(source.pack.name.as_str()))
}

/// Lays out a pack whose library cargo has built.
pub(crate) fn lay_out_built(
    workspace: &CargoWorkspace,
    pack: &CdylibPackage,
    out: &Path,
    host: &mut dyn HostHelp,
) -> anyhow::Result<PackManifest> {
    let parts =
        PackParts { source: pack.folder.clone(), library: Some(workspace.release().join(&pack.library)) };
    lay_out(&parts, out, host).with_context(|| format!("can't lay out the pack `{}`", pack.package))
}

fn summary(manifest: &PackManifest, out: &Path) -> String {
    let bytes: u64 = manifest.files().iter().map(|record| record.size).sum();
    format!(
        "{} {} ({}) in {}: {} files, {bytes} bytes",
        manifest.pack.name,
        manifest.pack.version,
        manifest.pack.id,
        out.display(),
        manifest.files().len() + 1
    )
}

/// The `modularbase` binary, found or built only when it is asked something: the general pack needs none.
pub(crate) struct LazyHost<'a> {
    workspace: Option<&'a CargoWorkspace>,
    binary: Option<HostBinary>,
    has_base: bool,
}

impl<'a> LazyHost<'a> {
    /// One that will look in `workspace` first.
    pub(crate) fn new(workspace: Option<&'a CargoWorkspace>) -> Self {
        Self { workspace, binary: None, has_base: false }
    }

    /// One that is built already, and for which the base may have been fetched.
    pub(crate) fn ready(binary: HostBinary, has_base: bool) -> Self {
        Self { workspace: None, binary: Some(binary), has_base }
    }

    /// The binary, with the base in place: the values of weights and their sizes depend on it.
    fn with_base(&mut self) -> anyhow::Result<&HostBinary> {
        let binary = match self.binary.take() {
            Some(binary) => binary,
            None => HostBinary::find(self.workspace)?,
        };
        if !self.has_base {
            binary.fetch_base()?;
            self.has_base = true;
        }
        Ok(self.binary.insert(binary))
    }
}

impl HostHelp for LazyHost<'_> {
    fn init_weights(&mut self, folder: &Path) -> anyhow::Result<()> {
        let host = self.with_base()?;
        Ok(host.program().args(["packs", "init-weights"]).args([folder]).run_quietly()?)
    }

    fn measure_memory(&mut self, folder: &Path) -> anyhow::Result<MemoryDeclaration> {
        let host = self.with_base()?;
        let json = host.program().args(["packs", "measure", "--json"]).args([folder]).output()?;
        serde_json::from_slice(&json).context("can't read what `modularbase packs measure` printed")
    }
}
