//! Opening a pack's library: measured inside the host, which alone may open one.

use anyhow::Context;
use serde_json::Value;

use super::Setting;

/// What `modularbase bench library` measures of the general pack, as it is.
pub(crate) fn measure(setting: &Setting) -> anyhow::Result<Value> {
    let pack = setting.packs_folder.join("general");
    let json = setting.host.program().args(["bench", "library", "--json"]).args([pack]).output()?;
    serde_json::from_slice(&json).context("can't read what `modularbase bench library` printed")
}
