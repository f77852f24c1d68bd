//! Rotary position embedding.

use candle_core::{Result, Tensor};

use super::launch::{Argument, Grid, Kernels, device_of, int, launch, pointer, unwritten, variant};
use crate::rope::{RopeLayout, RopeTable};

const OP: &str = "rope";

pub(crate) fn turned(x: &Tensor, table: &RopeTable, layout: RopeLayout, direction: f32) -> Result<Tensor> {
    let output = unwritten(x.shape(), x.dtype(), x.device())?;
    let half = table.head_dim() / 2;
    let pairs = x.elem_count() / 2;
    if pairs == 0 {
        return Ok(output);
    }
    let (cos, sin) = table.tables();
    let addresses = [pointer(OP, x)?, pointer(OP, &output)?, pointer(OP, cos)?, pointer(OP, sin)?];
    let (name, lanes) = variant(OP, "rope", x.dtype(), half, &addresses)?;
    let heads = x.dims()[1] / table.head_dim();
    let numbers = [
        Argument::Float(direction),
        int(OP, heads)?,
        int(OP, half)?,
        int(OP, table.length())?,
        Argument::Int((layout == RopeLayout::Interleaved).into()),
        Argument::Long((pairs / lanes) as i64),
    ];
    let arguments = [addresses.as_slice(), &numbers].concat();
    launch(device_of(OP, x)?, Kernels::Rope, &name, Grid::strided(pairs / lanes), &arguments)?;
    Ok(output)
}
