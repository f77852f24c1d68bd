//! What is known of a block without decoding it.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::KvShape;

/// Each channel's greatest and least key in a block: they bound the score that any key of the block can reach (Tang et al.
/// 2024, "Quest", arXiv 2406.10774). The bound of a query is one product, that of `[max(q, 0), min(q, 0)]` with a head's
/// bounds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockSummary {
    /// Of each head the greatest key of each channel and then the least, f16 bits `[kv_heads, 2, head_dim]`.
    pub bounds: Vec<u16>,
}

impl BlockSummary {
    /// Of a block's keys, f16 bits `[block_tokens, kv_heads * head_dim]`. A channel without a number has -inf
    /// and +inf.
    pub fn of(shape: KvShape, keys: &[u16]) -> Self {
        let width = shape.width();
        let mut row = vec![0_f32; width];
        let (mut maxima, mut minima) = (vec![f32::NEG_INFINITY; width], vec![f32::INFINITY; width]);
        for keys in keys.chunks_exact(width) {
            keys.reinterpret_cast::<f16>().convert_to_f32_slice(&mut row);
            for ((maximum, minimum), &key) in maxima.iter_mut().zip(&mut minima).zip(&row) {
                *maximum = maximum.max(key);
                *minimum = minimum.min(key);
            }
        }
        let heads = maxima.chunks_exact(shape.head_dim).zip(minima.chunks_exact(shape.head_dim));
        let bounds = heads.flat_map(|(maxima, minima)| maxima.iter().chain(minima));
        Self { bounds: bounds.map(|&bound| f16::from_f32(bound).to_bits()).collect() }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.bounds.iter().flat_map(|bits| bits.to_le_bytes()).collect()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self { bounds: bytes.as_chunks::<2>().0.iter().map(|&bytes| u16::from_le_bytes(bytes)).collect() }
    }
}
