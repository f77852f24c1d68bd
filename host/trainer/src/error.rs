//! What can go wrong while training.

use std::path::PathBuf;

/// A training run that can't start or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A device that isn't there.
    #[error("device {device}: {reason}")]
    Device {
        /// As it was asked for.
        device: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting that means nothing.
    #[error("`{key}` in the training configuration {problem}")]
    Config {
        /// Path of the setting, such as `batch.length`.
        key: &'static str,
        /// What was expected and found.
        problem: String,
    },
    /// A configuration file that can't be read.
    #[error("{}: {reason}", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// With line and column where they are known.
        reason: String,
    },
    /// A graph that can't be trained.
    #[error("the graph can't be trained: {0}")]
    Graph(String),
    /// The base.
    #[error(transparent)]
    Core(Box<modularbase_core::CoreError>),
    /// The base's tokenizer.
    #[error(transparent)]
    Tokenizer(Box<modularbase_core::TokenizerError>),
    /// Training text.
    #[error(transparent)]
    Corpus(Box<modularbase_corpus::CorpusError>),
    /// A delta that can't be encoded.
    #[error(transparent)]
    Delta(Box<modularbase_deltas::DeltaError>),
    /// Weights that can't be written in the form that ships.
    #[error(transparent)]
    Weights(Box<modularbase_loader::WriteWeightsError>),
    /// A checkpoint that does not belong to this run or is damaged.
    #[error("the checkpoint can't be used: {0}")]
    Checkpoint(Box<str>),
    /// Text, weights or columns that can't be evaluated.
    #[error("{0}")]
    Evaluation(Box<str>),
    /// A file that can't be written or read.
    #[error("can't {action} {}: {source}{}", path.display(), full_disk_hint(source))]
    File {
        /// `write`, `read`, `create`.
        action: &'static str,
        /// Which one.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The loss is no number any more.
    #[error(
        "step {step} gave {value} where a number was expected, first in {place}; the last good checkpoint is {checkpoint}. \
         Lower optimizer.learning_rate or optimizer.clip, or look at the text of that step"
    )]
    NotFinite {
        /// The step, from 0.
        step: u64,
        /// `NaN` or infinite.
        value: f32,
        /// A node of the graph, the loss, or the gradients.
        place: Box<str>,
        /// Where to go on from.
        checkpoint: Box<str>,
    },
    /// A batch that the device has no room for.
    #[error("{device} has no room for {rows} rows of {length} tokens at once; {advice}")]
    OutOfMemory {
        /// The device.
        device: Box<str>,
        /// Rows in one pass.
        rows: usize,
        /// Tokens of a row.
        length: usize,
        /// What would fit.
        advice: Box<str>,
    },
    /// The device.
    #[error("the device failed: {0}")]
    Tensor(Box<candle_core::Error>),
}

fn full_disk_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "; make room and run the same command again: training goes on from the last whole checkpoint"
        }
        _ => "",
    }
}

impl TrainError {
    pub(crate) fn checkpoint(reason: impl Into<String>) -> Self {
        Self::Checkpoint(reason.into().into_boxed_str())
    }

    pub(crate) fn evaluation(reason: impl Into<String>) -> Self {
        Self::Evaluation(reason.into().into_boxed_str())
    }

    pub(crate) fn config(key: &'static str, problem: impl Into<String>) -> Self {
        Self::Config { key, problem: problem.into() }
    }

    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// Whether somebody wanted the work to end.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Corpus(error) if matches!(**error, modularbase_corpus::CorpusError::Cancelled))
    }

    /// Whether the device had no room, in candle's and the driver's words.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        let Self::Tensor(error) = self else { return false };
        let text = error.to_string().to_ascii_lowercase();
        text.contains("out_of_memory") || text.contains("out of memory")
    }
}

impl From<candle_core::Error> for TrainError {
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor(Box::new(error))
    }
}

impl From<modularbase_core::CoreError> for TrainError {
    fn from(error: modularbase_core::CoreError) -> Self {
        Self::Core(Box::new(error))
    }
}

impl From<modularbase_core::BaseFileError> for TrainError {
    fn from(error: modularbase_core::BaseFileError) -> Self {
        Self::Core(Box::new(error.into()))
    }
}

impl From<modularbase_corpus::CorpusError> for TrainError {
    fn from(error: modularbase_corpus::CorpusError) -> Self {
        Self::Corpus(Box::new(error))
    }
}

impl From<modularbase_deltas::DeltaError> for TrainError {
    fn from(error: modularbase_deltas::DeltaError) -> Self {
        Self::Delta(Box::new(error))
    }
}

impl From<modularbase_core::TokenizerError> for TrainError {
    fn from(error: modularbase_core::TokenizerError) -> Self {
        Self::Tokenizer(Box::new(error))
    }
}

impl From<modularbase_loader::WriteWeightsError> for TrainError {
    fn from(error: modularbase_loader::WriteWeightsError) -> Self {
        Self::Weights(Box::new(error))
    }
}
