//! Softmax of rows.

use candle_core::{Result, Tensor};

use super::launch::{Argument, Grid, Kernels, device_of, int, launch, pointer, unwritten, variant};

const OP: &str = "softmax";

pub(crate) fn forward(x: &Tensor) -> Result<Tensor> {
    let output = unwritten(x.shape(), x.dtype(), x.device())?;
    let (width, rows) = rows_of(x);
    if rows == 0 {
        return Ok(output);
    }
    let addresses = [pointer(OP, x)?, pointer(OP, &output)?];
    let (name, _) = variant(OP, "softmax_forward", x.dtype(), width, &addresses)?;
    let numbers =
        [Argument::Float(1.0), int(OP, width)?, int(OP, rows)?, Argument::Int(1), Argument::Int(-1)];
    let arguments = [addresses.as_slice(), &numbers].concat();
    launch(device_of(OP, x)?, Kernels::Softmax, &name, Grid::warps(rows), &arguments)?;
    Ok(output)
}

pub(crate) fn backward(p: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let output = unwritten(p.shape(), p.dtype(), p.device())?;
    let (width, rows) = rows_of(p);
    if rows == 0 {
        return Ok(output);
    }
    let addresses = [pointer(OP, p)?, pointer(OP, gradient)?, pointer(OP, &output)?];
    let (name, _) = variant(OP, "softmax_backward", p.dtype(), width, &addresses)?;
    let numbers = [Argument::Float(1.0), int(OP, width)?, int(OP, rows)?];
    let arguments = [addresses.as_slice(), &numbers].concat();
    launch(device_of(OP, p)?, Kernels::Softmax, &name, Grid::warps(rows), &arguments)?;
    Ok(output)
}

fn rows_of(x: &Tensor) -> (usize, usize) {
    let width = x.dims()[x.rank() - 1];
    (width, x.elem_count() / width.max(1))
}
