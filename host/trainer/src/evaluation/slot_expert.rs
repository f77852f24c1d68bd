//! An expert for the slot that is evaluated: a graph with frozen weights.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use modularbase_graph::{CheckedGraph, Init};
use pack_sdk::base_graphs;

use crate::{Batch, Network, NetworkInput, TrainError, TrainingBase, WeightValues};

/// A network for the slot of a base, weights and all, on the base's device.
#[derive(Debug)]
pub struct SlotExpert {
    name: String,
    network: Network,
    weights: WeightValues,
}

impl SlotExpert {
    /// The base's own layers of the slot.
    ///
    /// # Errors
    /// A damaged base, a device without room.
    pub fn of_base(name: &str, base: &TrainingBase) -> Result<Self, TrainError> {
        let graph = base_graphs::layers(base.shape(), base.slot().layers());
        let network = Network::of_abi(&graph, base.compute().clone())?;
        Self::with_network(name, base, network, &BTreeMap::new())
    }

    /// A pack. `own` has the values of its weights file by name, on the CPU; what it does not have is the base's.
    ///
    /// # Errors
    /// A graph that does not suit the slot, a weight with another shape than the graph's or without a value, a device
    /// without room.
    pub fn of_pack(
        name: &str,
        base: &TrainingBase,
        graph: CheckedGraph,
        own: &BTreeMap<String, Tensor>,
    ) -> Result<Self, TrainError> {
        graph
            .suits_slot(base.shape().hidden_size)
            .map_err(|error| TrainError::evaluation(format!("pack `{name}`: {error}")))?;
        let network = Network::new(graph, base.compute().clone())?;
        if let Some(unknown) = own.keys().find(|own| !network.weights().any(|(known, _)| known == *own)) {
            return Err(TrainError::evaluation(format!(
                "pack `{name}`: the graph has no weight for `{unknown}`: do file and library belong together?"
            )));
        }
        Self::with_network(name, base, network, own)
    }

    fn with_network(
        name: &str,
        base: &TrainingBase,
        network: Network,
        own: &BTreeMap<String, Tensor>,
    ) -> Result<Self, TrainError> {
        let compute = base.compute();
        let mut weights = WeightValues::new();
        for (weight, spec) in network.weights() {
            let tensor = match (own.get(weight), &spec.init) {
                (Some(value), _) if value.dims() == spec.shape => {
                    let dtype = if spec.shape.len() == 1 { DType::F32 } else { compute.dtype };
                    value.to_dtype(dtype)?.to_device(&compute.device)?
                }
                (None, Init::CopyFromBase(source)) => base.frozen(source)?,
                (found, _) => {
                    let found = found.map_or("none".to_owned(), |value| format!("{:?}", value.dims()));
                    let expected = &spec.shape;
                    return Err(TrainError::evaluation(format!(
                        "pack `{name}`: the weight `{weight}` should be {expected:?}, found {found}"
                    )));
                }
            };
            if tensor.dims() != spec.shape {
                let (expected, found) = (&spec.shape, tensor.dims());
                return Err(TrainError::evaluation(format!(
                    "pack `{name}`: the weight `{weight}` is {expected:?}, in the base it is {found:?}"
                )));
            }
            weights.insert(weight.to_owned(), tensor);
        }
        Ok(Self { name: name.to_owned(), network, weights })
    }

    /// The name it is mixed by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its output for hidden states in front of the slot, both `[rows, hidden]` in the compute dtype.
    ///
    /// # Errors
    /// The device fails.
    pub fn forward(&self, hidden: &Tensor, batch: Batch) -> Result<Tensor, TrainError> {
        Ok(self.network.forward(NetworkInput::Hidden(hidden), batch, &self.weights)?.detach())
    }
}
