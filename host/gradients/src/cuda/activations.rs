//! Activations.

use candle_core::{Result, Tensor};

use super::{elementwise::start, launch::unwritten};
use crate::activations::Activation;

pub(crate) fn unary(x: &Tensor, kind: Activation) -> Result<Tensor> {
    let output = unwritten(x.shape(), x.dtype(), x.device())?;
    start(kind.name(), kind.name(), &[x], &[], &[&output])?;
    Ok(output)
}

pub(crate) fn unary_backward(x: &Tensor, gradient: &Tensor, kind: Activation) -> Result<Tensor> {
    let output = unwritten(x.shape(), x.dtype(), x.device())?;
    let name = match kind {
        Activation::Silu => "silu_backward",
        Activation::Gelu => "gelu_backward",
    };
    start(kind.name(), name, &[x, gradient], &[], &[&output])?;
    Ok(output)
}

pub(crate) fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let output = unwritten(gate.shape(), gate.dtype(), gate.device())?;
    start("silu_mul", "silu_mul", &[gate, up], &[], &[&output])?;
    Ok(output)
}

pub(crate) fn silu_mul_backward(gate: &Tensor, up: &Tensor, gradient: &Tensor) -> Result<(Tensor, Tensor)> {
    let like = || unwritten(gate.shape(), gate.dtype(), gate.device());
    let (dgate, dup) = (like()?, like()?);
    start("silu_mul", "silu_mul_backward", &[gate, up, gradient], &[], &[&dgate, &dup])?;
    Ok((dgate, dup))
}
