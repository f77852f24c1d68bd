//! Products of bf16 matrices into f32.

use std::ffi::{c_int, c_void};

use candle_core::{
    DType, Result, Tensor,
    cuda_backend::cudarc::cublas::{result::gemm_ex, sys},
};

use super::launch::{Argument, device_of, pointer, unwritten};
use crate::OpError;

const OP: &str = "product";

/// `a b` in f32 of matrices in bf16, each contiguous or the transpose of one that is.
pub(crate) fn product_f32(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ((m, inner), (b_inner, n)) = (a.dims2()?, b.dims2()?);
    if inner != b_inner || b.dtype() != DType::BF16 {
        return Err(OpError::inputs(OP, "a [m, k] and b [k, n] in BF16", &[a, b]).into());
    }
    if m == 0 || n == 0 || inner == 0 {
        return Tensor::zeros((m, n), DType::F32, a.device());
    }
    let output = unwritten((m, n), DType::F32, a.device())?;
    let (a, b) = (Operand::new(a)?, Operand::new(b)?);
    let device = device_of(OP, &output)?;
    let (one, zero) = (1f32, 0f32);
    let Argument::Pointer(output_at) = pointer(OP, &output)? else {
        return Err(OpError::Backend { op: OP, found: "no address" }.into());
    };
    // cuBLAS counts columns first: the transposed product of the swapped operands is the same memory.
    // SAFETY: the operands are live, contiguous and of the sizes given, the output was allocated for m n floats, and the
    // handle works on the stream of the allocations.
    unsafe {
        gemm_ex(
            *device.cublas_handle().handle(),
            b.operation,
            a.operation,
            n as c_int,
            m as c_int,
            inner as c_int,
            (&raw const one).cast(),
            b.address as *const c_void,
            sys::cudaDataType_t::CUDA_R_16BF,
            b.leading,
            a.address as *const c_void,
            sys::cudaDataType_t::CUDA_R_16BF,
            a.leading,
            (&raw const zero).cast(),
            output_at as *mut c_void,
            sys::cudaDataType_t::CUDA_R_32F,
            n as c_int,
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    }
    .map_err(candle_core::Error::wrap)?;
    Ok(output)
}

/// A matrix as cuBLAS takes it.
struct Operand {
    /// Kept for its memory.
    _matrix: Tensor,
    address: u64,
    operation: sys::cublasOperation_t,
    leading: c_int,
}

impl Operand {
    fn new(matrix: &Tensor) -> Result<Self> {
        let transposed = matrix.t()?;
        let (whole, operation) = match (matrix.is_contiguous(), transposed.is_contiguous()) {
            (true, _) => (matrix.clone(), sys::cublasOperation_t::CUBLAS_OP_N),
            (false, true) => (transposed, sys::cublasOperation_t::CUBLAS_OP_T),
            (false, false) => (matrix.contiguous()?, sys::cublasOperation_t::CUBLAS_OP_N),
        };
        let Argument::Pointer(address) = pointer(OP, &whole)? else {
            return Err(OpError::Backend { op: OP, found: "no address" }.into());
        };
        let leading = whole.dims()[1] as c_int;
        Ok(Self { _matrix: whole, address, operation, leading })
    }
}
