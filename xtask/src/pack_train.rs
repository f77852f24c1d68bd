//! `pack train`: from a crate whose pack has no weights yet to a trained pack.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::Context;
use manifests::{PACK_MANIFEST_FILE, PackSource};

use crate::cargo_workspace::CargoWorkspace;
use crate::host_binary::HostBinary;

/// The settings of a pack's training beside its manifest.
const TRAIN_CONFIG: &str = "train.toml";

/// Builds the library of the pack `wanted`, puts it with the author's manifest into `target/packs-to-train/NAME`, and has
/// the host train what lies there; `arguments` are handed on.
pub(crate) fn train(wanted: &str, arguments: &[OsString]) -> anyhow::Result<()> {
    let folder = Path::new(wanted);
    let workspace = match folder.join(PACK_MANIFEST_FILE).is_file() {
        true => CargoWorkspace::discover(folder)?,
        false => CargoWorkspace::current()?,
    };
    let pack = workspace.pack(Some(wanted))?;
    let manifest = pack.folder.join(PACK_MANIFEST_FILE);
    let source = PackSource::read(&manifest)?;
    workspace.build(&[&pack.package])?;
    let out = workspace.packs_folder().with_file_name("packs-to-train").join(source.pack.name.as_str());
    fs::create_dir_all(&out).with_context(|| format!("can't create {}", out.display()))?;
    let copy = |from: &Path, to: &Path| {
        fs::copy(from, to).with_context(|| format!("can't copy {} to {}", from.display(), to.display()))
    };
    let library =
        source.library.context("a pack without a library is no network: `modularbase train router`")?;
    copy(&workspace.release().join(&pack.library), &library.file.in_folder(&out))?;
    copy(&manifest, &out.join(PACK_MANIFEST_FILE))?;
    let host = HostBinary::find(Some(&workspace))?;
    let mut program = host.program().args(["train", "pack"]).args([&out]);
    let settings = pack.folder.join(TRAIN_CONFIG);
    let says_settings = arguments.iter().any(|word| word.to_string_lossy().starts_with("--train-config"));
    if settings.is_file() && !says_settings {
        program = program.args(["--train-config".as_ref(), settings.as_os_str()]);
    }
    Ok(program.args(arguments).run()?)
}
