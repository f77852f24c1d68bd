//! Why a request could not be served.

use modularbase_context::ContextError;
use modularbase_core::{BaseFileError, CoreError, SamplingError, TokenizerError};
use modularbase_manager::{LeaseFailure, ManagerError};
use modularbase_residency::BudgetExceeded;
use router::SelectionError;

/// An error of the host as a whole.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model: its weights, its plans, its device.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// A text that is kept, and can't be opened or saved.
    #[error(transparent)]
    Kept(Box<ContextError>),
    /// The base's file.
    #[error(transparent)]
    BaseFile(Box<BaseFileError>),
    /// Not enough device memory.
    #[error(transparent)]
    Budget(#[from] BudgetExceeded),
    /// A mixture of unknown packs.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// A pack that was asked for and can't be used.
    #[error(transparent)]
    Pack(#[from] LeaseFailure),
    /// The packs can't be looked after.
    #[error(transparent)]
    Manager(#[from] ManagerError),
    /// A folder or file that can't be read.
    #[error("can't read `{}`: {source}", path.display())]
    Read {
        /// The folder or file.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Text that the tokenizer or the chat template can't handle.
    #[error(transparent)]
    Tokenizer(Box<TokenizerError>),
    /// A sampling option out of range, or logits that are no numbers.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// An option that does not fit.
    #[error("{0}")]
    Option(String),
    /// Nothing to answer.
    #[error("the prompt is empty: say what to answer")]
    EmptyPrompt,
}

// These two are boxed: they name files and tensors, and results of every kind would grow with them.
impl From<BaseFileError> for EngineError {
    fn from(error: BaseFileError) -> Self {
        Self::BaseFile(Box::new(error))
    }
}

impl From<ContextError> for EngineError {
    fn from(error: ContextError) -> Self {
        Self::Kept(Box::new(error))
    }
}

impl From<TokenizerError> for EngineError {
    fn from(error: TokenizerError) -> Self {
        Self::Tokenizer(Box::new(error))
    }
}
