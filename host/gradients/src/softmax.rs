//! Softmax over the last dimension.

use candle_core::{Device, Result, Tensor};

use crate::{
    OpError,
    host_values::{HostValues, for_row_blocks, host_tensor},
    recorded::record,
};

const OP: &str = "softmax";

/// Softmax over the last dimension of `x [.., width]` in f32 or bf16.
///
/// # Errors
/// A scalar, other element types.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    if x.rank() == 0 {
        return Err(OpError::inputs(OP, "x [rows, width]", &[x]).into());
    }
    let output = forward(&x.detach().contiguous()?)?;
    record(OP, output, [x], move |gradient, output| Ok([Some(backward(&output.detach(), gradient)?)]))
}

fn forward(x: &Tensor) -> Result<Tensor> {
    match x.device() {
        Device::Cpu => {
            let values = HostValues::read(OP, x)?;
            let (values, width) = (values.as_slice(), x.dims()[x.rank() - 1]);
            let mut output = vec![0.0; values.len()];
            for_row_blocks(&mut output, width, |first, rows| {
                for (index, row) in rows.chunks_exact_mut(width).enumerate() {
                    row.copy_from_slice(&values[(first + index) * width..][..width]);
                    softmax_in_place(row, 1.0);
                }
            });
            host_tensor(OP, output, x.shape(), x.dtype())
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::softmax::forward(x),
        _ => Err(OpError::Backend { op: OP, found: "a device without a kernel for it" }.into()),
    }
}

/// `p (g - sum(p g))` of each row.
fn backward(output: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    match output.device() {
        Device::Cpu => {
            let (p, g) = (HostValues::read(OP, output)?, HostValues::read(OP, gradient)?);
            let (p, g, width) = (p.as_slice(), g.as_slice(), output.dims()[output.rank() - 1]);
            let mut dx = vec![0.0; p.len()];
            for_row_blocks(&mut dx, width, |first, rows| {
                for (index, dx) in rows.chunks_exact_mut(width).enumerate() {
                    let (p, g) =
                        (&p[(first + index) * width..][..width], &g[(first + index) * width..][..width]);
                    let dot: f32 = p.iter().zip(g).map(|(p, g)| p * g).sum();
                    for ((dx, p), g) in dx.iter_mut().zip(p).zip(g) {
                        *dx = p * (g - dot);
                    }
                }
            });
            host_tensor(OP, dx, output.shape(), output.dtype())
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::softmax::backward(output, gradient),
        _ => Err(OpError::Backend { op: OP, found: "a device without a kernel for it" }.into()),
    }
}

/// Softmax of `scale * row`.
pub(crate) fn softmax_in_place(row: &mut [f32], scale: f32) {
    let largest = row.iter().fold(f32::NEG_INFINITY, |largest, &x| largest.max(x * scale));
    let mut sum = 0.0;
    for x in row.iter_mut() {
        *x = (*x * scale - largest).exp();
        sum += *x;
    }
    let inverse = 1.0 / sum;
    row.iter_mut().for_each(|x| *x *= inverse);
}
