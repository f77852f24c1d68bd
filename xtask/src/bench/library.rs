//! Opening a pack's library: measured inside the host, which alone may open one.

use anyhow::Context;
use serde_json::Value;

use super::Setting;

/// What `modularbase bench library --json` measures, as it is.
pub(crate) fn measure(setting: &Setting) -> anyhow::Result<Value> {
    let program = setting.host.program().args(["bench", "library", "--json"]);
    let json = program.env("MODULARBASE_PACKS_DIR", &setting.packs_folder).output()?;
    serde_json::from_slice(&json).context("can't read what `modularbase bench library` printed")
}
