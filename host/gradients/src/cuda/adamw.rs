//! AdamW: one kernel a parameter, and the norm without a word to the host.

use candle_core::{DType, Device, Result, Tensor};

use super::launch::{Argument, Grid, Kernels, device_of, int, launch, pointer, unwritten};
use crate::{adamw::State, adamw_update::Update};

const OP: &str = "adamw";
/// As the kernels' own.
const THREADS: usize = 256;
/// Blocks that sum the squares of one gradient, at most.
const BLOCKS: usize = 256;

/// The root of the sum of all squares, an f32 scalar.
pub(crate) fn global_norm<'a>(
    gradients: impl Iterator<Item = &'a Tensor>,
    device: &Device,
) -> Result<Tensor> {
    let gradients: Vec<(&Tensor, usize)> = gradients
        .filter(|gradient| gradient.elem_count() > 0)
        .map(|gradient| (gradient, gradient.elem_count().div_ceil(THREADS * 16).min(BLOCKS)))
        .collect();
    let Some(&(first, _)) = gradients.first() else {
        return Tensor::new(0f32, device);
    };
    let cuda = device_of(OP, first)?;
    let total: usize = gradients.iter().map(|(_, blocks)| blocks).sum();
    let partials = unwritten(total, DType::F32, device)?;
    let mut from = 0;
    for (gradient, blocks) in gradients {
        let part = partials.narrow(0, from, blocks)?;
        let arguments =
            [pointer(OP, gradient)?, pointer(OP, &part)?, Argument::Long(gradient.elem_count() as i64)];
        let grid = Grid { blocks: (blocks as u32, 1, 1), threads: (THREADS as u32, 1, 1) };
        launch(cuda, Kernels::AdamW, "squares", grid, &arguments)?;
        from += blocks;
    }
    let norm = unwritten((), DType::F32, device)?;
    let arguments = [pointer(OP, &partials)?, pointer(OP, &norm)?, int(OP, total)?];
    let grid = Grid { blocks: (1, 1, 1), threads: (THREADS as u32, 1, 1) };
    launch(cuda, Kernels::AdamW, "root_of_sum", grid, &arguments)?;
    Ok(norm)
}

pub(crate) fn update(state: &State, gradient: &Tensor, norm: &Tensor, with: &Update) -> Result<()> {
    let count = gradient.elem_count();
    if count == 0 {
        return Ok(());
    }
    let arguments = [
        pointer(OP, state.parameter.var.as_tensor())?,
        pointer(OP, &state.m)?,
        pointer(OP, &state.v)?,
        pointer(OP, gradient)?,
        pointer(OP, norm)?,
        Argument::Float(with.learning_rate),
        Argument::Float(with.beta1),
        Argument::Float(with.beta2),
        Argument::Float(with.eps),
        Argument::Float(with.keep),
        Argument::Float(with.correct_m),
        Argument::Float(with.correct_v),
        Argument::Float(with.clip),
        Argument::Long(count as i64),
    ];
    launch(device_of(OP, gradient)?, Kernels::AdamW, "adamw", Grid::strided(count), &arguments)
}
