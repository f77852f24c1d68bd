//! Tokens a second: prefill of 512 and decode of 128, this engine and another one in turns on the same file.

use anyhow::Context;
use serde_json::{Value, json};

use super::median::median;
use super::venv::Venv;
use super::{Beside, Setting};

/// Tokens of the prefill.
const PREFILL: usize = 512;
/// Tokens of the decode.
const DECODE: usize = 128;

/// The helper that measures the other engine, compiled in so that it is at hand wherever xtask runs.
const HELPER: &str = include_str!("../../bench/llama_speed.py");

/// One measurement of one engine, tokens a second.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
struct Speed {
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: f64,
}

/// Measures in turns; medians, every single figure, and the ratios of ours to theirs.
pub(crate) fn measure(setting: &Setting) -> anyhow::Result<Value> {
    let other = match setting.beside {
        Beside::Nothing => None,
        Beside::LlamaCpp => Some(Venv::with("llama-cpp-python", "0.3.36")?),
        Beside::IkLlamaCpp => Some(Venv::with("ik-llama-cpp-python", "0.1.5")?),
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=setting.rounds {
        eprintln!("bench: tokens, round {round} of {}", setting.rounds);
        ours.push(measure_ours(setting)?);
        if let Some(other) = &other {
            theirs.push(measure_theirs(setting, other)?);
        }
    }
    let mut result = json!({ "prefill_tokens": PREFILL, "decode_tokens": DECODE, "ours": summary(&ours) });
    if let Some(other) = &other {
        let ratio = |speed: fn(&Speed) -> f64| {
            let of = |speeds: &[Speed]| median(&speeds.iter().map(speed).collect::<Vec<_>>());
            Some(of(&ours)? / of(&theirs)?)
        };
        result["beside"] = json!({ "package": other.package, "version": other.version });
        result["theirs"] = summary(&theirs);
        result["ours_over_theirs"] = json!({
            "prefill": ratio(|speed| speed.prefill_tokens_per_s),
            "decode": ratio(|speed| speed.decode_tokens_per_s),
        });
    }
    Ok(result)
}

fn measure_ours(setting: &Setting) -> anyhow::Result<Speed> {
    let (threads, prefill, decode) = (setting.threads.to_string(), PREFILL.to_string(), DECODE.to_string());
    let mut program = setting
        .host
        .program()
        .args(["bench", "prefill-decode", "--json", "--threads", &threads, "--repetitions", "1"])
        .args(["--prompt-tokens", &prefill, "--decode-tokens", &decode])
        .env("MODULARBASE_PACKS_DIR", &setting.packs_folder);
    if setting.model_is_chosen {
        program = program.args(["--base".as_ref(), setting.model.as_os_str()]);
    }
    serde_json::from_slice(&program.output()?).context("can't read what `modularbase bench` printed")
}

fn measure_theirs(setting: &Setting, venv: &Venv) -> anyhow::Result<Speed> {
    let (threads, prefill, decode) = (setting.threads.to_string(), PREFILL.to_string(), DECODE.to_string());
    let program = venv
        .python()
        .args(["-c", HELPER, "--package", venv.package, "--threads", &threads])
        .args(["--prefill", &prefill, "--decode", &decode, "--model"])
        .args([&setting.model]);
    serde_json::from_slice(&program.output()?).context("can't read what the llama.cpp helper printed")
}

fn summary(speeds: &[Speed]) -> Value {
    let prefill: Vec<f64> = speeds.iter().map(|speed| speed.prefill_tokens_per_s).collect();
    let decode: Vec<f64> = speeds.iter().map(|speed| speed.decode_tokens_per_s).collect();
    json!({
        "prefill_tokens_per_s": { "median": median(&prefill), "rounds": prefill },
        "decode_tokens_per_s": { "median": median(&decode), "rounds": decode },
    })
}
