//! Why a pack could not describe its graph.

use std::fmt;

use pack_abi::{ErrorCode, PackError};

/// An error a pack hands to the host. The text reaches the host's log and the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Kind of failure.
    pub code: ErrorCode,
    /// What happened, what was expected.
    pub message: String,
}

impl Error {
    /// The configuration does not suit the pack.
    pub fn invalid_config(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::INVALID_CONFIG, message: message.into() }
    }

    /// Anything else.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::INTERNAL, message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Error> for PackError {
    fn from(error: Error) -> Self {
        Self { code: error.code, message: error.message.into() }
    }
}
