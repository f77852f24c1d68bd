//! Root mean square normalisation, Zhang and Sennrich 2019.

use candle_core::{DType, Device, Result, Shape, Tensor};

use crate::{
    OpError,
    host_values::{HostValues, for_row_blocks, host_tensor, sum_over_rows},
    recorded::record,
};

const OP: &str = "rms_norm";

/// `weight * x / sqrt(mean(x^2) + eps)` over the last dimension: `x [rows, width]` in f32 or bf16, `weight [width]` in
/// f32 or `x`'s type. The output is in `x`'s type, each gradient in its input's.
///
/// # Errors
/// Shapes that differ from these, other element types.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    if x.rank() == 0 || weight.dims() != &x.dims()[x.rank() - 1..] {
        return Err(OpError::inputs(OP, "x [rows, width] and weight [width]", &[x, weight]).into());
    }
    let saved = x.detach().contiguous()?;
    let scale = weight.detach().to_dtype(DType::F32)?.contiguous()?;
    let output = forward(&saved, &scale, eps)?;
    let (for_x, for_weight, weight_dtype) = (x.track_op(), weight.track_op(), weight.dtype());
    record(OP, output, [x, weight], move |gradient, _| {
        let (dx, dweight) = backward(&saved, &scale, gradient, eps, for_x, for_weight)?;
        Ok([dx, dweight.map(|sum| sum.to_dtype(weight_dtype)).transpose()?])
    })
}

fn forward(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    match x.device() {
        Device::Cpu => {
            let (values, scale) = (HostValues::read(OP, x)?, HostValues::read(OP, weight)?);
            let (values, scale) = (values.as_slice(), scale.as_slice());
            let width = scale.len();
            let mut output = vec![0.0; values.len()];
            for_row_blocks(&mut output, width, |first, rows| {
                for (index, row) in rows.chunks_exact_mut(width).enumerate() {
                    let x = row_of(values, width, first + index);
                    let inverse = inverse_rms(x, eps);
                    for ((out, x), scale) in row.iter_mut().zip(x).zip(scale) {
                        *out = x * inverse * scale;
                    }
                }
            });
            host_tensor(OP, output, x.shape(), x.dtype())
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::rms_norm::forward(x, weight, eps),
        _ => Err(OpError::Backend { op: OP, found: "a device without a kernel for it" }.into()),
    }
}

/// With `r = 1 / sqrt(mean(x^2) + eps)`: `dx = r w g - x r^3 mean(x w g)` and `dw = sum over rows of g x r`.
fn backward(
    x: &Tensor,
    weight: &Tensor,
    gradient: &Tensor,
    eps: f32,
    for_x: bool,
    for_weight: bool,
) -> Result<(Option<Tensor>, Option<Tensor>)> {
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
                        let g = row_of(incoming, width, first + index);
                        let inverse = inverse_rms(x, eps);
                        let dot: f32 = x.iter().zip(scale).zip(g).map(|((x, w), g)| x * w * g).sum();
                        let pull = dot * inverse * inverse * inverse / width as f32;
                        for (((dx, x), w), g) in dx.iter_mut().zip(x).zip(scale).zip(g) {
                            *dx = g * w * inverse - x * pull;
                        }
                    }
                });
                dx
            });
            let dweight = for_weight.then(|| {
                sum_over_rows(values.len() / width.max(1), width, |row, sums| {
                    let (x, g) = (row_of(values, width, row), row_of(incoming, width, row));
                    let inverse = inverse_rms(x, eps);
                    for ((sum, x), g) in sums.iter_mut().zip(x).zip(g) {
                        *sum += g * x * inverse;
                    }
                })
            });
            let dx = dx.map(|dx| host_tensor(OP, dx, x.shape(), x.dtype())).transpose()?;
            let dweight =
                dweight.map(|sum| host_tensor(OP, sum, &Shape::from(width), DType::F32)).transpose()?;
            Ok((dx, dweight))
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::rms_norm::backward(x, weight, gradient, eps, for_x, for_weight),
        _ => Err(OpError::Backend { op: OP, found: "a device without a kernel for it" }.into()),
    }
}

fn row_of(values: &[f32], width: usize, row: usize) -> &[f32] {
    &values[row * width..(row + 1) * width]
}

fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    let squares: f32 = x.iter().map(|x| x * x).sum();
    (squares / x.len() as f32 + eps).sqrt().recip()
}
