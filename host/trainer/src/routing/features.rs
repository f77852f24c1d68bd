//! What the base sees of a prompt in front of the slot.

use candle_core::{DType, Tensor};

use super::Prompt;
use crate::{Batch, TrainError, TrainingBase};

/// Rows of a pass, what is filled up included.
const ROWS: usize = 4096;

/// The feature of every prompt, `[hidden]`, in their order: the mean of `h_s` over all tokens but the first. `progress`
/// is told how many of how many prompts are done.
///
/// # Errors
/// The device fails, or a value is not finite.
pub fn features(
    base: &TrainingBase,
    prompts: &[Prompt],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Vec<f32>>, TrainError> {
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by_key(|&index| (prompts[index].ids.len(), index));
    let mut features = vec![Vec::new(); prompts.len()];
    let mut done = 0;
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        // The last of a group is its longest.
        let fitting = (1..=rest.len())
            .take_while(|&count| count == 1 || count * prompts[rest[count - 1]].ids.len() <= ROWS)
            .count();
        let (group, others) = rest.split_at(fitting);
        rest = others;
        let rows = pass(base, &group.iter().map(|&index| prompts[index].ids.as_slice()).collect::<Vec<_>>())?;
        for (&index, row) in group.iter().zip(rows) {
            if row.iter().any(|value| !value.is_finite()) {
                return Err(TrainError::evaluation("the base's hidden states are not finite"));
            }
            features[index] = row;
        }
        done += group.len() as u64;
        progress(done, prompts.len() as u64);
    }
    Ok(features)
}

fn pass(base: &TrainingBase, prompts: &[&[u32]]) -> Result<Vec<Vec<f32>>, TrainError> {
    let device = &base.compute().device;
    let length = prompts.iter().map(|ids| ids.len()).max().unwrap_or(0);
    let batch = Batch { sequences: prompts.len(), length };
    let (mut ids, mut share) = (Vec::with_capacity(batch.rows()), Vec::with_capacity(batch.rows()));
    for prompt in prompts {
        ids.extend_from_slice(prompt);
        ids.resize(ids.len() + length - prompt.len(), 0);
        let each = 1.0 / (prompt.len() - 1) as f32;
        share.extend((0..length).map(|at| if at > 0 && at < prompt.len() { each } else { 0.0 }));
    }
    let hidden = base.before_slot(&Tensor::from_vec(ids, batch.rows(), device)?, batch)?;
    let width = hidden.dim(1)?;
    let hidden = hidden.to_dtype(DType::F32)?.reshape((batch.sequences, length, width))?;
    let share = Tensor::from_vec(share, (batch.sequences, 1, length), device)?;
    Ok(share.matmul(&hidden)?.squeeze(1)?.to_vec2()?)
}
