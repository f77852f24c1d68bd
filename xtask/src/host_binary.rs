//! The `modularbase` binary: which one is asked, and what is asked of it.

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::cargo_workspace::CargoWorkspace;
use crate::command::Program;

/// Name of the binary and of its package.
const HOST: &str = "modularbase";

/// A `modularbase` that can be started.
#[derive(Debug, Clone)]
pub(crate) struct HostBinary {
    /// Its path.
    pub(crate) path: PathBuf,
}

impl HostBinary {
    /// `$MODULARBASE_BIN`; else the one of the workspace, built now; else the one of the checkout that this xtask was
    /// compiled from, built now; else the one on PATH.
    pub(crate) fn find(workspace: Option<&CargoWorkspace>) -> anyhow::Result<Self> {
        if let Some(path) = std::env::var_os("MODULARBASE_BIN").filter(|path| !path.is_empty()) {
            let path = PathBuf::from(path);
            if !path.is_file() {
                bail!("MODULARBASE_BIN names {}, which is no file; unset it or correct it", path.display());
            }
            return Ok(Self { path });
        }
        if let Some(workspace) = workspace.filter(|workspace| builds_host(workspace)) {
            return Self::build(workspace);
        }
        if let Some(checkout) = own_checkout() {
            return Self::build(&checkout);
        }
        if let Some(path) = on_path(HOST) {
            return Ok(Self { path });
        }
        bail!(
            "no `{HOST}` binary: set MODULARBASE_BIN to it, put it on PATH, or build it in its repository with \
             `cargo build --release --package {HOST}`"
        )
    }

    /// Builds it in a workspace that has it.
    pub(crate) fn build(workspace: &CargoWorkspace) -> anyhow::Result<Self> {
        workspace.build(&[HOST])?;
        Ok(Self::built_in(workspace))
    }

    /// Where a workspace that has it builds it.
    pub(crate) fn built_in(workspace: &CargoWorkspace) -> Self {
        Self { path: workspace.release().join(format!("{HOST}{}", std::env::consts::EXE_SUFFIX)) }
    }

    /// The binary as a program to be given arguments.
    pub(crate) fn program(&self) -> Program {
        Program::new(&self.path)
    }

    /// Makes sure that the default base is there and whole.
    pub(crate) fn fetch_base(&self) -> anyhow::Result<()> {
        Ok(self.program().args(["base", "fetch", manifests::DEFAULT_BASE]).run_quietly()?)
    }
}

fn builds_host(workspace: &CargoWorkspace) -> bool {
    workspace.packages.iter().any(|package| package == HOST)
}

/// The workspace that this crate's source lies in, when it is a checkout of its own: cargo's private copy of a git
/// repository is not a place to build in.
fn own_checkout() -> Option<CargoWorkspace> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let in_cargo_home = source.components().any(|part| part.as_os_str() == "checkouts");
    if in_cargo_home || !source.is_dir() {
        return None;
    }
    CargoWorkspace::discover(source).ok().filter(builds_host)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}
