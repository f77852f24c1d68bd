//! One pass through a graph.

use candle_core::Tensor;
use modularbase_gradients as gradients;
use modularbase_graph::{Node, NodeId, Op, RopeLayout, RopeSpec};

use super::{Network, NetworkInput, WeightValues, moe};
use crate::{Batch, TrainError};

/// The values of a pass, each dropped after its last use; what the backward pass needs, autograd keeps.
pub(super) struct Forward<'a> {
    network: &'a Network,
    input: NetworkInput<'a>,
    batch: Batch,
    weights: &'a WeightValues,
    values: Vec<Option<Tensor>>,
    uses: Vec<usize>,
    ropes: Vec<(&'a RopeSpec, gradients::RopeTable)>,
}

impl<'a> Forward<'a> {
    pub(super) fn new(
        network: &'a Network,
        input: NetworkInput<'a>,
        batch: Batch,
        weights: &'a WeightValues,
    ) -> Self {
        let values = vec![None; network.graph.graph().nodes.len()];
        Self { network, input, batch, weights, values, uses: network.uses.clone(), ropes: Vec::new() }
    }

    /// Runs every node in order; `seen` is shown each value.
    pub(super) fn run(
        mut self,
        mut seen: impl FnMut(&str, &Tensor) -> Result<(), TrainError>,
    ) -> Result<Tensor, TrainError> {
        let nodes = &self.network.graph.graph().nodes;
        for (id, node) in nodes.iter().enumerate() {
            if matches!(node.op, Op::Weight(_)) {
                continue;
            }
            let value = self.node(node)?;
            seen(&node.name, &value)?;
            if self.uses[id] > 0 {
                self.values[id] = Some(value);
            }
        }
        self.take(self.network.output)
    }

    /// The value of a node, dropped from the store by its last reader.
    fn take(&mut self, id: NodeId) -> Result<Tensor, TrainError> {
        self.uses[id] -= 1;
        let value = if self.uses[id] == 0 { self.values[id].take() } else { self.values[id].clone() };
        value.ok_or_else(|| TrainError::Graph(format!("`{}` has no value", self.name(id))))
    }

    fn name(&self, id: NodeId) -> &'a str {
        &self.network.graph.graph().nodes[id].name
    }

    fn weight(&self, id: NodeId) -> Result<&'a Tensor, TrainError> {
        let name = self.name(id);
        self.weights.get(name).ok_or_else(|| TrainError::Graph(format!("the weight `{name}` has no value")))
    }

    fn is_weight(&self, id: NodeId) -> bool {
        matches!(self.network.graph.graph().nodes[id].op, Op::Weight(_))
    }

    fn rope_table(&mut self, spec: &'a RopeSpec) -> Result<gradients::RopeTable, TrainError> {
        if let Some((_, table)) = self.ropes.iter().find(|(known, _)| *known == spec) {
            return Ok(table.clone());
        }
        let device = &self.network.compute.device;
        let table = gradients::RopeTable::new(&spec.inverse_frequencies(), self.batch.length, device)?;
        self.ropes.push((spec, table.clone()));
        Ok(table)
    }

    fn node(&mut self, node: &'a Node) -> Result<Tensor, TrainError> {
        let inputs = node.inputs.as_slice();
        Ok(match &node.op {
            Op::Weight(_) => return Err(TrainError::Graph("a weight is no value".to_owned())),
            Op::Input(_) => {
                let (NetworkInput::Tokens(input) | NetworkInput::Hidden(input)) = self.input;
                let rows = input.dim(0)?;
                if rows != self.batch.rows() {
                    let expected = self.batch.rows();
                    return Err(TrainError::Graph(format!(
                        "the batch has {expected} rows, the input {rows}"
                    )));
                }
                input.clone()
            }
            Op::Embedding => {
                let ids = self.take(inputs[0])?;
                let table = self.weight(inputs[1])?;
                gradients::cast(&gradients::embedding(&ids, table)?, self.network.compute.dtype)?
            }
            Op::Linear => {
                let x = self.take(inputs[0])?;
                let bias = inputs.get(2).map(|&bias| self.weight(bias)).transpose()?;
                gradients::linear(&x, self.weight(inputs[1])?, bias)?
            }
            Op::RmsNorm { eps } => {
                let x = self.take(inputs[0])?;
                gradients::rms_norm(&x, self.weight(inputs[1])?, *eps)?
            }
            Op::LayerNorm { eps } => {
                let x = self.take(inputs[0])?;
                let (weight, bias) = (self.weight(inputs[1])?, self.weight(inputs[2])?);
                gradients::layer_norm(&x, weight, bias, *eps)?
            }
            Op::Rope(spec) => {
                let table = self.rope_table(spec)?;
                let x = self.take(inputs[0])?;
                let layout = match spec.layout {
                    RopeLayout::Half => gradients::RopeLayout::Half,
                    RopeLayout::Interleaved => gradients::RopeLayout::Interleaved,
                };
                gradients::rope(&x, &table, layout, spec.head_dim)?
            }
            Op::Attention { heads, kv_heads, causal, .. } => {
                let (q, k, v) = (self.take(inputs[0])?, self.take(inputs[1])?, self.take(inputs[2])?);
                gradients::attention(&q, &k, &v, *heads, *kv_heads, self.batch.length, *causal)?
            }
            Op::Silu => gradients::silu(&self.take(inputs[0])?)?,
            Op::Gelu => gradients::gelu(&self.take(inputs[0])?)?,
            Op::SiluMul => {
                let (gate, up) = (self.take(inputs[0])?, self.take(inputs[1])?);
                gradients::silu_mul(&gate, &up)?
            }
            Op::Add => gradients::add(&self.take(inputs[0])?, &self.take(inputs[1])?)?,
            Op::Mul => {
                let x = self.take(inputs[0])?;
                match self.is_weight(inputs[1]) {
                    true => {
                        let weight = self.weight(inputs[1])?;
                        gradients::mul(&x, &weight.broadcast_as(x.dim(1)?)?)?
                    }
                    false => gradients::mul(&x, &self.take(inputs[1])?)?,
                }
            }
            Op::Scale { factor } => gradients::scale(&self.take(inputs[0])?, *factor)?,
            Op::Softmax => gradients::softmax(&self.take(inputs[0])?)?,
            Op::Concat => {
                let parts = inputs.iter().map(|&input| self.take(input)).collect::<Result<Vec<_>, _>>()?;
                gradients::concat(&parts.iter().collect::<Vec<_>>())?
            }
            Op::MoeFfn { experts, top_k } => {
                let x = self.take(inputs[0])?;
                let weights = moe::MoeWeights {
                    router: self.weight(inputs[1])?,
                    gate: self.weight(inputs[2])?,
                    up: self.weight(inputs[3])?,
                    down: self.weight(inputs[4])?,
                };
                moe::moe_ffn(&x, &weights, *experts, *top_k)?
            }
        })
    }
}
