//! Loss, speed and memory of a long text in a window, against the whole context; one JSON object a line.
//!
//! `context_bench BASE.gguf TEXT.txt TOKENS WAY..`, where a way is `full` or `HOT:RETRIEVED:BITS[:BLOCK[:CRITICAL:REDUNDANT]]`: hot
//! tokens, retrieved blocks (0: a sliding window with sinks), bits of a cold value, tokens of a block. A loss is
//! the mean over the tokens behind the first 2,048.

use std::{error::Error, io::Write, sync::Arc, time::Instant};

use modularbase_context::{ColdStore, ContextOptions, KvBits, Levels};
use modularbase_core::{
    Advance, BaseCore, BaseFile, Context, CpuBackend, KvDtype, LogitRows, Mixture, Sequence, Tokenizer,
    WeightDtype, WindowShape,
};
use pack_sdk::SlotRange;
use serde_json::json;

/// Tokens that no loss is counted for.
const WHOLE: usize = 2_048;
/// Tokens that are decoded behind the text.
const DECODED: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, text, tokens, ways @ ..] = arguments.as_slice() else {
        return Err("context_bench BASE.gguf TEXT.txt TOKENS WAY..".into());
    };
    let file = BaseFile::open(base)?;
    let threads = std::thread::available_parallelism()?.get();
    let slot = SlotRange { start: 14, end: 26 };
    let backend = Arc::new(CpuBackend::new(threads, KvDtype::F16));
    let core = BaseCore::load(&file, slot, backend, WeightDtype::AsStored, &mut |_, _| {})?;
    let mut text = Tokenizer::of_base(&file)?.encode(&std::fs::read_to_string(text)?, false)?;
    text.truncate(tokens.parse()?);
    for way in ways {
        println!("{}", measure(&core, way, &text)?);
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn measure(core: &BaseCore, way: &str, text: &[u32]) -> Result<serde_json::Value, Box<dyn Error>> {
    let mut sequence = sequence(core, way)?;
    let (mut sum, mut counted) = (0.0, 0);
    let begin = Instant::now();
    let mut logits = Vec::new();
    for (piece, first) in text.chunks(512).zip((0..).step_by(512)) {
        let wanted = if first < WHOLE { LogitRows::Last } else { LogitRows::All };
        logits = step(core, &mut sequence, piece, wanted)?;
        if wanted == LogitRows::All {
            for (row, &next) in logits.chunks_exact(core.shape().vocab_size).zip(&text[first + 1..]) {
                sum += loss(row, next);
                counted += 1;
            }
        }
    }
    let prefill = text.len() as f64 / begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    for _ in 0..DECODED {
        let last = &logits[logits.len() - core.shape().vocab_size..];
        let best = last.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
        let token = best.map_or(0, |(token, _)| token as u32);
        logits = step(core, &mut sequence, &[token], LogitRows::Last)?;
    }
    let decode = DECODED as f64 / begin.elapsed().as_secs_f64();
    let counts = sequence.context_tokens();
    Ok(json!({
        "way": way,
        "tokens": text.len(),
        "loss": sum / f64::from(counted.max(1)),
        "counted": counted,
        "prefill_tokens_per_s": prefill,
        "decode_tokens_per_s": decode,
        "kv_bytes": sequence.bytes(),
        "cold_tokens": counts.map(|counts| counts.cold),
        "stored_bytes": counts.map(|counts| counts.store.stored_bytes),
        "ram_bytes": counts.map(|counts| counts.store.ram_bytes),
        "blocks": counts.map(|counts| counts.store.blocks),
        "critical_blocks": counts.map(|counts| counts.store.critical_blocks),
        "redundant_blocks": counts.map(|counts| counts.store.redundant_blocks),
        "hits": counts.map(|counts| counts.store.hits),
        "misses": counts.map(|counts| counts.store.misses),
    }))
}

fn step(
    core: &BaseCore,
    sequence: &mut Sequence,
    tokens: &[u32],
    logits: LogitRows,
) -> Result<Vec<f32>, Box<dyn Error>> {
    let found = core.advance(&mut [Advance { sequence, tokens, logits }])?.remove(0);
    Ok(found.ok_or("the step gave no logits")?.to_vec()?)
}

fn sequence(core: &BaseCore, way: &str) -> Result<Sequence, Box<dyn Error>> {
    let mixture = Mixture::single(core.own_slot_layers()?.into());
    if way == "full" {
        return Ok(Sequence::new(core, mixture));
    }
    let parts = way.split(':').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let &[hot_tokens, retrieved_blocks, bits, ref rest @ ..] = parts.as_slice() else {
        return Err(
            format!("`{way}` is neither `full` nor HOT:RETRIEVED:BITS[:BLOCK[:CRITICAL:REDUNDANT]]").into()
        );
    };
    let bits = KvBits::from_count(bits).ok_or("16, 8, 4 or 2 bits")?;
    let part = |index: usize, usual: usize| rest.get(index).copied().unwrap_or(usual);
    let block_tokens = part(0, 64);
    let levels = Levels { critical: part(1, 0) as u32, redundant: part(2, 0) as u32 };
    let options = ContextOptions {
        hot_tokens,
        retrieved_blocks,
        bits,
        block_tokens,
        sinks: block_tokens,
        levels,
        ..ContextOptions::default()
    };
    let shape = WindowShape::new(&options, core.shape().max_position)?;
    let store = Arc::new(ColdStore::temporary(&std::env::temp_dir(), "bench", &options)?);
    let mut sequence = Sequence::within(core, Context::new(shape, store));
    sequence.attach(core, mixture, None);
    Ok(sequence)
}

/// `-ln p(token)`, nats.
fn loss(logits: &[f32], token: u32) -> f64 {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - best).exp())).sum();
    f64::from(best) + sum.ln() - f64::from(logits[token as usize])
}
