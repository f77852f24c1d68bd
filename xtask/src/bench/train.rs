//! A step of training a pack on the CPU: this trainer and, where a Python with torch is named, PyTorch in the same shapes.

use anyhow::Context;
use serde_json::{Value, json};

use super::Setting;
use crate::command::Program;

/// Name of the binary, of the system tests.
const TRAIN_BENCH: &str = "train_bench";
/// The helper that measures PyTorch, compiled in so that it is at hand wherever xtask runs.
const HELPER: &str = include_str!("../../bench/torch_step.py");
/// Sequences of a step, and tokens of each: those of README's short run.
const SHAPE: [&str; 2] = ["4", "256"];

/// Measures ours and theirs one after the other; medians of the rounds.
pub(crate) fn measure(setting: &Setting) -> anyhow::Result<Value> {
    let workspace = &setting.workspace;
    workspace.build_everything()?;
    let program = workspace.release().join(format!("{TRAIN_BENCH}{}", std::env::consts::EXE_SUFFIX));
    let (rounds, threads) = (setting.rounds.to_string(), setting.threads.to_string());
    let [rows, length] = SHAPE;
    let shape = ["--rows", rows, "--length", length, "--rounds", &rounds];
    let ours = Program::new(&program).args(shape).env("RAYON_NUM_THREADS", &threads).output()?;
    let ours: Value = serde_json::from_slice(&ours).context("can't read what `train_bench` printed")?;
    let Some(python) = &setting.torch else { return Ok(json!({ "ours": ours })) };
    let number = |value: &Value| value.as_u64().context("`train_bench` tells no slot");
    let (start, end) = (number(&ours["slot"][0])?, number(&ours["slot"][1])?);
    let behind = number(&ours["layers"])?.saturating_sub(end);
    let theirs = Program::new(python)
        .args(["-c", HELPER])
        .args(shape)
        .args(["--threads", &threads, "--before", &start.to_string()])
        .args(["--trained", &(end - start).to_string(), "--behind", &behind.to_string()])
        .output()?;
    let theirs: Value =
        serde_json::from_slice(&theirs).context("can't read what the PyTorch helper printed")?;
    let speed = |of: &Value| of["tokens_per_s"].as_f64();
    let ratio = speed(&ours).zip(speed(&theirs)).map(|(ours, theirs)| ours / theirs);
    Ok(json!({ "ours": ours, "pytorch": theirs, "ours_over_pytorch": ratio }))
}
