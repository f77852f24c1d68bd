//! Starting a kernel on tensors.

use candle_core::{
    CudaDevice, CudaStorage, DType, Device, Layout, Result, Shape, Storage, Tensor,
    cuda_backend::{
        CudaStorageSlice,
        cudarc::driver::{DevicePtr, LaunchConfig, PushKernelArg},
    },
};

use crate::OpError;

/// A file of kernels.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kernels {
    Norms,
    Softmax,
    Elementwise,
    Rope,
    RowLosses,
    RowDivergences,
    Embedding,
    AdamW,
    FlashAttention,
}

impl Kernels {
    /// The name of the module on the device, and its PTX.
    fn module(self) -> (&'static str, &'static str) {
        macro_rules! ptx {
            ($name:literal) => {
                (concat!("gradients_", $name), include_str!(concat!(env!("OUT_DIR"), "/", $name, ".ptx")))
            };
        }
        match self {
            Self::Norms => ptx!("norms"),
            Self::Softmax => ptx!("softmax"),
            Self::Elementwise => ptx!("elementwise"),
            Self::Rope => ptx!("rope"),
            Self::RowLosses => ptx!("row_losses"),
            Self::RowDivergences => ptx!("row_divergences"),
            Self::Embedding => ptx!("embedding"),
            Self::AdamW => ptx!("adamw"),
            Self::FlashAttention => ptx!("flash_attention"),
        }
    }
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument {
    /// An address on the device; 0 is null.
    Pointer(u64),
    Int(i32),
    Long(i64),
    Float(f32),
}

/// No tensor.
pub(super) const NULL: Argument = Argument::Pointer(0);

/// Blocks and threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub(super) blocks: (u32, u32, u32),
    pub(super) threads: (u32, u32, u32),
}

const THREADS: usize = 256;

impl Grid {
    /// A warp for each of `rows`.
    pub(super) fn warps(rows: usize) -> Self {
        Self::threads(rows * 32)
    }

    /// A thread for each of `count`.
    pub(super) fn threads(count: usize) -> Self {
        Self { blocks: (count.div_ceil(THREADS).max(1) as u32, 1, 1), threads: (THREADS as u32, 1, 1) }
    }

    /// Threads that each take several of `count`.
    pub(super) fn strided(count: usize) -> Self {
        // Enough to fill the largest device of today twice.
        Self::threads(count.min(THREADS * 132 * 16))
    }
}

/// Starts kernel `name` of a file. The arguments must be the kernel's own, in its order, and every address that of memory
/// as large as the kernel reads and writes: each caller is beside this file and checks the shapes.
pub(super) fn launch(
    device: &CudaDevice,
    kernels: Kernels,
    name: &str,
    grid: Grid,
    arguments: &[Argument],
) -> Result<()> {
    let (module, ptx) = kernels.module();
    let function = device.get_or_load_custom_func(name, module, ptx)?;
    let mut builder = function.builder();
    for argument in arguments {
        match argument {
            Argument::Pointer(address) => builder.arg(address),
            Argument::Int(value) => builder.arg(value),
            Argument::Long(value) => builder.arg(value),
            Argument::Float(value) => builder.arg(value),
        };
    }
    let config = LaunchConfig { grid_dim: grid.blocks, block_dim: grid.threads, shared_mem_bytes: 0 };
    // SAFETY: the arguments fit the kernel (see above), and the memory lives as long as the work on it, since it is freed
    // in the order of the same stream.
    unsafe { builder.launch(config) }.map_err(candle_core::Error::wrap)?;
    Ok(())
}

/// The CUDA device of a tensor.
pub(super) fn device_of<'a>(op: &'static str, tensor: &'a Tensor) -> Result<&'a CudaDevice> {
    match tensor.device() {
        Device::Cuda(device) => Ok(device),
        _ => Err(OpError::Backend { op, found: "an input on CUDA and one elsewhere" }.into()),
    }
}

/// The address of a contiguous tensor.
pub(super) fn pointer(op: &'static str, tensor: &Tensor) -> Result<Argument> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => address(op, storage, layout),
        _ => Err(OpError::Backend { op, found: "an input on CUDA and one elsewhere" }.into()),
    }
}

/// The address of a contiguous storage.
pub(super) fn address(op: &'static str, storage: &CudaStorage, layout: &Layout) -> Result<Argument> {
    let stream = storage.device.cuda_stream();
    let (first, _) = layout
        .contiguous_offsets()
        .ok_or_else(|| OpError::shape(op, "a contiguous tensor", layout.shape()))?;
    let first = first as u64;
    Ok(Argument::Pointer(match &storage.slice {
        CudaStorageSlice::F32(slice) => slice.device_ptr(&stream).0 + 4 * first,
        CudaStorageSlice::BF16(slice) => slice.device_ptr(&stream).0 + 2 * first,
        CudaStorageSlice::U32(slice) => slice.device_ptr(&stream).0 + 4 * first,
        _ => return Err(OpError::Backend { op, found: "elements that are not f32, bf16 or u32" }.into()),
    }))
}

/// A tensor of whatever the memory holds; the kernel that it is made for writes all of it.
pub(super) fn unwritten(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    // SAFETY: every caller hands it to a kernel that writes each value before anything reads it; work on a stream is done
    // in order. Any bits are a value of the element types here.
    unsafe { Tensor::empty(shape, dtype, device) }
}

/// The name of the kernel `base` for values of `dtype`, and how many of them it takes at a time: 16 bytes where rows of
/// `width` and all addresses allow it.
pub(super) fn variant(
    op: &'static str,
    base: &str,
    dtype: DType,
    width: usize,
    addresses: &[Argument],
) -> Result<(String, usize)> {
    let (name, packed) = match dtype {
        DType::F32 => ("f32", 4),
        DType::BF16 => ("bf16", 8),
        found => return Err(OpError::Dtype { op, found }.into()),
    };
    let aligned = addresses.iter().all(|argument| match argument {
        Argument::Pointer(address) => address % 16 == 0,
        _ => true,
    });
    let lanes = if aligned && width.is_multiple_of(packed) { packed } else { 1 };
    Ok((format!("{base}_{name}_{lanes}"), lanes))
}

/// A number of rows or values as a kernel takes it.
pub(super) fn int(op: &'static str, value: usize) -> Result<Argument> {
    match i32::try_from(value) {
        Ok(value) => Ok(Argument::Int(value)),
        Err(_) => Err(OpError::Backend { op, found: "more rows or columns than 2^31 - 1" }.into()),
    }
}
