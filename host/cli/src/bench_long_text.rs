//! `bench long-text`: what a text in a window takes and how fast it goes on, at several lengths in one process.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use modularbase_core::SamplingOptions;
use modularbase_corpus::read_documents;
use modularbase_engine::{Answer, AnswerLimits, Session};
use serde_json::{Value, json};

use crate::bench::peak_rss_bytes;
use crate::failure::Failure;
use crate::model::{Model, explain};
use crate::settings::Settings;
use crate::terminal::notice;

/// Tokens at the end of a text that are read by themselves: how fast reading is there.
const LAST: usize = 1_024;
/// Letters of a token, at most on average: more of the text is not read.
const LETTERS: usize = 12;

/// What is asked of a bench.
#[derive(Debug)]
pub(crate) struct LongTextBench<'a> {
    /// What the text is made of.
    pub(crate) text: &'a Path,
    /// Tokens of the text, in this order: the most memory that the process took only grows.
    pub(crate) lengths: &'a [usize],
    /// Tokens that are decoded behind it.
    pub(crate) decode_tokens: usize,
}

/// Reads and goes on with texts of each length; one object with a row for each.
pub(crate) fn long_text(
    model: &Model,
    settings: &Settings,
    bench: &LongTextBench<'_>,
) -> anyhow::Result<Value> {
    if bench.lengths.iter().any(|&length| length <= LAST) || bench.decode_tokens < 2 {
        let failure = Failure::usage(format!("a text has more than {LAST} tokens, an answer at least 2"));
        return Err(failure.help("ask for other --lengths or --decode-tokens").into());
    }
    let rows = bench.lengths.iter().map(|&length| row(model, settings, bench, length));
    Ok(json!({
        "device": model.host.device(),
        "base": model.name,
        "threads": settings.host.threads,
        "window": model.host.context_options().map(ToString::to_string),
        "rows": rows.collect::<anyhow::Result<Vec<_>>>()?,
    }))
}

fn row(
    model: &Model,
    settings: &Settings,
    bench: &LongTextBench<'_>,
    length: usize,
) -> anyhow::Result<Value> {
    let mut tokens = {
        let text = beginning(bench.text, length * LETTERS)?;
        model.host.tokenizer().encode(&text, false).map_err(|error| explain(error.into()))?
    };
    if tokens.len() < length {
        let problem = format!("the text has {} tokens, {length} were asked for", tokens.len());
        return Err(Failure::usage(problem).help("ask for other --lengths, or another text").into());
    }
    tokens.truncate(length);
    tokens.shrink_to_fit();
    let mut session = Session::new(&model.host, settings.host.mixture.clone()).map_err(explain)?;
    let begin = Instant::now();
    answer(&mut session, &tokens[..length - LAST], 0)?;
    let last = answer(&mut session, &tokens, bench.decode_tokens)?;
    let read = begin.elapsed().as_secs_f64() - last.timings.decode_ms / 1e3;
    let memory = model.host.memory();
    let beside = memory.plan_bytes + memory.scratch_bytes;
    notice(&format!(
        "{length} tokens: read at {:.0} tokens/s, decoded at {:.1}",
        length as f64 / read,
        last.timings.decode_tokens_per_s
    ));
    Ok(json!({
        "tokens": length,
        "prefill_tokens_per_s": length as f64 / read,
        "last_prefill_tokens_per_s": last.timings.prefill_tokens_per_s,
        "decode_tokens_per_s": last.timings.decode_tokens_per_s,
        "context": last.context,
        "kv_bytes": memory.kv_bytes,
        "ledger_bytes": memory.base_bytes + memory.kv_bytes + beside,
        "peak_rss_bytes": peak_rss_bytes(),
    }))
}

fn answer(session: &mut Session<'_>, prompt: &[u32], max_tokens: usize) -> anyhow::Result<Answer> {
    let limits = AnswerLimits { max_tokens, stop: Vec::new() };
    let never = AtomicBool::new(false);
    session.answer(prompt, &SamplingOptions::greedy(), &limits, &never, &mut |_| {}).map_err(explain)
}

/// The documents of a file one after the other, as far as so many bytes.
fn beginning(path: &Path, bytes: usize) -> anyhow::Result<String> {
    let mut text = String::new();
    for document in read_documents(path, None)? {
        for piece in document?.body.pieces() {
            text.push_str(piece);
            text.push_str("\n\n");
        }
        if text.len() >= bytes {
            break;
        }
    }
    Ok(text)
}
