//! Operators on tensors `[rows, width]`, in f32.

use candle_core::{D, DType, Device, Tensor, quantized::QMatMul};
use candle_nn::Module;
use modularbase_graph::{RopeLayout, RopeSpec};

use crate::{CoreError, weight::TensorMatrix};

/// `x w^T + bias`.
pub(super) fn linear(x: &Tensor, weight: &TensorMatrix, bias: Option<&Tensor>) -> Result<Tensor, CoreError> {
    let product = match &weight.product {
        QMatMul::QTensor(_) => weight.product.forward(x)?,
        QMatMul::Tensor(matrix) | QMatMul::TensorF16(matrix) => {
            x.to_dtype(matrix.dtype())?.matmul(&matrix.t()?)?.to_dtype(DType::F32)?
        }
    };
    Ok(match bias {
        Some(bias) => product.broadcast_add(bias)?,
        None => product,
    })
}

pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor, CoreError> {
    Ok(candle_nn::ops::rms_norm(&x.contiguous()?, weight, eps)?)
}

pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor, CoreError> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let scaled = centred.broadcast_div(&(variance + f64::from(eps))?.sqrt()?)?;
    Ok(scaled.broadcast_mul(weight)?.broadcast_add(bias)?)
}

/// Cosines and sines `[rows, head_dim / 2]` of the rows' positions, with angles in f64: those of a long text's positions
/// would be off by 0.004 rad in f32.
pub(super) fn rope_table(
    frequencies: &[f32],
    positions: &[u32],
    device: &Device,
) -> Result<(Tensor, Tensor), CoreError> {
    let of_position = |&position: &u32| {
        frequencies.iter().map(move |&frequency| (f64::from(position) * f64::from(frequency)).sin_cos())
    };
    let (sin, cos): (Vec<f32>, Vec<f32>) =
        positions.iter().flat_map(of_position).map(|(sin, cos)| (sin as f32, cos as f32)).unzip();
    let table = |values| Tensor::from_vec(values, (positions.len(), frequencies.len()), device);
    Ok((table(cos)?, table(sin)?))
}

pub(super) fn rope(x: &Tensor, spec: &RopeSpec, (cos, sin): &(Tensor, Tensor)) -> Result<Tensor, CoreError> {
    let (rows, width) = x.dims2()?;
    let heads = width / spec.head_dim;
    let rotated = match spec.layout {
        RopeLayout::Half => {
            let x = x.reshape((1, rows, heads, spec.head_dim))?.contiguous()?;
            candle_nn::rotary_emb::rope_thd(&x, cos, sin)?
        }
        RopeLayout::Interleaved => {
            let x = x.reshape((1, rows, heads, spec.head_dim))?.transpose(1, 2)?.contiguous()?;
            candle_nn::rotary_emb::rope_i(&x, cos, sin)?.transpose(1, 2)?
        }
    };
    Ok(rotated.reshape((rows, width))?)
}

/// What keeps `rows` rows from the keys behind their own, which are the last of `keys`: `[rows, keys]`, 0 and -inf.
pub(super) fn causal_mask(rows: usize, keys: usize, device: &Device) -> Result<Tensor, CoreError> {
    let mut mask = vec![0.0_f32; rows * keys];
    for (row, mask) in mask.chunks_exact_mut(keys).enumerate() {
        mask[keys - rows + row + 1..].fill(f32::NEG_INFINITY);
    }
    Ok(Tensor::from_vec(mask, (rows, keys), device)?)
}

/// Attention of one sequence: `q [rows, heads * d]` against all of `k`, `v` `[len, kv_heads * d]`, with `mask` `[rows, len]`
/// added to the scores.
pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    (heads, kv_heads): (usize, usize),
    mask: Option<&Tensor>,
) -> Result<Tensor, CoreError> {
    let (rows, width) = q.dims2()?;
    let (len, head_dim, group) = (k.dim(0)?, width / heads, heads / kv_heads);
    // [kv_heads, group * rows, d] against [kv_heads, len, d]: no copy of the keys for each head.
    let q = q.reshape((rows, kv_heads, group, head_dim))?.permute((1, 2, 0, 3))?.contiguous()?;
    let q = (q.reshape((kv_heads, group * rows, head_dim))? * (1.0 / (head_dim as f64).sqrt()))?;
    let per_head = |x: &Tensor| -> candle_core::Result<Tensor> {
        x.reshape((len, kv_heads, head_dim))?.transpose(0, 1)?.contiguous()
    };
    let scores = q.matmul(&per_head(k)?.t()?)?;
    let scores = match mask {
        Some(mask) => {
            let scores = scores.reshape((heads, rows, len))?.broadcast_add(mask)?;
            scores.reshape((kv_heads, group * rows, len))?
        }
        None => scores,
    };
    let mixed = softmax(&scores)?.matmul(&per_head(v)?)?;
    Ok(mixed.reshape((kv_heads, group, rows, head_dim))?.permute((2, 0, 1, 3))?.reshape((rows, width))?)
}

pub(super) fn softmax(x: &Tensor) -> Result<Tensor, CoreError> {
    Ok(candle_nn::ops::softmax_last_dim(&x.contiguous()?)?)
}

/// The weights of a [`modularbase_graph::Op::MoeFfn`].
pub(super) struct MoeWeights<'a> {
    pub(super) router: &'a TensorMatrix,
    pub(super) gate: &'a TensorMatrix,
    pub(super) up: &'a TensorMatrix,
    pub(super) down: &'a TensorMatrix,
}

/// Every expert over every row, then those of the `top_k` by their renormalised weight: simple, and the same result
/// as running the chosen ones alone.
pub(super) fn moe_ffn(
    x: &Tensor,
    weights: &MoeWeights<'_>,
    experts: usize,
    top_k: usize,
) -> Result<Tensor, CoreError> {
    let (rows, width) = x.dims2()?;
    let inner = weights.gate.rows / experts;
    let logits = linear(x, weights.router, None)?;
    let choice = choose(&logits.to_vec2()?, top_k);
    let choice = Tensor::from_vec(choice, (rows, experts), x.device())?;
    let hidden = (linear(x, weights.gate, None)?.silu()? * linear(x, weights.up, None)?)?;
    let down = weights.down.dequantized()?;
    let mut sum = x.zeros_like()?;
    for expert in 0..experts {
        let part = hidden.narrow(1, expert * inner, inner)?.contiguous()?;
        let part = part.matmul(&down.narrow(0, expert * width, width)?.t()?)?;
        sum = (sum + part.broadcast_mul(&choice.narrow(1, expert, 1)?)?)?;
    }
    Ok(sum)
}

/// Softmax over the `top_k` largest logits of each row, zero elsewhere; of equal logits the first is taken.
fn choose(logits: &[Vec<f32>], top_k: usize) -> Vec<f32> {
    let mut all = Vec::with_capacity(logits.len() * logits.first().map_or(0, Vec::len));
    for row in logits {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        let best = row[order[0]];
        let mut weights = vec![0.0; row.len()];
        order.iter().take(top_k).for_each(|&expert| weights[expert] = (row[expert] - best).exp());
        let sum: f32 = weights.iter().sum();
        all.extend(weights.into_iter().map(|weight| weight / sum));
    }
    all
}
