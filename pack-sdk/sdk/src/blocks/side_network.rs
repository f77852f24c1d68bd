//! A small network of its own beside the base: narrower than the base, joined to it by two adapters.

use pack_abi::{Graph, Init};

use super::llama_block::{BlockStart, LlamaBlock};
use crate::{BuildGraph, Config, Error, GraphBuilder, Host, NoSettings, RopeSettings, Value, WholePack};

/// `x + W_up rms_norm(blocks(W_down x))`: an adapter down to `width`, `blocks` transformer blocks of that width, an
/// adapter up. All weights are the pack's own and start normal, so an untrained one already has an effect.
///
/// It is a whole pack: `export_pack!(SideNetwork { width: 64, ..SideNetwork::SMALL })`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SideNetwork {
    /// Width of its blocks.
    pub width: usize,
    /// How many blocks.
    pub blocks: usize,
    /// Attention heads; divides `width` into even head widths.
    pub heads: usize,
    /// Width inside the blocks' FFN.
    pub intermediate_size: usize,
    /// Standard deviation of the matrices at the start.
    pub std: f32,
}

impl SideNetwork {
    /// Two blocks of width 64 with 4 heads.
    pub const SMALL: Self = Self { width: 64, blocks: 2, heads: 4, intermediate_size: 128, std: 0.02 };

    /// The pack's graph for a base.
    ///
    /// # Errors
    /// `INVALID_CONFIG` when `heads` does not divide `width` into even head widths or a size is 0.
    pub fn graph<Settings>(&self, config: &Config<Settings>) -> Result<Graph, Error> {
        if self.heads == 0 || self.width == 0 || !self.width.is_multiple_of(2 * self.heads) {
            return Err(Error::invalid_config(format!(
                "a side network's width ({}) must be a positive multiple of twice its heads ({}), since RoPE turns \
                 pairs",
                self.width, self.heads
            )));
        }
        let mut builder = GraphBuilder::new();
        let input = builder.hidden_input(config.base.hidden_size);
        let output = self.apply(&mut builder, config, input);
        Ok(builder.finish(&[output]))
    }

    /// Adds the network behind `x [tokens, hidden]`; gives `[tokens, hidden]`. Weights are named `side.*`; the KV
    /// caches have the keys `slot.start..slot.start + blocks`.
    pub fn apply<Settings>(&self, builder: &mut GraphBuilder, config: &Config<Settings>, x: Value) -> Value {
        let hidden_size = config.base.hidden_size;
        let normal = Init::Normal { std: self.std };
        let down = builder.weight("side.down", &[self.width, hidden_size], normal.clone());
        let mut narrow = builder.linear(x, down);
        for index in 0..self.blocks {
            narrow = self.block(config, index).apply(builder, narrow);
        }
        let gain = builder.weight("side.norm", &[self.width], Init::Ones);
        let normed = builder.rms_norm(narrow, gain, config.base.rms_norm_eps);
        let up = builder.weight("side.up", &[hidden_size, self.width], normal);
        let change = builder.linear(normed, up);
        builder.add(x, change)
    }

    fn block<Settings>(&self, config: &Config<Settings>, index: usize) -> LlamaBlock {
        LlamaBlock {
            prefix: format!("side.{index}"),
            kv_layer: config.slot.start + index,
            hidden_size: self.width,
            intermediate_size: self.intermediate_size,
            num_heads: self.heads,
            num_kv_heads: self.heads,
            rms_norm_eps: config.base.rms_norm_eps,
            rope: RopeSettings {
                head_dim: self.width / self.heads,
                theta: config.base.rope_theta,
                // The base's factors are for its own head width.
                freq_scale: None,
            },
            qkv_bias: false,
            start: BlockStart::Random { std: self.std },
        }
    }
}

impl BuildGraph<WholePack> for SideNetwork {
    fn build_graph(&self, _host: &Host<'_>, config: &str) -> Result<Graph, Error> {
        self.graph(&Config::<NoSettings>::from_json(config)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SlotRange, blocks::test_shape};
    use pack_abi::OpKind;

    #[test]
    fn caches_have_unique_keys_and_no_weight_comes_from_the_base() {
        let config = Config { base: test_shape(), slot: SlotRange { start: 1, end: 3 }, pack: NoSettings {} };
        let graph = SideNetwork { blocks: 3, ..SideNetwork::SMALL }.graph(&config).unwrap();
        let attr = |node: &pack_abi::Node, name: &str| {
            node.attrs.iter().find(|attr| attr.name == name).map(|attr| attr.value.clone()).unwrap()
        };
        let of = |op: OpKind| graph.nodes.iter().filter(move |node| node.op == op);
        let keys: Vec<_> = of(OpKind::ATTENTION).map(|node| attr(node, "layer").ints[0]).collect();
        assert_eq!(keys, [1, 2, 3]);
        assert!(of(OpKind::WEIGHT).all(|node| !attr(node, "init").text.starts_with("copy_from_base")));
    }

    #[test]
    fn heads_that_do_not_divide_the_width_are_refused() {
        let config = Config { base: test_shape(), slot: SlotRange { start: 1, end: 3 }, pack: NoSettings {} };
        let network = SideNetwork { heads: 5, ..SideNetwork::SMALL };
        assert!(network.graph(&config).unwrap_err().message.contains("multiple of twice its heads"));
    }
}
