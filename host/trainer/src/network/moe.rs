//! A mixture of experts inside a pack, with gradients.

use candle_core::{D, DType, Tensor};
use modularbase_gradients as gradients;

use crate::TrainError;

/// The weights of a [`modularbase_graph::Op::MoeFfn`].
pub(super) struct MoeWeights<'a> {
    pub(super) router: &'a Tensor,
    pub(super) gate: &'a Tensor,
    pub(super) up: &'a Tensor,
    pub(super) down: &'a Tensor,
}

/// Every expert over every row, then those of the `top_k` by their renormalised weight. The choice itself has no
/// gradient; the weights of the chosen ones have (Mixtral, section 2.1).
pub(super) fn moe_ffn(
    x: &Tensor,
    weights: &MoeWeights<'_>,
    experts: usize,
    top_k: usize,
) -> Result<Tensor, TrainError> {
    let (rows, width) = x.dims2()?;
    let inner = weights.gate.dim(0)? / experts;
    let logits = gradients::cast(&gradients::linear(x, weights.router, None)?, DType::F32)?;
    // A logit that is not chosen becomes so small that its exponential is zero.
    let order = logits.detach().arg_sort_last_dim(false)?.narrow(1, 0, top_k)?.contiguous()?;
    let hidden = Tensor::full(-1e30_f32, (rows, experts), x.device())?;
    let mask = hidden.scatter(&order, &Tensor::zeros((rows, top_k), DType::F32, x.device())?, D::Minus1)?;
    let choice = gradients::softmax(&gradients::add(&logits, &mask)?)?;
    let gate = gradients::linear(x, weights.gate, None)?;
    let hidden = gradients::silu_mul(&gate, &gradients::linear(x, weights.up, None)?)?;
    let mut sum: Option<Tensor> = None;
    for expert in 0..experts {
        let part = gradients::columns(&hidden, expert * inner, inner)?;
        let down = weights.down.narrow(0, expert * width, width)?.contiguous()?;
        let part = gradients::linear(&part, &down, None)?;
        let part = gradients::mul(&part, &gradients::columns(&choice, expert, 1)?)?;
        sum = Some(match sum {
            Some(sum) => gradients::add(&sum, &part)?,
            None => part,
        });
    }
    sum.ok_or_else(|| TrainError::Graph("a mixture of no experts".to_owned()))
}
