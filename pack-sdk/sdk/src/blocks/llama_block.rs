//! A transformer block of the Llama family: attention, then a gated FFN, each behind an RMS norm with a residual.

use pack_abi::Init;

use crate::{BaseShape, GraphBuilder, RopeSettings, Value, base_weights};

/// One block (Touvron et al. 2023, with Qwen2's QKV bias as an option):
/// `h = x + W_o attention(rope(W_q n), rope(W_k n), W_v n)` with `n = rms_norm(x)`, then
/// `h + W_down (silu(W_gate m) * W_up m)` with `m = rms_norm(h)`.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaBlock {
    /// Prefix of its weights' names: `layers.18` gives `layers.18.attn_q`.
    pub prefix: String,
    /// Key of its KV cache, unique in the graph.
    pub kv_layer: usize,
    /// Width of the hidden state.
    pub hidden_size: usize,
    /// Width between the gate and the down projection.
    pub intermediate_size: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Added to the mean square in the norms.
    pub rms_norm_eps: f64,
    /// Rotary embedding; its `head_dim` is the width of a head.
    pub rope: RopeSettings,
    /// Whether the q, k and v projections have a bias.
    pub qkv_bias: bool,
    /// How its weights start.
    pub start: BlockStart,
}

/// How the weights of a block start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BlockStart {
    /// As the base's weights of this layer.
    FromBase {
        /// The base's layer.
        layer: usize,
    },
    /// Matrices normal, norms one, biases zero.
    Random {
        /// Standard deviation of the matrices.
        std: f32,
    },
}

impl LlamaBlock {
    /// The base's own layer `layer`: its shape, its names, its weights.
    pub fn of_base(base: &BaseShape, layer: usize) -> Self {
        Self {
            prefix: base_weights::layer_prefix(layer),
            kv_layer: layer,
            hidden_size: base.hidden_size,
            intermediate_size: base.intermediate_size,
            num_heads: base.num_heads,
            num_kv_heads: base.num_kv_heads,
            rms_norm_eps: base.rms_norm_eps,
            rope: RopeSettings {
                head_dim: base.head_dim,
                theta: base.rope_theta,
                freq_scale: base.rope_freq_scale.clone(),
            },
            qkv_bias: base.qkv_bias,
            start: BlockStart::FromBase { layer },
        }
    }

    /// Adds the block behind `x [tokens, hidden]`; gives `[tokens, hidden]`.
    pub fn apply(&self, builder: &mut GraphBuilder, x: Value) -> Value {
        builder.in_scope(&self.prefix, |builder| {
            let attended = self.attention(builder, x);
            let x = builder.add(x, attended);
            let fed = self.gated_ffn(builder, x);
            builder.add(x, fed)
        })
    }

    fn attention(&self, builder: &mut GraphBuilder, x: Value) -> Value {
        let query_width = self.num_heads * self.rope.head_dim;
        let kv_width = self.num_kv_heads * self.rope.head_dim;
        let normed = self.norm(builder, base_weights::ATTN_NORM, x);
        let q =
            self.projection(builder, normed, base_weights::ATTN_Q, base_weights::ATTN_Q_BIAS, query_width);
        let k = self.projection(builder, normed, base_weights::ATTN_K, base_weights::ATTN_K_BIAS, kv_width);
        let v = self.projection(builder, normed, base_weights::ATTN_V, base_weights::ATTN_V_BIAS, kv_width);
        let q = builder.rope(q, &self.rope);
        let k = builder.rope(k, &self.rope);
        let mixed = builder.attention([q, k, v], self.kv_layer, self.num_heads, self.num_kv_heads);
        let output = self.matrix(builder, base_weights::ATTN_OUTPUT, self.hidden_size, query_width);
        builder.linear(mixed, output)
    }

    fn gated_ffn(&self, builder: &mut GraphBuilder, x: Value) -> Value {
        let normed = self.norm(builder, base_weights::FFN_NORM, x);
        let gate = self.matrix(builder, base_weights::FFN_GATE, self.intermediate_size, self.hidden_size);
        let up = self.matrix(builder, base_weights::FFN_UP, self.intermediate_size, self.hidden_size);
        let gate = builder.linear(normed, gate);
        let up = builder.linear(normed, up);
        let gated = builder.silu_mul(gate, up);
        let down = self.matrix(builder, base_weights::FFN_DOWN, self.hidden_size, self.intermediate_size);
        builder.linear(gated, down)
    }

    fn projection(
        &self,
        builder: &mut GraphBuilder,
        x: Value,
        weight: &str,
        bias: &str,
        width: usize,
    ) -> Value {
        let matrix = self.matrix(builder, weight, width, self.hidden_size);
        if self.qkv_bias {
            let bias = self.weight(builder, bias, &[width], Init::Zeros);
            builder.linear_with_bias(x, matrix, bias)
        } else {
            builder.linear(x, matrix)
        }
    }

    fn norm(&self, builder: &mut GraphBuilder, weight: &str, x: Value) -> Value {
        let gain = self.weight(builder, weight, &[self.hidden_size], Init::Ones);
        builder.rms_norm(x, gain, self.rms_norm_eps)
    }

    fn matrix(&self, builder: &mut GraphBuilder, weight: &str, out: usize, width: usize) -> Value {
        let std = match self.start {
            BlockStart::Random { std } => std,
            BlockStart::FromBase { .. } => 0.0, // replaced below
        };
        self.weight(builder, weight, &[out, width], Init::Normal { std })
    }

    fn weight(&self, builder: &mut GraphBuilder, weight: &str, shape: &[usize], random: Init) -> Value {
        let init = match self.start {
            BlockStart::FromBase { layer } => Init::CopyFromBase(base_weights::layer_weight(layer, weight)),
            BlockStart::Random { .. } => random,
        };
        builder.weight(format!("{}.{weight}", self.prefix), shape, init)
    }
}
