//! Runs a lowered graph.

use std::{
    mem::{replace, take},
    sync::Arc,
};

use modularbase_graph::{InputKind, KvLayer};
use modularbase_kernels::{
    self as kernels, AttentionJob, KvSlice, LinearOutput, Matrix, RopeAngles, Scratch, ThreadPool,
};

use crate::{
    Activations, Context, CoreError, KvCache, KvDtype, Plan, PlanInput, ScratchNeed, SequenceRows, StepSize,
    backend::{check_call, finish_call, positions},
    context::{KeyRotation, Queries, WindowScratch, WindowStep, kernel_layout},
    kv_cache::fit,
    kv_rows::KvRows,
    workspace::{Buffers, SharedWorkspace},
};

use super::step::{MoeExpert, Program, Step};

/// Buffers that plans of one executor share from call to call.
#[derive(Default)]
pub(super) struct Workspace {
    buffers: Vec<Vec<f32>>,
    /// For each distinct rotary embedding of the plan that runs.
    angles: Vec<RopeAngles>,
    scratch: Scratch,
    window: WindowScratch,
}

impl Buffers for Workspace {
    fn bytes(&self) -> usize {
        let buffers = self.buffers.iter().map(|buffer| buffer.capacity() * size_of::<f32>()).sum::<usize>();
        buffers
            + self.angles.iter().map(RopeAngles::bytes).sum::<usize>()
            + self.scratch.bytes()
            + self.window.bytes()
    }
}

/// A lowered graph on the CPU.
pub(super) struct CpuPlan {
    program: Program,
    pool: ThreadPool,
    kv_dtype: KvDtype,
    workspace: Arc<SharedWorkspace<Workspace>>,
    /// Inverse frequencies of each distinct rotary embedding.
    frequencies: Vec<Vec<f32>>,
}

impl CpuPlan {
    pub(super) fn new(
        program: Program,
        pool: ThreadPool,
        kv_dtype: KvDtype,
        workspace: Arc<SharedWorkspace<Workspace>>,
    ) -> Self {
        let frequencies = program.ropes.iter().map(|rope| rope.inverse_frequencies()).collect();
        Self { program, pool, kv_dtype, workspace, frequencies }
    }

    fn run(&self, input: PlanInput<'_>, sequences: &mut [SequenceRows<'_>]) -> Result<Vec<f32>, CoreError> {
        self.workspace.with(|workspace| {
            let rows = input.rows();
            let (widths, output) = (&self.program.widths, self.program.output);
            let buffers = &mut workspace.buffers;
            if buffers.len() < widths.len() {
                buffers.resize_with(widths.len(), Vec::new);
            }
            for (index, (buffer, width)) in buffers.iter_mut().zip(widths).enumerate() {
                if index != output {
                    fit(buffer, rows * width);
                }
            }
            // The output leaves with the call, so it is a buffer of its own.
            let kept = replace(&mut buffers[output], vec![0.0; rows * widths[output]]);
            let result = self.steps(input, sequences, workspace);
            let values = replace(&mut workspace.buffers[output], kept);
            result.map(|()| values)
        })
    }

    fn steps(
        &self,
        input: PlanInput<'_>,
        sequences: &mut [SequenceRows<'_>],
        workspace: &mut Workspace,
    ) -> Result<(), CoreError> {
        let rows = input.rows();
        let Workspace { buffers, angles, scratch, window } = workspace;
        if let (Some((_, Some(buffer))), PlanInput::Hidden(hidden)) = (self.program.input, input) {
            let values = hidden
                .as_host()
                .ok_or_else(|| CoreError::mismatch("hidden states", "host memory", "a device tensor"))?;
            buffers[buffer].copy_from_slice(values);
        }
        let positions = positions(sequences);
        if angles.len() < self.frequencies.len() {
            angles.resize_with(self.frequencies.len(), RopeAngles::new);
        }
        for (angles, frequencies) in angles.iter_mut().zip(&self.frequencies) {
            angles.set(&positions, frequencies);
        }
        let mut call = Call { plan: self, rows, input, sequences, angles, buffers, scratch, window };
        self.program.steps.iter().try_for_each(|step| call.step(step))
    }
}

/// One layer's cache, and what goes before its attention.
#[derive(Clone, Copy)]
struct KeyLayer<'a> {
    cache: usize,
    heads: usize,
    rotation: Option<KeyRotation<'a>>,
}

struct Call<'a, 'b> {
    plan: &'a CpuPlan,
    rows: usize,
    input: PlanInput<'a>,
    sequences: &'a mut [SequenceRows<'b>],
    angles: &'a [RopeAngles],
    buffers: &'a mut [Vec<f32>],
    scratch: &'a mut Scratch,
    window: &'a mut WindowScratch,
}

impl Call<'_, '_> {
    /// Runs `change` on one buffer while the others can be read.
    fn write(
        &mut self,
        out: usize,
        change: impl FnOnce(&mut Self, &mut [f32]) -> Result<(), CoreError>,
    ) -> Result<(), CoreError> {
        let mut buffer = take(&mut self.buffers[out]);
        let result = change(self, &mut buffer);
        self.buffers[out] = buffer;
        result
    }

    fn step(&mut self, step: &Step) -> Result<(), CoreError> {
        let pool = &self.plan.pool;
        let rows = self.rows;
        match step {
            Step::Embedding { table, out } => self.write(*out, |call, out| call.embedding(table, out)),
            Step::Linear { x, targets } => {
                let mut outs: Vec<Vec<f32>> =
                    targets.iter().map(|target| take(&mut self.buffers[target.out])).collect();
                let mut outputs: Vec<LinearOutput<'_>> = targets
                    .iter()
                    .zip(&mut outs)
                    .map(|(target, out)| LinearOutput {
                        weight: &target.weight,
                        bias: target.bias.as_deref(),
                        out,
                        accumulate: target.accumulate,
                    })
                    .collect();
                let result = kernels::linear(pool, &self.buffers[*x], rows, &mut outputs, self.scratch);
                for (target, out) in targets.iter().zip(outs) {
                    self.buffers[target.out] = out;
                }
                Ok(result?)
            }
            Step::RmsNorm { x, weight, eps, out } => self.write(*out, |call, out| {
                Ok(kernels::rms_norm(pool, &call.buffers[*x], rows, weight, *eps, out)?)
            }),
            Step::LayerNorm { x, weight, bias, eps, out } => self.write(*out, |call, out| {
                Ok(kernels::layer_norm(pool, &call.buffers[*x], rows, weight, Some(bias), *eps, out)?)
            }),
            Step::Rope { inout, rope } => {
                let spec = &self.plan.program.ropes[*rope];
                let layout = kernel_layout(spec.layout);
                let x = &mut self.buffers[*inout];
                Ok(kernels::rope(pool, x, spec.head_dim, &self.angles[*rope], layout)?)
            }
            Step::Attention { q, k, v, key_rope, cache, heads, causal, out } => {
                let rotation = key_rope.map(|rope| {
                    KeyRotation::of(&self.plan.program.ropes[rope], &self.plan.frequencies[rope])
                });
                let layer = KeyLayer { cache: *cache, heads: *heads, rotation };
                self.append_kv(layer, *k, *v)?;
                self.write(*out, |call, out| call.attention(*q, layer, *causal, out))
            }
            Step::Silu { x, out } => {
                self.write(*out, |call, out| Ok(kernels::silu(pool, &call.buffers[*x], out)?))
            }
            Step::Gelu { x, out } => {
                self.write(*out, |call, out| Ok(kernels::gelu(pool, &call.buffers[*x], out)?))
            }
            Step::SiluMul { gate, up, out } => self.write(*out, |call, out| {
                Ok(kernels::silu_mul(pool, &call.buffers[*gate], &call.buffers[*up], out)?)
            }),
            Step::Add { a, b, out } => self
                .write(*out, |call, out| Ok(kernels::add(pool, &call.buffers[*a], &call.buffers[*b], out)?)),
            Step::Mul { a, b, out } => self
                .write(*out, |call, out| Ok(kernels::mul(pool, &call.buffers[*a], &call.buffers[*b], out)?)),
            Step::MulVector { inout, vector } => {
                let factors = vector.iter().cycle();
                self.buffers[*inout].iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
                Ok(())
            }
            Step::Scale { x, factor, out } => {
                self.write(*out, |call, out| Ok(kernels::scale(pool, *factor, &call.buffers[*x], out)?))
            }
            Step::Softmax { inout } => {
                let x = &mut self.buffers[*inout];
                let width = x.len() / rows;
                Ok(kernels::softmax_rows(pool, x, rows, width)?)
            }
            Step::Concat { parts, out } => self.write(*out, |call, out| {
                let width = out.len() / rows;
                let mut first = 0;
                for &part in parts {
                    let values = &call.buffers[part];
                    let count = values.len() / rows;
                    for (row, values) in out.chunks_exact_mut(width).zip(values.chunks_exact(count)) {
                        row[first..first + count].copy_from_slice(values);
                    }
                    first += count;
                }
                Ok(())
            }),
            Step::Moe { x, router, experts, top_k, out } => {
                self.write(*out, |call, out| call.moe(*x, router, experts, *top_k, out))
            }
            Step::Copy { x, out } => self.write(*out, |call, out| {
                out.copy_from_slice(&call.buffers[*x]);
                Ok(())
            }),
        }
    }

    fn embedding(&mut self, table: &Matrix, out: &mut [f32]) -> Result<(), CoreError> {
        let PlanInput::Tokens(ids) = self.input else {
            return Err(CoreError::mismatch("plan input", "token ids", "hidden states"));
        };
        for (&id, row) in ids.iter().zip(out.chunks_exact_mut(table.cols())) {
            if id as usize >= table.rows() {
                return Err(CoreError::TokenId { id, vocabulary: table.rows() });
            }
            table.dequantize_rows(id as usize, 1, row)?;
        }
        Ok(())
    }

    fn append_kv(&mut self, layer: KeyLayer<'_>, k: usize, v: usize) -> Result<(), CoreError> {
        let (mut keys, mut values) = (self.buffers[k].as_slice(), self.buffers[v].as_slice());
        let KeyLayer { cache, heads, rotation } = layer;
        let (pool, layer) = (&self.plan.pool, self.plan.program.kv_layers[cache]);
        let mut step = WindowStep { pool, heads, layer, rotation, scratch: self.window };
        for sequence in self.sequences.iter_mut() {
            let count = sequence.rows * layer.width();
            let store = sequence.cache.make_ready(cache, &mut step, sequence.rows)?;
            store.keys.append(pool, &keys[..count], layer.width())?;
            store.values.append(pool, &values[..count], layer.width())?;
            (keys, values) = (&keys[count..], &values[count..]);
        }
        Ok(())
    }

    /// Rows that attend to the same keys go into one job; the next ones of every sequence run together.
    fn attention(
        &mut self,
        q: usize,
        layer: KeyLayer<'_>,
        causal: bool,
        out: &mut [f32],
    ) -> Result<(), CoreError> {
        let KeyLayer { cache, heads, rotation } = layer;
        let shape = self.plan.program.attention_shape(cache, heads, causal);
        let (pool, layer) = (&self.plan.pool, self.plan.program.kv_layers[cache]);
        let width = heads * shape.head_dim;
        let queries = self.buffers[q].as_slice();
        let mut done = vec![0; self.sequences.len()];
        loop {
            let mut step = WindowStep { pool, heads, layer, rotation, scratch: self.window };
            let mut groups = Vec::with_capacity(done.len());
            let mut first = 0;
            for (sequence, &done) in self.sequences.iter_mut().zip(&done) {
                let left = sequence.rows - done;
                let own = &queries[(first + done) * width..(first + sequence.rows) * width];
                groups.push(match left {
                    0 => None,
                    _ => {
                        Some(sequence.cache.next_group(cache, &mut step, (done, left), Queries::Host(own))?)
                    }
                });
                first += sequence.rows;
            }
            let mut rest = (queries, &mut *out);
            let mut jobs = Vec::with_capacity(groups.len());
            for ((sequence, done), group) in self.sequences.iter().zip(&mut done).zip(groups) {
                let (own, queries) = rest.0.split_at(sequence.rows * width);
                let (own_out, out) = rest.1.split_at_mut(sequence.rows * width);
                rest = (queries, out);
                let Some(group) = group else { continue };
                let rows = *done * width..(*done + group.rows) * width;
                *done += group.rows;
                let store = sequence.cache.layer(cache);
                jobs.push(AttentionJob {
                    q: &own[rows.clone()],
                    keys: kv_slice(&store.keys, group.first * store.width)?,
                    values: kv_slice(&store.values, group.first * store.width)?,
                    kv_len: group.past + group.rows,
                    past: group.past,
                    out: &mut own_out[rows],
                });
            }
            if jobs.is_empty() {
                return Ok(());
            }
            kernels::attention(pool, &mut jobs, shape, self.scratch)?;
        }
    }

    /// For each expert, the rows that chose it go through its feed-forward together.
    fn moe(
        &mut self,
        x: usize,
        router: &Matrix,
        experts: &[MoeExpert],
        top_k: usize,
        out: &mut [f32],
    ) -> Result<(), CoreError> {
        let pool = &self.plan.pool;
        let x = self.buffers[x].as_slice();
        let width = router.cols();
        let mut logits = vec![0.0; self.rows * experts.len()];
        product(pool, x, self.rows, router, &mut logits, self.scratch)?;
        out.fill(0.0);
        let mut chosen: Vec<Vec<(usize, f32)>> = vec![Vec::new(); experts.len()];
        for (row, logits) in logits.chunks_exact(experts.len()).enumerate() {
            for (expert, weight) in top_experts(logits, top_k) {
                chosen[expert].push((row, weight));
            }
        }
        for (expert, rows) in experts.iter().zip(&chosen).filter(|(_, rows)| !rows.is_empty()) {
            let count = rows.len();
            let gathered: Vec<f32> =
                rows.iter().flat_map(|&(row, _)| x[row * width..][..width].iter().copied()).collect();
            let mut gate = vec![0.0; count * expert.gate.rows()];
            let mut up = vec![0.0; count * expert.up.rows()];
            let mut down = vec![0.0; count * width];
            product(pool, &gathered, count, &expert.gate, &mut gate, self.scratch)?;
            product(pool, &gathered, count, &expert.up, &mut up, self.scratch)?;
            let mut inner = vec![0.0; gate.len()];
            kernels::silu_mul(pool, &gate, &up, &mut inner)?;
            product(pool, &inner, count, &expert.down, &mut down, self.scratch)?;
            for (&(row, weight), values) in rows.iter().zip(down.chunks_exact(width)) {
                let sum = &mut out[row * width..][..width];
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
            }
        }
        Ok(())
    }
}

fn product(
    pool: &ThreadPool,
    x: &[f32],
    rows: usize,
    weight: &Matrix,
    out: &mut [f32],
    scratch: &mut Scratch,
) -> Result<(), CoreError> {
    let mut outputs = [LinearOutput { weight, bias: None, out, accumulate: false }];
    Ok(kernels::linear(pool, x, rows, &mut outputs, scratch)?)
}

/// The `top_k` largest logits with softmax weights among themselves; of equal logits the first is taken.
fn top_experts(logits: &[f32], top_k: usize) -> Vec<(usize, f32)> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order.truncate(top_k);
    let best = logits[order[0]];
    let weights: Vec<f32> = order.iter().map(|&expert| (logits[expert] - best).exp()).collect();
    let sum: f32 = weights.iter().sum();
    order.into_iter().zip(weights).map(|(expert, weight)| (expert, weight / sum)).collect()
}

/// Values from number `first` on.
fn kv_slice(rows: &KvRows, first: usize) -> Result<KvSlice<'_>, CoreError> {
    match rows {
        KvRows::F32(values) => Ok(KvSlice::F32(&values[first..])),
        KvRows::F16(values) => Ok(KvSlice::F16(&values[first..])),
        KvRows::Device(_) => Err(CoreError::mismatch("KV cache", "host memory", "a device tensor")),
    }
}

impl Plan for CpuPlan {
    fn input(&self) -> Option<InputKind> {
        self.program.input.map(|(kind, _)| kind)
    }

    fn output_width(&self) -> usize {
        self.program.widths[self.program.output]
    }

    fn kv_layers(&self) -> &[KvLayer] {
        &self.program.kv_layers
    }

    fn new_cache(&self) -> KvCache {
        KvCache::on_host(self.kv_layers(), self.kv_dtype)
    }

    fn cache_bytes(&self, tokens: usize, context: Option<&Context>) -> usize {
        KvCache::bytes_within(self.kv_layers(), self.kv_dtype, tokens, context)
    }

    fn plan_bytes(&self) -> usize {
        size_of::<Self>() + self.program.bytes()
    }

    fn scratch(&self, step: &StepSize) -> ScratchNeed {
        self.program.scratch(step, self.pool.threads())
    }

    fn forward(
        &self,
        input: PlanInput<'_>,
        sequences: &mut [SequenceRows<'_>],
    ) -> Result<Activations, CoreError> {
        check_call(self, &input, sequences)?;
        let values = self.run(input, sequences);
        Activations::from_host(input.rows(), self.output_width(), finish_call(values, sequences)?)
    }
}
