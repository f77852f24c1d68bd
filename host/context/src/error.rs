//! What can be wrong with a session and its blocks, and what to do about it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::CodecError;

/// Why a context can't be kept or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ContextError {
    /// The disk doesn't take more, or a file can't be written for another reason.
    #[error("can't write `{}`: {source}; what was kept before is still there", path.display())]
    Write {
        /// The file.
        path: Box<Path>,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// No more bytes may be written.
    #[error("sessions take {used} bytes on disk of the {limit} that they may: remove one, or allow more")]
    OverBudget {
        /// Bytes that are taken.
        used: u64,
        /// Bytes that are allowed.
        limit: u64,
    },
    /// A file that can't be read.
    #[error("can't read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: Box<Path>,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// A block whose bytes aren't those that were written, or one behind such a block.
    #[error("block {index} and all after it are refused: {reason}")]
    Refused {
        /// The first block that is refused.
        index: u32,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// A block that was never kept, or was cut off.
    #[error("block {index} of layer {layer} of `{stream}` is not kept")]
    NotKept {
        /// The stream.
        stream: Box<str>,
        /// Its layer.
        layer: u32,
        /// The block.
        index: u32,
    },
    /// A block whose tokens are not all there.
    #[error("block {index} ends at token {end}, and the text has {tokens}: only whole blocks are kept")]
    NotWhole {
        /// The block.
        index: u32,
        /// Where it ends.
        end: usize,
        /// Tokens of the text.
        tokens: usize,
    },
    /// Options with which no text can be kept.
    #[error("the context's options can't be: {problem}")]
    Options {
        /// What is wrong.
        problem: &'static str,
    },
    /// A name that no session can have.
    #[error(
        "`{name}` is no name of a session: use up to 64 letters, digits, `-`, `_` and `.`, not `.` first"
    )]
    Name {
        /// The name.
        name: Box<str>,
    },
    /// There is no such session.
    #[error("there is no session `{session}`")]
    NoSession {
        /// Its name.
        session: Box<str>,
    },
    /// Another process has the session.
    #[error("session `{session}` is in use by process {process}: close it there, or take another name")]
    InUse {
        /// Its name.
        session: Box<str>,
        /// The process, as it noted itself.
        process: Box<str>,
    },
    /// The session's KV was made otherwise.
    #[error(transparent)]
    OtherSettings(Box<DifferentSettings>),
    /// A file of the session was deleted or replaced while it was open.
    #[error("`{}` was deleted or replaced: what was said since the last save can't be kept", path.display())]
    Deleted {
        /// The file.
        path: Box<Path>,
    },
    /// A block that isn't what its header says.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A file of another format or version.
    #[error("`{}` {found}; this program reads {expected}", path.display())]
    Format {
        /// The file.
        path: Box<Path>,
        /// What it is.
        found: Box<str>,
        /// What was expected.
        expected: Box<str>,
    },
}

/// What a session was made with, and what it was opened with.
#[derive(Debug, Clone, thiserror::Error)]
#[error("session `{session}` was made with {made}, not {asked}: open it so, or take another name")]
pub struct DifferentSettings {
    /// The session.
    pub session: String,
    /// What it has.
    pub made: String,
    /// What was asked for.
    pub asked: String,
}

impl ContextError {
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write { path: path.into(), source: Arc::new(source) }
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { path: path.into(), source: Arc::new(source) }
    }
}
