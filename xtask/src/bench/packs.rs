//! What packs cost: measured by a program of the system tests, on hosts of its own.

use anyhow::Context;
use serde_json::Value;

use super::Setting;
use crate::command::Program;

/// Name of the binary, of the system tests.
const PACK_BENCH: &str = "pack_bench";

/// Builds everything, fixture packs too, and runs it; what it prints is the result.
pub(crate) fn measure(setting: &Setting) -> anyhow::Result<Value> {
    let workspace = &setting.workspace;
    workspace.build_everything()?;
    let program = workspace.release().join(format!("{PACK_BENCH}{}", std::env::consts::EXE_SUFFIX));
    let json = Program::new(&program).args(["--rounds", &setting.rounds.to_string()]).output()?;
    serde_json::from_slice(&json).context("can't read what `pack_bench` printed")
}
