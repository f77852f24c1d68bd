//! An answer's text on its way to stdout, piece by piece.

use std::sync::atomic::Ordering;

use crate::interrupt;
use crate::terminal::print;

/// Writes pieces as they come. When stdout fails, the answer is cancelled: nobody reads it any more.
pub(crate) struct AnswerStream {
    shown: bool,
    failure: Option<anyhow::Error>,
}

impl AnswerStream {
    /// A stream; one that is not `shown` swallows its text.
    pub(crate) fn new(shown: bool) -> Self {
        Self { shown, failure: None }
    }

    pub(crate) fn write(&mut self, text: &str) {
        if !self.shown || self.failure.is_some() {
            return;
        }
        if let Err(error) = print(text) {
            self.failure = Some(error);
            interrupt::flag().store(true, Ordering::SeqCst);
        }
    }

    /// Why stdout failed, if it did.
    pub(crate) fn result(self) -> anyhow::Result<()> {
        self.failure.map_or(Ok(()), Err)
    }
}
