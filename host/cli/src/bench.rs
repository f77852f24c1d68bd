//! `bench`: figures of speed and memory as JSON; `cargo xtask bench` repeats them and compares.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context;
use modularbase_core::{Advance, LogitRows, SamplingOptions, Sequence};
use modularbase_engine::{AnswerLimits, Session};
use modularbase_loader::{ProbeLimits, Prober, probe_pack};
use serde_json::{Value, json};

use crate::arguments::BenchCommand;
use crate::bench_context::{self, NeedleBench};
use crate::bench_long_text::{LongTextBench, long_text};
use crate::bench_routing::routing;
use crate::failure::{Exit, Failure};
use crate::model::{self, Model, explain};
use crate::packs::load_context;
use crate::settings::Settings;
use crate::terminal::print_json;

/// What prompts are made of; the model's speed does not depend on it.
const TEXT: &str =
    "The quick brown fox jumps over the lazy dog, and the river carries its small boats to the sea. ";

/// Measures, and prints one JSON object.
pub(crate) fn bench(command: &BenchCommand, settings: &Settings, started: Instant) -> anyhow::Result<()> {
    let figures = match command {
        BenchCommand::PrefillDecode { prompt_tokens, decode_tokens, repetitions } => {
            let model = model::load(settings, started)?;
            prefill_decode(&model, settings, *prompt_tokens, *decode_tokens, *repetitions)?
        }
        BenchCommand::Library { dir, cycles } => library(dir, *cycles, settings)?,
        BenchCommand::Startup => startup(settings, started)?,
        BenchCommand::Context { text, lengths, ways, depths, together, seed } => {
            let model = model::load(settings, started)?;
            let turn = model.turn(settings)?;
            let bench =
                NeedleBench { text, lengths, ways, depths: *depths, together: *together, seed: *seed };
            bench_context::needles(&model, turn.mixture(), &bench)?
        }
        BenchCommand::LongText { text, lengths, decode_tokens } => {
            let mut settings = settings.clone();
            settings.host.context.enabled = true;
            let bench = LongTextBench { text, lengths, decode_tokens: *decode_tokens };
            long_text(&model::load(&settings, started)?, &settings, &bench)?
        }
        BenchCommand::Routing(bench) => routing(&model::load(settings, started)?, bench, settings)?,
    };
    print_json(&figures)
}

/// Medians of tokens a second, after one short step that brings the weights into the caches.
fn prefill_decode(
    model: &Model,
    settings: &Settings,
    prompt_tokens: usize,
    decode_tokens: usize,
    repetitions: usize,
) -> anyhow::Result<Value> {
    if prompt_tokens == 0 || decode_tokens == 0 || repetitions == 0 {
        return Err(Failure::usage("nothing to measure: the numbers must be at least 1").into());
    }
    let prompt = prompt(model, prompt_tokens)?;
    let turn = model.turn(settings)?;
    let core = model.host.core();
    let mut prefill = Vec::new();
    let mut decode = Vec::new();
    for repetition in 0..=repetitions {
        let mut sequence = Sequence::new(core, turn.mixture().clone());
        let warm_up = repetition == 0;
        let (prompt, decode_tokens) = if warm_up {
            (&prompt[..prompt.len().min(32)], decode_tokens.min(8))
        } else {
            (&prompt[..], decode_tokens)
        };
        let begin = Instant::now();
        let mut token = next_token(model, &mut sequence, prompt)?;
        let prefill_time = begin.elapsed();
        let begin = Instant::now();
        for _ in 0..decode_tokens {
            token = next_token(model, &mut sequence, &[token])?;
        }
        if !warm_up {
            prefill.push(rate(prompt.len(), prefill_time));
            decode.push(rate(decode_tokens, begin.elapsed()));
        }
    }
    Ok(json!({
        "device": model.host.device(),
        "threads": settings.host.threads,
        "prompt_tokens": prompt_tokens,
        "decode_tokens": decode_tokens,
        "repetitions": repetitions,
        "prefill_tokens_per_s": median(&mut prefill),
        "decode_tokens_per_s": median(&mut decode),
        "memory": model.host.memory(),
    }))
}

/// Open, check, build and close, over and over in a child process.
fn library(dir: &Path, cycles: usize, settings: &Settings) -> anyhow::Result<Value> {
    let cycles = u32::try_from(cycles).map_err(|_| Failure::usage("too many cycles"))?;
    let limits =
        ProbeLimits { wall_time: Duration::from_secs(300), cpu_seconds: 300, ..ProbeLimits::default() };
    let context = load_context(settings, Prober::this_program(limits))?;
    let (inspection, report) = probe_pack(dir, &context, cycles).map_err(|error| {
        anyhow::Error::new(error).context(Failure::new(Exit::BadPack, "the pack can't be measured"))
    })?;
    let seen = report.cycles.context("no cycles were asked for: say --cycles 1 or more")?;
    Ok(json!({
        "pack": inspection.folder.manifest.pack.name,
        "cycles": seen.cycles,
        "median_us": seen.median_micros,
        "rss_growth_bytes": seen.resident_growth_bytes,
        "mappings_left": seen.regions_left,
    }))
}

/// From the start of the process to the first token of a short prompt, and the most memory it took.
fn startup(settings: &Settings, started: Instant) -> anyhow::Result<Value> {
    let model = model::load(settings, started)?;
    let prompt = prompt(&model, 16)?;
    let mut session = Session::new(&model.host, settings.host.mixture.clone()).map_err(explain)?;
    let limits = AnswerLimits { max_tokens: 1, stop: Vec::new() };
    let never = AtomicBool::new(false);
    session.answer(&prompt, &SamplingOptions::greedy(), &limits, &never, &mut |_| {}).map_err(explain)?;
    Ok(json!({
        "load_ms": model.load_ms,
        "first_token_ms": started.elapsed().as_secs_f64() * 1e3,
        "peak_rss_bytes": peak_rss_bytes(),
        "memory": model.host.memory(),
    }))
}

fn prompt(model: &Model, tokens: usize) -> anyhow::Result<Vec<u32>> {
    let piece = model.host.tokenizer().encode(TEXT, false).map_err(|error| explain(error.into()))?;
    Ok(piece.into_iter().cycle().take(tokens).collect())
}

/// Appends tokens and gives the likeliest next one, an end token as any other.
fn next_token(model: &Model, sequence: &mut Sequence, tokens: &[u32]) -> anyhow::Result<u32> {
    let step = Advance { sequence, tokens, logits: LogitRows::Last };
    let logits = model.host.core().advance(&mut [step])?.into_iter().flatten().next();
    let logits = logits.context("the step gave no logits")?.to_vec()?;
    let best = logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    Ok(best.map_or(0, |(token, _)| token as u32))
}

fn rate(tokens: usize, time: Duration) -> f64 {
    tokens as f64 / time.as_secs_f64()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// The kernel's own count of the peak; `None` where it tells none.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_two() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 9.0]), 3.0);
    }
}
