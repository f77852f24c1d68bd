//! Tensors on the CPU as slices of f32, whatever they are stored in.

use candle_core::{CpuStorage, DType, Device, Result, Shape, Storage, StorageRef, Tensor};
use half::bf16;
use rayon::prelude::*;

use crate::OpError;

/// Elements below which another thread costs more than it saves.
const PARALLEL_FROM: usize = 1 << 14;

/// The values of a contiguous tensor on the CPU.
pub(crate) struct HostValues<'a> {
    guard: StorageRef<'a>,
    range: std::ops::Range<usize>,
    /// Of a tensor in bf16.
    converted: Option<Vec<f32>>,
}

impl<'a> HostValues<'a> {
    /// The values of `tensor` for the operator `op`.
    pub(crate) fn read(op: &'static str, tensor: &'a Tensor) -> Result<Self> {
        let (guard, layout) = tensor.storage_and_layout();
        let (first, end) = layout
            .contiguous_offsets()
            .ok_or_else(|| OpError::inputs(op, "a contiguous tensor", &[tensor]))?;
        let converted = match &*guard {
            Storage::Cpu(CpuStorage::F32(_)) => None,
            Storage::Cpu(CpuStorage::BF16(values)) => Some(widened(&values[first..end])),
            Storage::Cpu(_) => return Err(OpError::Dtype { op, found: tensor.dtype() }.into()),
            _ => return Err(OpError::Backend { op, found: "an input on the CPU and one elsewhere" }.into()),
        };
        Ok(Self { guard, range: first..end, converted })
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        match (&self.converted, &*self.guard) {
            (Some(values), _) => values,
            (None, Storage::Cpu(CpuStorage::F32(values))) => &values[self.range.clone()],
            // `read` lets nothing else through.
            _ => &[],
        }
    }
}

/// A tensor on the CPU of values computed in f32.
pub(crate) fn host_tensor(op: &'static str, values: Vec<f32>, shape: &Shape, dtype: DType) -> Result<Tensor> {
    match dtype {
        DType::F32 => Tensor::from_vec(values, shape, &Device::Cpu),
        DType::BF16 => Tensor::from_vec(narrowed(&values), shape, &Device::Cpu),
        found => Err(OpError::Dtype { op, found }.into()),
    }
}

/// `f(first row, rows of output)` over blocks of whole rows, on all cores.
pub(crate) fn for_row_blocks(output: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if width == 0 || output.is_empty() {
        return;
    }
    let rows = rows_a_block(width);
    output.par_chunks_mut(rows * width).enumerate().for_each(|(block, values)| f(block * rows, values));
}

/// The sum over rows of `f(row, sums)`, which adds to `width` sums; the same for any number of threads, since blocks
/// are fixed and added in order.
pub(crate) fn sum_over_rows(rows: usize, width: usize, f: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let block = rows_a_block(width);
    let blocks: Vec<Vec<f32>> = (0..rows.div_ceil(block))
        .into_par_iter()
        .map(|index| {
            let mut sums = vec![0.0; width];
            for row in index * block..rows.min((index + 1) * block) {
                f(row, &mut sums);
            }
            sums
        })
        .collect();
    let mut total = vec![0.0; width];
    for sums in blocks {
        total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
    total
}

/// `f(x)` of every value.
pub(crate) fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    x.par_iter().with_min_len(PARALLEL_FROM).map(|&x| f(x)).collect()
}

/// `f(x, y)` of every pair of values.
pub(crate) fn map2(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    x.par_iter().zip(y).with_min_len(PARALLEL_FROM).map(|(&x, &y)| f(x, y)).collect()
}

fn rows_a_block(width: usize) -> usize {
    PARALLEL_FROM.div_ceil(width.max(1))
}

fn widened(values: &[bf16]) -> Vec<f32> {
    values.par_iter().with_min_len(PARALLEL_FROM).map(|value| value.to_f32()).collect()
}

fn narrowed(values: &[f32]) -> Vec<bf16> {
    values.par_iter().with_min_len(PARALLEL_FROM).map(|&value| bf16::from_f32(value)).collect()
}
