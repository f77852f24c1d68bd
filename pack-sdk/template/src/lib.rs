//! The base's own layers, then a small network that is yours: trained or not, it changes what the model says.
//!
//! The default expert, the base's layers alone, is one line instead of all this:
//! `pack_sdk::export_pack!(pack_sdk::LlamaExpert);`
#![forbid(unsafe_code)]

use pack_sdk::{Config, Error, Graph, GraphBuilder, Init, LlamaBlock, NoSettings};

/// Width of the adapter between the base's hidden state and itself.
const WIDTH: usize = 64;

fn build(config: &Config<NoSettings>) -> Result<Graph, Error> {
    let hidden = config.base.hidden_size;
    let mut graph = GraphBuilder::new();
    let input = graph.hidden_input(hidden);

    // The slot's layers; without weights of this name in the weights file they are the base's, without a copy.
    let mut x = input;
    for layer in config.slot.start..config.slot.end {
        x = LlamaBlock::of_base(&config.base, layer).apply(&mut graph, x);
    }

    // x + W_up silu(W_down x): these weights are the pack's own.
    let down = graph.weight("adapter.down", &[WIDTH, hidden], Init::Normal { std: 0.02 });
    let up = graph.weight("adapter.up", &[hidden, WIDTH], Init::Normal { std: 0.02 });
    let narrow = graph.linear(x, down);
    let active = graph.silu(narrow);
    let change = graph.linear(active, up);
    let output = graph.add(x, change);
    Ok(graph.finish(&[output]))
}

pack_sdk::export_pack!(build);
