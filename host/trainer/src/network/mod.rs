//! A graph run with gradients.

mod forward;
mod moe;

use std::collections::HashMap;

use candle_core::Tensor;
use modularbase_graph::{CheckedGraph, Graph, NodeId, Op, Shape, WeightSpec, infer_shapes};

use crate::{Batch, Compute, TrainError};

/// The weights of a graph by name, as one step uses them: matrices in the compute dtype or f32, vectors in f32. Those
/// that autograd tracks get gradients, the others cost none.
pub type WeightValues = HashMap<String, Tensor>;

/// What flows into a network.
#[derive(Debug, Clone, Copy)]
pub enum NetworkInput<'a> {
    /// Token ids `[rows]`, u32.
    Tokens(&'a Tensor),
    /// Hidden states `[rows, width]` in the compute dtype.
    Hidden(&'a Tensor),
}

/// A checked graph with one output, ready to run on batches.
#[derive(Debug)]
pub struct Network {
    graph: CheckedGraph,
    output: NodeId,
    /// How many nodes read each value, an output counted as a reader: a value is dropped after its last.
    uses: Vec<usize>,
    compute: Compute,
}

impl Network {
    /// A network of a graph.
    ///
    /// # Errors
    /// A graph with other than one output of rows.
    pub fn new(graph: CheckedGraph, compute: Compute) -> Result<Self, TrainError> {
        let output = match graph.graph().outputs.as_slice() {
            &[output] if matches!(graph.shapes()[output], Shape::Rows(_)) => output,
            outputs => {
                return Err(TrainError::Graph(format!(
                    "a network needs one output [tokens, n], this graph has {} outputs",
                    outputs.len()
                )));
            }
        };
        let mut uses = vec![0; graph.graph().nodes.len()];
        uses[output] += 1;
        for node in &graph.graph().nodes {
            node.inputs.iter().for_each(|&input| uses[input] += 1);
        }
        Ok(Self { graph, output, uses, compute })
    }

    /// A network of a graph as the SDK builds it.
    ///
    /// # Errors
    /// A graph whose edges don't fit.
    pub fn of_abi(graph: &pack_sdk::Graph, compute: Compute) -> Result<Self, TrainError> {
        let graph = Graph::from_abi(graph).and_then(infer_shapes);
        Self::new(graph.map_err(|error| TrainError::Graph(error.to_string()))?, compute)
    }

    /// Its weights with what the graph says of them.
    pub fn weights(&self) -> impl Iterator<Item = (&str, &WeightSpec)> {
        self.graph.graph().nodes.iter().filter_map(|node| match &node.op {
            Op::Weight(spec) => Some((node.name.as_str(), spec)),
            _ => None,
        })
    }

    /// The output `[rows, width]` in the compute dtype.
    ///
    /// # Errors
    /// A weight that `weights` does not hold, rows that are not the batch's, a device that fails.
    pub fn forward(
        &self,
        input: NetworkInput<'_>,
        batch: Batch,
        weights: &WeightValues,
    ) -> Result<Tensor, TrainError> {
        forward::Forward::new(self, input, batch, weights).run(|_, _| Ok(()))
    }

    /// The name of the first node whose value has a number that is not finite, for the message about a loss that is
    /// none.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn first_not_finite(
        &self,
        input: NetworkInput<'_>,
        batch: Batch,
        weights: &WeightValues,
    ) -> Result<Option<String>, TrainError> {
        let mut first = None;
        forward::Forward::new(self, input, batch, weights).run(|name, value| {
            if first.is_none() && value.dtype().is_float() {
                let sum = value.to_dtype(candle_core::DType::F32)?.abs()?.sum_all()?.to_scalar::<f32>()?;
                if !sum.is_finite() {
                    first = Some(name.to_owned());
                }
            }
            Ok(())
        })?;
        Ok(first)
    }
}
