//! Rotary position embedding, Su et al. 2021.

use candle_core::{Device, Result, Tensor};

use crate::{
    OpError,
    host_values::{HostValues, for_row_blocks, host_tensor},
    recorded::record,
};

const OP: &str = "rope";

/// Which elements of a head rotate together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeLayout {
    /// `i` with `i + head_dim / 2`.
    Half,
    /// `2 i` with `2 i + 1`.
    Interleaved,
}

/// Cosines and sines of the positions of a sequence, on a device.
#[derive(Debug, Clone)]
pub struct RopeTable {
    /// `[length, head_dim / 2]` f32.
    cos: Tensor,
    /// As `cos`.
    sin: Tensor,
}

impl RopeTable {
    /// The table of `inverse_frequencies` `[head_dim / 2]`, in radians a position, for positions `0..length`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn new(inverse_frequencies: &[f32], length: usize, device: &Device) -> Result<Self> {
        let angles: Vec<f32> = (0..length)
            .flat_map(|position| inverse_frequencies.iter().map(move |frequency| position as f32 * frequency))
            .collect();
        let angles = Tensor::from_vec(angles, (length, inverse_frequencies.len()), &Device::Cpu)?;
        Ok(Self { cos: angles.cos()?.to_device(device)?, sin: angles.sin()?.to_device(device)? })
    }

    /// Positions: the length of a sequence, in tokens.
    pub fn length(&self) -> usize {
        self.cos.dims()[0]
    }

    /// Elements of a head that this table rotates.
    pub fn head_dim(&self) -> usize {
        2 * self.cos.dims()[1]
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn tables(&self) -> (&Tensor, &Tensor) {
        (&self.cos, &self.sin)
    }
}

/// Every head of `x [rows, heads * head_dim]` (f32 or bf16) turned by its row's position, which is
/// `row % table.length()`.
///
/// # Errors
/// A width that is not of whole heads, rows that are not of whole sequences, a table of another head size.
pub fn rope(x: &Tensor, table: &RopeTable, layout: RopeLayout, head_dim: usize) -> Result<Tensor> {
    let whole = match x.dims() {
        &[rows, width] => {
            head_dim > 0 && width % head_dim == 0 && table.length() > 0 && rows % table.length() == 0
        }
        _ => false,
    };
    if !whole || head_dim != table.head_dim() {
        let expected = format!(
            "x [sequences * {}, heads * {head_dim}] and a table of head size {head_dim} (this one has {})",
            table.length(),
            table.head_dim()
        );
        return Err(OpError::inputs(OP, &expected, &[x]).into());
    }
    let output = turned(&x.detach().contiguous()?, table, layout, 1.0)?;
    let table = table.clone();
    record(OP, output, [x], move |gradient, _| Ok([Some(turned(gradient, &table, layout, -1.0)?)]))
}

/// `direction` is 1 for a turn by the angles of the table, -1 for one back.
fn turned(x: &Tensor, table: &RopeTable, layout: RopeLayout, direction: f32) -> Result<Tensor> {
    match x.device() {
        Device::Cpu => {
            let (cos, sin) = (HostValues::read(OP, &table.cos)?, HostValues::read(OP, &table.sin)?);
            let values = HostValues::read(OP, x)?;
            let (cos, sin, values) = (cos.as_slice(), sin.as_slice(), values.as_slice());
            let (width, length, head_dim) = (x.dims()[1], table.length(), table.head_dim());
            let half = head_dim / 2;
            let mut output = vec![0.0; values.len()];
            for_row_blocks(&mut output, width, |first, rows| {
                for (index, row) in rows.chunks_exact_mut(width).enumerate() {
                    let (position, x) =
                        ((first + index) % length, &values[(first + index) * width..][..width]);
                    let (cos, sin) = (&cos[position * half..][..half], &sin[position * half..][..half]);
                    for (out, x) in row.chunks_exact_mut(head_dim).zip(x.chunks_exact(head_dim)) {
                        for pair in 0..half {
                            let (a, b) = match layout {
                                RopeLayout::Half => (pair, pair + half),
                                RopeLayout::Interleaved => (2 * pair, 2 * pair + 1),
                            };
                            let (cos, sin) = (cos[pair], sin[pair] * direction);
                            out[a] = x[a] * cos - x[b] * sin;
                            out[b] = x[a] * sin + x[b] * cos;
                        }
                    }
                }
            });
            host_tensor(OP, output, x.shape(), x.dtype())
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::rope::turned(x, table, layout, direction),
        _ => Err(OpError::Backend { op: OP, found: "a device without a kernel for it" }.into()),
    }
}
