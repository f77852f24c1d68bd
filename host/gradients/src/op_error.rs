//! What is wrong with the inputs of an operator.

use candle_core::{DType, Shape, Tensor};
use thiserror::Error;

/// Inputs that an operator can't take. It travels inside [`candle_core::Error`], so that these operators mix with
/// candle's own.
#[derive(Debug, Error)]
pub enum OpError {
    /// Shapes that don't go together.
    #[error("{op}: expected {expected}, found {found}")]
    Shapes {
        /// The operator.
        op: &'static str,
        /// What it takes, in words.
        expected: Box<str>,
        /// The shapes and element types of the inputs.
        found: Box<str>,
    },
    /// Elements that are neither f32 nor bf16.
    #[error("{op}: elements are {found:?}; only F32 and BF16 are supported, convert with to_dtype")]
    Dtype {
        /// The operator.
        op: &'static str,
        /// The element type found.
        found: DType,
    },
    /// An index outside of a table.
    #[error("{op}: index {index} is outside of the table's {rows} rows")]
    Index {
        /// The operator.
        op: &'static str,
        /// The index found.
        index: u32,
        /// Rows of the table.
        rows: usize,
    },
    /// A device or storage that the operator has no code for.
    #[error("{op}: {found}")]
    Backend {
        /// The operator.
        op: &'static str,
        /// What was found.
        found: &'static str,
    },
    /// A checkpoint of other parameters.
    #[error("optimizer state: expected {expected} for {name:?}, found {found}")]
    State {
        /// The parameter.
        name: Box<str>,
        /// What the parameter needs.
        expected: Box<str>,
        /// What the checkpoint holds.
        found: Box<str>,
    },
}

impl OpError {
    /// The shapes of `inputs` against what was expected of them.
    pub(crate) fn inputs(op: &'static str, expected: &str, inputs: &[&Tensor]) -> Self {
        let found: Vec<String> =
            inputs.iter().map(|tensor| format!("{:?} {:?}", tensor.dims(), tensor.dtype())).collect();
        Self::Shapes { op, expected: expected.into(), found: found.join(", ").into() }
    }

    pub(crate) fn shape(op: &'static str, expected: impl std::fmt::Display, found: &Shape) -> Self {
        Self::Shapes {
            op,
            expected: expected.to_string().into(),
            found: format!("{:?}", found.dims()).into(),
        }
    }
}

impl From<OpError> for candle_core::Error {
    fn from(error: OpError) -> Self {
        Self::wrap(error)
    }
}
