//! Bytes of a graph that is interpreted on tensors: of itself, and of the values that live while it runs.

use modularbase_graph::{CheckedGraph, Init, Node, NodeId, Op, Shape};

use crate::{ScratchNeed, StepSize, Weight, context::WindowScratch};

const F32: usize = size_of::<f32>();

/// Heap bytes of a graph: its nodes with their names and inputs, and what was found out about it.
pub(super) fn graph_bytes(graph: &CheckedGraph) -> usize {
    let of_node = |node: &Node| {
        let op = match &node.op {
            Op::Weight(spec) => {
                let source = if let Init::CopyFromBase(source) = &spec.init { source.capacity() } else { 0 };
                spec.shape.capacity() * size_of::<usize>() + source
            }
            Op::Rope(rope) => rope.freq_scale.as_ref().map_or(0, |scale| scale.capacity() * F32),
            _ => 0,
        };
        size_of::<Node>() + node.name.capacity() + node.inputs.capacity() * size_of::<NodeId>() + op
    };
    graph.graph().nodes.iter().map(of_node).sum::<usize>()
        + graph.graph().outputs.capacity() * size_of::<NodeId>()
        + size_of_val(graph.shapes())
        + size_of_val(graph.kv_layers())
}

/// Bytes of the table of a plan's weights and of the readers of each value.
pub(super) fn table_bytes(weights: usize, nodes: usize) -> usize {
    // A hash table is at most half empty, and has a byte of its own for each place.
    2 * weights * (size_of::<(NodeId, Weight)>() + 1) + nodes * size_of::<usize>()
}

/// The most that is alive at once while `graph` runs, where `uses` counts the readers of each value. candle keeps
/// nothing between calls; its CUDA allocator rounds every piece up to 512 bytes and gives memory back to the driver
/// when it likes.
pub(super) fn scratch(graph: &CheckedGraph, uses: &[usize], step: &StepSize) -> ScratchNeed {
    let rows = step.rows;
    let bytes = |id: NodeId| match graph.shapes()[id] {
        Shape::Rows(width) => rows * width * F32,
        _ => 0,
    };
    let mut uses = uses.to_vec();
    let (mut alive, mut most) = (0, 0);
    for (id, node) in graph.graph().nodes.iter().enumerate() {
        if matches!(node.op, Op::Weight(_)) {
            continue;
        }
        alive += bytes(id);
        most = most.max(alive + temporary_bytes(graph, id, step));
        for &input in node.inputs.iter().chain([&id]).filter(|&&input| bytes(input) > 0) {
            if input != id {
                uses[input] -= 1;
            }
            if uses[input] == 0 {
                alive -= bytes(input);
                uses[input] = usize::MAX;
            }
        }
    }
    let mut need = ScratchNeed::default();
    for node in &graph.graph().nodes {
        if let Op::Attention { layer, heads, .. } = &node.op
            && let Some(layer) = graph.kv_layers().iter().find(|known| known.layer == *layer)
        {
            need.or(&WindowScratch::need(step, *layer, *heads));
        }
    }
    let rotations = graph.graph().nodes.iter().filter_map(|node| match &node.op {
        Op::Rope(rope) => Some(rows * rope.head_dim * F32),
        _ => None,
    });
    // Of each sequence's rows.
    let masks = if graph.kv_layers().is_empty() { 0 } else { rows * step.attended() * F32 };
    need.passing += most + rotations.max().unwrap_or(0) + masks;
    need
}

/// What an operation makes on its way beside its result.
fn temporary_bytes(graph: &CheckedGraph, id: NodeId, step: &StepSize) -> usize {
    let (rows, nodes) = (step.rows, &graph.graph().nodes);
    let width = |id: NodeId| match graph.shapes()[id] {
        Shape::Rows(width) => width,
        _ => 0,
    };
    let inputs = nodes[id].inputs.as_slice();
    let values = match &nodes[id].op {
        // Inputs rounded to 16 or 8 bits, and for 16 bits the result too.
        Op::Linear => rows * (width(inputs[0]) + width(id)),
        Op::Rope(_) | Op::LayerNorm { .. } => 3 * rows * width(id),
        Op::Attention { heads, .. } => {
            // Scores, with their mask, and their softmax; keys and values head by head; the queries twice.
            let scores = rows * step.attended() * (2 * heads + 1);
            scores + 2 * step.attended() * (width(inputs[1]) + width(inputs[2])) + 4 * rows * width(id)
        }
        Op::MoeFfn { experts, .. } => {
            let (down, inner) = match &graph.shapes()[inputs[4]] {
                Shape::Weight(shape) => {
                    (shape.iter().product(), shape.last().map_or(0, |inner| inner * experts))
                }
                _ => (0, 0),
            };
            down + rows * (4 * inner + 4 * width(id) + 2 * experts)
        }
        _ => rows * width(id),
    };
    values * F32
}
