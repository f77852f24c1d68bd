//! Loss and gradient of rows of logits, in their own memory.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Tensor};
use rayon::prelude::*;

use crate::{OpError, embedding::check_ids};

const OP: &str = "cross_entropy";

/// The losses `[rows]` f32 of `logits [rows, vocabulary]`, each times its weight, and, if wanted, the gradient of their
/// sum by the logits in the logits' memory: `weight * (softmax - one at the target)`.
pub(crate) fn row_losses(
    logits: Tensor,
    targets: &Tensor,
    weights: Option<&Tensor>,
    with_gradient: bool,
) -> Result<(Tensor, Tensor)> {
    match logits.device() {
        Device::Cpu => {
            let vocabulary = logits.dims()[1];
            let targets = targets.contiguous()?;
            let weights = match weights {
                Some(weights) => weights.to_vec1::<f32>()?,
                None => {
                    check_ids(OP, &targets, vocabulary)?;
                    vec![1.0; targets.elem_count()]
                }
            };
            let targets = targets.to_vec1::<u32>()?;
            let outside =
                targets.iter().zip(&weights).find(|&(&id, &w)| w != 0.0 && id as usize >= vocabulary);
            if let Some((&index, _)) = outside {
                return Err(OpError::Index { op: OP, index, rows: vocabulary }.into());
            }
            let rows = targets.len();
            let operator =
                RowLosses { targets, weights, vocabulary, with_gradient, losses: Mutex::new(Vec::new()) };
            logits.inplace_op1(&operator)?;
            let losses = operator.losses.into_inner().unwrap_or_else(PoisonError::into_inner);
            Ok((Tensor::from_vec(losses, rows, &Device::Cpu)?, logits))
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => {
            let losses = crate::cuda::row_losses::row_losses(&logits, targets, weights, with_gradient)?;
            Ok((losses, logits))
        }
        _ => Err(OpError::Backend { op: OP, found: "a device without a kernel for it" }.into()),
    }
}

struct RowLosses {
    targets: Vec<u32>,
    weights: Vec<f32>,
    vocabulary: usize,
    with_gradient: bool,
    losses: Mutex<Vec<f32>>,
}

impl RowLosses {
    fn row(&self, logits: &mut [f32], target: u32, weight: f32) -> f32 {
        if weight == 0.0 {
            if self.with_gradient {
                logits.fill(0.0);
            }
            return 0.0;
        }
        let largest = logits.iter().fold(f32::NEG_INFINITY, |largest, &x| largest.max(x));
        let at_target = logits[target as usize] - largest;
        logits.iter_mut().for_each(|x| *x = (*x - largest).exp());
        // In f64: a sum of a large vocabulary's small parts.
        let sum: f64 = logits.iter().map(|&x| f64::from(x)).sum();
        if self.with_gradient {
            let factor = weight / sum as f32;
            logits.iter_mut().for_each(|x| *x *= factor);
            logits[target as usize] -= weight;
        }
        weight * (sum.ln() as f32 - at_target)
    }
}

impl InplaceOp1 for RowLosses {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(values), Some((first, end))) = (storage, layout.contiguous_offsets()) else {
            return Err(OpError::Dtype { op: OP, found: DType::BF16 }.into());
        };
        let losses = values[first..end]
            .par_chunks_exact_mut(self.vocabulary)
            .zip(&self.targets)
            .zip(&self.weights)
            .map(|((logits, &target), &weight)| self.row(logits, target, weight))
            .collect();
        *self.losses.lock().unwrap_or_else(PoisonError::into_inner) = losses;
        Ok(())
    }
}
