//! A graph interpreted on tensors.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use candle_core::{Device, Tensor};
use modularbase_graph::{CheckedGraph, InputKind, KvLayer, NodeId, Op, RopeSpec, Shape};
use modularbase_kernels::ThreadPool;

use crate::{
    Activations, Context, CoreError, KvCache, KvDtype, Plan, PlanInput, ScratchNeed, SequenceRows, StepSize,
    Weight, WeightLookup,
    backend::{check_call, finish_call, look_up, positions},
    context::{KeyRotation, Queries, WindowScratch, WindowStep},
    weight::TensorMatrix,
    workspace::SharedWorkspace,
};

use super::{ops, plan_size};

/// A checked graph with its weights on a device.
pub(super) struct TensorPlan {
    graph: CheckedGraph,
    weights: HashMap<NodeId, Weight>,
    /// How many nodes read each value, an output counted as a reader: a value is dropped after its last.
    uses: Vec<usize>,
    output: NodeId,
    output_width: usize,
    device: Device,
    /// For what windows do on the host.
    pool: ThreadPool,
    workspace: Arc<SharedWorkspace<WindowScratch>>,
}

impl TensorPlan {
    pub(super) fn new(
        graph: CheckedGraph,
        (device, pool, workspace): (Device, ThreadPool, Arc<SharedWorkspace<WindowScratch>>),
        lookup: &mut WeightLookup<'_>,
    ) -> Result<Self, CoreError> {
        let &[output] = graph.graph().outputs.as_slice() else {
            return Err(CoreError::mismatch("graph outputs", 1, graph.graph().outputs.len()));
        };
        let Shape::Rows(output_width) = graph.shapes()[output] else {
            return Err(CoreError::mismatch("graph output", "[tokens, n]", &graph.shapes()[output]));
        };
        let mut weights = HashMap::new();
        let mut uses = vec![0; graph.graph().nodes.len()];
        uses[output] += 1;
        for (id, node) in graph.graph().nodes.iter().enumerate() {
            node.inputs.iter().for_each(|&input| uses[input] += 1);
            if let Op::Weight(spec) = &node.op {
                weights.insert(id, look_up(lookup, &node.name, spec)?);
            }
        }
        Ok(Self { graph, weights, uses, output, output_width, device, pool, workspace })
    }

    fn matrix(&self, id: NodeId) -> Result<&TensorMatrix, CoreError> {
        match self.weights.get(&id) {
            Some(Weight::TensorMatrix(matrix)) => Ok(matrix),
            _ => {
                Err(CoreError::weight(&self.graph.graph().nodes[id].name, "should be a matrix on the device"))
            }
        }
    }

    fn vector(&self, id: NodeId) -> Result<&Tensor, CoreError> {
        match self.weights.get(&id) {
            Some(Weight::TensorVector(vector)) => Ok(vector),
            _ => {
                Err(CoreError::weight(&self.graph.graph().nodes[id].name, "should be a vector on the device"))
            }
        }
    }

    fn run(&self, input: PlanInput<'_>, sequences: &mut [SequenceRows<'_>]) -> Result<Tensor, CoreError> {
        let mut run = Run {
            plan: self,
            input,
            positions: positions(sequences),
            values: vec![None; self.graph.graph().nodes.len()],
            uses: self.uses.clone(),
            ropes: Vec::new(),
            masks: HashMap::new(),
        };
        for id in 0..run.values.len() {
            if !matches!(self.graph.graph().nodes[id].op, Op::Weight(_)) {
                let value = run.node(id, sequences)?;
                if run.uses[id] > 0 {
                    run.values[id] = Some(value);
                }
            }
        }
        run.values[self.output].take().ok_or_else(|| CoreError::mismatch("output", "a value", "none"))
    }
}

struct Run<'a> {
    plan: &'a TensorPlan,
    input: PlanInput<'a>,
    positions: Vec<u32>,
    values: Vec<Option<Tensor>>,
    uses: Vec<usize>,
    ropes: Vec<Rope<'a>>,
    /// Causal masks by their rows and keys: all layers use the same.
    masks: HashMap<(usize, usize), Tensor>,
}

/// A rotary embedding, its inverse frequencies, and the cosines and sines of the rows' positions.
struct Rope<'a> {
    spec: &'a RopeSpec,
    frequencies: Vec<f32>,
    table: (Tensor, Tensor),
}

impl<'a> Run<'a> {
    /// The value of a node, dropped from the store by its last reader.
    fn take(&mut self, id: NodeId) -> Result<Tensor, CoreError> {
        self.uses[id] -= 1;
        let value = if self.uses[id] == 0 { self.values[id].take() } else { self.values[id].clone() };
        value.ok_or_else(|| {
            CoreError::mismatch("value", "computed before its use", &self.plan.graph.graph().nodes[id].name)
        })
    }

    fn node(&mut self, id: NodeId, sequences: &mut [SequenceRows<'_>]) -> Result<Tensor, CoreError> {
        let plan = self.plan;
        let node = &plan.graph.graph().nodes[id];
        let inputs = node.inputs.as_slice();
        Ok(match &node.op {
            Op::Weight(_) => return Err(CoreError::mismatch("node", "a value", "a weight")),
            Op::Input(_) => match self.input {
                // Only an embedding reads token ids, and it finds them in the call.
                PlanInput::Tokens(_) => Tensor::zeros((0, 0), candle_core::DType::F32, &plan.device)?,
                PlanInput::Hidden(hidden) => match hidden.as_tensor() {
                    Some(tensor) => tensor.clone(),
                    None => {
                        Tensor::from_vec(hidden.to_vec()?, (hidden.rows(), hidden.width()), &plan.device)?
                    }
                },
            },
            Op::Embedding => {
                let PlanInput::Tokens(ids) = self.input else {
                    return Err(CoreError::mismatch("plan input", "token ids", "hidden states"));
                };
                let table = plan.matrix(inputs[1])?;
                if let Some(&id) = ids.iter().find(|&&id| id as usize >= table.rows) {
                    return Err(CoreError::TokenId { id, vocabulary: table.rows });
                }
                table.gather(ids, &plan.device)?
            }
            Op::Linear => {
                let bias = inputs.get(2).map(|&bias| plan.vector(bias)).transpose()?;
                ops::linear(&self.take(inputs[0])?, plan.matrix(inputs[1])?, bias)?
            }
            Op::RmsNorm { eps } => ops::rms_norm(&self.take(inputs[0])?, plan.vector(inputs[1])?, *eps)?,
            Op::LayerNorm { eps } => {
                let (weight, bias) = (plan.vector(inputs[1])?, plan.vector(inputs[2])?);
                ops::layer_norm(&self.take(inputs[0])?, weight, bias, *eps)?
            }
            Op::Rope(spec) => {
                let x = self.take(inputs[0])?;
                let known = self.ropes.iter().position(|rope| rope.spec == spec);
                let index = known.unwrap_or(self.ropes.len());
                if known.is_none() {
                    let frequencies = spec.inverse_frequencies();
                    let table = ops::rope_table(&frequencies, &self.positions, &plan.device)?;
                    self.ropes.push(Rope { spec, frequencies, table });
                }
                ops::rope(&x, spec, &self.ropes[index].table)?
            }
            Op::Attention { layer, heads, kv_heads, causal } => {
                let index = plan.graph.kv_layers().iter().position(|known| known.layer == *layer);
                let index = index.ok_or_else(|| CoreError::mismatch("KV layer", "known", layer))?;
                let (q, k, v) = (self.take(inputs[0])?, self.take(inputs[1])?, self.take(inputs[2])?);
                let keys = &plan.graph.graph().nodes[inputs[1]].op;
                let rope = self.ropes.iter().find(|rope| matches!(keys, Op::Rope(spec) if spec == rope.spec));
                let rotation = rope.map(|rope| KeyRotation::of(rope.spec, &rope.frequencies));
                let masks = &mut self.masks;
                let attend = |q: &Tensor, keys: &Tensor, values: &Tensor| {
                    let size = (q.dim(0)?, keys.dim(0)?);
                    let mask = match *causal && size.0 > 1 {
                        true => Some(match masks.entry(size) {
                            Entry::Occupied(known) => known.into_mut(),
                            Entry::Vacant(place) => {
                                place.insert(ops::causal_mask(size.0, size.1, &plan.device)?)
                            }
                        }),
                        false => None,
                    };
                    ops::attention(q, keys, values, (*heads, *kv_heads), mask.as_deref())
                };
                plan.workspace.with(|scratch| {
                    let layer = plan.graph.kv_layers()[index];
                    let mut step = WindowStep { pool: &plan.pool, heads: *heads, layer, rotation, scratch };
                    attention(index, &mut step, sequences, [&q, &k, &v], attend)
                })?
            }
            Op::Silu => self.take(inputs[0])?.silu()?,
            Op::Gelu => self.take(inputs[0])?.gelu()?,
            Op::SiluMul => (self.take(inputs[0])?.silu()? * self.take(inputs[1])?)?,
            Op::Add => (self.take(inputs[0])? + self.take(inputs[1])?)?,
            Op::Mul => {
                let x = self.take(inputs[0])?;
                match plan.weights.contains_key(&inputs[1]) {
                    true => x.broadcast_mul(plan.vector(inputs[1])?)?,
                    false => (x * self.take(inputs[1])?)?,
                }
            }
            Op::Scale { factor } => (self.take(inputs[0])? * f64::from(*factor))?,
            Op::Softmax => ops::softmax(&self.take(inputs[0])?)?,
            Op::Concat => {
                let parts = inputs.iter().map(|&input| self.take(input)).collect::<Result<Vec<_>, _>>()?;
                Tensor::cat(&parts, 1)?
            }
            Op::MoeFfn { experts, top_k } => {
                let x = self.take(inputs[0])?;
                let weights = ops::MoeWeights {
                    router: plan.matrix(inputs[1])?,
                    gate: plan.matrix(inputs[2])?,
                    up: plan.matrix(inputs[3])?,
                    down: plan.matrix(inputs[4])?,
                };
                ops::moe_ffn(&x, &weights, *experts, *top_k)?
            }
        })
    }
}

/// Appends the rows of a step to their sequences' caches, of which this is layer `index`, and has them `attend`.
fn attention(
    index: usize,
    step: &mut WindowStep<'_>,
    sequences: &mut [SequenceRows<'_>],
    [q, k, v]: [&Tensor; 3],
    mut attend: impl FnMut(&Tensor, &Tensor, &Tensor) -> Result<Tensor, CoreError>,
) -> Result<Tensor, CoreError> {
    let mut first = 0;
    let mut parts = Vec::with_capacity(sequences.len());
    for SequenceRows { rows, cache } in sequences.iter_mut().filter(|sequence| sequence.rows > 0) {
        let layer = cache.make_ready(index, step, *rows)?;
        layer.keys.on_device()?.append(&k.narrow(0, first, *rows)?)?;
        layer.values.on_device()?.append(&v.narrow(0, first, *rows)?)?;
        let mut done = 0;
        while done < *rows {
            let left = *rows - done;
            let q = q.narrow(0, first + done, left)?;
            let group = cache.next_group(index, step, (done, left), Queries::Device(&q))?;
            let layer = cache.layer_mut(index);
            let count = group.past + group.rows;
            let keys = layer.keys.on_device()?.rows(group.first, count)?;
            let values = layer.values.on_device()?.rows(group.first, count)?;
            parts.push(attend(&q.narrow(0, 0, group.rows)?, &keys, &values)?);
            done += group.rows;
        }
        first += *rows;
    }
    Ok(Tensor::cat(&parts, 0)?)
}

impl Plan for TensorPlan {
    fn input(&self) -> Option<InputKind> {
        self.graph.input().map(|(_, kind)| kind)
    }

    fn output_width(&self) -> usize {
        self.output_width
    }

    fn kv_layers(&self) -> &[KvLayer] {
        self.graph.kv_layers()
    }

    fn new_cache(&self) -> KvCache {
        KvCache::on_device(self.kv_layers(), &self.device)
    }

    fn cache_bytes(&self, tokens: usize, context: Option<&Context>) -> usize {
        KvCache::bytes_within(self.kv_layers(), KvDtype::F32, tokens, context)
    }

    fn plan_bytes(&self) -> usize {
        let tables = plan_size::table_bytes(self.weights.len(), self.uses.len());
        size_of::<Self>() + plan_size::graph_bytes(&self.graph) + tables
    }

    fn scratch(&self, step: &StepSize) -> ScratchNeed {
        plan_size::scratch(&self.graph, &self.uses, step)
    }

    fn forward(
        &self,
        input: PlanInput<'_>,
        sequences: &mut [SequenceRows<'_>],
    ) -> Result<Activations, CoreError> {
        check_call(self, &input, sequences)?;
        let output = self.run(input, sequences);
        Activations::from_tensor(finish_call(output, sequences)?)
    }
}
