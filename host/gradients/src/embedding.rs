//! Rows of a table by token id.

use candle_core::{DType, Device, Result, Tensor};

use crate::{
    OpError,
    host_values::{HostValues, host_tensor},
    recorded::record,
};

const OP: &str = "embedding";

/// Row `ids[i]` of `table [vocabulary, width]` (f32 or bf16) for each of `ids [rows]` (u32): `[rows, width]` in the
/// table's type. The gradient of a row of the table is the sum of those of its uses.
///
/// # Errors
/// Other shapes or element types; on the CPU an id outside of the table.
pub fn embedding(ids: &Tensor, table: &Tensor) -> Result<Tensor> {
    if ids.rank() != 1 || ids.dtype() != DType::U32 || table.rank() != 2 {
        return Err(OpError::inputs(OP, "ids [rows] U32 and table [vocabulary, width]", &[ids, table]).into());
    }
    let (ids, vocabulary) = (ids.contiguous()?, table.dims()[0]);
    if ids.device().is_cpu() {
        check_ids(OP, &ids, vocabulary)?;
    }
    let output = table.detach().contiguous()?.index_select(&ids, 0)?;
    let dtype = table.dtype();
    record(OP, output, [table], move |gradient, _| {
        Ok([Some(scattered(&ids, gradient, vocabulary)?.to_dtype(dtype)?)])
    })
}

/// Row `i` of `gradient` added to row `ids[i]` of zeros `[vocabulary, width]`, in f32.
fn scattered(ids: &Tensor, gradient: &Tensor, vocabulary: usize) -> Result<Tensor> {
    let width = gradient.dims()[1];
    match gradient.device() {
        Device::Cpu => {
            let rows = HostValues::read(OP, gradient)?;
            let mut sums = vec![0.0; vocabulary * width];
            for (id, row) in ids.to_vec1::<u32>()?.into_iter().zip(rows.as_slice().chunks_exact(width.max(1)))
            {
                let sum = &mut sums[id as usize * width..][..width];
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
            host_tensor(OP, sums, &(vocabulary, width).into(), DType::F32)
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::embedding::scattered(ids, gradient, vocabulary),
        _ => Err(OpError::Backend { op: OP, found: "a device without a kernel for it" }.into()),
    }
}

/// That ids on the CPU are within a table.
pub(crate) fn check_ids(op: &'static str, ids: &Tensor, rows: usize) -> Result<()> {
    match ids.to_vec1::<u32>()?.into_iter().find(|&id| id as usize >= rows) {
        Some(index) => Err(OpError::Index { op, index, rows }.into()),
        None => Ok(()),
    }
}
