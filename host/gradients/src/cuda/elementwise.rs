//! Kernels of one value of each input at a time.

use candle_core::{Result, Tensor};

use super::launch::{Argument, Grid, Kernels, NULL, device_of, launch, pointer, unwritten, variant};

/// Starts kernel `base` on contiguous tensors of one shape and type: inputs, then `extra`, then outputs, then the count.
pub(super) fn start(
    op: &'static str,
    base: &str,
    inputs: &[&Tensor],
    extra: &[Argument],
    outputs: &[&Tensor],
) -> Result<()> {
    let like = inputs[0];
    let count = like.elem_count();
    if count == 0 {
        return Ok(());
    }
    let mut arguments = inputs.iter().map(|tensor| pointer(op, tensor)).collect::<Result<Vec<_>>>()?;
    let outputs = outputs.iter().map(|tensor| pointer(op, tensor)).collect::<Result<Vec<_>>>()?;
    let addresses = [arguments.as_slice(), &outputs].concat();
    let (name, lanes) = variant(op, base, like.dtype(), count, &addresses)?;
    arguments.extend_from_slice(extra);
    arguments.extend(outputs);
    arguments.push(Argument::Long((count / lanes) as i64));
    launch(device_of(op, like)?, Kernels::Elementwise, &name, Grid::strided(count / lanes), &arguments)
}

/// `a + b`.
pub(crate) fn sum_of(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let output = unwritten(a.shape(), a.dtype(), a.device())?;
    start("add", "sum", &[a, b], &[], &[&output])?;
    Ok(output)
}

/// `x * factor`, the factor an f32 scalar on the device.
pub(crate) fn scaled(x: &Tensor, factor: &Tensor) -> Result<Tensor> {
    let output = unwritten(x.shape(), x.dtype(), x.device())?;
    let extra = [pointer("scale", factor)?, Argument::Float(1.0)];
    start("scale", "scaled", &[x], &extra, &[&output])?;
    Ok(output)
}

/// `x * factor`.
pub(crate) fn times(x: &Tensor, factor: f32) -> Result<Tensor> {
    let output = unwritten(x.shape(), x.dtype(), x.device())?;
    start("scale", "scaled", &[x], &[NULL, Argument::Float(factor)], &[&output])?;
    Ok(output)
}
