//! A base as training sees it: its layers on both sides of the slot, frozen.

use std::sync::OnceLock;

use candle_core::{DType, Tensor};
use modularbase_core::BaseFile;
use modularbase_graph::{Init, WeightSpec};
use pack_sdk::{BaseShape, SlotRange, base_graphs, base_weights};

use crate::{Batch, Compute, Network, NetworkInput, TrainError, WeightValues};

/// The frozen parts of a base around its slot, on a device.
pub struct TrainingBase {
    file: BaseFile,
    slot: SlotRange,
    compute: Compute,
    understanding: Network,
    fusion: Network,
    weights: WeightValues,
    /// Its own layers in the slot with their weights, from the first time that they are asked for.
    own_slot: OnceLock<(Network, WeightValues)>,
}

impl TrainingBase {
    /// Reads the base's layers in front of and behind the slot, and the head.
    ///
    /// # Errors
    /// A slot outside the base, a damaged file, a device without room.
    pub fn load(file: BaseFile, slot: SlotRange, compute: Compute) -> Result<Self, TrainError> {
        let shape = file.shape().clone();
        if slot.start >= slot.end || slot.end > shape.num_layers {
            let (start, end, layers) = (slot.start, slot.end, shape.num_layers);
            return Err(TrainError::Graph(format!(
                "the slot [{start}, {end}) must lie within the base's {layers} layers"
            )));
        }
        let understanding =
            Network::of_abi(&base_graphs::understanding(&shape, slot.start), compute.clone())?;
        let fusion =
            Network::of_abi(&base_graphs::layers(&shape, slot.end..shape.num_layers), compute.clone())?;
        let (weights, own_slot) = (WeightValues::new(), OnceLock::new());
        let mut base = Self { file, slot, compute, understanding, fusion, weights, own_slot };
        let head = [base_weights::OUTPUT_NORM, base_weights::OUTPUT].map(str::to_owned);
        let around = base.understanding.weights().chain(base.fusion.weights());
        let names: Vec<String> = around.map(|(name, _)| name.to_owned()).chain(head).collect();
        for name in names {
            let tensor = match name == base_weights::OUTPUT && base.file.tied_head() {
                true => base.weights[base_weights::TOKEN_EMBD].clone(),
                false => base.frozen(&name)?,
            };
            base.weights.insert(name, tensor);
        }
        Ok(base)
    }

    /// The file it was read from.
    pub fn file(&self) -> &BaseFile {
        &self.file
    }

    /// Sizes and constants.
    pub fn shape(&self) -> &BaseShape {
        self.file.shape()
    }

    /// The layers that packs stand in for.
    pub fn slot(&self) -> SlotRange {
        self.slot
    }

    /// Where it computes.
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// A tensor of the base for use as it is: a matrix in the compute dtype, a vector in f32.
    ///
    /// # Errors
    /// No such tensor, a damaged file, a device without room.
    pub fn frozen(&self, name: &str) -> Result<Tensor, TrainError> {
        let shape = self.file.tensor(name)?.shape.clone();
        let dtype = if shape.len() == 1 { DType::F32 } else { self.compute.dtype };
        let values = Tensor::from_vec(self.file.read_f32(name)?, shape, &candle_core::Device::Cpu)?;
        Ok(values.to_dtype(dtype)?.to_device(&self.compute.device)?)
    }

    /// The base's own values of a weight that copies from it, f32; `None` for other weights.
    ///
    /// # Errors
    /// A base that has no such tensor, or of another shape.
    pub fn copied(&self, name: &str, spec: &WeightSpec) -> Result<Option<Vec<f32>>, TrainError> {
        let Init::CopyFromBase(source) = &spec.init else { return Ok(None) };
        let found = &self.file.tensor(source)?.shape;
        if *found != spec.shape {
            let expected = &spec.shape;
            return Err(TrainError::Graph(format!(
                "`{name}` is {expected:?} and copies `{source}`, which is {found:?}"
            )));
        }
        Ok(Some(self.file.read_f32(source)?))
    }

    /// The hidden states in front of the slot, `[rows, hidden]`, without gradients. `ids` are u32 `[rows]`.
    ///
    /// # Errors
    /// The device fails.
    pub fn before_slot(&self, ids: &Tensor, batch: Batch) -> Result<Tensor, TrainError> {
        let hidden = self.understanding.forward(NetworkInput::Tokens(ids), batch, &self.weights)?;
        Ok(hidden.detach())
    }

    /// From what leaves the slot to the normed hidden states that the head reads, `[rows, hidden]`; gradients go
    /// through to `hidden`.
    ///
    /// # Errors
    /// The device fails.
    pub fn behind_slot(&self, hidden: &Tensor, batch: Batch) -> Result<Tensor, TrainError> {
        let hidden = self.fusion.forward(NetworkInput::Hidden(hidden), batch, &self.weights)?;
        let gain = &self.weights[base_weights::OUTPUT_NORM];
        Ok(modularbase_gradients::rms_norm(&hidden, gain, self.shape().rms_norm_eps as f32)?)
    }

    /// The normed hidden states that the head reads, `[rows, hidden]`, of the base alone, without gradients.
    ///
    /// # Errors
    /// The device fails or has no room for the layers in the slot.
    pub fn alone(&self, ids: &Tensor, batch: Batch) -> Result<Tensor, TrainError> {
        let (layers, weights) = match self.own_slot.get() {
            Some(own) => own,
            None => {
                let own = self.load_own_slot()?;
                self.own_slot.get_or_init(|| own)
            }
        };
        let hidden = layers.forward(NetworkInput::Hidden(&self.before_slot(ids, batch)?), batch, weights)?;
        Ok(self.behind_slot(&hidden, batch)?.detach())
    }

    fn load_own_slot(&self) -> Result<(Network, WeightValues), TrainError> {
        let graph = base_graphs::layers(self.shape(), self.slot.start..self.slot.end);
        let layers = Network::of_abi(&graph, self.compute.clone())?;
        let names = layers.weights().map(|(name, _)| name.to_owned());
        let weights = names.map(|name| Ok((name.clone(), self.frozen(&name)?)));
        let weights = weights.collect::<Result<WeightValues, TrainError>>()?;
        Ok((layers, weights))
    }

    /// The LM head `[vocab, hidden]`, frozen.
    pub fn head(&self) -> &Tensor {
        &self.weights[base_weights::OUTPUT]
    }
}
