//! Divergence of rows of logits from a teacher's, and its gradient, in their own memory.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Tensor};
use rayon::prelude::*;

use crate::{OpError, host_values::HostValues};

const OP: &str = "distillation";

/// `sum of p (log p - log q)` of each row, `[rows]` f32 in nats, times its weight, where `p` is the softmax of
/// `teacher [rows, vocabulary]` and `q` that of `logits`, both f32; and, if wanted, the gradient of their sum by the
/// logits in the logits' memory: `weight * (q - p)`.
pub(crate) fn row_divergences(
    logits: Tensor,
    teacher: &Tensor,
    weights: &Tensor,
    with_gradient: bool,
) -> Result<(Tensor, Tensor)> {
    match logits.device() {
        Device::Cpu => {
            let (rows, vocabulary) = logits.dims2()?;
            let (teacher, weights) = (HostValues::read(OP, teacher)?, weights.to_vec1::<f32>()?);
            let operator = RowDivergences {
                teacher: teacher.as_slice(),
                weights,
                vocabulary,
                with_gradient,
                divergences: Mutex::new(Vec::new()),
            };
            logits.inplace_op1(&operator)?;
            let divergences = operator.divergences.into_inner().unwrap_or_else(PoisonError::into_inner);
            Ok((Tensor::from_vec(divergences, rows, &Device::Cpu)?, logits))
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => {
            let divergences =
                crate::cuda::row_divergences::row_divergences(&logits, teacher, weights, with_gradient)?;
            Ok((divergences, logits))
        }
        _ => Err(OpError::Backend { op: OP, found: "a device without a kernel for it" }.into()),
    }
}

struct RowDivergences<'a> {
    teacher: &'a [f32],
    weights: Vec<f32>,
    vocabulary: usize,
    with_gradient: bool,
    divergences: Mutex<Vec<f32>>,
}

impl RowDivergences<'_> {
    fn row(&self, logits: &mut [f32], teacher: &[f32], weight: f32) -> f32 {
        if weight == 0.0 {
            if self.with_gradient {
                logits.fill(0.0);
            }
            return 0.0;
        }
        let (log_sum, teacher_log_sum) = (log_sum(logits), log_sum(teacher));
        let mut divergence = 0.0;
        for (logit, teacher) in logits.iter_mut().zip(teacher) {
            let (log_q, log_p) = (*logit - log_sum, teacher - teacher_log_sum);
            let p = log_p.exp();
            divergence += f64::from(p * (log_p - log_q));
            if self.with_gradient {
                *logit = weight * (log_q.exp() - p);
            }
        }
        weight * divergence as f32
    }
}

/// The logarithm of the sum of the exponentials; in f64, as a sum of a large vocabulary's small parts.
fn log_sum(logits: &[f32]) -> f32 {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |largest, &x| largest.max(x));
    let sum: f64 = logits.iter().map(|x| f64::from((x - largest).exp())).sum();
    largest + sum.ln() as f32
}

impl InplaceOp1 for RowDivergences<'_> {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(values), Some((first, end))) = (storage, layout.contiguous_offsets()) else {
            return Err(OpError::Dtype { op: OP, found: DType::BF16 }.into());
        };
        let divergences = values[first..end]
            .par_chunks_exact_mut(self.vocabulary)
            .zip(self.teacher.par_chunks_exact(self.vocabulary))
            .zip(&self.weights)
            .map(|((logits, teacher), &weight)| self.row(logits, teacher, weight))
            .collect();
        *self.divergences.lock().unwrap_or_else(PoisonError::into_inner) = divergences;
        Ok(())
    }
}
