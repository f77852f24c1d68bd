//! The second executor: a graph run operation by operation on candle tensors.
//!
//! On a GPU it is the way to run; on the CPU it is the plain reading of the operators' definitions that the other
//! executor's results are held against.

mod ops;
mod plan;
mod plan_size;

use std::{borrow::Cow, sync::Arc};

use candle_core::{
    DType, Device, Tensor,
    quantized::{GgmlDType, QMatMul, QStorage, QTensor},
};
use candle_nn::Module;
use modularbase_graph::CheckedGraph;
use modularbase_kernels::ThreadPool;

use crate::{
    Backend, CHUNK_ROWS, CoreError, Plan, StoredDtype, StoredTensor, Weight, WeightDtype, WeightLookup,
    context::WindowScratch, weight::TensorMatrix, workspace::SharedWorkspace,
};

use self::plan::TensorPlan;

/// Runs graphs on a candle device.
pub struct TensorBackend {
    device: Device,
    name: String,
    /// What windows do on the host: they choose blocks, and turn, encode and decode them.
    pool: ThreadPool,
    workspace: Arc<SharedWorkspace<WindowScratch>>,
}

impl TensorBackend {
    /// The reference executor, on the CPU.
    pub fn cpu() -> Self {
        Self::on(Device::Cpu, "cpu".to_owned(), 1)
    }

    fn on(device: Device, name: String, threads: usize) -> Self {
        Self { device, name, pool: ThreadPool::new(threads.max(1)), workspace: Arc::default() }
    }

    /// A CUDA device by its ordinal; what windows do on the host is done on so many threads. What cuBLAS and candle's quantized products work in (16 MiB and more) is the process's, as
    /// the driver's context is, and no ledger's: it is taken here.
    ///
    /// # Errors
    /// A build without the feature `cuda`, no driver, no such device, or one without that much room.
    pub fn cuda(ordinal: usize, threads: usize) -> Result<Self, CoreError> {
        let name = format!("cuda:{ordinal}");
        if !cfg!(feature = "cuda") {
            let reason = "this build has no CUDA support; build with `--features cuda` or use --device cpu";
            return Err(CoreError::Device { device: name, reason: reason.to_owned() });
        }
        match Device::new_cuda(ordinal).and_then(|device| first_products(&device).map(|()| device)) {
            Ok(device) => Ok(Self::on(device, name, threads)),
            Err(error) => Err(CoreError::Device { device: name, reason: error.to_string() }),
        }
    }
}

/// Has cuBLAS and candle's quantized products take the memory that they work in, which they do at their first use and keep.
fn first_products(device: &Device) -> candle_core::Result<()> {
    /// Width of most products, or more.
    const WIDTH: usize = 4096;
    let zeros = |rows: usize| Tensor::zeros((rows, WIDTH), DType::F32, device);
    zeros(CHUNK_ROWS)?.matmul(&zeros(WIDTH)?.t()?)?;
    let quantized =
        QTensor::quantize(&Tensor::zeros((32, WIDTH), DType::F32, &Device::Cpu)?, GgmlDType::Q8_0)?;
    let blocks = QStorage::from_data(quantized.data()?, device, GgmlDType::Q8_0)?;
    QMatMul::from_arc(Arc::new(QTensor::new(blocks, (32, WIDTH))?))?.forward(&zeros(CHUNK_ROWS)?)?;
    device.synchronize()
}

impl Backend for TensorBackend {
    fn device(&self) -> String {
        self.name.clone()
    }

    fn placed_bytes(
        &self,
        shape: &[usize],
        stored: StoredDtype,
        dtype: WeightDtype,
    ) -> Result<usize, CoreError> {
        let elements: usize = shape.iter().product();
        Ok(match *shape {
            [_, columns] => match held_as(dtype, stored, columns) {
                Held::Blocks(blocks) => elements / blocks.block_size() * blocks.type_size(),
                Held::Floats(floats) => elements * floats.size_in_bytes(),
            },
            _ => elements * DType::F32.size_in_bytes(),
        })
    }

    fn place_matrix(&self, tensor: &StoredTensor, dtype: WeightDtype) -> Result<Weight, CoreError> {
        let (rows, columns) = tensor.dims2()?;
        let product = match held_as(dtype, tensor.dtype, columns) {
            Held::Blocks(quantized) => {
                let blocks: Cow<'_, [u8]> = match tensor.dtype {
                    StoredDtype::Ggml(stored) if stored == quantized => Cow::Borrowed(&tensor.bytes),
                    _ => {
                        let values = Tensor::from_vec(tensor.to_f32()?, (rows, columns), &Device::Cpu)?;
                        Cow::Owned(QTensor::quantize(&values, quantized)?.data()?.into_owned())
                    }
                };
                // `QTensor::quantize_onto` leaves padding uninitialised on CUDA; bytes placed as they are do not.
                let storage = QStorage::from_data(blocks, &self.device, quantized)?;
                QMatMul::from_arc(Arc::new(QTensor::new(storage, (rows, columns))?))?
            }
            Held::Floats(floats) => {
                let values = Tensor::from_vec(tensor.to_f32()?, (rows, columns), &Device::Cpu)?;
                QMatMul::Tensor(values.to_dtype(floats)?.to_device(&self.device)?)
            }
        };
        Ok(Weight::TensorMatrix(Arc::new(TensorMatrix::new(rows, columns, product))))
    }

    fn place_vector(&self, tensor: &StoredTensor) -> Result<Weight, CoreError> {
        let values = tensor.to_f32()?;
        let length = values.len();
        Ok(Weight::TensorVector(Tensor::from_vec(values, length, &self.device)?))
    }

    fn compile(
        &self,
        graph: &CheckedGraph,
        weights: &mut WeightLookup<'_>,
    ) -> Result<Arc<dyn Plan>, CoreError> {
        let place = (self.device.clone(), self.pool.clone(), Arc::clone(&self.workspace));
        Ok(Arc::new(TensorPlan::new(graph.clone(), place, weights)?))
    }

    fn plan_bytes_for(&self, graph: &CheckedGraph) -> usize {
        let nodes = graph.graph().nodes.len();
        size_of::<TensorPlan>() + plan_size::graph_bytes(graph) + plan_size::table_bytes(nodes, nodes)
    }

    /// Those that windows work in; candle keeps none.
    fn workspace_bytes(&self) -> usize {
        self.workspace.bytes()
    }
}

/// How a matrix is held on the device.
enum Held {
    Blocks(GgmlDType),
    Floats(DType),
}

/// Block formats need rows of whole blocks; a matrix that has none of them is kept at 16 bits.
fn held_as(dtype: WeightDtype, stored: StoredDtype, columns: usize) -> Held {
    let blocks = match (dtype, stored) {
        (WeightDtype::AsStored, StoredDtype::Ggml(stored)) => Some(stored),
        (WeightDtype::Q8_0, _) => Some(GgmlDType::Q8_0),
        (WeightDtype::Q4_0, _) => Some(GgmlDType::Q4_0),
        (WeightDtype::Q4_1, _) => Some(GgmlDType::Q4_1),
        _ => None,
    };
    match blocks {
        Some(blocks) if columns.is_multiple_of(blocks.block_size()) => Held::Blocks(blocks),
        Some(_) => Held::Floats(DType::F16),
        None => Held::Floats(match (dtype, stored) {
            (WeightDtype::F16, _) | (WeightDtype::AsStored, StoredDtype::F16) => DType::F16,
            (WeightDtype::BF16, _) | (WeightDtype::AsStored, StoredDtype::BF16) => DType::BF16,
            _ => DType::F32,
        }),
    }
}
