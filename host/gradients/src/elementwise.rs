//! Sums, products and rearrangements of rows. candle has them too; these ones let [`crate::backward`] take its fast way.

use candle_core::{DType, Device, Result, Tensor};

use crate::{
    OpError,
    host_values::{HostValues, host_tensor, map},
    product::column_sums,
    recorded::record,
};

/// `a + b`, of equal shapes and types.
///
/// # Errors
/// Shapes or element types that differ.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dims() != b.dims() || a.dtype() != b.dtype() {
        return Err(OpError::inputs("add", "two tensors of one shape and type", &[a, b]).into());
    }
    let output = sum_of(&a.detach(), &b.detach())?;
    record("add", output, [a, b], |gradient, _| Ok([Some(gradient.clone()), Some(gradient.clone())]))
}

/// `x * y`, where `y` has `x`'s shape, or is `[width]` for every row of `x [rows, width]`, or `[rows, 1]` for every
/// column. `y` may be f32 (a master) where `x` is bf16.
///
/// # Errors
/// Other shapes.
pub fn mul(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let by = match (x.dims(), y.dims()) {
        (a, b) if a == b => By::Element,
        (&[_, width], &[n]) if n == width => By::Row,
        (&[rows, _], &[n, 1]) if n == rows => By::Column,
        _ => {
            return Err(OpError::inputs(
                "mul",
                "x [rows, width] and y like it, [width] or [rows, 1]",
                &[x, y],
            )
            .into());
        }
    };
    let (a, b) = (x.detach().contiguous()?, y.detach().to_dtype(x.dtype())?.contiguous()?);
    let output = a.broadcast_mul(&b)?;
    let (for_x, for_y, dtype) = (x.track_op(), y.track_op(), y.dtype());
    record("mul", output, [x, y], move |gradient, _| {
        let dx = for_x.then(|| gradient.broadcast_mul(&b)).transpose()?;
        let dy = for_y.then(|| {
            let product = (gradient * &a)?;
            match by {
                By::Element => product.to_dtype(dtype),
                By::Row => column_sums(&product)?.to_dtype(dtype),
                By::Column => product.to_dtype(DType::F32)?.sum_keepdim(1)?.to_dtype(dtype),
            }
        });
        Ok([dx, dy.transpose()?])
    })
}

#[derive(Clone, Copy)]
enum By {
    Element,
    Row,
    Column,
}

/// `factor * x`; `x` of any shape in f32 or bf16.
///
/// # Errors
/// Other element types.
pub fn scale(x: &Tensor, factor: f32) -> Result<Tensor> {
    let output = times(&x.detach().contiguous()?, factor)?;
    record("scale", output, [x], move |gradient, _| Ok([Some(times(gradient, factor)?)]))
}

/// `x` as `dtype`; the gradient comes back in `x`'s type.
///
/// # Errors
/// Those of the device.
pub fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    let from = x.dtype();
    if from == dtype {
        return Ok(x.clone());
    }
    record("cast", x.detach().to_dtype(dtype)?, [x], move |gradient, _| Ok([Some(gradient.to_dtype(from)?)]))
}

/// Columns `first..first + count` of `x [rows, width]`.
///
/// # Errors
/// Columns outside of the width.
pub fn columns(x: &Tensor, first: usize, count: usize) -> Result<Tensor> {
    part("columns", x, 1, first, count)
}

/// Rows `first..first + count` of `x [rows, width]`: of one expert's weights, say.
///
/// # Errors
/// Rows outside of the matrix.
pub fn rows(x: &Tensor, first: usize, count: usize) -> Result<Tensor> {
    part("rows", x, 0, first, count)
}

fn part(op: &'static str, x: &Tensor, dim: usize, first: usize, count: usize) -> Result<Tensor> {
    if x.rank() != 2 || first + count > x.dims()[dim] {
        let expected = format!("x [rows, width] with {} {op}", first + count);
        return Err(OpError::inputs(op, &expected, &[x]).into());
    }
    let behind = x.dims()[dim] - first - count;
    let output = x.detach().narrow(dim, first, count)?.force_contiguous()?;
    record(op, output, [x], move |gradient, _| Ok([Some(gradient.pad_with_zeros(dim, first, behind)?)]))
}

/// Tensors `[rows, n_i]` beside each other: `[rows, sum of n_i]`.
///
/// # Errors
/// No tensors, rows or element types that differ.
pub fn concat(parts: &[&Tensor]) -> Result<Tensor> {
    match parts {
        [] => Err(OpError::inputs("concat", "at least one tensor", &[]).into()),
        [one] => Ok((*one).clone()),
        [a, b] => concat_two(a, b),
        [a, b, rest @ ..] => {
            let first = concat_two(a, b)?;
            concat(&[&[&first], rest].concat())
        }
    }
}

fn concat_two(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ((_, left), (_, right)) = (a.dims2()?, b.dims2()?);
    let output = Tensor::cat(&[a.detach(), b.detach()], 1)?;
    let (for_a, for_b) = (a.track_op(), b.track_op());
    record("concat", output, [a, b], move |gradient, _| {
        let part = |first, count| gradient.narrow(1, first, count)?.contiguous();
        Ok([for_a.then(|| part(0, left)).transpose()?, for_b.then(|| part(left, right)).transpose()?])
    })
}

/// `a + b` without a record.
pub(crate) fn sum_of(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if a.device().is_cuda() {
        return crate::cuda::elementwise::sum_of(&a.contiguous()?, &b.contiguous()?);
    }
    a + b
}

fn times(x: &Tensor, factor: f32) -> Result<Tensor> {
    match x.device() {
        Device::Cpu => {
            let values = HostValues::read("scale", x)?;
            host_tensor("scale", map(values.as_slice(), |x| x * factor), x.shape(), x.dtype())
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::elementwise::times(x, factor),
        _ => Err(OpError::Backend { op: "scale", found: "a device without a kernel for it" }.into()),
    }
}
