//! The shape of the base a pack is built for, as the host tells it.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Sizes and constants of a Llama-family base. Unknown fields are ignored, so that a newer host can say more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaseShape {
    /// `"llama"` or `"qwen2"`.
    pub architecture: String,
    /// Width of the hidden state, the residual stream.
    pub hidden_size: usize,
    /// Width between the gate and the down projection.
    pub intermediate_size: usize,
    /// Transformer layers in all.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads (grouped-query attention); divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Added to the mean square in every RMS norm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Factors of the inverse rotary frequencies, `[head_dim / 2]`: how Llama 3's RoPE scaling is expressed.
    #[serde(default)]
    pub rope_freq_scale: Option<Vec<f32>>,
    /// Whether the q, k and v projections have a bias (Qwen2).
    #[serde(default)]
    pub qkv_bias: bool,
    /// Longest context the base was trained for, tokens.
    pub max_position: usize,
}

impl BaseShape {
    /// Width of the query projection, `num_heads * head_dim`.
    pub fn query_width(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Width of the key and of the value projection, `num_kv_heads * head_dim`.
    pub fn kv_width(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }
}

/// The layers `[start, end)` that packs stand in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRange {
    /// First layer of the slot.
    pub start: usize,
    /// The layer after its last.
    pub end: usize,
}

impl SlotRange {
    /// The layers as a range.
    pub fn layers(self) -> Range<usize> {
        self.start..self.end
    }
}
