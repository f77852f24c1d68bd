//! Scores of a block of queries to probabilities and back, in place.

use candle_core::{CudaStorage, Layout, Result, backend::BackendStorage};

use super::launch::{Argument, Grid, Kernels, address, int, launch, variant};
use crate::attention_scores::{Dscores, Probabilities};

const OP: &str = "attention";

pub(crate) fn probabilities(with: &Probabilities, scores: &mut CudaStorage, layout: &Layout) -> Result<()> {
    let (width, rows) = (with.keys, layout.shape().elem_count() / with.keys.max(1));
    if rows == 0 {
        return Ok(());
    }
    let scores_at = address(OP, scores, layout)?;
    let (name, _) = variant(OP, "softmax_forward", scores.dtype(), width, &[scores_at])?;
    let from = match with.causal_from {
        Some(first) => int(OP, first)?,
        None => Argument::Int(-1),
    };
    let arguments = [
        scores_at,
        scores_at,
        Argument::Float(with.scale),
        int(OP, width)?,
        int(OP, rows)?,
        int(OP, with.rows)?,
        from,
    ];
    launch(&scores.device, Kernels::Softmax, &name, Grid::warps(rows), &arguments)
}

pub(crate) fn dscores(
    with: &Dscores,
    dp: &mut CudaStorage,
    dp_layout: &Layout,
    p: &CudaStorage,
    p_layout: &Layout,
) -> Result<()> {
    let (width, rows) = (with.keys, dp_layout.shape().elem_count() / with.keys.max(1));
    if rows == 0 {
        return Ok(());
    }
    let (dp_at, p_at) = (address(OP, dp, dp_layout)?, address(OP, p, p_layout)?);
    let (name, _) = variant(OP, "softmax_backward", dp.dtype(), width, &[dp_at, p_at])?;
    let arguments = [p_at, dp_at, dp_at, Argument::Float(with.scale), int(OP, width)?, int(OP, rows)?];
    launch(&dp.device, Kernels::Softmax, &name, Grid::warps(rows), &arguments)
}
