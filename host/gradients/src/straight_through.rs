//! The straight-through estimator, Bengio et al. 2013.

use candle_core::{Result, Tensor};

use crate::{OpError, recorded::record};

/// The values of `replaced`, with the gradient of `master`: training sees what a rounded weight does, and moves the
/// weight that is rounded.
///
/// # Errors
/// Shapes that differ.
pub fn straight_through(master: &Tensor, replaced: &Tensor) -> Result<Tensor> {
    const OP: &str = "straight_through";
    if master.dims() != replaced.dims() {
        return Err(OpError::inputs(OP, "two tensors of one shape", &[master, replaced]).into());
    }
    let output = replaced.detach().force_contiguous()?;
    let dtype = master.dtype();
    record(OP, output, [master], move |gradient, _| Ok([Some(gradient.to_dtype(dtype)?)]))
}
