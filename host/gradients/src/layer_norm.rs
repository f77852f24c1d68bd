//! Layer normalisation, Ba et al. 2016.

use candle_core::{DType, Device, Result, Shape, Tensor};

use crate::{
    OpError,
    host_values::{HostValues, for_row_blocks, host_tensor, sum_over_rows},
    recorded::record,
};

const OP: &str = "layer_norm";

/// `weight * (x - mean(x)) / sqrt(variance(x) + eps) + bias` over the last dimension: `x [rows, width]` in f32 or bf16,
/// `weight` and `bias` `[width]` in f32 or `x`'s type. The output is in `x`'s type, each gradient in its input's.
///
/// # Errors
/// Shapes that differ from these, other element types.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    let fits = x.rank() > 0 && weight.dims() == &x.dims()[x.rank() - 1..] && bias.dims() == weight.dims();
    if !fits {
        let expected = "x [rows, width], weight [width] and bias [width]";
        return Err(OpError::inputs(OP, expected, &[x, weight, bias]).into());
    }
    let saved = x.detach().contiguous()?;
    let scale = weight.detach().to_dtype(DType::F32)?.contiguous()?;
    let shift = bias.detach().to_dtype(DType::F32)?.contiguous()?;
    let output = forward(&saved, &scale, &shift, eps)?;
    let (for_x, for_weight) = (x.track_op(), weight.track_op() || bias.track_op());
    let dtypes = (weight.dtype(), bias.dtype());
    record(OP, output, [x, weight, bias], move |gradient, _| {
        let (dx, sums) = backward(&saved, &scale, gradient, eps, for_x, for_weight)?;
        let Some((dweight, dbias)) = sums else { return Ok([dx, None, None]) };
        Ok([dx, Some(dweight.to_dtype(dtypes.0)?), Some(dbias.to_dtype(dtypes.1)?)])
    })
}

fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    match x.device() {
        Device::Cpu => {
            let (values, scale) = (HostValues::read(OP, x)?, HostValues::read(OP, weight)?);
            let shift = HostValues::read(OP, bias)?;
            let (values, scale, shift) = (values.as_slice(), scale.as_slice(), shift.as_slice());
            let width = scale.len();
            let mut output = vec![0.0; values.len()];
            for_row_blocks(&mut output, width, |first, rows| {
                for (index, row) in rows.chunks_exact_mut(width).enumerate() {
                    let x = row_of(values, width, first + index);
                    let (mean, inverse) = moments(x, eps);
                    for (((out, x), scale), shift) in row.iter_mut().zip(x).zip(scale).zip(shift) {
                        *out = (x - mean) * inverse * scale + shift;
                    }
                }
            });
            host_tensor(OP, output, x.shape(), x.dtype())
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::layer_norm::forward(x, weight, bias, eps),
        _ => Err(OpError::Backend { op: OP, found: "a device without a kernel for it" }.into()),
    }
}

/// With `n` the normalised row and `r = 1 / sqrt(variance + eps)`: `dx = r (w g - mean(w g) - n mean(w g n))`,
/// `dweight = sum of g n`, `dbias = sum of g`.
#[expect(clippy::type_complexity, reason = "the gradients of x, and of weight and bias together")]
fn backward(
    x: &Tensor,
    weight: &Tensor,
    gradient: &Tensor,
    eps: f32,
    for_x: bool,
    for_weight: bool,
) -> Result<(Option<Tensor>, Option<(Tensor, Tensor)>)> {
    match x.device() {
        Device::Cpu => {
            let (values, scale) = (HostValues::read(OP, x)?, HostValues::read(OP, weight)?);
            let incoming = HostValues::read(OP, gradient)?;
            let (values, scale, incoming) = (values.as_slice(), scale.as_slice(), incoming.as_slice());
            let width = scale.len();
            let dx = for_x.then(|| {
                let mut dx = vec![0.0; values.len()];
                for_row_blocks(&mut dx, width, |first, rows| {
                    for (index, dx) in rows.chunks_exact_mut(width).enumerate() {
                        let x = row_of(values, width, first + index);
                        input_gradient(dx, x, scale, row_of(incoming, width, first + index), eps);
                    }
                });
                dx
            });
            let sums = for_weight.then(|| {
                sum_over_rows(values.len() / width.max(1), 2 * width, |row, sums| {
                    let (x, g) = (row_of(values, width, row), row_of(incoming, width, row));
                    let (mean, inverse) = moments(x, eps);
                    let (weights, biases) = sums.split_at_mut(width);
                    for (((dweight, dbias), x), g) in weights.iter_mut().zip(biases).zip(x).zip(g) {
                        *dweight += g * (x - mean) * inverse;
                        *dbias += g;
                    }
                })
            });
            let dx = dx.map(|dx| host_tensor(OP, dx, x.shape(), x.dtype())).transpose()?;
            let sums = sums.map(|mut dweight| -> Result<_> {
                let dbias = dweight.split_off(width);
                let shape = Shape::from(width);
                Ok((
                    host_tensor(OP, dweight, &shape, DType::F32)?,
                    host_tensor(OP, dbias, &shape, DType::F32)?,
                ))
            });
            Ok((dx, sums.transpose()?))
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::layer_norm::backward(x, weight, gradient, eps, for_x, for_weight),
        _ => Err(OpError::Backend { op: OP, found: "a device without a kernel for it" }.into()),
    }
}

fn input_gradient(dx: &mut [f32], x: &[f32], weight: &[f32], gradient: &[f32], eps: f32) {
    let (mean, inverse) = moments(x, eps);
    let (mut sum, mut dot) = (0.0, 0.0);
    for ((x, w), g) in x.iter().zip(weight).zip(gradient) {
        sum += w * g;
        dot += w * g * (x - mean) * inverse;
    }
    let (sum, dot) = (sum / x.len() as f32, dot / x.len() as f32);
    for (((dx, x), w), g) in dx.iter_mut().zip(x).zip(weight).zip(gradient) {
        *dx = inverse * (w * g - sum - (x - mean) * inverse * dot);
    }
}

fn row_of(values: &[f32], width: usize, row: usize) -> &[f32] {
    &values[row * width..(row + 1) * width]
}

/// Mean, and `1 / sqrt(variance + eps)`.
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let mean = x.iter().sum::<f32>() / x.len() as f32;
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / x.len() as f32;
    (mean, (variance + eps).sqrt().recip())
}
