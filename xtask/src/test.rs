//! `test`: everything built, the packs laid out, the base fetched, then every test of the workspace.

use std::ffi::OsString;

use crate::cargo_workspace::CargoWorkspace;
use crate::command::Program;
use crate::host_binary::HostBinary;
use crate::run::lay_out_packs;

/// Runs the tests that match `filter`; the output ends with cargo test's own.
pub(crate) fn test(filter: &[OsString]) -> anyhow::Result<()> {
    let workspace = CargoWorkspace::current()?;
    workspace.build_everything()?;
    let host = HostBinary::built_in(&workspace);
    host.fetch_base()?;
    lay_out_packs(&workspace, &host, true)?;
    let mut tests = Program::cargo()
        .args(["test", "--release", "--workspace"])
        .in_folder(&workspace.root)
        .env("MODULARBASE_BIN", &host.path)
        .env("MODULARBASE_PACKS_DIR", workspace.packs_folder());
    if !filter.is_empty() {
        tests = tests.args(["--"]).args(filter);
    }
    Ok(tests.run()?)
}
