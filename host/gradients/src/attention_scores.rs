//! Scores of a block of queries to probabilities and back, in place.

use candle_core::{CpuStorage, CudaStorage, InplaceOp1, InplaceOp2, Layout, Result, Tensor};
use rayon::prelude::*;

use crate::{OpError, softmax::softmax_in_place};

/// Softmax of `scale * scores`, in the memory of `scores [heads, group * rows, keys]`. With `causal_from` row `i` of
/// each group is at position `causal_from + i` and later keys have no part.
pub(crate) fn probabilities(
    scores: Tensor,
    rows: usize,
    causal_from: Option<usize>,
    scale: f32,
) -> Result<Tensor> {
    let keys = scores.dims()[2];
    scores.inplace_op1(&Probabilities { keys, rows, causal_from, scale })?;
    Ok(scores)
}

/// `scale * p * (dp - sum(p dp))` of each row, in the memory of `dp`; both `[heads, group * rows, keys]`.
pub(crate) fn dscores(p: &Tensor, dp: Tensor, scale: f32) -> Result<Tensor> {
    dp.inplace_op2(p, &Dscores { keys: p.dims()[2], scale })?;
    Ok(dp)
}

/// The causal softmax of rows of scores.
pub(crate) struct Probabilities {
    pub(crate) keys: usize,
    pub(crate) rows: usize,
    pub(crate) causal_from: Option<usize>,
    pub(crate) scale: f32,
}

impl Probabilities {
    /// Keys that a row of the scores sees.
    fn seen(&self, row: usize) -> usize {
        self.causal_from.map_or(self.keys, |first| (first + row % self.rows + 1).min(self.keys))
    }
}

impl InplaceOp1 for Probabilities {
    fn name(&self) -> &'static str {
        "attention probabilities"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let CpuStorage::F32(values) = storage else {
            return Err(
                OpError::Backend { op: "attention", found: "scores on the CPU that are not f32" }.into()
            );
        };
        let scores = &mut values[span(layout)?];
        scores.par_chunks_exact_mut(self.keys).with_min_len(16).enumerate().for_each(|(row, scores)| {
            let (seen, hidden) = scores.split_at_mut(self.seen(row));
            softmax_in_place(seen, self.scale);
            hidden.fill(0.0);
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        crate::cuda::attention_scores::probabilities(self, storage, layout)
    }

    #[cfg(not(feature = "cuda"))]
    fn cuda_fwd(&self, _: &mut CudaStorage, _: &Layout) -> Result<()> {
        Err(OpError::Backend { op: "attention", found: "CUDA, which this build is without" }.into())
    }
}

/// From the gradient of the probabilities to that of the scores.
pub(crate) struct Dscores {
    pub(crate) keys: usize,
    pub(crate) scale: f32,
}

impl InplaceOp2 for Dscores {
    fn name(&self) -> &'static str {
        "attention score gradients"
    }

    fn cpu_fwd(
        &self,
        dp: &mut CpuStorage,
        dp_layout: &Layout,
        p: &CpuStorage,
        p_layout: &Layout,
    ) -> Result<()> {
        let (CpuStorage::F32(dp), CpuStorage::F32(p)) = (dp, p) else {
            return Err(
                OpError::Backend { op: "attention", found: "scores on the CPU that are not f32" }.into()
            );
        };
        let (dp, p) = (&mut dp[span(dp_layout)?], &p[span(p_layout)?]);
        let rows = dp.par_chunks_exact_mut(self.keys).zip(p.par_chunks_exact(self.keys));
        rows.with_min_len(16).for_each(|(dp, p)| {
            let dot: f32 = dp.iter().zip(p).map(|(dp, p)| dp * p).sum();
            dp.iter_mut().zip(p).for_each(|(dp, p)| *dp = self.scale * p * (*dp - dot));
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        dp: &mut CudaStorage,
        dp_layout: &Layout,
        p: &CudaStorage,
        p_layout: &Layout,
    ) -> Result<()> {
        crate::cuda::attention_scores::dscores(self, dp, dp_layout, p, p_layout)
    }

    #[cfg(not(feature = "cuda"))]
    fn cuda_fwd(&self, _: &mut CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<()> {
        Err(OpError::Backend { op: "attention", found: "CUDA, which this build is without" }.into())
    }
}

/// Where the values of a contiguous layout lie.
fn span(layout: &Layout) -> Result<std::ops::Range<usize>> {
    let (first, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| OpError::shape("attention", "contiguous scores", layout.shape()))?;
    Ok(first..end)
}
