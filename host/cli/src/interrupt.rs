//! Ctrl-C: what it means just now.
//!
//! Outside of the scopes below it ends the program with 130, as it would without a handler. A scope of
//! [`Meaning::Cancel`] turns it into a flag that the work looks at; a second Ctrl-C then ends the program at once.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use anyhow::Context;

use crate::failure::{Exit, Failure};

/// What Ctrl-C does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Ends the program.
    End = 0,
    /// Asks the work in hand to stop.
    Cancel = 1,
    /// Nothing: a line editor reads the key itself.
    Ignore = 2,
}

static MEANING: AtomicU8 = AtomicU8::new(Meaning::End as u8);
static CANCELLED: AtomicBool = AtomicBool::new(false);

/// Installs the handler; once, before any scope.
pub(crate) fn install() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        let meaning = MEANING.load(Ordering::SeqCst);
        let second = meaning == Meaning::Cancel as u8 && CANCELLED.swap(true, Ordering::SeqCst);
        if meaning == Meaning::End as u8 || second {
            std::process::exit(Exit::Interrupted as i32);
        }
    })
    .context("can't install a handler for Ctrl-C")
}

/// Ctrl-C has this meaning until the scope is dropped; scopes may nest.
pub(crate) struct Scope {
    outer: u8,
}

impl Scope {
    pub(crate) fn enter(meaning: Meaning) -> Self {
        let outer = MEANING.swap(meaning as u8, Ordering::SeqCst);
        if outer != Meaning::Cancel as u8 {
            CANCELLED.store(false, Ordering::SeqCst);
        }
        Self { outer }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        MEANING.store(self.outer, Ordering::SeqCst);
    }
}

/// Whether Ctrl-C was pressed in this scope of [`Meaning::Cancel`].
pub(crate) fn is_cancelled() -> bool {
    CANCELLED.load(Ordering::SeqCst)
}

/// The flag that Ctrl-C sets in a scope of [`Meaning::Cancel`], for work that looks at one itself.
pub(crate) fn flag() -> &'static AtomicBool {
    &CANCELLED
}

/// An error if Ctrl-C was pressed, to leave long work with `?`.
pub(crate) fn check() -> anyhow::Result<()> {
    if is_cancelled() { Err(Failure::interrupted().into()) } else { Ok(()) }
}
