//! Attention of bf16 rows without the scores in memory.

use candle_core::{DType, Result, Tensor};

use super::launch::{Argument, Grid, Kernels, device_of, int, launch, pointer, unwritten};
use crate::{attention::AttentionShape, recorded::record};

const OP: &str = "attention";
/// Rows of a block, as the kernels' own.
const BLOCK_ROWS: usize = 64;
const THREADS: u32 = 128;
/// Head sizes that there are kernels for; smaller ones are filled up with zeros.
const HEAD_SIZES: [usize; 4] = [32, 64, 96, 128];

/// Whether the kernels take rows like `q`.
pub(crate) fn supports(q: &Tensor, shape: &AttentionShape) -> bool {
    q.device().is_cuda()
        && q.dtype() == DType::BF16
        && shape.head_dim.is_multiple_of(8)
        && shape.head_dim <= HEAD_SIZES[HEAD_SIZES.len() - 1]
        && shape.heads <= 65_535
        && shape.sequences <= 65_535
}

/// Attention of `rows` (those of `inputs`, contiguous and detached), recorded.
pub(crate) fn attention(inputs: [&Tensor; 3], rows: [Tensor; 3], shape: AttentionShape) -> Result<Tensor> {
    // A copy only where a view begins between two 16-byte addresses.
    let [q, k, v] = rows.map(aligned);
    let (q, k, v) = (q?, k?, v?);
    let output = unwritten(q.shape(), DType::BF16, q.device())?;
    let logs = unwritten(shape.sequences * shape.heads * shape.length, DType::F32, q.device())?;
    if shape.sequences == 0 || shape.head_dim == 0 {
        return Ok(output);
    }
    let addresses = [&q, &k, &v, &output, &logs].map(|tensor| pointer(OP, tensor));
    let arguments = arguments(addresses, &shape)?;
    launch(
        device_of(OP, &q)?,
        Kernels::FlashAttention,
        &name("forward", &shape),
        grid(&shape, shape.heads),
        &arguments,
    )?;
    record(OP, output, inputs, move |gradient, output| {
        let [dq, dk, dv] =
            backward(&q, &k, &v, &output.detach(), &logs, &aligned(gradient.clone())?, &shape)?;
        Ok([Some(dq), Some(dk), Some(dv)])
    })
}

fn backward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    output: &Tensor,
    logs: &Tensor,
    gradient: &Tensor,
    shape: &AttentionShape,
) -> Result<[Tensor; 3]> {
    let device = device_of(OP, q)?;
    let like = |x: &Tensor| unwritten(x.shape(), DType::BF16, x.device());
    let dots = unwritten(logs.shape(), DType::F32, logs.device())?;
    let count = logs.elem_count();
    let numbers = [
        pointer(OP, output)?,
        pointer(OP, gradient)?,
        pointer(OP, &dots)?,
        int(OP, shape.heads)?,
        int(OP, shape.head_dim)?,
        int(OP, shape.length)?,
        Argument::Long(count as i64),
    ];
    launch(device, Kernels::FlashAttention, "attention_dots", Grid::warps(count), &numbers)?;

    let dq = like(q)?;
    let addresses = [q, k, v, gradient, logs, &dots, &dq].map(|tensor| pointer(OP, tensor));
    let kernel = name("queries", shape);
    launch(
        device,
        Kernels::FlashAttention,
        &kernel,
        grid(shape, shape.heads),
        &arguments(addresses, shape)?,
    )?;

    let (dk, dv) = (like(k)?, like(v)?);
    let addresses = [q, k, v, gradient, logs, &dots, &dk, &dv].map(|tensor| pointer(OP, tensor));
    let kernel = name("keys", shape);
    launch(
        device,
        Kernels::FlashAttention,
        &kernel,
        grid(shape, shape.kv_heads),
        &arguments(addresses, shape)?,
    )?;
    Ok([dq, dk, dv])
}

fn arguments<const N: usize>(
    addresses: [Result<Argument>; N],
    shape: &AttentionShape,
) -> Result<Vec<Argument>> {
    let mut all = addresses.into_iter().collect::<Result<Vec<_>>>()?;
    for number in [shape.heads, shape.kv_heads, shape.head_dim, shape.length] {
        all.push(int(OP, number)?);
    }
    all.extend([Argument::Int(shape.causal.into()), Argument::Float(shape.scale())]);
    Ok(all)
}

fn name(kernel: &str, shape: &AttentionShape) -> String {
    let size = HEAD_SIZES.into_iter().find(|&size| size >= shape.head_dim).unwrap_or(shape.head_dim);
    format!("attention_{kernel}_{size}")
}

fn grid(shape: &AttentionShape, heads: usize) -> Grid {
    let blocks = (shape.length.div_ceil(BLOCK_ROWS) as u32, heads as u32, shape.sequences as u32);
    Grid { blocks, threads: (THREADS, 1, 1) }
}

/// The tensor itself where its address is one of 16 bytes, otherwise a copy.
fn aligned(tensor: Tensor) -> Result<Tensor> {
    match pointer(OP, &tensor)? {
        Argument::Pointer(address) if address % 16 != 0 => tensor.force_contiguous(),
        _ => Ok(tensor),
    }
}
