//! A pack's network in the slot of a frozen base.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use candle_core::{DType, Tensor};
use modularbase_deltas::GROUP;
use modularbase_gradients as gradients;
use modularbase_graph::{CheckedGraph, Init};

use crate::{
    Batch, Network, NetworkInput, Parameters, Quantizer, TrainError, TrainedModel, TrainingBase,
    WeightValues, initial_values,
};

/// A pack that is trained: every weight of its graph is a parameter.
pub struct PackModel {
    base: Arc<TrainingBase>,
    network: Network,
    parameters: Parameters,
    /// The base's tensor that a parameter starts from, by the parameter's name.
    sources: BTreeMap<String, String>,
    /// The same as values on the device, f32, for the matrices that can be stored as deltas.
    origins: HashMap<String, Tensor>,
}

impl PackModel {
    /// A pack with the first values that its graph states; draws depend on `seed`.
    ///
    /// # Errors
    /// A graph that does not suit the slot or copies what the base does not have, a device without room.
    pub fn new(base: Arc<TrainingBase>, graph: CheckedGraph, seed: u64) -> Result<Self, TrainError> {
        graph.suits_slot(base.shape().hidden_size).map_err(|error| TrainError::Graph(error.to_string()))?;
        let network = Network::new(graph, base.compute().clone())?;
        let device = &base.compute().device;
        let mut parameters = Parameters::default();
        let (mut sources, mut origins) = (BTreeMap::new(), HashMap::new());
        for (name, spec) in network.weights() {
            let values = match base.copied(name, spec)? {
                Some(values) => {
                    if let Init::CopyFromBase(source) = &spec.init {
                        sources.insert(name.to_owned(), source.clone());
                    }
                    values
                }
                None => initial_values(&spec.init, spec.elements(), seed, name),
            };
            let variable = parameters.add(name, values, &spec.shape, device)?;
            let in_groups = spec.shape.len() == 2 && spec.shape[1].is_multiple_of(GROUP);
            if sources.contains_key(name) && in_groups {
                origins.insert(name.to_owned(), variable.as_tensor().copy()?.detach());
            }
        }
        if parameters.is_empty() {
            return Err(TrainError::Graph("it has no weights of its own".to_owned()));
        }
        Ok(Self { base, network, parameters, sources, origins })
    }

    /// The base's tensor that the parameter `name` starts from.
    pub fn source(&self, name: &str) -> Option<&str> {
        self.sources.get(name).map(String::as_str)
    }

    /// What the network makes of hidden states in front of the slot, `[rows, hidden]`.
    ///
    /// # Errors
    /// The device fails.
    pub fn expert(
        &self,
        hidden: &Tensor,
        batch: Batch,
        weights: &WeightValues,
    ) -> Result<Tensor, TrainError> {
        self.network.forward(NetworkInput::Hidden(hidden), batch, weights)
    }

    /// Weights for a pass without gradients, from values in host memory, such as those of a file.
    ///
    /// # Errors
    /// A value that is missing or has another shape, a device without room.
    pub fn frozen_weights(&self, values: &BTreeMap<String, Tensor>) -> Result<WeightValues, TrainError> {
        let compute = self.compute();
        let mut weights = WeightValues::new();
        for (name, spec) in self.network.weights() {
            let value = values
                .get(name)
                .filter(|value| value.dims() == spec.shape)
                .ok_or_else(|| TrainError::Graph(format!("no value of {:?} for `{name}`", spec.shape)))?;
            let dtype = if spec.shape.len() == 1 { DType::F32 } else { compute.dtype };
            let tensor = value.to_dtype(dtype)?.to_device(&compute.device)?;
            weights.insert(name.to_owned(), tensor);
        }
        Ok(weights)
    }
}

impl TrainedModel for PackModel {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn base(&self) -> &TrainingBase {
        &self.base
    }

    fn weights(&self, quantizer: Option<&Quantizer>) -> Result<WeightValues, TrainError> {
        let mut weights = WeightValues::new();
        for (name, variable) in self.parameters.iter() {
            let master = variable.as_tensor();
            let quantized = match (quantizer, self.origins.get(name)) {
                (Some(quantizer), Some(origin)) => quantizer.quantized(name, master, origin)?,
                _ => None,
            };
            let tensor = match quantized {
                Some(quantized) => gradients::straight_through(master, &quantized)?,
                None => master.clone(),
            };
            weights.insert(name.to_owned(), tensor);
        }
        Ok(weights)
    }

    fn hidden(&self, ids: &Tensor, batch: Batch, weights: &WeightValues) -> Result<Tensor, TrainError> {
        let before = self.base.before_slot(ids, batch)?;
        self.base.behind_slot(&self.expert(&before, batch, weights)?, batch)
    }

    fn head(&self, _: &WeightValues) -> Tensor {
        self.base.head().clone()
    }

    fn delta_bases(&self) -> Result<BTreeMap<String, Vec<f32>>, TrainError> {
        let read = |name: &String| -> Result<_, TrainError> {
            Ok((name.clone(), self.base.file().read_f32(&self.sources[name])?))
        };
        self.origins.keys().map(read).collect()
    }

    fn first_not_finite(
        &self,
        ids: &Tensor,
        batch: Batch,
        weights: &WeightValues,
    ) -> Result<Option<String>, TrainError> {
        let hidden = self.base.before_slot(ids, batch)?;
        self.network.first_not_finite(NetworkInput::Hidden(&hidden), batch, weights)
    }
}
