//! The CPU executor: a graph is lowered once to steps over numbered buffers, then run by the project's own kernels.

mod execution;
mod lowering;
mod program_size;
mod step;

use std::sync::Arc;

use candle_core::quantized::GgmlDType;
use modularbase_deltas::DeltaFormat;
use modularbase_graph::CheckedGraph;
use modularbase_kernels::{DeltaMatrix, GgmlBlock, Matrix, ThreadPool, WeightFormat};

use crate::{
    Backend, CoreError, DeltaTensor, KvDtype, Plan, StoredDtype, StoredTensor, Weight, WeightDtype,
    WeightLookup, workspace::SharedWorkspace,
};

use self::execution::{CpuPlan, Workspace};

/// Runs graphs on the CPU.
pub struct CpuBackend {
    pool: ThreadPool,
    kv_dtype: KvDtype,
    workspace: Arc<SharedWorkspace<Workspace>>,
}

impl CpuBackend {
    /// An executor on `threads` threads, the calling one included.
    pub fn new(threads: usize, kv_dtype: KvDtype) -> Self {
        Self { pool: ThreadPool::new(threads.max(1)), kv_dtype, workspace: Arc::default() }
    }
}

impl Backend for CpuBackend {
    fn device(&self) -> String {
        "cpu".to_owned()
    }

    fn placed_bytes(
        &self,
        shape: &[usize],
        stored: StoredDtype,
        dtype: WeightDtype,
    ) -> Result<usize, CoreError> {
        match *shape {
            [rows, columns] => {
                Ok(Matrix::packed_bytes(packed_format(dtype, stored, columns), rows, columns)?)
            }
            _ => Ok(shape.iter().product::<usize>() * size_of::<f32>()),
        }
    }

    fn place_matrix(&self, tensor: &StoredTensor, dtype: WeightDtype) -> Result<Weight, CoreError> {
        let (rows, columns) = tensor.dims2()?;
        let packed = match (dtype, kernel_block(tensor.dtype)) {
            (WeightDtype::AsStored, Some((block, _))) => {
                Matrix::from_ggml(block, rows, columns, &tensor.bytes, None)?
            }
            _ => {
                let format = packed_format(dtype, tensor.dtype, columns);
                Matrix::from_f32(format, rows, columns, &tensor.to_f32()?)?
            }
        };
        Ok(Weight::CpuMatrix(Arc::new(packed)))
    }

    fn place_vector(&self, tensor: &StoredTensor) -> Result<Weight, CoreError> {
        Ok(Weight::CpuVector(tensor.to_f32()?.into()))
    }

    fn multiplies_deltas(&self) -> bool {
        true
    }

    fn delta_bytes(&self, shape: &[usize], format: DeltaFormat) -> Result<usize, CoreError> {
        match *shape {
            [rows, columns] => Ok(DeltaMatrix::packed_bytes(format, rows, columns)?),
            _ => Err(CoreError::mismatch("dimensions of a delta", 2, shape.len())),
        }
    }

    fn place_delta(&self, base: &Weight, delta: &DeltaTensor<'_>) -> Result<Weight, CoreError> {
        let (Weight::CpuMatrix(base), &[rows, columns]) = (base, delta.shape) else {
            return Err(CoreError::weight(
                delta.name,
                "is stored as a delta and should be a matrix on the CPU",
            ));
        };
        let delta = DeltaMatrix::pack(rows, columns, delta.blocks, delta.levels)?;
        Ok(Weight::CpuMatrix(Arc::new(base.with_delta(Arc::new(delta))?)))
    }

    fn compile(
        &self,
        graph: &CheckedGraph,
        weights: &mut WeightLookup<'_>,
    ) -> Result<Arc<dyn Plan>, CoreError> {
        let program = lowering::lower(graph, weights)?;
        Ok(Arc::new(CpuPlan::new(program, self.pool.clone(), self.kv_dtype, Arc::clone(&self.workspace))))
    }

    fn plan_bytes_for(&self, graph: &CheckedGraph) -> usize {
        program_size::plan_bytes_for(graph)
    }

    fn workspace_bytes(&self) -> usize {
        self.workspace.bytes()
    }
}

/// The stored formats that the kernels pack without a detour over f32, and what they become.
fn kernel_block(stored: StoredDtype) -> Option<(GgmlBlock, WeightFormat)> {
    Some(match stored {
        StoredDtype::F32 => (GgmlBlock::F32, WeightFormat::F32),
        StoredDtype::F16 => (GgmlBlock::F16, WeightFormat::F16),
        StoredDtype::BF16 => (GgmlBlock::BF16, WeightFormat::BF16),
        StoredDtype::Ggml(GgmlDType::Q4_0) => (GgmlBlock::Q4_0, WeightFormat::Q4_0),
        StoredDtype::Ggml(GgmlDType::Q4_1) => (GgmlBlock::Q4_1, WeightFormat::Q4_1),
        StoredDtype::Ggml(GgmlDType::Q8_0) => (GgmlBlock::Q8_0, WeightFormat::Q8_0),
        StoredDtype::Ggml(GgmlDType::Q4K) => (GgmlBlock::Q4_K, WeightFormat::Q4_1),
        StoredDtype::Ggml(_) => return None,
    })
}

/// How a matrix is held. Block formats need whole blocks of 32 columns; a matrix that has none of them is kept at 16
/// bits.
fn packed_format(dtype: WeightDtype, stored: StoredDtype, columns: usize) -> WeightFormat {
    let blocks = |format| if columns.is_multiple_of(32) { format } else { WeightFormat::F16 };
    match dtype {
        // Formats without a kernel of their own have up to 6.6 bits a weight: 8 bits lose next to nothing.
        WeightDtype::AsStored => {
            kernel_block(stored).map_or_else(|| blocks(WeightFormat::Q8_0), |(_, format)| format)
        }
        WeightDtype::F32 => WeightFormat::F32,
        WeightDtype::F16 => WeightFormat::F16,
        WeightDtype::BF16 => WeightFormat::BF16,
        WeightDtype::Q8_0 => blocks(WeightFormat::Q8_0),
        WeightDtype::Q4_0 => blocks(WeightFormat::Q4_0),
        WeightDtype::Q4_1 => blocks(WeightFormat::Q4_1),
    }
}
