//! What a session of the default base's shape costs: bytes and time by bits, as lines of JSON.
//!
//! `cargo run --release -p modularbase-context --example session_bench [TOKENS] [FOLDER]`

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Instant;

use half::f16;
use modularbase_context::{
    BlockId, BlockSummary, ContextError, ContextOptions, KvBits, KvShape, Sessions, encode_block,
};

const SHAPE: KvShape = KvShape { kv_heads: 3, head_dim: 64, block_tokens: 64 };
const STREAMS: [(&str, u32); 3] = [("understanding", 14), ("expert", 12), ("fusion", 4)];
const HIDDEN_BYTES: usize = 576 * 4;
const HOT_TOKENS: usize = 2048;

fn main() -> Result<(), ContextError> {
    let mut arguments = std::env::args().skip(1);
    let tokens = arguments.next().and_then(|tokens| tokens.parse().ok()).unwrap_or(20_000);
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from).join("session-bench");
    let sessions = Sessions::new(&folder);
    for bits in [KvBits::B8, KvBits::B4, KvBits::B2] {
        measure(&sessions, bits, tokens)?;
        sessions.remove("bench")?;
    }
    Ok(())
}

fn measure(sessions: &Sessions, bits: KvBits, tokens: usize) -> Result<(), ContextError> {
    let options = ContextOptions {
        bits,
        block_tokens: SHAPE.block_tokens,
        hot_tokens: HOT_TOKENS,
        ..Default::default()
    };
    let keys: Vec<u16> = (0..SHAPE.elements()).map(|at| f16::from_f32((at as f32).sin()).to_bits()).collect();
    let hidden = vec![7; SHAPE.block_tokens * HIDDEN_BYTES];
    let hot = vec![3; HOT_TOKENS * (30 * 4 * SHAPE.width() + HIDDEN_BYTES)];
    let session = sessions.open("bench", "base", &options, &[])?;
    let store = session.store();
    let text: Vec<u32> = (0..tokens as u32).collect();
    let begun = Instant::now();
    store.extend(&text);
    let blocks = (tokens.saturating_sub(HOT_TOKENS) / SHAPE.block_tokens) as u32;
    for index in 0..blocks {
        for (stream, layers) in STREAMS {
            for layer in 0..layers {
                let encoded = encode_block(bits, SHAPE, &keys, &keys);
                let id = BlockId { stream, layer, index };
                store.append(id, bits, SHAPE, &encoded, &BlockSummary::of(SHAPE, &keys))?;
            }
        }
        store.append_bytes(BlockId { stream: "h_s", layer: 0, index }, &hidden)?;
    }
    store.flush()?;
    let appended = begun.elapsed();
    let begun = Instant::now();
    session.save("", &[("hot", &hot)], false)?;
    let saved = begun.elapsed();
    let begun = Instant::now();
    session.save("", &[("hot", &hot)], false)?;
    let saved_again = begun.elapsed();
    let stored = store.stats().stored_bytes;
    drop(session);

    let begun = Instant::now();
    let mut session = sessions.open("bench", "base", &options, &[])?;
    let turn = session.take_saved();
    let opened = begun.elapsed();
    let begun = Instant::now();
    for (stream, layers) in STREAMS {
        for layer in 0..layers {
            session.store().summaries(stream, layer)?;
        }
    }
    let summaries = begun.elapsed();
    let begun = Instant::now();
    let mut read = 0;
    for index in (0..blocks).step_by(7) {
        for layer in 0..14 {
            session.store().block(BlockId { stream: "understanding", layer, index })?;
            read += 1;
        }
    }
    let fetched = begun.elapsed();
    let cold_tokens = (blocks as usize * SHAPE.block_tokens) as f64;
    println!(
        "{}",
        serde_json::json!({
            "bits": bits.count(),
            "tokens": tokens,
            "cold_bytes_a_token": stored as f64 / cold_tokens,
            "hot_bytes": turn.map(|turn| turn.parts[0].1.len()),
            "append_us_a_token": appended.as_secs_f64() * 1e6 / cold_tokens,
            "first_save_ms": saved.as_secs_f64() * 1e3,
            "save_ms": saved_again.as_secs_f64() * 1e3,
            "open_ms": opened.as_secs_f64() * 1e3,
            "summaries_ms": summaries.as_secs_f64() * 1e3,
            "fetch_us_a_block": fetched.as_secs_f64() * 1e6 / f64::from(read),
        })
    );
    Ok(())
}
