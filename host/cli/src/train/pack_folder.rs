//! Where a pack to be trained lies.

use std::path::PathBuf;

use anyhow::Context;
use manifests::PACK_MANIFEST_FILE;

use crate::failure::Failure;
use crate::settings::Settings;

/// The folder with the library and manifest of the pack `wanted`: a folder, or a name in the packs folder.
pub(crate) fn find(wanted: &str, settings: &Settings) -> anyhow::Result<PathBuf> {
    let named = PathBuf::from(wanted);
    if named.join(PACK_MANIFEST_FILE).is_file() {
        return Ok(named);
    }
    let installed = settings.packs_dir()?.join(wanted);
    if installed.join(PACK_MANIFEST_FILE).is_file() {
        return Ok(installed);
    }
    let failure = Failure::usage(format!(
        "there is no pack `{wanted}`: neither {} nor {} has a {PACK_MANIFEST_FILE}",
        named.display(),
        installed.display()
    ));
    Err(failure.help("`cargo xtask pack train NAME` builds it and trains it").into())
}

/// Where the run of a pack is kept when nothing is said: `train/<name>` in the folder of this call.
pub(crate) fn default_run_folder(name: &str) -> anyhow::Result<PathBuf> {
    Ok(std::env::current_dir().context("there is no current folder")?.join("train").join(name))
}
