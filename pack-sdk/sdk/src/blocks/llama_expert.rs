//! The default expert: the base's own layers of the slot, to be trained further or used as they are.

use pack_abi::Graph;

use crate::{BuildGraph, Config, Error, Host, NoSettings, WholePack, base_graphs};

/// The slot's layers, every weight starting as the base's. A pack that ships no weights file is then the general pack,
/// and the base's tensors serve it without a copy.
#[derive(Debug, Clone, Copy, Default)]
pub struct LlamaExpert;

impl LlamaExpert {
    /// The graph of the base's layers `[slot.start, slot.end)`.
    ///
    /// # Errors
    /// `INVALID_CONFIG` when the slot does not lie within the base.
    pub fn from_base<Settings>(config: &Config<Settings>) -> Result<Graph, Error> {
        let (slot, layers) = (config.slot, config.base.num_layers);
        if slot.start >= slot.end || slot.end > layers {
            return Err(Error::invalid_config(format!(
                "the slot [{}, {}) must hold at least one layer and lie within the base's {layers} layers",
                slot.start, slot.end
            )));
        }
        Ok(base_graphs::layers(&config.base, slot.layers()))
    }
}

impl BuildGraph<WholePack> for LlamaExpert {
    fn build_graph(&self, _host: &Host<'_>, config: &str) -> Result<Graph, Error> {
        Self::from_base(&Config::<NoSettings>::from_json(config)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SlotRange, blocks::test_shape};
    use pack_abi::{Init, OpKind};

    fn config(start: usize, end: usize) -> Config {
        Config { base: test_shape(), slot: SlotRange { start, end }, pack: NoSettings {} }
    }

    #[test]
    fn every_weight_starts_as_the_base_tensor_of_its_own_name() {
        let graph = LlamaExpert::from_base(&config(1, 3)).unwrap();
        let weights: Vec<_> = graph.nodes.iter().filter(|node| node.op == OpKind::WEIGHT).collect();
        assert_eq!(weights.len(), 2 * 9);
        for weight in weights {
            let init = weight.attrs.iter().find(|attr| attr.name == "init").unwrap();
            let init: Init = init.value.text.parse().unwrap();
            assert_eq!(init, Init::CopyFromBase(weight.name.to_string()));
            assert!(weight.name.starts_with("layers.1.") || weight.name.starts_with("layers.2."));
        }
    }

    #[test]
    fn a_slot_outside_the_base_is_refused() {
        for (start, end) in [(2, 2), (3, 2), (2, 5)] {
            let error = LlamaExpert::from_base(&config(start, end)).unwrap_err();
            assert!(error.message.contains("4 layers"), "{error}");
        }
    }
}
