//! The arithmetic of an update, and the norm that scales it.

use candle_core::{CpuStorage, Device, InplaceOp2, InplaceOp3, Layout, Result, Tensor};
use rayon::prelude::*;

use crate::{OpError, adamw::State, host_values::HostValues};

const OP: &str = "adamw";
/// Values a task; fixed, so that sums do not depend on the number of threads.
const BLOCK: usize = 1 << 14;

/// The numbers of one update of one parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Update {
    pub(crate) learning_rate: f32,
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) eps: f32,
    /// What the decay leaves of the weight: `1 - learning rate * weight decay`, or 1.
    pub(crate) keep: f32,
    /// `1 / (1 - beta1^steps)`.
    pub(crate) correct_m: f32,
    /// `1 / (1 - beta2^steps)`.
    pub(crate) correct_v: f32,
    /// The largest norm; 0 for none.
    pub(crate) clip: f32,
}

/// The root of the sum of all squares, an f32 scalar on `device`.
pub(crate) fn global_norm<'a>(
    gradients: impl Iterator<Item = &'a Tensor>,
    device: &Device,
) -> Result<Tensor> {
    match device {
        Device::Cpu => {
            let mut squares = 0.0;
            for gradient in gradients {
                let values = HostValues::read(OP, gradient)?;
                let sums: Vec<f64> = values
                    .as_slice()
                    .par_chunks(BLOCK)
                    .map(|block| block.iter().map(|&value| f64::from(value) * f64::from(value)).sum())
                    .collect();
                squares += sums.into_iter().sum::<f64>();
            }
            Tensor::new(squares.sqrt() as f32, device)
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::adamw::global_norm(gradients, device),
        _ => Err(OpError::Backend { op: OP, found: "a device without a kernel for it" }.into()),
    }
}

/// `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`,
/// `w = keep w - lr (correct_m m) / (sqrt(correct_v v) + eps)`, with `g` scaled to the clip; nothing if the norm is not
/// finite.
pub(crate) fn update(state: &State, gradient: &Tensor, norm: &Tensor, with: &Update) -> Result<()> {
    match gradient.device() {
        Device::Cpu => {
            let norm = norm.to_scalar::<f32>()?;
            if !norm.is_finite() {
                return Ok(());
            }
            let factor = if with.clip > 0.0 { (with.clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
            state.m.inplace_op2(gradient, &Mean { decay: with.beta1, factor, squared: false })?;
            state.v.inplace_op2(gradient, &Mean { decay: with.beta2, factor, squared: true })?;
            state.parameter.var.as_tensor().inplace_op3(&state.m, &state.v, &Move(*with))
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::adamw::update(state, gradient, norm, with),
        _ => Err(OpError::Backend { op: OP, found: "a device without a kernel for it" }.into()),
    }
}

/// A running mean of `factor * g`, or of its square.
struct Mean {
    decay: f32,
    factor: f32,
    squared: bool,
}

impl InplaceOp2 for Mean {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, mean: &mut CpuStorage, to: &Layout, g: &CpuStorage, from: &Layout) -> Result<()> {
        let (mean, g) = (values_mut(mean, to)?, values(g, from)?);
        mean.par_iter_mut().zip(g).with_min_len(BLOCK).for_each(|(mean, &g)| {
            let g = g * self.factor;
            let value = if self.squared { g * g } else { g };
            *mean = self.decay * *mean + (1.0 - self.decay) * value;
        });
        Ok(())
    }
}

/// The move of the weights by their means.
struct Move(Update);

impl InplaceOp3 for Move {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        weights: &mut CpuStorage,
        to: &Layout,
        m: &CpuStorage,
        m_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<()> {
        let Update { learning_rate, eps, keep, correct_m, correct_v, .. } = self.0;
        let (weights, m, v) = (values_mut(weights, to)?, values(m, m_layout)?, values(v, v_layout)?);
        weights.par_iter_mut().zip(m).zip(v).with_min_len(BLOCK).for_each(|((weight, m), v)| {
            *weight = *weight * keep - learning_rate * (m * correct_m) / ((v * correct_v).sqrt() + eps);
        });
        Ok(())
    }
}

fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((first, end))) => Ok(&values[first..end]),
        _ => Err(OpError::shape(OP, "contiguous f32", layout.shape()).into()),
    }
}

fn values_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((first, end))) => Ok(&mut values[first..end]),
        _ => Err(OpError::shape(OP, "contiguous f32", layout.shape()).into()),
    }
}
