//! Divergence of rows of logits from a teacher's.

use candle_core::{DType, Result, Tensor};

use super::launch::{Argument, Grid, Kernels, device_of, int, launch, pointer, unwritten, variant};

const OP: &str = "distillation";
/// As the kernel's own.
const THREADS: u32 = 512;

/// The weighted divergences `[rows]` f32 of logits in f32, and, if wanted, the gradients of their sum in the memory of
/// `logits`.
pub(crate) fn row_divergences(
    logits: &Tensor,
    teacher: &Tensor,
    weights: &Tensor,
    with_gradient: bool,
) -> Result<Tensor> {
    let (rows, vocabulary) = logits.dims2()?;
    let divergences = unwritten(rows, DType::F32, logits.device())?;
    if rows == 0 {
        return Ok(divergences);
    }
    let addresses = [pointer(OP, logits)?, pointer(OP, teacher)?];
    let (name, _) = variant(OP, "row_divergence", logits.dtype(), vocabulary, &addresses)?;
    let arguments = [
        addresses[0],
        addresses[1],
        pointer(OP, weights)?,
        pointer(OP, &divergences)?,
        int(OP, vocabulary)?,
        Argument::Int(with_gradient.into()),
    ];
    let grid = Grid { blocks: (rows as u32, 1, 1), threads: (THREADS, 1, 1) };
    launch(device_of(OP, logits)?, Kernels::RowDivergences, &name, grid, &arguments)?;
    Ok(divergences)
}
