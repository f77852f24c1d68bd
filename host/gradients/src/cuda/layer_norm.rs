//! Layer norm.

use candle_core::{DType, Result, Tensor};

use super::{
    launch::{Argument, Grid, Kernels, NULL, device_of, int, launch, pointer, unwritten, variant},
    norm_weights,
};

const OP: &str = "layer_norm";

pub(crate) fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    let output = unwritten(x.shape(), x.dtype(), x.device())?;
    let (width, rows) = rows_of(x, weight);
    if rows == 0 {
        return Ok(output);
    }
    let addresses = [pointer(OP, x)?, pointer(OP, weight)?, pointer(OP, bias)?, pointer(OP, &output)?];
    let (name, _) = variant(OP, "layer_forward", x.dtype(), width, &addresses)?;
    let numbers = [Argument::Float(eps), int(OP, width)?, int(OP, rows)?];
    let arguments = [addresses.as_slice(), &numbers].concat();
    launch(device_of(OP, x)?, Kernels::Norms, &name, Grid::warps(rows), &arguments)?;
    Ok(output)
}

/// The gradient of `x`, and those of weight and bias together.
#[expect(clippy::type_complexity, reason = "as the operator's own")]
pub(crate) fn backward(
    x: &Tensor,
    weight: &Tensor,
    gradient: &Tensor,
    eps: f32,
    for_x: bool,
    for_weight: bool,
) -> Result<(Option<Tensor>, Option<(Tensor, Tensor)>)> {
    let (width, rows) = rows_of(x, weight);
    let dx = for_x.then(|| unwritten(x.shape(), x.dtype(), x.device())).transpose()?;
    let column = || unwritten(rows, DType::F32, x.device());
    let moments = for_weight.then(|| Ok::<_, candle_core::Error>((column()?, column()?))).transpose()?;
    if rows > 0 {
        let addresses = [
            pointer(OP, x)?,
            pointer(OP, weight)?,
            pointer(OP, gradient)?,
            dx.as_ref().map_or(Ok(NULL), |dx| pointer(OP, dx))?,
        ];
        let (name, _) = variant(OP, "layer_backward", x.dtype(), width, &addresses)?;
        let (means, inverses) = match &moments {
            Some((means, inverses)) => (pointer(OP, means)?, pointer(OP, inverses)?),
            None => (NULL, NULL),
        };
        let numbers = [means, inverses, Argument::Float(eps), int(OP, width)?, int(OP, rows)?];
        let arguments = [addresses.as_slice(), &numbers].concat();
        launch(device_of(OP, x)?, Kernels::Norms, &name, Grid::warps(rows), &arguments)?;
    }
    let sums =
        moments.map(|(means, inverses)| norm_weights::gradients(OP, x, gradient, Some(&means), &inverses));
    let sums = sums.transpose()?;
    Ok((dx, sums.and_then(|(dweight, dbias)| dbias.map(|dbias| (dweight, dbias)))))
}

fn rows_of(x: &Tensor, weight: &Tensor) -> (usize, usize) {
    let width = weight.elem_count();
    (width, x.elem_count() / width.max(1))
}
