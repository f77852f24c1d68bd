//! What can go wrong between a checked graph and its logits.

use modularbase_context::ContextError;
use modularbase_graph::GraphError;

use crate::BaseFileError;

/// An error of the model itself: weights, plans, caches.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// A graph that the host does not run.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The base's file.
    #[error(transparent)]
    BaseFile(Box<BaseFileError>),
    /// A weight that nothing provides.
    #[error("weight `{name}` {reason}")]
    Weight {
        /// The graph's name of it.
        name: String,
        /// Expected, found, and what to do.
        reason: String,
    },
    /// A CPU kernel refused its arguments.
    #[error("CPU kernel: {0}")]
    Kernel(#[from] modularbase_kernels::KernelError),
    /// candle failed, on a device or while it converted a tensor.
    #[error("tensor library: {0}")]
    Candle(#[from] candle_core::Error),
    /// A token id outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {vocabulary}")]
    TokenId {
        /// Found.
        id: u32,
        /// Number of tokens.
        vocabulary: usize,
    },
    /// More tokens than positions.
    #[error(
        "{tokens} tokens do not fit the context of {limit}: shorten the text or ask for fewer new tokens"
    )]
    ContextLength {
        /// Asked for.
        tokens: usize,
        /// The base's longest context, tokens.
        limit: usize,
    },
    /// A context's window, or its cold blocks.
    #[error("context: {0}")]
    Context(Box<ContextError>),
    /// A sequence that has no mixture.
    #[error("the sequence is detached from its mixture: attach one before the next step")]
    Detached,
    /// Arguments that do not belong together; a defect of the caller.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// What was checked.
        what: &'static str,
        /// Expected.
        expected: String,
        /// Found.
        found: String,
    },
    /// The asked-for device cannot be used.
    #[error("device `{device}`: {reason}")]
    Device {
        /// As asked for.
        device: String,
        /// Why not, and what to do.
        reason: String,
    },
}

// Boxed: it names files and tensors, and results of every kind would grow with it.
impl From<BaseFileError> for CoreError {
    fn from(error: BaseFileError) -> Self {
        Self::BaseFile(Box::new(error))
    }
}

impl From<ContextError> for CoreError {
    fn from(error: ContextError) -> Self {
        Self::Context(Box::new(error))
    }
}

impl CoreError {
    pub(crate) fn mismatch(what: &'static str, expected: impl ToString, found: impl ToString) -> Self {
        Self::Mismatch { what, expected: expected.to_string(), found: found.to_string() }
    }

    pub(crate) fn weight(name: &str, reason: impl Into<String>) -> Self {
        Self::Weight { name: name.to_owned(), reason: reason.into() }
    }
}
