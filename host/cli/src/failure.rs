//! How the program fails: one sentence, its causes, what to do, and an exit code that scripts can tell apart.

use std::process::ExitCode;

/// What an exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Anything that is none of the others.
    Failed = 1,
    /// The command line, a setting or the input is not what the command takes.
    Usage = 2,
    /// The base is not there, or is not what its manifest says.
    BaseMissing = 3,
    /// A pack is bad, or its verification failed.
    BadPack = 4,
    /// Ctrl-C.
    Interrupted = 130,
}

/// The exit codes as `--help` shows them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 the base is missing or damaged, 4 a pack is bad or its \
verification failed, 130 interrupted.";

/// A failure that knows its exit code and what to do about it; it travels as the root or a context of an
/// [`anyhow::Error`].
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    message: String,
    exit: Exit,
    help: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { message: message.into(), exit, help: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// What to do about it.
    pub(crate) fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Ctrl-C, said without a message of its own: who pressed it knows.
    pub(crate) fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted")
    }
}

/// Whoever read stdout is gone, as with `| head -1`: nothing to say, and nobody to say it to.
#[derive(Debug, thiserror::Error)]
#[error("stdout is closed")]
pub(crate) struct StdoutClosed;

/// Prints an error to stderr and gives the exit code that goes with it.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(|cause| cause.is::<StdoutClosed>()) {
        return ExitCode::SUCCESS;
    }
    let failure = error.downcast_ref::<Failure>();
    let exit = failure.map_or(Exit::Failed, |failure| failure.exit);
    if exit == Exit::Interrupted {
        return ExitCode::from(Exit::Interrupted as u8);
    }
    // Written as one piece: threads of other processes on the same terminal must not cut it. A closed stderr leaves
    // nobody to tell.
    let text = describe(error, failure.and_then(Failure::advice));
    std::io::Write::write_all(&mut std::io::stderr().lock(), text.as_bytes()).ok();
    ExitCode::from(exit as u8)
}

/// `error: ...`, one line a cause that says something new, `help: ...`.
fn describe(error: &anyhow::Error, help: Option<&str>) -> String {
    let mut text = format!("error: {error}\n");
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Many errors print their source within their own message.
        if !said.contains(&cause) {
            text.push_str(&format!("  because: {cause}\n"));
            said = cause;
        }
    }
    if let Some(help) = help {
        text.push_str(&format!("  help: {help}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_prints_its_causes_once_and_its_help_last() {
        let root = std::io::Error::other("the disk is full");
        let error = anyhow::Error::new(root)
            .context("can't write x: the disk is full")
            .context(Failure::new(Exit::BaseMissing, "the base was not fetched").help("free some space"));
        let help = error.downcast_ref::<Failure>().and_then(Failure::advice);
        assert_eq!(
            describe(&error, help),
            "error: the base was not fetched\n  because: can't write x: the disk is full\n  help: free some space\n"
        );
    }

    #[test]
    fn the_exit_code_is_found_under_further_context() {
        let error = Err::<(), _>(Failure::new(Exit::BadPack, "bad")).context("while loading").unwrap_err();
        assert_eq!(error.downcast_ref::<Failure>().map(|failure| failure.exit), Some(Exit::BadPack));
    }
}
