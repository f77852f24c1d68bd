//! `bench context`: what a model finds back of a long text, with all of it attended to, with a sliding window, and with
//! retrieved blocks.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use modularbase_context::{ColdStore, ContextOptions, KvBits, Levels};
use modularbase_core::{Advance, Context, LogitRows, Mixture, Sequence, WindowShape};
use modularbase_corpus::{Needle, NeedleSource, read_documents, with_needles};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::model::{Model, explain};
use crate::settings::cache_folder;
use crate::terminal::notice;

/// Tokens of an answer: a key has five digits, and no tokenizer needs more than a space and one token each.
const ANSWER: usize = 8;
/// Answers that are shown of each row.
const SAMPLES: usize = 3;
/// Tokens of a question and its answer that are read behind a text: where a block ends among them the window moves on.
const QUESTION: usize = 48;

/// What is asked of a bench.
#[derive(Debug)]
pub(crate) struct NeedleBench<'a> {
    /// What texts are made of.
    pub(crate) text: &'a Path,
    /// Tokens of a text.
    pub(crate) lengths: &'a [usize],
    /// `full`, or a window.
    pub(crate) ways: &'a [String],
    /// Depths of each length.
    pub(crate) depths: usize,
    /// Needles of a text: each has others of its kind beside it where there are several.
    pub(crate) together: usize,
    /// Of needles and of where texts begin.
    pub(crate) seed: u64,
}

/// A text with its questions, asked behind it one at a time.
struct Haystack {
    tokens: Vec<u32>,
    /// Each with the number of its depth.
    needles: Vec<(usize, Needle)>,
}

/// Asks for needles at every depth; one object with a row for each length and way.
pub(crate) fn needles(model: &Model, mixture: &Mixture, bench: &NeedleBench<'_>) -> anyhow::Result<Value> {
    let mut filler = String::new();
    for document in read_documents(bench.text, None)? {
        for piece in document?.body.pieces() {
            filler.push_str(piece);
            filler.push_str("\n\n");
        }
    }
    let filler = model.host.tokenizer().encode(&filler, false).map_err(|error| explain(error.into()))?;
    let mut rows = Vec::new();
    for &length in bench.lengths {
        let texts = haystacks(model, bench, &filler, length)?;
        for way in bench.ways {
            let row = row(model, mixture, way, &texts)?;
            notice(&format!("{length} tokens, {way}: {}", row["right"]));
            rows.push(row);
        }
    }
    Ok(json!({
        "device": model.host.device(),
        "base": model.name,
        "depths": bench.depths,
        "needles_of_a_text": bench.together,
        "rows": rows,
        "peak_rss_bytes": crate::bench::peak_rss_bytes(),
    }))
}

/// Texts of about `length` tokens, with the questions to come.
fn haystacks(
    model: &Model,
    bench: &NeedleBench<'_>,
    filler: &[u32],
    length: usize,
) -> anyhow::Result<Vec<Haystack>> {
    let tokenizer = model.host.tokenizer();
    let together = bench.together;
    if together == 0 || bench.depths == 0 || !bench.depths.is_multiple_of(together) {
        let problem = format!("{} depths can't be asked for {together} at a time", bench.depths);
        return Err(Failure::usage(problem).help("--together must divide --depths").into());
    }
    if length < 64 * (together + 1) || filler.len() <= length {
        let problem = format!("{length} tokens are too few for {together} needles, or too many for the text");
        return Err(Failure::usage(problem).help("ask for other --lengths, or another text").into());
    }
    let count = bench.depths / together;
    let mut texts = Vec::new();
    for index in 0..count {
        let mut source = NeedleSource::new(bench.seed, index as u64);
        let needles = source.needles(together);
        let depths: Vec<usize> = (index..bench.depths).step_by(count).collect();
        let depth = |number: usize| (number as f64 + 0.5) / bench.depths as f64;
        let placed: Vec<(f64, &Needle)> =
            depths.iter().zip(&needles).map(|(&number, needle)| (depth(number), needle)).collect();
        let begin = source.below(filler.len() - length);
        let plain = tokenizer.decode(&filler[begin..begin + length]);
        let whole = with_needles(&plain, &placed);
        let mut tokens = tokenizer.encode(&whole, false).map_err(|error| explain(error.into()))?;
        // What is cut off is behind the last needle: a question then ends in the block that it begins in.
        tokens.truncate((tokens.len().min(length) - QUESTION) / 64 * 64 + 4);
        texts.push(Haystack { tokens, needles: depths.into_iter().zip(needles).collect() });
    }
    Ok(texts)
}

fn row(model: &Model, mixture: &Mixture, way: &str, texts: &[Haystack]) -> anyhow::Result<Value> {
    let tokens: usize = texts.iter().map(|text| text.tokens.len()).sum();
    let mean = tokens / texts.len().max(1);
    let limit = model.host.core().shape().max_position;
    if way == "full" && mean + QUESTION > limit {
        return Ok(json!({ "tokens": mean, "way": way, "right": null, "of": 0, "limit": limit }));
    }
    let (mut asked, mut samples, mut right, mut wrong) = (0, Vec::new(), Vec::new(), 0);
    let (mut reading, mut answering, mut decoded) = (0.0, 0.0, 0);
    let mut counts = None;
    let mut bytes = 0;
    for text in texts {
        let mut sequence = sequence(model, mixture, way)?;
        let begin = Instant::now();
        let (last, before) = text.tokens.split_last().context("a text has tokens")?;
        step(model, &mut sequence, before, LogitRows::None)?;
        step(model, &mut sequence, &[*last], LogitRows::None)?;
        reading += begin.elapsed().as_secs_f64();
        for (number, needle) in &text.needles {
            let begin = Instant::now();
            let (said, count) = ask(model, &mut sequence, needle)?;
            answering += begin.elapsed().as_secs_f64();
            decoded += count;
            asked += 1;
            let found = needle.is_answer(&said);
            if found {
                right.push(*number)
            } else {
                wrong += 1
            }
            // The first ones, and of wrong ones a few more.
            if samples.len() < SAMPLES || (!found && wrong <= SAMPLES) {
                samples.push(json!({ "depth": number, "key": needle.key, "said": said, "right": found }));
            }
            counts = sequence.context_tokens();
            bytes = sequence.bytes();
            sequence.truncate(text.tokens.len());
        }
    }
    right.sort_unstable();
    Ok(json!({
        "tokens": mean,
        "way": way,
        "right": right.len(),
        "of": asked,
        "right_depths": right,
        "samples": samples,
        "prefill_tokens_per_s": tokens as f64 / reading,
        "question_tokens_per_s": decoded as f64 / answering,
        "hot_bytes": bytes,
        "cold_tokens": counts.map(|counts| counts.cold),
        "stored_bytes": counts.map(|counts| counts.store.stored_bytes),
        "ram_bytes": counts.map(|counts| counts.store.memory_bytes()),
        "blocks": counts.map(|counts| counts.store.blocks),
        "critical_blocks": counts.map(|counts| counts.store.critical_blocks),
        "redundant_blocks": counts.map(|counts| counts.store.redundant_blocks),
        "hits": counts.map(|counts| counts.store.hits),
        "misses": counts.map(|counts| counts.store.misses),
    }))
}

/// The likeliest continuation of a question, and the tokens that went through the model for it.
fn ask(model: &Model, sequence: &mut Sequence, needle: &Needle) -> anyhow::Result<(String, usize)> {
    let tokenizer = model.host.tokenizer();
    let question = tokenizer.encode(&needle.question(), false).map_err(|error| explain(error.into()))?;
    let mut said = Vec::new();
    let mut logits = step(model, sequence, &question, LogitRows::Last)?;
    while said.len() < ANSWER {
        let best = logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
        let token = best.map_or(0, |(token, _)| token as u32);
        if tokenizer.is_end(token) {
            break;
        }
        said.push(token);
        logits = step(model, sequence, &[token], LogitRows::Last)?;
    }
    Ok((tokenizer.decode(&said), question.len() + said.len()))
}

fn step(
    model: &Model,
    sequence: &mut Sequence,
    tokens: &[u32],
    logits: LogitRows,
) -> anyhow::Result<Vec<f32>> {
    if tokens.is_empty() {
        return Ok(Vec::new());
    }
    let step = Advance { sequence, tokens, logits };
    let found = model.host.core().advance(&mut [step])?.into_iter().flatten().next();
    Ok(found.map(|logits| logits.to_vec()).transpose()?.unwrap_or_default())
}

/// A sequence as a way says: `full`, or `HOT:RETRIEVED:BITS[:BLOCK[:CRITICAL:REDUNDANT]]`, where 0 retrieved blocks are a sliding window with
/// sinks.
fn sequence(model: &Model, mixture: &Mixture, way: &str) -> anyhow::Result<Sequence> {
    let core = model.host.core();
    if way == "full" {
        return Ok(Sequence::new(core, mixture.clone()));
    }
    let wrong = || {
        let failure = Failure::usage(format!("`{way}` is no way to keep a text"));
        failure.help("say `full`, or HOT:RETRIEVED:BITS[:BLOCK[:CRITICAL:REDUNDANT]] such as 1024:8:8")
    };
    let parts: Result<Vec<usize>, _> = way.split(':').map(str::parse).collect();
    let parts = parts.map_err(|_| wrong())?;
    let (&[hot_tokens, retrieved_blocks, bits], rest) = parts.split_first_chunk::<3>().ok_or_else(wrong)?;
    let part = |index: usize, usual: usize| rest.get(index).copied().unwrap_or(usual);
    let block_tokens = part(0, 64);
    let levels = Levels { critical: part(1, 0) as u32, redundant: part(2, 0) as u32 };
    let options = ContextOptions {
        hot_tokens,
        retrieved_blocks,
        bits: KvBits::from_count(bits).ok_or_else(wrong)?,
        block_tokens,
        sinks: block_tokens,
        levels,
        ..ContextOptions::default()
    };
    let shape = WindowShape::new(&options, core.shape().max_position)?;
    let store = ColdStore::temporary(&cache_folder()?, "bench", &options)?;
    let mut sequence = Sequence::within(core, Context::new(shape, Arc::new(store)));
    sequence.attach(core, mixture.clone(), None);
    Ok(sequence)
}
