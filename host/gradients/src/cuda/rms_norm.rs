//! RMS norm.

use candle_core::{DType, Result, Tensor};

use super::{
    launch::{Argument, Grid, Kernels, NULL, device_of, int, launch, pointer, unwritten, variant},
    norm_weights,
};

const OP: &str = "rms_norm";

pub(crate) fn forward(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let output = unwritten(x.shape(), x.dtype(), x.device())?;
    let (width, rows) = rows_of(x, weight);
    if rows == 0 {
        return Ok(output);
    }
    let addresses = [pointer(OP, x)?, pointer(OP, weight)?, pointer(OP, &output)?];
    let (name, _) = variant(OP, "rms_forward", x.dtype(), width, &addresses)?;
    let numbers = [Argument::Float(eps), int(OP, width)?, int(OP, rows)?];
    let arguments = [addresses.as_slice(), &numbers].concat();
    launch(device_of(OP, x)?, Kernels::Norms, &name, Grid::warps(rows), &arguments)?;
    Ok(output)
}

pub(crate) fn backward(
    x: &Tensor,
    weight: &Tensor,
    gradient: &Tensor,
    eps: f32,
    for_x: bool,
    for_weight: bool,
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let (width, rows) = rows_of(x, weight);
    let dx = for_x.then(|| unwritten(x.shape(), x.dtype(), x.device())).transpose()?;
    let inverses = for_weight.then(|| unwritten(rows, DType::F32, x.device())).transpose()?;
    if rows > 0 {
        let addresses = [
            pointer(OP, x)?,
            pointer(OP, weight)?,
            pointer(OP, gradient)?,
            dx.as_ref().map_or(Ok(NULL), |dx| pointer(OP, dx))?,
        ];
        let (name, _) = variant(OP, "rms_backward", x.dtype(), width, &addresses)?;
        let kept = inverses.as_ref().map_or(Ok(NULL), |inverses| pointer(OP, inverses))?;
        let numbers = [kept, Argument::Float(eps), int(OP, width)?, int(OP, rows)?];
        let arguments = [addresses.as_slice(), &numbers].concat();
        launch(device_of(OP, x)?, Kernels::Norms, &name, Grid::warps(rows), &arguments)?;
    }
    let dweight = inverses.map(|inverses| norm_weights::gradients(OP, x, gradient, None, &inverses));
    Ok((dx, dweight.transpose()?.map(|(dweight, _)| dweight)))
}

fn rows_of(x: &Tensor, weight: &Tensor) -> (usize, usize) {
    let width = weight.elem_count();
    (width, x.elem_count() / width.max(1))
}
