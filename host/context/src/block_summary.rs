//! What is known of a block without decoding it.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::KvShape;

/// Each channel's least and greatest key in a block, f16 bits `[kv_heads * head_dim]`: they bound the score
/// that any key of the block can reach (Tang et al. 2024, "Quest", arXiv 2406.10774).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSummary {
    /// The least key of each channel.
    pub minima: Vec<u16>,
    /// The greatest key of each channel.
    pub maxima: Vec<u16>,
}

impl BlockSummary {
    /// Of a block's keys, f16 bits `[block_tokens, kv_heads * head_dim]`. A channel without a number has +inf
    /// and -inf.
    pub fn of(shape: KvShape, keys: &[u16]) -> Self {
        let width = shape.width();
        let mut row = vec![0_f32; width];
        let (mut minima, mut maxima) = (vec![f32::INFINITY; width], vec![f32::NEG_INFINITY; width]);
        for keys in keys.chunks_exact(width) {
            keys.reinterpret_cast::<f16>().convert_to_f32_slice(&mut row);
            for ((minimum, maximum), &key) in minima.iter_mut().zip(&mut maxima).zip(&row) {
                *minimum = minimum.min(key);
                *maximum = maximum.max(key);
            }
        }
        let bits =
            |values: Vec<f32>| values.into_iter().map(|value| f16::from_f32(value).to_bits()).collect();
        Self { minima: bits(minima), maxima: bits(maxima) }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.minima.iter().chain(&self.maxima).flat_map(|bits| bits.to_le_bytes()).collect()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut minima: Vec<u16> =
            bytes.as_chunks::<2>().0.iter().map(|&bytes| u16::from_le_bytes(bytes)).collect();
        let maxima = minima.split_off(minima.len() / 2);
        Self { minima, maxima }
    }
}
