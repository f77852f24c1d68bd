//! Matrix products: accumulated in f32 whatever the elements are.

use candle_core::{DType, Result, Tensor};

/// `a b` in `a`'s type, of matrices or of batches of them. The CPU has no product of bf16: there the elements are
/// widened, multiplied in f32 and rounded once at the end.
pub(crate) fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.device().is_cpu() && a.dtype() == DType::BF16 {
        return product_f32(a, b)?.to_dtype(DType::BF16);
    }
    a.matmul(b)
}

/// `a b` in f32, not rounded to the elements' type in between.
pub(crate) fn product_f32(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if a.device().is_cuda() && a.dtype() == DType::BF16 {
        return crate::cuda::product::product_f32(a, b);
    }
    a.to_dtype(DType::F32)?.matmul(&b.to_dtype(DType::F32)?)
}

/// The sums of the columns of `x [rows, width]`, in f32.
pub(crate) fn column_sums(x: &Tensor) -> Result<Tensor> {
    let ones = Tensor::ones((1, x.dims()[0]), x.dtype(), x.device())?;
    product_f32(&ones, x)?.squeeze(0)
}
