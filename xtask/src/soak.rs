//! `soak`: a host under requests for minutes, with many more packs than fit and files that change underneath.

use std::ffi::OsString;

use crate::cargo_workspace::CargoWorkspace;
use crate::command::Program;
use crate::host_binary::HostBinary;

/// Name of the binary, of the system tests.
const SOAK: &str = "soak";

/// Builds everything, fetches the base and runs the soak; `more` are arguments of its own.
pub(crate) fn soak(minutes: f64, more: &[OsString]) -> anyhow::Result<()> {
    let workspace = CargoWorkspace::current()?;
    workspace.build_everything()?;
    HostBinary::built_in(&workspace).fetch_base()?;
    let program = workspace.release().join(format!("{SOAK}{}", std::env::consts::EXE_SUFFIX));
    let minutes = minutes.to_string();
    Ok(Program::new(&program).args(["--minutes", &minutes]).args(more).run()?)
}
