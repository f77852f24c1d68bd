//! Ready-made parts of a network.

mod llama_block;
mod llama_expert;
mod moe_ffn;
mod side_network;

pub use llama_block::{BlockStart, LlamaBlock};
pub use llama_expert::LlamaExpert;
pub use moe_ffn::MoeFfn;
pub use side_network::SideNetwork;

#[cfg(test)]
pub(crate) fn test_shape() -> crate::BaseShape {
    crate::BaseShape {
        architecture: "llama".to_owned(),
        hidden_size: 12,
        intermediate_size: 20,
        num_layers: 4,
        num_heads: 2,
        num_kv_heads: 1,
        head_dim: 6,
        vocab_size: 32,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_freq_scale: None,
        qkv_bias: false,
        max_position: 64,
    }
}
