//! Rows of text on a device.

use candle_core::{Device, Tensor};
use modularbase_corpus::{Row, Window};

use crate::{Batch, TrainError};

/// Rows of one length with what is to be predicted.
#[derive(Debug, Clone)]
pub struct TextBatch {
    /// How they lie.
    pub batch: Batch,
    /// Ids that are read, `[rows]`, u32.
    pub ids: Tensor,
    /// The id that follows each, `[rows]`, u32.
    pub targets: Tensor,
    /// 1 where the target counts, else 0; `[rows]`, f32.
    pub mask: Tensor,
    /// How many count.
    pub counted: usize,
}

/// One row before it is on a device: what is read, what is to be predicted, what counts.
type Parts<'a> = (&'a [u32], &'a [u32], &'a [bool]);

impl TextBatch {
    /// Rows of training text, all of one length.
    ///
    /// # Errors
    /// The device has no room.
    pub fn of_rows(rows: &[&Row], device: &Device) -> Result<Self, TrainError> {
        let parts: Vec<Parts<'_>> =
            rows.iter().map(|row| (row.inputs(), row.targets(), row.counts.as_slice())).collect();
        Self::of_parts(&parts, device)
    }

    /// Windows of any lengths: shorter ones are filled up behind their last target with what does not count, which
    /// changes nothing in front of it.
    ///
    /// # Errors
    /// The device has no room.
    pub fn of_windows(windows: &[&Window], device: &Device) -> Result<Self, TrainError> {
        let parts: Vec<Parts<'_>> = windows
            .iter()
            .map(|window| (window.inputs(), window.targets(), window.counts.as_slice()))
            .collect();
        Self::of_parts(&parts, device)
    }

    fn of_parts(parts: &[Parts<'_>], device: &Device) -> Result<Self, TrainError> {
        let length = parts.iter().map(|(inputs, _, _)| inputs.len()).max().unwrap_or(0);
        let batch = Batch { sequences: parts.len(), length };
        let (mut ids, mut targets) = (Vec::with_capacity(batch.rows()), Vec::with_capacity(batch.rows()));
        let mut mask = Vec::with_capacity(batch.rows());
        for (inputs, wanted, counts) in parts {
            ids.extend_from_slice(inputs);
            targets.extend_from_slice(wanted);
            mask.extend(counts.iter().map(|&counts| f32::from(u8::from(counts))));
            ids.resize(ids.len() + length - inputs.len(), 0);
            targets.resize(ids.len(), 0);
            mask.resize(ids.len(), 0.0);
        }
        let counted = mask.iter().filter(|counts| **counts > 0.0).count();
        let rows = batch.rows();
        Ok(Self {
            batch,
            ids: Tensor::from_vec(ids, rows, device)?,
            targets: Tensor::from_vec(targets, rows, device)?,
            mask: Tensor::from_vec(mask, rows, device)?,
            counted,
        })
    }
}
