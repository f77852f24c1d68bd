//! The gradients of a norm's weight and bias.

use candle_core::{DType, Result, Tensor};

use super::launch::{Grid, Kernels, NULL, device_of, int, launch, pointer, unwritten};
use crate::OpError;

/// Chunks of rows that are summed by themselves: enough blocks for a device, few enough to add up.
const CHUNKS: usize = 64;

/// The sums over rows of `gradient * (x - means) * inverses` and, if there are means, of `gradient`; `[width]` f32.
pub(super) fn gradients(
    op: &'static str,
    x: &Tensor,
    gradient: &Tensor,
    means: Option<&Tensor>,
    inverses: &Tensor,
) -> Result<(Tensor, Option<Tensor>)> {
    let rows = inverses.elem_count();
    let width = x.elem_count() / rows.max(1);
    if rows == 0 {
        let zeros = Tensor::zeros(x.dims()[x.rank() - 1], DType::F32, x.device())?;
        return Ok((zeros.clone(), means.map(|_| zeros)));
    }
    let chunk = rows.div_ceil(CHUNKS).max(32);
    let chunks = rows.div_ceil(chunk);
    let partials = || unwritten((chunks, width), DType::F32, x.device());
    let weights = partials()?;
    let biases = means.map(|_| partials()).transpose()?;
    let name = match x.dtype() {
        DType::F32 => "weight_partials_f32",
        DType::BF16 => "weight_partials_bf16",
        found => return Err(OpError::Dtype { op, found }.into()),
    };
    let arguments = [
        pointer(op, x)?,
        pointer(op, gradient)?,
        means.map_or(Ok(NULL), |means| pointer(op, means))?,
        pointer(op, inverses)?,
        pointer(op, &weights)?,
        biases.as_ref().map_or(Ok(NULL), |biases| pointer(op, biases))?,
        int(op, width)?,
        int(op, rows)?,
        int(op, chunk)?,
    ];
    let grid = Grid { blocks: (width.div_ceil(32) as u32, chunks as u32, 1), threads: (32, 8, 1) };
    launch(device_of(op, x)?, Kernels::Norms, name, grid, &arguments)?;
    let sum = |partials: &Tensor| -> Result<Tensor> {
        let output = unwritten(width, DType::F32, x.device())?;
        let arguments = [pointer(op, partials)?, pointer(op, &output)?, int(op, width)?, int(op, chunks)?];
        launch(device_of(op, x)?, Kernels::Norms, "sum_partials", Grid::threads(width), &arguments)?;
        Ok(output)
    };
    Ok((sum(&weights)?, biases.as_ref().map(sum).transpose()?))
}
