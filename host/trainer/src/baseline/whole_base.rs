//! All layers of a base as one network, never cut at the slot.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use modularbase_gradients as gradients;
use modularbase_graph::Init;
use pack_sdk::{base_graphs, base_weights};

use crate::{Batch, Network, NetworkInput, TrainError, TrainingBase, WeightValues};

/// The network from token ids to the hidden states behind the last layer.
pub(super) struct WholeBase {
    pub(super) base: Arc<TrainingBase>,
    layers: Network,
}

impl WholeBase {
    pub(super) fn new(base: Arc<TrainingBase>) -> Result<Self, TrainError> {
        let shape = base.shape();
        let graph = base_graphs::understanding(shape, shape.num_layers);
        let layers = Network::of_abi(&graph, base.compute().clone())?;
        Ok(Self { base, layers })
    }

    /// Names and shapes of all weights, with the final norm and, where it is not the embedding, the head.
    pub(super) fn weights(&self) -> Result<Vec<(String, Vec<usize>)>, TrainError> {
        let of_layers = self.layers.weights().map(|(name, spec)| (name.to_owned(), spec.shape.clone()));
        let mut weights: Vec<_> = of_layers.collect();
        let mut behind = vec![base_weights::OUTPUT_NORM];
        if !self.base.file().tied_head() {
            behind.push(base_weights::OUTPUT);
        }
        for name in behind {
            weights.push((name.to_owned(), self.base.file().tensor(name)?.shape.clone()));
        }
        Ok(weights)
    }

    /// The base's own values of a weight, f32.
    pub(super) fn values(&self, name: &str) -> Result<Vec<f32>, TrainError> {
        Ok(self.base.file().read_f32(name)?)
    }

    /// The normed hidden states that the head reads.
    pub(super) fn hidden(
        &self,
        ids: &Tensor,
        batch: Batch,
        weights: &WeightValues,
    ) -> Result<Tensor, TrainError> {
        let hidden = self.layers.forward(NetworkInput::Tokens(ids), batch, weights)?;
        let gain = value(weights, base_weights::OUTPUT_NORM)?;
        Ok(gradients::rms_norm(&hidden, gain, self.base.shape().rms_norm_eps as f32)?)
    }

    /// The head `[vocab, hidden]` among these weights.
    pub(super) fn head(&self, weights: &WeightValues) -> Tensor {
        let name = if self.base.file().tied_head() { base_weights::TOKEN_EMBD } else { base_weights::OUTPUT };
        weights.get(name).unwrap_or(self.base.head()).clone()
    }

    pub(super) fn first_not_finite(
        &self,
        ids: &Tensor,
        batch: Batch,
        weights: &WeightValues,
    ) -> Result<Option<String>, TrainError> {
        self.layers.first_not_finite(NetworkInput::Tokens(ids), batch, weights)
    }

    /// Whether a weight is the matrix of a linear layer: every matrix but embedding and head.
    pub(super) fn is_linear(name: &str, shape: &[usize]) -> bool {
        shape.len() == 2 && name != base_weights::TOKEN_EMBD && name != base_weights::OUTPUT
    }

    /// That the weights all are copies of the base's, as those of its own graphs are.
    pub(super) fn check(&self) -> Result<(), TrainError> {
        match self.layers.weights().find(|(_, spec)| !matches!(spec.init, Init::CopyFromBase(_))) {
            Some((name, _)) => Err(TrainError::Graph(format!("`{name}` is no weight of the base"))),
            None => Ok(()),
        }
    }
}

fn value<'a>(weights: &'a WeightValues, name: &str) -> Result<&'a Tensor, TrainError> {
    weights.get(name).ok_or_else(|| TrainError::Graph(format!("the weight `{name}` has no value")))
}

/// Writes tensors as [`crate::evaluation::WholeModel`] reads them, whole or not at all; gives the bytes.
pub(super) fn write(
    path: &Path,
    tensors: Vec<(String, Tensor)>,
    dtype: DType,
    metadata: Option<(&str, String)>,
) -> Result<u64, TrainError> {
    let tensors = tensors
        .into_iter()
        .map(|(name, tensor)| Ok((name, tensor.to_device(&Device::Cpu)?.to_dtype(dtype)?.contiguous()?)))
        .collect::<Result<Vec<_>, TrainError>>()?;
    let texts = metadata.map(|(key, value)| [(key.to_owned(), value)].into());
    let bytes = safetensors::serialize(tensors, texts)
        .map_err(|error| TrainError::evaluation(format!("the weights make no safetensors file: {error}")))?;
    manifests::write_atomically(path, &bytes).map_err(TrainError::file("write", path))?;
    Ok(bytes.len() as u64)
}
