//! Losses of rows through a head, chunk by chunk: the logits of a chunk of rows live only until their gradient has been
//! multiplied with the head, so that no `[rows, vocabulary]` tensor of the whole batch exists.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};

use crate::{
    OpError,
    host_values::{HostValues, host_tensor},
    product::{product, product_f32},
    recorded::record,
};

/// A chunk of rows whose losses are asked for.
pub(crate) struct Chunk<'a> {
    /// Which rows of all.
    pub(crate) rows: Range<usize>,
    /// Their hidden states.
    pub(crate) hidden: &'a Tensor,
    /// The head in the type of the hidden states.
    pub(crate) head: &'a Tensor,
    /// Whether the gradient by the logits is wanted.
    pub(crate) with_gradient: bool,
}

/// The sum of all rows' losses, a scalar in f32: `losses_of` gives those of a chunk `[rows]` f32 and, where it is wanted,
/// the gradient of their sum by the logits. Gradients go to `hidden`, and to `head` if it is tracked; both are made here
/// and only scaled by backward.
pub(crate) fn summed_through_head(
    op: &'static str,
    hidden: &Tensor,
    head: &Tensor,
    chunk_rows: usize,
    losses_of: impl Fn(&Chunk) -> Result<(Tensor, Tensor)>,
) -> Result<Tensor> {
    let input = hidden.detach().contiguous()?;
    let matrix = head.detach().to_dtype(hidden.dtype())?.contiguous()?;
    let (for_hidden, for_head) = (hidden.track_op(), head.track_op());
    let (mut losses, mut dhidden, mut dhead) = (Vec::new(), Vec::new(), None);
    for rows in chunks(input.dims()[0], chunk_rows) {
        let chunk = input.narrow(0, rows.start, rows.len())?;
        let with_gradient = for_hidden || for_head;
        let (loss, dlogits) = losses_of(&Chunk { rows, hidden: &chunk, head: &matrix, with_gradient })?;
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
    record(op, loss, [hidden, head], move |gradient, _| {
        let dhidden = dhidden.as_ref().map(|d| scaled(op, d, gradient)).transpose()?;
        let dhead = dhead.as_ref().map(|d| scaled(op, d, gradient)?.to_dtype(head_dtype)).transpose()?;
        Ok([dhidden, dhead])
    })
}

/// The rows of each chunk.
pub(crate) fn chunks(rows: usize, chunk_rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(chunk_rows).map(move |first| first..rows.min(first + chunk_rows))
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
fn scaled(op: &'static str, tensor: &Tensor, factor: &Tensor) -> Result<Tensor> {
    match tensor.device() {
        Device::Cpu => {
            let factor = factor.to_scalar::<f32>()?;
            let values = HostValues::read(op, tensor)?;
            let values = values.as_slice().iter().map(|value| value * factor).collect();
            host_tensor(op, values, tensor.shape(), tensor.dtype())
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::elementwise::scaled(tensor, factor),
        _ => Err(OpError::Backend { op, found: "a device without a kernel for it" }.into()),
    }
}
