//! The gradient of an embedding's table.

use candle_core::{DType, Result, Tensor};

use super::launch::{Grid, Kernels, device_of, int, launch, pointer, unwritten, variant};
use crate::OpError;

const OP: &str = "embedding";

/// Row `i` of `gradient` added to row `ids[i]` of zeros, `[vocabulary, width]` f32. The rows that use an id are found on
/// the host and added in their order, so that a run repeats to the bit.
pub(crate) fn scattered(ids: &Tensor, gradient: &Tensor, vocabulary: usize) -> Result<Tensor> {
    let width = gradient.dims()[1];
    let (starts, order) = uses(&ids.to_vec1()?, vocabulary)?;
    let output = unwritten((vocabulary, width), DType::F32, gradient.device())?;
    if order.is_empty() || width == 0 {
        return output.zeros_like();
    }
    let starts = Tensor::new(starts, gradient.device())?;
    let order = Tensor::new(order, gradient.device())?;
    let (gradient_at, output_at) = (pointer(OP, gradient)?, pointer(OP, &output)?);
    let (name, _) = variant(OP, "scattered", gradient.dtype(), width, &[gradient_at, output_at])?;
    let arguments = [
        gradient_at,
        pointer(OP, &starts)?,
        pointer(OP, &order)?,
        output_at,
        int(OP, width)?,
        int(OP, vocabulary)?,
    ];
    launch(device_of(OP, gradient)?, Kernels::Embedding, &name, Grid::warps(vocabulary), &arguments)?;
    Ok(output)
}

/// The rows that use each id: `order[starts[id]..starts[id + 1]]`, ascending.
fn uses(ids: &[u32], vocabulary: usize) -> Result<(Vec<u32>, Vec<u32>)> {
    let mut starts = vec![0u32; vocabulary + 1];
    for &id in ids {
        if id as usize >= vocabulary {
            return Err(OpError::Index { op: OP, index: id, rows: vocabulary }.into());
        }
        starts[id as usize + 1] += 1;
    }
    for id in 0..vocabulary {
        starts[id + 1] += starts[id];
    }
    let mut next = starts.clone();
    let mut order = vec![0; ids.len()];
    for (row, &id) in (0..).zip(ids) {
        let place = &mut next[id as usize];
        order[*place as usize] = row;
        *place += 1;
    }
    Ok((starts, order))
}
