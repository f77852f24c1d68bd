//! Bytes of a lowered graph: of itself, and of what its calls work in.

use modularbase_graph::{CheckedGraph, Op, RopeSpec, Shape};
use modularbase_kernels::{
    self as kernels, AttentionJob, AttentionShape, Matrix, RopeAngles, ScratchSizes, WeightFormat,
};

use crate::{ScratchNeed, StepSize, context::WindowScratch};

use super::{
    execution::CpuPlan,
    step::{LinearTarget, MoeExpert, Program, Step},
};

impl Program {
    /// Heap bytes of the program beside the weights it shares.
    pub(super) fn bytes(&self) -> usize {
        let of_step = |step: &Step| match step {
            Step::Linear { targets, .. } => targets.capacity() * size_of::<LinearTarget>(),
            Step::Concat { parts, .. } => parts.capacity() * size_of::<usize>(),
            Step::Moe { experts, .. } => experts.capacity() * size_of::<MoeExpert>(),
            _ => 0,
        };
        self.steps.capacity() * size_of::<Step>()
            + self.steps.iter().map(of_step).sum::<usize>()
            + self.widths.capacity() * size_of::<usize>()
            + self.kv_layers.capacity() * size_of::<modularbase_graph::KvLayer>()
            + self.ropes.iter().map(rope_bytes).sum::<usize>()
            + self.copied_bytes
    }

    /// What calls of up to `step.rows` rows work in, on `threads` threads.
    pub(super) fn scratch(&self, step: &StepSize, threads: usize) -> ScratchNeed {
        let rows = step.rows;
        let row_bytes = |width: usize| rows * width * size_of::<f32>();
        let mut buffers: Vec<usize> = self.widths.iter().map(|&width| row_bytes(width)).collect();
        // The output leaves with the call.
        buffers[self.output] = 0;
        let angles = self.ropes.iter().map(|rope| RopeAngles::bytes_for(rows, rope.head_dim / 2)).collect();
        let mut kernels = ScratchSizes::default();
        let mut window = ScratchNeed::default();
        let mut passing = 0;
        for operation in &self.steps {
            let (own, own_passing) = match operation {
                Step::Linear { targets, .. } => {
                    let weights = targets.iter().map(|target| &*target.weight);
                    (linear_scratch(rows, weights), targets.len() * 2 * size_of::<LinearTarget>())
                }
                Step::Attention { cache, heads, causal, .. } => {
                    let shape = self.attention_shape(*cache, *heads, *causal);
                    let scratch =
                        kernels::attention_scratch(threads, shape, rows, step.sequences, step.attended());
                    let own = WindowScratch::need(step, self.kv_layers[*cache], *heads);
                    let passing = step.sequences * size_of::<AttentionJob<'_>>() + own.passing;
                    window.or(&own);
                    (scratch, passing)
                }
                Step::Moe { router, experts, top_k, .. } => {
                    let inner = experts.first().map_or(0, |expert| expert.gate.rows());
                    let weights =
                        experts.iter().flat_map(|expert| [&expert.gate, &expert.up]).chain([&**router]);
                    let down = experts.iter().map(|expert| &expert.down);
                    // Worst where every row chooses the same expert.
                    let values = row_bytes(experts.len() + 2 * router.cols() + 3 * inner);
                    let choice = rows * (*top_k + experts.len()) * 4 * size_of::<usize>();
                    (linear_scratch(rows, weights).max(linear_scratch(rows, down)), values + choice)
                }
                _ => (ScratchSizes::default(), 0),
            };
            kernels = kernels.max(own);
            passing = passing.max(own_passing);
        }
        let positions = 2 * rows * size_of::<u32>();
        ScratchNeed { buffers, angles, kernels, window: window.window, passing: passing + positions }
    }

    pub(super) fn attention_shape(&self, cache: usize, heads: usize, causal: bool) -> AttentionShape {
        let layer = self.kv_layers[cache];
        let scale = 1.0 / (layer.head_dim as f32).sqrt();
        AttentionShape { heads, kv_heads: layer.kv_heads, head_dim: layer.head_dim, scale, causal }
    }
}

fn linear_scratch<'a>(rows: usize, weights: impl Iterator<Item = &'a Matrix>) -> ScratchSizes {
    let need = |weight: &Matrix| {
        let floats = !weight.format().is_quantized();
        kernels::linear_scratch(rows, weight.cols(), weight.reads_int8(), floats)
    };
    weights.map(need).fold(ScratchSizes::default(), ScratchSizes::max)
}

/// A rotary embedding with its factors and inverse frequencies.
fn rope_bytes(rope: &RopeSpec) -> usize {
    let factors = rope.freq_scale.as_ref().map_or(0, Vec::capacity);
    size_of::<RopeSpec>() + size_of::<Vec<f32>>() + (factors + rope.head_dim / 2) * size_of::<f32>()
}

/// Bytes that the plan of a graph takes, at most.
pub(super) fn plan_bytes_for(graph: &CheckedGraph) -> usize {
    let of_node = |(id, node): (usize, &modularbase_graph::Node)| match &node.op {
        Op::Weight(_) | Op::Input(_) => 0,
        // A step, perhaps with a copy before it, and a buffer for each.
        op => {
            let own = match op {
                Op::Rope(rope) => rope_bytes(rope),
                Op::MoeFfn { experts, .. } => {
                    let copies =
                        node.inputs[2..].iter().map(|&input| copied_bytes(&graph.shapes()[input], *experts));
                    experts * size_of::<MoeExpert>() + copies.sum::<usize>()
                }
                _ => 0,
            };
            let values = node.inputs.len().max(graph.graph().outputs.len().min(id)) * size_of::<usize>();
            2 * (size_of::<Step>() + size_of::<usize>()) + size_of::<LinearTarget>() + values + own
        }
    };
    let nodes = graph.graph().nodes.iter().enumerate().map(of_node).sum::<usize>();
    size_of::<CpuPlan>() + nodes + size_of_val(graph.kv_layers())
}

/// Bytes of a matrix that stacks `parts` experts once these are copied, which they are where they are no whole tiles.
fn copied_bytes(shape: &Shape, parts: usize) -> usize {
    let Shape::Weight(shape) = shape else { return 0 };
    match *shape.as_slice() {
        [rows, columns] if !(rows / parts.max(1)).is_multiple_of(16) => {
            let part = Matrix::packed_bytes(WeightFormat::F32, rows / parts.max(1), columns);
            part.map_or(0, |part| part * parts)
        }
        _ => 0,
    }
}
