//! `pack verify`: asks the host everything it can find out about a laid-out pack.

use std::path::{Path, PathBuf};

use anyhow::bail;
use manifests::PACK_MANIFEST_FILE;

use crate::cargo_workspace::CargoWorkspace;
use crate::host_binary::HostBinary;
use crate::pack_build::default_out;

/// Verifies the pack in `folder` (absent: that of the only pack here); fails when the host finds a fault.
pub(crate) fn verify(folder: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let workspace = CargoWorkspace::current();
    let folder: PathBuf = match (folder, &workspace) {
        (Some(folder), _) => folder.to_path_buf(),
        (None, Ok(workspace)) => default_out(workspace, workspace.pack(None)?)?,
        (None, Err(_)) => bail!("which pack? name the folder of a laid-out one"),
    };
    if !folder.join(PACK_MANIFEST_FILE).is_file() {
        bail!(
            "{} holds no {PACK_MANIFEST_FILE}: name the folder that `cargo xtask pack build` laid out",
            folder.display()
        );
    }
    let host = HostBinary::find(workspace.as_ref().ok())?;
    host.fetch_base()?;
    let flags = if json { &["--json"][..] } else { &[] };
    host.program().args(["packs", "verify"]).args(flags).args([folder]).run()?;
    Ok(())
}
