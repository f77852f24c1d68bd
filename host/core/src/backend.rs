//! What an executor of graphs offers: it places weights, compiles plans and runs them.
//!
//! Two executors exist. [`crate::CpuBackend`] runs the project's own kernels over buffers that the plan fixed
//! beforehand. [`crate::TensorBackend`] runs the same graphs operation by operation on candle tensors: on a GPU, and
//! on the CPU as the reference that the first one is tested against.

use std::sync::Arc;

use modularbase_deltas::DeltaFormat;
use modularbase_graph::{CheckedGraph, InputKind, KvLayer, WeightSpec};

use crate::{
    Activations, Context, CoreError, DeltaTensor, KvCache, ScratchNeed, StepSize, StoredDtype, StoredTensor,
    Weight,
};

/// How matrices are held on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightDtype {
    /// As the file stores them, where the executor has kernels for that; the nearest such format otherwise.
    AsStored,
    /// 4 bytes a weight.
    F32,
    /// 2 bytes a weight, 11 bits of significand.
    F16,
    /// 2 bytes a weight, 8 bits of significand.
    BF16,
    /// 8 bits, a scale for 32 weights.
    Q8_0,
    /// 4 bits, a scale for 32 weights.
    Q4_0,
    /// 4 bits, a scale and a minimum for 32 weights.
    Q4_1,
}

/// Where a plan's weights come from: the name and what the graph says of it.
pub type WeightLookup<'a> = dyn FnMut(&str, &WeightSpec) -> Result<Weight, CoreError> + 'a;

/// A graph's weight from where it comes from, of the shape that the graph states.
pub(crate) fn look_up(
    weights: &mut WeightLookup<'_>,
    name: &str,
    spec: &WeightSpec,
) -> Result<Weight, CoreError> {
    let weight = weights(name, spec)?;
    if weight.shape() != spec.shape {
        let (expected, found) = (&spec.shape, weight.shape());
        return Err(CoreError::weight(name, format!("should have the shape {expected:?}, found {found:?}")));
    }
    Ok(weight)
}

/// What enters a plan.
#[derive(Debug, Clone, Copy)]
pub enum PlanInput<'a> {
    /// Token ids, `[rows]`.
    Tokens(&'a [u32]),
    /// Hidden states, `[rows, width]`.
    Hidden(&'a Activations),
}

impl PlanInput<'_> {
    /// Tokens in all.
    pub fn rows(&self) -> usize {
        match self {
            Self::Tokens(ids) => ids.len(),
            Self::Hidden(hidden) => hidden.rows(),
        }
    }
}

/// The part of a call's rows that belongs to one sequence.
#[derive(Debug)]
pub struct SequenceRows<'a> {
    /// How many of the rows, in order.
    pub rows: usize,
    /// The sequence's cache for this plan; its length is the position of the first row.
    pub cache: &'a mut KvCache,
}

/// An executor.
pub trait Backend: Send + Sync {
    /// Name of the device, as `--device` takes it.
    fn device(&self) -> String;

    /// Device bytes that a tensor of `shape`, stored as `stored`, takes once it is placed: what to reserve beforehand.
    ///
    /// # Errors
    /// A shape that the format does not allow.
    fn placed_bytes(
        &self,
        shape: &[usize],
        stored: StoredDtype,
        dtype: WeightDtype,
    ) -> Result<usize, CoreError>;

    /// Places a matrix `[rows, columns]` on the device.
    ///
    /// # Errors
    /// A shape that the format does not allow, or no memory.
    fn place_matrix(&self, tensor: &StoredTensor, dtype: WeightDtype) -> Result<Weight, CoreError>;

    /// Places a vector `[n]` on the device, in f32.
    ///
    /// # Errors
    /// A stored type that can't be converted, or no memory.
    fn place_vector(&self, tensor: &StoredTensor) -> Result<Weight, CoreError>;

    /// Whether it multiplies with deltas as they are stored, beside the base's own matrix.
    fn multiplies_deltas(&self) -> bool {
        false
    }

    /// Device bytes that a delta takes beside the base's matrix: what to reserve beforehand.
    ///
    /// # Errors
    /// A shape that the format does not allow, or an executor that does not multiply with deltas.
    fn delta_bytes(&self, shape: &[usize], format: DeltaFormat) -> Result<usize, CoreError> {
        let _ = (shape, format);
        Err(CoreError::mismatch("executor", "one that multiplies with deltas", self.device()))
    }

    /// Places a delta beside the base's matrix, which stays shared.
    ///
    /// # Errors
    /// Shapes that differ, no memory, or an executor that does not multiply with deltas.
    fn place_delta(&self, base: &Weight, delta: &DeltaTensor<'_>) -> Result<Weight, CoreError> {
        let _ = (base, delta);
        Err(CoreError::mismatch("executor", "one that multiplies with deltas", self.device()))
    }

    /// Makes a graph executable.
    ///
    /// # Errors
    /// A weight that `weights` does not provide, or provides in another shape.
    fn compile(
        &self,
        graph: &CheckedGraph,
        weights: &mut WeightLookup<'_>,
    ) -> Result<Arc<dyn Plan>, CoreError>;

    /// Bytes that the plan of a graph takes beside its weights, at most: what to reserve before it is compiled.
    fn plan_bytes_for(&self, graph: &CheckedGraph) -> usize;

    /// Bytes of working memory kept from call to call, as of the end of the last call.
    fn workspace_bytes(&self) -> usize;
}

/// An executable graph with its weights.
pub trait Plan: Send + Sync {
    /// What it takes.
    fn input(&self) -> Option<InputKind>;

    /// Values a row of its output.
    fn output_width(&self) -> usize;

    /// The caches its attention needs, none for a plan without attention.
    fn kv_layers(&self) -> &[KvLayer];

    /// An empty cache for one sequence.
    fn new_cache(&self) -> KvCache;

    /// Bytes that a cache for `tokens` tokens takes, in a window where there is one.
    fn cache_bytes(&self, tokens: usize, context: Option<&Context>) -> usize;

    /// Bytes of the plan itself: everything it owns beside its weights, which others may share.
    fn plan_bytes(&self) -> usize;

    /// Working memory for calls of up to `step.rows` rows, at most; the output is not part of it.
    fn scratch(&self, step: &StepSize) -> ScratchNeed;

    /// Runs rows of several sequences of any lengths in one call and appends to their caches.
    ///
    /// Returns `[rows, output_width]`. The result of a row depends on its own sequence alone.
    ///
    /// # Errors
    /// Rows and sequences that do not fit together, a token id outside the vocabulary, or a failing device. The
    /// caches then hold what they held before.
    fn forward(
        &self,
        input: PlanInput<'_>,
        sequences: &mut [SequenceRows<'_>],
    ) -> Result<Activations, CoreError>;
}

/// Position of each row: its sequence's length so far, and on from there.
pub(crate) fn positions(sequences: &[SequenceRows<'_>]) -> Vec<u32> {
    let of_sequence = |sequence: &SequenceRows<'_>| {
        let past = sequence.cache.len() as u32;
        past..past + sequence.rows as u32
    };
    sequences.iter().flat_map(of_sequence).collect()
}

/// Checks what every executor demands of a call.
pub(crate) fn check_call(
    plan: &dyn Plan,
    input: &PlanInput<'_>,
    sequences: &[SequenceRows<'_>],
) -> Result<(), CoreError> {
    match (plan.input(), input) {
        (Some(InputKind::Tokens), PlanInput::Tokens(_)) => {}
        (Some(InputKind::Hidden { width }), PlanInput::Hidden(hidden)) if hidden.width() == width => {}
        (kind, PlanInput::Tokens(_)) => {
            return Err(CoreError::mismatch("plan input", format!("{kind:?}"), "token ids"));
        }
        (kind, PlanInput::Hidden(hidden)) => {
            let found = format!("hidden states of width {}", hidden.width());
            return Err(CoreError::mismatch("plan input", format!("{kind:?}"), found));
        }
    }
    let rows: usize = sequences.iter().map(|sequence| sequence.rows).sum();
    if !(sequences.is_empty() && plan.kv_layers().is_empty()) && rows != input.rows() {
        return Err(CoreError::mismatch("rows of all sequences", input.rows(), rows));
    }
    match sequences.iter().find(|sequence| sequence.cache.layer_count() != plan.kv_layers().len()) {
        Some(other) => {
            Err(CoreError::mismatch("cache layers", plan.kv_layers().len(), other.cache.layer_count()))
        }
        None => Ok(()),
    }
}

/// Counts the rows of a call that went well; takes back what a failed one appended.
pub(crate) fn finish_call<T>(
    result: Result<T, CoreError>,
    sequences: &mut [SequenceRows<'_>],
) -> Result<T, CoreError> {
    for sequence in sequences {
        match result {
            Ok(_) => sequence.cache.advance(sequence.rows),
            Err(_) => sequence.cache.truncate(sequence.cache.len()),
        }
    }
    result
}
