//! The base's own layers as graphs: the host runs them with the executor that runs packs, so one path is optimised,
//! tested and trained. Every weight is named canonically and takes itself from the base.

use std::ops::Range;

use pack_abi::{Graph, Init};

use crate::{BaseShape, GraphBuilder, LlamaBlock, Value, base_weights};

/// Token ids to the hidden state `h_s` `[tokens, hidden]`: the embedding and the layers `[0, start)`.
pub fn understanding(base: &BaseShape, start: usize) -> Graph {
    let mut builder = GraphBuilder::new();
    let tokens = builder.tokens_input();
    let table = base_weight(&mut builder, base_weights::TOKEN_EMBD, &[base.vocab_size, base.hidden_size]);
    let embedded = builder.embedding(tokens, table);
    let hidden = apply_layers(&mut builder, base, 0..start, embedded);
    builder.finish(&[hidden])
}

/// Hidden state to hidden state, `[tokens, hidden]`, through the base's layers of `range`. The KV cache of a layer has
/// its index in the base as key.
pub fn layers(base: &BaseShape, range: Range<usize>) -> Graph {
    let mut builder = GraphBuilder::new();
    let input = builder.hidden_input(base.hidden_size);
    let hidden = apply_layers(&mut builder, base, range, input);
    builder.finish(&[hidden])
}

/// Hidden state after the last layer to logits `[tokens, vocab]`: final norm and LM head. The head's weight is
/// `output`; a base with tied embeddings offers its embedding under that name.
pub fn head(base: &BaseShape) -> Graph {
    let mut builder = GraphBuilder::new();
    let input = builder.hidden_input(base.hidden_size);
    let gain = base_weight(&mut builder, base_weights::OUTPUT_NORM, &[base.hidden_size]);
    let normed = builder.rms_norm(input, gain, base.rms_norm_eps);
    let output = base_weight(&mut builder, base_weights::OUTPUT, &[base.vocab_size, base.hidden_size]);
    let logits = builder.linear(normed, output);
    builder.finish(&[logits])
}

fn apply_layers(builder: &mut GraphBuilder, base: &BaseShape, range: Range<usize>, input: Value) -> Value {
    range.fold(input, |hidden, layer| LlamaBlock::of_base(base, layer).apply(builder, hidden))
}

fn base_weight(builder: &mut GraphBuilder, name: &str, shape: &[usize]) -> Value {
    builder.weight(name, shape, Init::CopyFromBase(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::test_shape;
    use pack_abi::OpKind;

    #[test]
    fn understanding_and_the_rest_cover_every_layer_once() {
        let base = test_shape();
        let weights = |graph: &Graph| {
            let weights = graph.nodes.iter().filter(|node| node.op == OpKind::WEIGHT);
            weights.map(|node| node.name.to_string()).collect::<Vec<_>>()
        };
        let mut all = weights(&understanding(&base, 2));
        all.extend(weights(&layers(&base, 2..base.num_layers)));
        all.extend(weights(&head(&base)));
        // embedding, 9 a layer, final norm, head
        assert_eq!(all.len(), 1 + 9 * base.num_layers + 2);
        let mut unique = all.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), all.len());
        assert!(all.contains(&"layers.3.ffn_down".to_owned()), "{all:?}");
    }

    #[test]
    fn a_base_with_qkv_bias_has_three_more_weights_a_layer() {
        let plain = test_shape();
        let biased = BaseShape { qkv_bias: true, ..plain.clone() };
        let weights = |base: &BaseShape| {
            layers(base, 0..1).nodes.iter().filter(|node| node.op == OpKind::WEIGHT).count()
        };
        assert_eq!(weights(&biased), weights(&plain) + 3);
    }
}
