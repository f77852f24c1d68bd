//! A mixture of experts inside one pack.

use pack_abi::Init;

use crate::{GraphBuilder, Value};

/// `x + moe_ffn(rms_norm(x))`: a router picks `top_k` of `experts` gated FFNs for each token (Mixtral,
/// Jiang et al. 2024). Matrices start normal, the norm at one.
#[derive(Debug, Clone, PartialEq)]
pub struct MoeFfn {
    /// Prefix of its weights' names: `moe` gives `moe.norm`, `moe.router`, `moe.gate`, `moe.up`, `moe.down`.
    pub prefix: String,
    /// Width of `x`.
    pub width: usize,
    /// Width inside an expert.
    pub intermediate_size: usize,
    /// How many experts there are.
    pub experts: usize,
    /// How many of them a token uses.
    pub top_k: usize,
    /// Added to the mean square in the norm.
    pub rms_norm_eps: f64,
    /// Standard deviation of the matrices at the start.
    pub std: f32,
}

impl MoeFfn {
    /// Adds the block behind `x [tokens, width]`; gives `[tokens, width]`.
    pub fn apply(&self, builder: &mut GraphBuilder, x: Value) -> Value {
        let (n, f, experts) = (self.width, self.intermediate_size, self.experts);
        let name = |weight: &str| format!("{}.{weight}", self.prefix);
        let normal = || Init::Normal { std: self.std };
        builder.in_scope(&self.prefix, |builder| {
            let gain = builder.weight(name("norm"), &[n], Init::Ones);
            let normed = builder.rms_norm(x, gain, self.rms_norm_eps);
            let router = builder.weight(name("router"), &[experts, n], normal());
            let gate = builder.weight(name("gate"), &[experts * f, n], normal());
            let up = builder.weight(name("up"), &[experts * f, n], normal());
            let down = builder.weight(name("down"), &[experts * n, f], normal());
            let mixed = builder.moe_ffn(normed, [router, gate, up, down], experts, self.top_k);
            builder.add(x, mixed)
        })
    }
}
