//! Activations, with the formulas of inference.

use candle_core::{Device, Result, Tensor};

use crate::{
    OpError,
    host_values::{HostValues, host_tensor, map, map2},
    recorded::record,
};

/// An activation of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Silu,
    Gelu,
}

impl Activation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::Gelu => "gelu",
        }
    }

    fn value(self, x: f32) -> f32 {
        match self {
            Self::Silu => x * sigmoid(x),
            Self::Gelu => 0.5 * x * (1.0 + gelu_argument(x).tanh()),
        }
    }

    fn slope(self, x: f32) -> f32 {
        match self {
            Self::Silu => silu_slope(x),
            Self::Gelu => {
                let tanh = gelu_argument(x).tanh();
                let inner = SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x);
                0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * inner
            }
        }
    }
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

/// `x * sigmoid(x)`; `x` of any shape in f32 or bf16.
///
/// # Errors
/// Other element types.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    unary(x, Activation::Silu)
}

/// GELU by its tanh form, Hendrycks and Gimpel 2016, as the host computes it; `x` of any shape in f32 or bf16.
///
/// # Errors
/// Other element types.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    unary(x, Activation::Gelu)
}

/// `silu(gate) * up`, of equal shapes, in f32 or bf16.
///
/// # Errors
/// Shapes or element types that differ, other element types.
pub fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    const OP: &str = "silu_mul";
    if gate.dims() != up.dims() || gate.dtype() != up.dtype() {
        return Err(OpError::inputs(OP, "gate and up of one shape and type", &[gate, up]).into());
    }
    let (a, b) = (gate.detach().contiguous()?, up.detach().contiguous()?);
    let output = match a.device() {
        Device::Cpu => {
            let (x, y) = (HostValues::read(OP, &a)?, HostValues::read(OP, &b)?);
            let values = map2(x.as_slice(), y.as_slice(), |gate, up| gate * sigmoid(gate) * up);
            host_tensor(OP, values, a.shape(), a.dtype())?
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::activations::silu_mul(&a, &b)?,
        _ => return Err(OpError::Backend { op: OP, found: "a device without a kernel for it" }.into()),
    };
    record(OP, output, [gate, up], move |gradient, _| match a.device() {
        Device::Cpu => {
            let (x, y) = (HostValues::read(OP, &a)?, HostValues::read(OP, &b)?);
            let g = HostValues::read(OP, gradient)?;
            let outer = map2(g.as_slice(), y.as_slice(), |g, up| g * up);
            let for_gate = map2(x.as_slice(), &outer, |gate, outer| outer * silu_slope(gate));
            let for_up = map2(x.as_slice(), g.as_slice(), |gate, g| g * gate * sigmoid(gate));
            Ok([
                Some(host_tensor(OP, for_gate, a.shape(), a.dtype())?),
                Some(host_tensor(OP, for_up, a.shape(), a.dtype())?),
            ])
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => {
            let (for_gate, for_up) = crate::cuda::activations::silu_mul_backward(&a, &b, gradient)?;
            Ok([Some(for_gate), Some(for_up)])
        }
        _ => Err(OpError::Backend { op: OP, found: "a device without a kernel for it" }.into()),
    })
}

fn unary(x: &Tensor, kind: Activation) -> Result<Tensor> {
    let op = kind.name();
    let saved = x.detach().contiguous()?;
    let output = match saved.device() {
        Device::Cpu => {
            let values = HostValues::read(op, &saved)?;
            let values = map(values.as_slice(), |x| kind.value(x));
            host_tensor(op, values, saved.shape(), saved.dtype())?
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::activations::unary(&saved, kind)?,
        _ => return Err(OpError::Backend { op, found: "a device without a kernel for it" }.into()),
    };
    record(op, output, [x], move |gradient, _| match saved.device() {
        Device::Cpu => {
            let (values, g) = (HostValues::read(op, &saved)?, HostValues::read(op, gradient)?);
            let dx = map2(values.as_slice(), g.as_slice(), |x, g| g * kind.slope(x));
            Ok([Some(host_tensor(op, dx, saved.shape(), saved.dtype())?)])
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => Ok([Some(crate::cuda::activations::unary_backward(&saved, gradient, kind)?)]),
        _ => Err(OpError::Backend { op, found: "a device without a kernel for it" }.into()),
    })
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn silu_slope(x: f32) -> f32 {
    let sigmoid = sigmoid(x);
    sigmoid * (1.0 + x * (1.0 - sigmoid))
}

fn gelu_argument(x: f32) -> f32 {
    SQRT_2_OVER_PI * x * (1.0 + CUBIC * x * x)
}
