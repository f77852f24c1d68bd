//! The base core: the layers of a real model on both sides of the slot, resident from start to end.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use modularbase_deltas::DeltaFormat;
use modularbase_graph::{CheckedGraph, Graph, Init, WeightSpec, infer_shapes};
use pack_sdk::{BaseShape, SlotRange, base_graphs};

use crate::{
    Activations, Backend, BaseFile, CoreError, DeltaTensor, Expert, Plan, PlanInput, SequenceRows, StepSize,
    StoredDtype, StoredTensor, Weight, WeightDtype,
};

/// A pack's own weight as it comes to the executor.
#[derive(Debug, Clone)]
pub enum PackTensor<'a> {
    /// All its values.
    Whole(StoredTensor<'a>),
    /// What is to be added to the base's while it is multiplied with.
    Delta(DeltaTensor<'a>),
}

/// As [`PackTensor`], without the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackTensorKind {
    /// All its values, in this format.
    Whole(StoredDtype),
    /// A delta.
    Delta(DeltaFormat),
}

/// Gives a pack's own weights by name; `None` for a weight that the pack's file does not hold.
pub type PackWeights<'a> = dyn Fn(&str) -> Result<Option<PackTensor<'a>>, CoreError> + 'a;

/// A base on a device.
pub struct BaseCore {
    shape: BaseShape,
    slot: SlotRange,
    dtype: WeightDtype,
    backend: Arc<dyn Backend>,
    weights: HashMap<String, Weight>,
    pub(crate) understanding: Arc<dyn Plan>,
    pub(crate) fusion: Arc<dyn Plan>,
    pub(crate) head: Arc<dyn Plan>,
    whole: OnceLock<Arc<dyn Plan>>,
    embedding: OnceLock<Arc<dyn Plan>>,
}

impl BaseCore {
    /// Places a base's weights on the backend's device and compiles the plans around the slot.
    ///
    /// `progress(done, total)` is told the tensors placed so far.
    ///
    /// # Errors
    /// A slot that does not lie inside the layers, a damaged file, weights that do not fit the device.
    pub fn load(
        file: &BaseFile,
        slot: SlotRange,
        backend: Arc<dyn Backend>,
        dtype: WeightDtype,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, CoreError> {
        let shape = file.shape().clone();
        if slot.start >= slot.end || slot.end > shape.num_layers {
            let expected = format!("0 <= start < end <= {}", shape.num_layers);
            return Err(CoreError::mismatch("slot", expected, format!("[{}, {})", slot.start, slot.end)));
        }
        let specs = whole_graph_weights(&shape)?;
        let mut weights = HashMap::with_capacity(specs.len());
        for (done, (name, spec)) in specs.iter().enumerate() {
            progress(done, specs.len());
            if name == pack_sdk::base_weights::OUTPUT && file.tied_head() {
                continue;
            }
            let tensor = StoredTensor::of_base(file, name)?;
            let weight = match spec.shape.len() {
                1 => backend.place_vector(&tensor)?,
                _ => backend.place_matrix(&tensor, dtype)?,
            };
            weights.insert(name.clone(), weight);
        }
        if let (true, Some(embedding)) = (file.tied_head(), weights.get(pack_sdk::base_weights::TOKEN_EMBD)) {
            weights.insert(pack_sdk::base_weights::OUTPUT.to_owned(), embedding.clone());
        }
        progress(specs.len(), specs.len());

        let compile = |graph| {
            let graph = infer_shapes(Graph::from_abi(&graph)?)?;
            backend.compile(&graph, &mut |name, _| base_weight(&weights, name))
        };
        Ok(Self {
            understanding: compile(base_graphs::understanding(&shape, slot.start))?,
            fusion: compile(base_graphs::layers(&shape, slot.end..shape.num_layers))?,
            head: compile(base_graphs::head(&shape))?,
            whole: OnceLock::new(),
            embedding: OnceLock::new(),
            shape,
            slot,
            dtype,
            backend,
            weights,
        })
    }

    /// Sizes and constants.
    pub fn shape(&self) -> &BaseShape {
        &self.shape
    }

    /// The layers that packs stand in for.
    pub fn slot(&self) -> SlotRange {
        self.slot
    }

    /// How matrices are held.
    pub fn dtype(&self) -> WeightDtype {
        self.dtype
    }

    /// The executor.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Device bytes of all weights of the base, those of the slot's own layers included; a tied head counts once.
    pub fn resident_bytes(&self) -> usize {
        let tied = self.weights.get(pack_sdk::base_weights::OUTPUT).map_or(0, |output| {
            match (output, self.weights.get(pack_sdk::base_weights::TOKEN_EMBD)) {
                (Weight::CpuMatrix(a), Some(Weight::CpuMatrix(b))) if Arc::ptr_eq(a, b) => output.bytes(),
                (Weight::TensorMatrix(a), Some(Weight::TensorMatrix(b))) if Arc::ptr_eq(a, b) => {
                    output.bytes()
                }
                _ => 0,
            }
        });
        self.weights.values().map(Weight::bytes).sum::<usize>() - tied
    }

    /// Device bytes of a base's weights once they are placed: what to reserve beforehand.
    ///
    /// # Errors
    /// A shape that the format does not allow.
    pub fn needed_bytes(
        file: &BaseFile,
        backend: &dyn Backend,
        dtype: WeightDtype,
    ) -> Result<usize, CoreError> {
        file.tensors().map(|info| backend.placed_bytes(&info.shape, info.kind, dtype)).sum()
    }

    /// Device bytes of the weights of a graph that are stored in the pack's own file, once they are placed.
    ///
    /// # Errors
    /// A shape that the format does not allow.
    pub fn expert_bytes(
        &self,
        graph: &CheckedGraph,
        stored: &dyn Fn(&str) -> Option<PackTensorKind>,
    ) -> Result<usize, CoreError> {
        let own = graph.graph().nodes.iter().filter_map(|node| match &node.op {
            modularbase_graph::Op::Weight(spec) => Some((spec, stored(&node.name)?)),
            _ => None,
        });
        own.map(|(spec, kind)| match kind {
            PackTensorKind::Whole(stored) => self.backend.placed_bytes(&spec.shape, stored, self.dtype),
            PackTensorKind::Delta(format) => self.backend.delta_bytes(&spec.shape, format),
        })
        .sum()
    }

    /// Bytes that the plan of a pack's graph takes beside its weights, at most: what to reserve beforehand.
    pub fn plan_bytes_for(&self, graph: &CheckedGraph) -> usize {
        self.backend.plan_bytes_for(graph)
    }

    /// Bytes of the base's own plans beside its weights.
    pub fn plan_bytes(&self) -> usize {
        let whole = self.whole.get();
        [&self.understanding, &self.fusion, &self.head]
            .into_iter()
            .chain(whole)
            .map(|plan| plan.plan_bytes())
            .sum()
    }

    /// Bytes that [`BaseCore::advance`] allocates beside caches, at most: what the executor keeps from call to call and
    /// what passes between the plans, logits included. `experts` are all that a sequence may use; one that is loaded
    /// later may need more.
    pub fn scratch_bytes<'a>(&self, experts: impl IntoIterator<Item = &'a Expert>, step: &StepSize) -> usize {
        let (kept, passing) = self.scratch_parts(experts, step);
        kept + passing
    }

    /// [`BaseCore::scratch_bytes`] in its two parts: what the executor keeps from call to call, which all sequences
    /// share, and what goes when the step ends, which each step in flight has for itself.
    pub fn scratch_parts<'a>(
        &self,
        experts: impl IntoIterator<Item = &'a Expert>,
        step: &StepSize,
    ) -> (usize, usize) {
        let head_rows = step.logit_rows.min(step.rows);
        let mut need = self.understanding.scratch(step);
        need.or(&self.fusion.scratch(step));
        need.or(&self.head.scratch(&StepSize { rows: head_rows, ..*step }));
        experts.into_iter().for_each(|expert| need.or(&expert.plan().scratch(step)));
        let kept = need.kept_bytes();
        (kept, need.bytes() - kept + step.passing_bytes(&self.shape))
    }

    /// Bytes of working memory that the executor keeps from call to call, now: a part of
    /// [`BaseCore::scratch_bytes`].
    pub fn workspace_bytes(&self) -> usize {
        self.backend.workspace_bytes()
    }

    /// Makes an expert of a pack's graph. Weights that `file` does not hold and that are copies of the base's are
    /// shared with it: they cost nothing, and nothing is copied.
    ///
    /// # Errors
    /// A graph that does not suit the slot, a weight that is in neither, or has another shape.
    pub fn compile_expert(
        &self,
        name: &str,
        generation: &str,
        graph: &CheckedGraph,
        file: &PackWeights<'_>,
    ) -> Result<Expert, CoreError> {
        graph.suits_slot(self.shape.hidden_size)?;
        let mut own_bytes = 0;
        let plan = self.backend.compile(graph, &mut |name, spec: &WeightSpec| {
            if let Some(tensor) = file(name)? {
                let weight = match (tensor, spec.shape.len()) {
                    (PackTensor::Whole(tensor), 1) => self.backend.place_vector(&tensor)?,
                    (PackTensor::Whole(tensor), _) => self.backend.place_matrix(&tensor, self.dtype)?,
                    (PackTensor::Delta(delta), _) => {
                        self.backend.place_delta(&base_weight(&self.weights, delta.base)?, &delta)?
                    }
                };
                own_bytes += weight.bytes();
                return Ok(weight);
            }
            match &spec.init {
                Init::CopyFromBase(source) => base_weight(&self.weights, source),
                init => Err(CoreError::weight(
                    name,
                    format!("is not in the pack's weights file, and its init is `{init}`: train the pack or write its first weights with `cargo xtask pack build`"),
                )),
            }
        })?;
        Ok(Expert::new(name, generation, plan, own_bytes))
    }

    /// The base's own layers of the slot as an expert: what stands there when no pack does.
    ///
    /// # Errors
    /// The device fails.
    pub fn own_slot_layers(&self) -> Result<Expert, CoreError> {
        let graph = infer_shapes(Graph::from_abi(&base_graphs::layers(&self.shape, self.slot.layers()))?)?;
        self.compile_expert("base", "base", &graph, &|_| Ok(None))
    }

    /// The hidden states `h_s` in front of the slot, `[tokens, hidden]`.
    ///
    /// # Errors
    /// Too many tokens, a token outside the vocabulary, a failing device.
    pub fn hidden_before_slot(&self, tokens: &[u32]) -> Result<Activations, CoreError> {
        self.check_length(tokens.len())?;
        let mut cache = self.understanding.new_cache();
        let mut sequence = [SequenceRows { rows: tokens.len(), cache: &mut cache }];
        self.understanding.forward(PlanInput::Tokens(tokens), &mut sequence)
    }

    /// What the fusion layers make of a whole text behind the slot, `[tokens, hidden]`, without any cache.
    ///
    /// # Errors
    /// Too many tokens, a failing device.
    pub fn hidden_behind_fusion(&self, fused: &Activations) -> Result<Activations, CoreError> {
        self.check_length(fused.rows())?;
        let mut cache = self.fusion.new_cache();
        let mut sequence = [SequenceRows { rows: fused.rows(), cache: &mut cache }];
        self.fusion.forward(PlanInput::Hidden(fused), &mut sequence)
    }

    /// The logits `[rows, vocab]` of rows behind the fusion layers.
    ///
    /// # Errors
    /// A failing device.
    pub fn head_logits(&self, hidden: &Activations) -> Result<Activations, CoreError> {
        self.head.forward(PlanInput::Hidden(hidden), &mut [])
    }

    /// The logits `[tokens, vocab]` of the unmodified base in one piece, without any slot: the reference for
    /// "no forgetting".
    ///
    /// # Errors
    /// Too many tokens, a token outside the vocabulary, a failing device.
    pub fn plain_logits(&self, tokens: &[u32]) -> Result<Activations, CoreError> {
        self.check_length(tokens.len())?;
        let whole = self.first_layers(&self.whole, self.shape.num_layers)?;
        let mut cache = whole.new_cache();
        let mut sequence = [SequenceRows { rows: tokens.len(), cache: &mut cache }];
        let hidden = whole.forward(PlanInput::Tokens(tokens), &mut sequence)?;
        self.head.forward(PlanInput::Hidden(&hidden), &mut [])
    }

    /// The embeddings of tokens, `[tokens, hidden]`.
    ///
    /// # Errors
    /// A token outside the vocabulary, a failing device.
    pub fn embeddings(&self, tokens: &[u32]) -> Result<Activations, CoreError> {
        let plan = self.first_layers(&self.embedding, 0)?;
        let mut cache = plan.new_cache();
        plan.forward(PlanInput::Tokens(tokens), &mut [SequenceRows { rows: tokens.len(), cache: &mut cache }])
    }

    /// The plan of embedding and the first `layers` layers, compiled when it is first wanted.
    fn first_layers<'a>(
        &self,
        plan: &'a OnceLock<Arc<dyn Plan>>,
        layers: usize,
    ) -> Result<&'a Arc<dyn Plan>, CoreError> {
        if let Some(plan) = plan.get() {
            return Ok(plan);
        }
        let graph = infer_shapes(Graph::from_abi(&base_graphs::understanding(&self.shape, layers))?)?;
        let compiled = self.backend.compile(&graph, &mut |name, _| base_weight(&self.weights, name))?;
        Ok(plan.get_or_init(|| compiled))
    }

    pub(crate) fn check_length(&self, tokens: usize) -> Result<(), CoreError> {
        let limit = self.shape.max_position;
        if tokens > limit { Err(CoreError::ContextLength { tokens, limit }) } else { Ok(()) }
    }
}

fn base_weight(weights: &HashMap<String, Weight>, name: &str) -> Result<Weight, CoreError> {
    weights.get(name).cloned().ok_or_else(|| {
        CoreError::weight(name, "is not a weight of this base; canonical names look like `layers.18.attn_q`")
    })
}

/// Every weight of a base with its shape, in the order of the layers.
fn whole_graph_weights(shape: &BaseShape) -> Result<Vec<(String, WeightSpec)>, CoreError> {
    let mut specs = Vec::new();
    for graph in [base_graphs::understanding(shape, shape.num_layers), base_graphs::head(shape)] {
        for node in Graph::from_abi(&graph)?.nodes {
            if let modularbase_graph::Op::Weight(spec) = node.op {
                specs.push((node.name, spec));
            }
        }
    }
    Ok(specs)
}
