//! From a checked graph to steps: buffers by liveness, products of one input in one step, residual sums and
//! rotations in place.

use std::{collections::HashMap, sync::Arc};

use modularbase_graph::{CheckedGraph, InputKind, Node, NodeId, Op, RopeSpec, Shape};
use modularbase_kernels::Matrix;

use crate::{CoreError, Weight, WeightLookup, backend::look_up};

use super::step::{Buffer, LinearTarget, MoeExpert, Program, Step};

/// Lowers a graph, asking `weights` for each weight once.
pub(super) fn lower(graph: &CheckedGraph, weights: &mut WeightLookup<'_>) -> Result<Program, CoreError> {
    let &[output] = graph.graph().outputs.as_slice() else {
        return Err(CoreError::mismatch("graph outputs", 1, graph.graph().outputs.len()));
    };
    let mut lowering = Lowering::new(graph, weights)?;
    for id in 0..graph.graph().nodes.len() {
        lowering.node(id)?;
    }
    let input = graph.input().map(|(id, kind)| match kind {
        InputKind::Tokens => (kind, None),
        InputKind::Hidden { .. } => (kind, lowering.input_buffer.or(lowering.buffers[id])),
    });
    let output = lowering.buffer(output)?;
    let Lowering { mut steps, mut widths, mut ropes, weights, copied, .. } = lowering;
    drop(weights);
    steps.shrink_to_fit();
    widths.shrink_to_fit();
    ropes.shrink_to_fit();
    let copied_bytes = copied.iter().map(Copied::bytes).sum();
    Ok(Program { steps, widths, input, output, ropes, kv_layers: graph.kv_layers().to_vec(), copied_bytes })
}

/// A matrix whose parts are copies.
struct Copied {
    whole: Arc<Matrix>,
    parts: usize,
}

impl Copied {
    /// What the copies take, less the original where nobody else uses it.
    fn bytes(&self) -> usize {
        let gone = if Arc::strong_count(&self.whole) == 1 { self.whole.bytes() } else { 0 };
        self.parts.saturating_sub(gone)
    }
}

struct Lowering<'a> {
    graph: &'a CheckedGraph,
    weights: HashMap<NodeId, Weight>,
    steps: Vec<Step>,
    widths: Vec<usize>,
    /// Buffers that hold no live value, by width.
    free: HashMap<usize, Vec<Buffer>>,
    /// The buffer of each node's value once it is computed.
    buffers: Vec<Option<Buffer>>,
    input_buffer: Option<Buffer>,
    /// Readers of each value that are still to come; an output counts as one.
    uses: Vec<usize>,
    readers: Vec<Vec<NodeId>>,
    done: Vec<bool>,
    ropes: Vec<RopeSpec>,
    copied: Vec<Copied>,
}

impl<'a> Lowering<'a> {
    fn new(graph: &'a CheckedGraph, lookup: &mut WeightLookup<'_>) -> Result<Self, CoreError> {
        let nodes = &graph.graph().nodes;
        let mut weights = HashMap::new();
        let mut readers = vec![Vec::new(); nodes.len()];
        let mut uses = vec![0; nodes.len()];
        for (id, node) in nodes.iter().enumerate() {
            if let Op::Weight(spec) = &node.op {
                weights.insert(id, look_up(lookup, &node.name, spec)?);
            }
            for &input in &node.inputs {
                readers[input].push(id);
                uses[input] += 1;
            }
        }
        graph.graph().outputs.iter().for_each(|&output| uses[output] += 1);
        Ok(Self {
            graph,
            weights,
            steps: Vec::new(),
            widths: Vec::new(),
            free: HashMap::new(),
            buffers: vec![None; nodes.len()],
            input_buffer: None,
            uses,
            readers,
            done: vec![false; nodes.len()],
            ropes: Vec::new(),
            copied: Vec::new(),
        })
    }

    fn nodes(&self) -> &'a [Node] {
        &self.graph.graph().nodes
    }

    fn width(&self, id: NodeId) -> Result<usize, CoreError> {
        match &self.graph.shapes()[id] {
            Shape::Rows(width) => Ok(*width),
            other => Err(CoreError::mismatch("value", "[tokens, n]", other)),
        }
    }

    fn buffer(&self, id: NodeId) -> Result<Buffer, CoreError> {
        self.buffers[id]
            .ok_or_else(|| CoreError::mismatch("value", "computed before its use", &self.nodes()[id].name))
    }

    fn matrix(&self, id: NodeId) -> Result<Arc<Matrix>, CoreError> {
        match self.weights.get(&id) {
            Some(Weight::CpuMatrix(matrix)) => Ok(Arc::clone(matrix)),
            _ => Err(CoreError::weight(&self.nodes()[id].name, "should be a matrix on the CPU")),
        }
    }

    fn vector(&self, id: NodeId) -> Result<Arc<[f32]>, CoreError> {
        match self.weights.get(&id) {
            Some(Weight::CpuVector(vector)) => Ok(Arc::clone(vector)),
            _ => Err(CoreError::weight(&self.nodes()[id].name, "should be a vector on the CPU")),
        }
    }

    fn allocate(&mut self, width: usize) -> Buffer {
        self.free.get_mut(&width).and_then(Vec::pop).unwrap_or_else(|| {
            self.widths.push(width);
            self.widths.len() - 1
        })
    }

    /// Gives a node a fresh buffer.
    fn define(&mut self, id: NodeId) -> Result<Buffer, CoreError> {
        let buffer = self.allocate(self.width(id)?);
        self.buffers[id] = Some(buffer);
        Ok(buffer)
    }

    /// Counts one reading of a value and frees its buffer after the last.
    fn release(&mut self, id: NodeId) {
        self.uses[id] -= 1;
        if self.uses[id] == 0
            && let Some(buffer) = self.buffers[id]
        {
            self.free.entry(self.widths[buffer]).or_default().push(buffer);
        }
    }

    /// A buffer that holds the value of `input` and that node `id` may change: the value's own where nobody reads
    /// it later, a copy otherwise. It becomes the buffer of `id`.
    fn take_over(&mut self, input: NodeId, id: NodeId) -> Result<Buffer, CoreError> {
        let held = self.buffer(input)?;
        if self.uses[input] == 1 {
            self.uses[input] = 0;
            self.buffers[id] = Some(held);
            return Ok(held);
        }
        let out = self.define(id)?;
        self.steps.push(Step::Copy { x: held, out });
        self.release(input);
        Ok(out)
    }

    /// A value that nobody reads is computed and dropped.
    fn finish(&mut self, id: NodeId) {
        self.done[id] = true;
        if self.uses[id] == 0
            && let Some(buffer) = self.buffers[id]
        {
            self.free.entry(self.widths[buffer]).or_default().push(buffer);
        }
    }

    fn node(&mut self, id: NodeId) -> Result<(), CoreError> {
        if self.done[id] {
            return Ok(());
        }
        let node = &self.nodes()[id];
        let inputs = node.inputs.as_slice();
        match &node.op {
            Op::Weight(_) => return Ok(()),
            Op::Input(InputKind::Tokens) => return Ok(()),
            Op::Input(InputKind::Hidden { .. }) => self.input_buffer = Some(self.define(id)?),
            Op::Embedding => {
                let (table, out) = (self.matrix(inputs[1])?, self.define(id)?);
                self.steps.push(Step::Embedding { table, out });
            }
            Op::Linear => return self.linear_group(inputs[0]),
            Op::RmsNorm { eps } => {
                let (x, weight) = (self.buffer(inputs[0])?, self.vector(inputs[1])?);
                let out = self.define(id)?;
                self.steps.push(Step::RmsNorm { x, weight, eps: *eps, out });
                self.release(inputs[0]);
            }
            Op::LayerNorm { eps } => {
                let (x, weight, bias) =
                    (self.buffer(inputs[0])?, self.vector(inputs[1])?, self.vector(inputs[2])?);
                let out = self.define(id)?;
                self.steps.push(Step::LayerNorm { x, weight, bias, eps: *eps, out });
                self.release(inputs[0]);
            }
            Op::Rope(spec) => {
                let rope = self.ropes.iter().position(|known| known == spec).unwrap_or_else(|| {
                    self.ropes.push(spec.clone());
                    self.ropes.len() - 1
                });
                let inout = self.take_over(inputs[0], id)?;
                self.steps.push(Step::Rope { inout, rope });
            }
            Op::Attention { layer, heads, causal, .. } => {
                let cache = self.graph.kv_layers().iter().position(|known| known.layer == *layer);
                let cache = cache.ok_or_else(|| CoreError::mismatch("KV layer", "known", layer))?;
                let (q, k, v) = (self.buffer(inputs[0])?, self.buffer(inputs[1])?, self.buffer(inputs[2])?);
                let key_rope = match &self.nodes()[inputs[1]].op {
                    Op::Rope(spec) => self.ropes.iter().position(|known| known == spec),
                    _ => None,
                };
                let out = self.define(id)?;
                let (heads, causal) = (*heads, *causal);
                self.steps.push(Step::Attention { q, k, v, key_rope, cache, heads, causal, out });
                inputs.iter().for_each(|&input| self.release(input));
            }
            Op::Silu => self.unary(id, |x, out| Step::Silu { x, out })?,
            Op::Gelu => self.unary(id, |x, out| Step::Gelu { x, out })?,
            Op::Scale { factor } => self.unary(id, |x, out| Step::Scale { x, factor: *factor, out })?,
            Op::Softmax => {
                let inout = self.take_over(inputs[0], id)?;
                self.steps.push(Step::Softmax { inout });
            }
            Op::SiluMul => self.binary(id, |gate, up, out| Step::SiluMul { gate, up, out })?,
            Op::Add => self.binary(id, |a, b, out| Step::Add { a, b, out })?,
            Op::Mul => match self.weights.get(&inputs[1]) {
                Some(_) => {
                    let vector = self.vector(inputs[1])?;
                    let inout = self.take_over(inputs[0], id)?;
                    self.steps.push(Step::MulVector { inout, vector });
                }
                None => self.binary(id, |a, b, out| Step::Mul { a, b, out })?,
            },
            Op::Concat => {
                let parts = inputs.iter().map(|&input| self.buffer(input)).collect::<Result<_, _>>()?;
                let out = self.define(id)?;
                self.steps.push(Step::Concat { parts, out });
                inputs.iter().for_each(|&input| self.release(input));
            }
            Op::MoeFfn { experts, top_k } => {
                let x = self.buffer(inputs[0])?;
                let router = self.matrix(inputs[1])?;
                let gate = self.split_rows(inputs[2], *experts)?;
                let up = self.split_rows(inputs[3], *experts)?;
                let down = self.split_rows(inputs[4], *experts)?;
                let experts = gate
                    .into_iter()
                    .zip(up)
                    .zip(down)
                    .map(|((gate, up), down)| MoeExpert { gate, up, down })
                    .collect();
                let out = self.define(id)?;
                self.steps.push(Step::Moe { x, router, experts, top_k: *top_k, out });
                self.release(inputs[0]);
            }
        }
        self.finish(id);
        Ok(())
    }

    fn unary(&mut self, id: NodeId, step: impl Fn(Buffer, Buffer) -> Step) -> Result<(), CoreError> {
        let input = self.nodes()[id].inputs[0];
        let (x, out) = (self.buffer(input)?, self.define(id)?);
        self.steps.push(step(x, out));
        self.release(input);
        Ok(())
    }

    fn binary(&mut self, id: NodeId, step: impl Fn(Buffer, Buffer, Buffer) -> Step) -> Result<(), CoreError> {
        let &[first, second] = self.nodes()[id].inputs.as_slice() else {
            return Err(CoreError::mismatch("inputs", 2, self.nodes()[id].inputs.len()));
        };
        let (a, b, out) = (self.buffer(first)?, self.buffer(second)?, self.define(id)?);
        self.steps.push(step(a, b, out));
        self.release(first);
        self.release(second);
        Ok(())
    }

    /// All products that read `x`, in one step: its rows are then quantized once.
    fn linear_group(&mut self, x: NodeId) -> Result<(), CoreError> {
        let x_buffer = self.buffer(x)?;
        let group: Vec<NodeId> = self.readers[x]
            .iter()
            .copied()
            .filter(|&id| {
                !self.done[id] && self.nodes()[id].op == Op::Linear && self.nodes()[id].inputs[0] == x
            })
            .collect();
        let mut targets = Vec::with_capacity(group.len());
        let mut finished = Vec::new();
        for &id in &group {
            let inputs = &self.nodes()[id].inputs;
            let weight = self.matrix(inputs[1])?;
            let bias = inputs.get(2).map(|&bias| self.vector(bias)).transpose()?;
            let residual = self.residual_of(id, x);
            let (out, accumulate) = match residual {
                Some((sum, other)) => {
                    let out = self.take_over(other, sum)?;
                    self.uses[id] = 0;
                    finished.push(sum);
                    (out, true)
                }
                None => (self.define(id)?, false),
            };
            targets.push(LinearTarget { weight, bias, out, accumulate });
            finished.push(id);
        }
        self.steps.push(Step::Linear { x: x_buffer, targets });
        group.iter().for_each(|_| self.release(x));
        finished.into_iter().for_each(|id| self.finish(id));
        Ok(())
    }

    /// Where the product's only reader is a sum with a value that is already there: the sum and that value.
    fn residual_of(&self, id: NodeId, x: NodeId) -> Option<(NodeId, NodeId)> {
        let &[sum] = self.readers[id].as_slice() else { return None };
        if self.uses[id] != 1 || self.nodes()[sum].op != Op::Add || self.done[sum] {
            return None;
        }
        let other = self.nodes()[sum].inputs.iter().copied().find(|&input| input != id)?;
        // `done` and not just given a buffer: a product of this very step is not there yet.
        (other != x && self.done[other] && self.uses[other] > 0).then_some((sum, other))
    }

    /// Cuts a matrix that stacks `parts` experts into theirs.
    fn split_rows(&mut self, id: NodeId, parts: usize) -> Result<Vec<Matrix>, CoreError> {
        let whole = self.matrix(id)?;
        let rows = whole.rows() / parts;
        let cut: Vec<Matrix> =
            (0..parts).map(|part| whole.row_block(part * rows, rows)).collect::<Result<_, _>>()?;
        let copies = cut.iter().filter(|part| !part.shares_memory_with(&whole)).map(Matrix::bytes).sum();
        if copies > 0 {
            self.copied.push(Copied { whole, parts: copies });
        }
        Ok(cut)
    }
}
