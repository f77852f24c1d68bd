//! Weights that a pack stores as deltas to the base's own, added up when they are placed.
//!
//! What they are added to is the base's tensor as its file stores it, whatever the device holds: so a pack's weights depend
//! on the two files alone.

use std::{borrow::Cow, thread};

use candle_core::quantized::GgmlDType;
use half::bf16;
use modularbase_deltas::{GROUP, Levels, add_to};
use modularbase_kernels::{GgmlBlock, append_ggml_blocks};

use crate::{BaseFile, CoreError, StoredDtype, StoredTensor};

/// Values that a thread turns at once: they stay in its cache from the base's bytes to the sum's.
const PIECE_VALUES: usize = 32 * 1024;

/// Values that are worth another thread.
const VALUES_A_THREAD: usize = 128 * 1024;

/// A matrix as a delta, read from a file.
#[derive(Debug, Clone)]
pub struct DeltaTensor<'a> {
    /// Name of the pack's weight, for errors.
    pub name: &'a str,
    /// `[rows, columns]`, rows of whole groups.
    pub shape: &'a [usize],
    /// Canonical name of the base's tensor.
    pub base: &'a str,
    /// What its codes stand for.
    pub levels: &'a Levels,
    /// The blocks, row by row.
    pub blocks: &'a [u8],
}

/// What the sum of base and delta is rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SumDtype {
    /// Not at all.
    F32,
    /// 16 bits a weight.
    BF16,
    /// Blocks of 32 with 8 bits a weight.
    Q8_0,
}

impl SumDtype {
    /// As files name it.
    pub fn stored(self) -> StoredDtype {
        match self {
            Self::F32 => StoredDtype::F32,
            Self::BF16 => StoredDtype::BF16,
            Self::Q8_0 => StoredDtype::Ggml(GgmlDType::Q8_0),
        }
    }

    fn append(self, values: &[f32], bytes: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::BF16 => bytes.extend(values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes())),
            Self::Q8_0 => {
                append_ggml_blocks(GgmlBlock::Q8_0, values, bytes).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}

impl DeltaTensor<'_> {
    /// Base and delta added up in f32 and rounded once, on up to `threads` threads.
    ///
    /// # Errors
    /// No such tensor in the base, one of another shape, blocks of another length, a file that can't be read.
    pub fn add_up(
        &self,
        base: &BaseFile,
        sum: SumDtype,
        threads: usize,
    ) -> Result<StoredTensor<'static>, CoreError> {
        let fault = |reason: String| CoreError::weight(self.name, reason);
        let info = base.tensor(self.base)?;
        let &[rows, columns] = self.shape else {
            return Err(fault(format!(
                "is stored as a delta and should be a matrix, found {:?}",
                self.shape
            )));
        };
        if info.shape != self.shape || !columns.is_multiple_of(GROUP) {
            return Err(fault(format!(
                "is a delta of shape {:?} to the base's `{}` of shape {:?}: they should be one, of whole groups of {GROUP} columns",
                self.shape, self.base, info.shape
            )));
        }
        let (dtype, row_bytes) = (info.kind, info.row_bytes());
        let block_bytes = columns / GROUP * self.levels.format().block_bytes();
        if self.blocks.len() != rows * block_bytes {
            let expected = rows * block_bytes;
            return Err(fault(format!(
                "should have {expected} bytes of deltas, found {}",
                self.blocks.len()
            )));
        }
        let stored = base.read_ordered_bytes(self.base)?;
        let sum_row = sum.stored().row_bytes(columns).unwrap_or(0);
        let piece = (PIECE_VALUES / columns).max(1);
        let add = |first: usize, rows: usize| -> Result<Vec<u8>, String> {
            let mut bytes = Vec::with_capacity(rows * sum_row);
            let mut values = Vec::with_capacity(piece * columns);
            for row in (first..first + rows).step_by(piece) {
                let count = piece.min(first + rows - row);
                values.clear();
                dtype.append_f32(&stored[row * row_bytes..(row + count) * row_bytes], &mut values)?;
                let blocks = &self.blocks[row * block_bytes..(row + count) * block_bytes];
                add_to(blocks, self.levels, &mut values).map_err(|error| error.to_string())?;
                sum.append(&values, &mut bytes)?;
            }
            Ok(bytes)
        };
        let workers = (rows * columns / VALUES_A_THREAD).clamp(1, threads.max(1)).min(rows.max(1));
        let bytes = if workers == 1 {
            add(0, rows)
        } else {
            let share = rows.div_ceil(workers);
            thread::scope(|scope| {
                let add = &add;
                let parts: Vec<_> = (0..rows)
                    .step_by(share)
                    .map(|first| scope.spawn(move || add(first, share.min(rows - first))))
                    .collect();
                let mut bytes = Vec::with_capacity(rows * sum_row);
                for part in parts {
                    let part = part.join().map_err(|_| "a thread that added it up ended early".to_owned())?;
                    bytes.extend(part?);
                }
                Ok(bytes)
            })
        };
        let bytes = Cow::Owned(bytes.map_err(fault)?);
        Ok(StoredTensor {
            name: self.name.to_owned(),
            shape: self.shape.to_vec(),
            dtype: sum.stored(),
            bytes,
        })
    }

    /// Bytes that [`DeltaTensor::add_up`] has allocated at once, at most, its result included.
    ///
    /// # Errors
    /// No such tensor in the base.
    pub fn passing_bytes(&self, base: &BaseFile, sum: SumDtype, threads: usize) -> Result<usize, CoreError> {
        let info = base.tensor(self.base)?;
        let columns = self.shape.last().copied().unwrap_or(0);
        let rows: usize = self.shape.iter().rev().skip(1).product();
        // While rows are put in order, the stored bytes are there twice; while parts are joined, the sum is.
        let sum = rows * sum.stored().row_bytes(columns).unwrap_or(0);
        let pieces = threads.max(1) * PIECE_VALUES.max(columns) * 2 * size_of::<f32>();
        Ok(2 * info.byte_len() + 2 * sum + pieces)
    }
}
