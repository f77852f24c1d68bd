//! Canonical names of a base's weights: what `copy_from_base` names, whatever file the base came from.
//!
//! Matrices are `[out, in]`. The rows of `attn_q` and `attn_k` lie for half-split RoPE, as in Hugging Face files.

/// `[vocab, hidden]`.
pub const TOKEN_EMBD: &str = "token_embd";
/// `[hidden]`.
pub const OUTPUT_NORM: &str = "output_norm";
/// `[vocab, hidden]`; where the base ties its head, the same tensor as [`TOKEN_EMBD`].
pub const OUTPUT: &str = "output";

/// `[hidden]`.
pub const ATTN_NORM: &str = "attn_norm";
/// `[heads * head_dim, hidden]`.
pub const ATTN_Q: &str = "attn_q";
/// `[kv_heads * head_dim, hidden]`.
pub const ATTN_K: &str = "attn_k";
/// `[kv_heads * head_dim, hidden]`.
pub const ATTN_V: &str = "attn_v";
/// `[heads * head_dim]`, where the base has QKV biases.
pub const ATTN_Q_BIAS: &str = "attn_q_bias";
/// `[kv_heads * head_dim]`.
pub const ATTN_K_BIAS: &str = "attn_k_bias";
/// `[kv_heads * head_dim]`.
pub const ATTN_V_BIAS: &str = "attn_v_bias";
/// `[hidden, heads * head_dim]`.
pub const ATTN_OUTPUT: &str = "attn_output";
/// `[hidden]`.
pub const FFN_NORM: &str = "ffn_norm";
/// `[ffn, hidden]`.
pub const FFN_GATE: &str = "ffn_gate";
/// `[ffn, hidden]`.
pub const FFN_UP: &str = "ffn_up";
/// `[hidden, ffn]`.
pub const FFN_DOWN: &str = "ffn_down";

/// What the weights of layer `layer` are prefixed with: `layers.18`.
pub fn layer_prefix(layer: usize) -> String {
    format!("layers.{layer}")
}

/// Full name of weight `weight` of layer `layer`: `layers.18.attn_q`.
pub fn layer_weight(layer: usize, weight: &str) -> String {
    format!("layers.{layer}.{weight}")
}
