//! Cross entropy through a head, chunk by chunk: the logits of a chunk of rows live only until their gradient has been
//! multiplied with the head, so that no `[rows, vocabulary]` tensor of the whole batch exists.

use candle_core::{DType, Device, Result, Tensor};

use crate::{
    OpError,
    host_values::{HostValues, host_tensor},
    product::{product, product_f32},
    recorded::record,
    row_losses::row_losses,
};

const OP: &str = "cross_entropy";

/// The sum over rows of `weights[i] * -log softmax(hidden[i] head^T)[targets[i]]`, a scalar in f32, in nats:
/// `hidden [rows, width]` in f32 or bf16, `head [vocabulary, width]` in f32 or `hidden`'s type, `targets [rows]` u32,
/// `weights [rows]` f32. A row of weight 0 is skipped, whatever its target is. Gradients go to `hidden`, and to `head` if
/// it is tracked; both are made here, `chunk_rows` rows at a time, and only scaled by backward.
///
/// # Errors
/// Other shapes or element types, `chunk_rows` of 0; on the CPU a target outside of the head (on CUDA the loss is then
/// NaN).
pub fn cross_entropy(
    hidden: &Tensor,
    head: &Tensor,
    targets: &Tensor,
    weights: &Tensor,
    chunk_rows: usize,
) -> Result<Tensor> {
    check(hidden, head, targets, Some(weights), chunk_rows)?;
    let input = hidden.detach().contiguous()?;
    let matrix = head.detach().to_dtype(hidden.dtype())?.contiguous()?;
    let weights = weights.detach().contiguous()?;
    let (for_hidden, for_head) = (hidden.track_op(), head.track_op());
    let (mut losses, mut dhidden, mut dhead) = (Vec::new(), Vec::new(), None);
    for (first, rows) in chunks(input.dims()[0], chunk_rows) {
        let chunk = input.narrow(0, first, rows)?;
        let logits = logits_for_training(&chunk, &matrix)?;
        let (targets, weights) = (targets.narrow(0, first, rows)?, weights.narrow(0, first, rows)?);
        let (loss, dlogits) = row_losses(logits, &targets, Some(&weights), for_hidden || for_head)?;
        losses.push(loss);
        if for_hidden {
            dhidden.push(product(&dlogits, &matrix.to_dtype(dlogits.dtype())?)?.to_dtype(hidden.dtype())?);
        }
        if for_head {
            let part = product_f32(&dlogits.t()?, &chunk.to_dtype(dlogits.dtype())?)?;
            dhead = Some(match dhead {
                None => part,
                Some(sum) => (sum + part)?,
            });
        }
    }
    let loss = total(&losses, hidden.device())?;
    let dhidden = match for_hidden {
        true if dhidden.is_empty() => Some(input.zeros_like()?),
        true => Some(Tensor::cat(&dhidden, 0)?),
        false => None,
    };
    let head_dtype = head.dtype();
    if for_head && dhead.is_none() {
        dhead = Some(matrix.to_dtype(DType::F32)?.zeros_like()?);
    }
    record(OP, loss, [hidden, head], move |gradient, _| {
        let dhidden = dhidden.as_ref().map(|d| scaled(d, gradient)).transpose()?;
        let dhead = dhead.as_ref().map(|d| scaled(d, gradient)?.to_dtype(head_dtype)).transpose()?;
        Ok([dhidden, dhead])
    })
}

/// `-log softmax(hidden[i] head^T)[targets[i]]` of each row, `[rows]` f32, in nats, without gradients: shapes and types
/// as for [`cross_entropy`], the logits in f32.
///
/// # Errors
/// As for [`cross_entropy`].
pub fn cross_entropy_rows(
    hidden: &Tensor,
    head: &Tensor,
    targets: &Tensor,
    chunk_rows: usize,
) -> Result<Tensor> {
    check(hidden, head, targets, None, chunk_rows)?;
    let input = hidden.detach().contiguous()?;
    let matrix = head.detach().to_dtype(hidden.dtype())?.contiguous()?;
    let mut losses = Vec::new();
    for (first, rows) in chunks(input.dims()[0], chunk_rows) {
        let logits = product_f32(&input.narrow(0, first, rows)?, &matrix.t()?)?;
        losses.push(row_losses(logits, &targets.narrow(0, first, rows)?, None, false)?.0);
    }
    if losses.is_empty() {
        return Tensor::zeros(0, DType::F32, hidden.device());
    }
    Tensor::cat(&losses, 0)
}

/// First row and number of rows of each chunk.
fn chunks(rows: usize, chunk_rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).step_by(chunk_rows).map(move |first| (first, chunk_rows.min(rows - first)))
}

/// The CPU has no product in bf16: there the logits stay in f32.
fn logits_for_training(chunk: &Tensor, head: &Tensor) -> Result<Tensor> {
    if chunk.device().is_cpu() { product_f32(chunk, &head.t()?) } else { product(chunk, &head.t()?) }
}

fn check(
    hidden: &Tensor,
    head: &Tensor,
    targets: &Tensor,
    weights: Option<&Tensor>,
    chunk_rows: usize,
) -> Result<()> {
    let fits = match (hidden.dims(), head.dims(), targets.dims()) {
        (&[rows, width], &[_, head_width], &[target_rows]) => {
            width == head_width
                && rows == target_rows
                && targets.dtype() == DType::U32
                && weights.is_none_or(|weights| weights.dims() == [rows] && weights.dtype() == DType::F32)
        }
        _ => false,
    };
    if fits && chunk_rows > 0 {
        return Ok(());
    }
    let found: Vec<&Tensor> = [hidden, head, targets].into_iter().chain(weights).collect();
    let expected = "hidden [rows, width], head [vocabulary, width], targets [rows] U32, weights [rows] F32 and chunks of \
                    at least one row";
    Err(OpError::inputs(OP, expected, &found).into())
}

/// The sum of all losses; on the CPU in f64.
fn total(losses: &[Tensor], device: &Device) -> Result<Tensor> {
    if losses.is_empty() {
        return Tensor::zeros((), DType::F32, device);
    }
    let losses = Tensor::cat(losses, 0)?;
    match device {
        Device::Cpu => {
            let sum: f64 = losses.to_vec1::<f32>()?.into_iter().map(f64::from).sum();
            Tensor::new(sum as f32, device)
        }
        _ => losses.sum_all(),
    }
}

/// `tensor * factor`, the factor a scalar in f32 on the same device.
fn scaled(tensor: &Tensor, factor: &Tensor) -> Result<Tensor> {
    match tensor.device() {
        Device::Cpu => {
            let factor = factor.to_scalar::<f32>()?;
            let values = HostValues::read(OP, tensor)?;
            let values = values.as_slice().iter().map(|value| value * factor).collect();
            host_tensor(OP, values, tensor.shape(), tensor.dtype())
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::elementwise::scaled(tensor, factor),
        _ => Err(OpError::Backend { op: OP, found: "a device without a kernel for it" }.into()),
    }
}
