//! What is left of a block that only its representatives are kept of: the mean of every sixteen tokens, in f16.
//!
//! Decoded, each mean stands for its sixteen tokens: attention over equal keys gives them the weight that so many tokens
//! have. That is one bit a value.

use half::f16;

use crate::KvShape;

/// Tokens of one mean.
const RUN: usize = 16;

/// Bytes of a block's means.
pub(super) fn encoded_bytes(shape: KvShape) -> usize {
    4 * shape.block_tokens.div_ceil(RUN) * shape.width()
}

/// The means of keys or values `[block_tokens, width]`, little-endian f16.
pub(super) fn encode(width: usize, rows: &[f32], encoded: &mut Vec<u8>) {
    let mut mean = vec![0_f32; width];
    for run in rows.chunks(RUN * width) {
        mean.fill(0.0);
        for row in run.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        let tokens = (run.len() / width) as f32;
        for sum in &mean {
            encoded.extend_from_slice(&f16::from_f32(sum / tokens).to_le_bytes());
        }
    }
}

/// Each mean for all tokens of its run; `encoded` has those of the rows of `out`.
pub(super) fn decode(width: usize, encoded: &[u8], out: &mut [u16]) {
    for (run, bytes) in out.chunks_mut(RUN * width).zip(encoded.chunks_exact(2 * width)) {
        for row in run.chunks_exact_mut(width) {
            for (value, bytes) in row.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = u16::from_le_bytes(*bytes);
            }
        }
    }
}
