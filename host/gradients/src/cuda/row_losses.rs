//! Cross entropy of rows of logits.

use candle_core::{DType, Result, Tensor};

use super::launch::{Argument, Grid, Kernels, NULL, device_of, int, launch, pointer, unwritten, variant};

const OP: &str = "cross_entropy";
/// As the kernel's own.
const THREADS: u32 = 512;

/// The weighted losses `[rows]` f32, and, if wanted, the gradients of their sum in the memory of `logits`.
pub(crate) fn row_losses(
    logits: &Tensor,
    targets: &Tensor,
    weights: Option<&Tensor>,
    with_gradient: bool,
) -> Result<Tensor> {
    let (rows, vocabulary) = logits.dims2()?;
    let losses = unwritten(rows, DType::F32, logits.device())?;
    if rows == 0 {
        return Ok(losses);
    }
    let logits_at = pointer(OP, logits)?;
    let (name, _) = variant(OP, "row_loss", logits.dtype(), vocabulary, &[logits_at])?;
    let arguments = [
        logits_at,
        pointer(OP, targets)?,
        weights.map_or(Ok(NULL), |weights| pointer(OP, weights))?,
        pointer(OP, &losses)?,
        int(OP, vocabulary)?,
        Argument::Int(with_gradient.into()),
    ];
    let grid = Grid { blocks: (rows as u32, 1, 1), threads: (THREADS, 1, 1) };
    launch(device_of(OP, logits)?, Kernels::RowLosses, &name, grid, &arguments)?;
    Ok(losses)
}
