//! Other programs: how they are started, and what is said when one fails.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

/// A program that did not do what it was started for.
#[derive(Debug)]
pub(crate) struct Failed {
    command: String,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    NotStarted(std::io::Error),
    Ended(ExitStatus),
}

impl Failed {
    /// The exit code to hand on; `None` when the program did not end by itself.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        match &self.outcome {
            Outcome::NotStarted(_) => None,
            Outcome::Ended(status) => status.code().and_then(|code| u8::try_from(code).ok()),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::NotStarted(error) => {
                write!(f, "`{}` could not be started: {error}; is it installed and on PATH?", self.command)
            }
            Outcome::Ended(status) => write!(f, "`{}` failed: {status}", self.command),
        }
    }
}

impl std::error::Error for Failed {}

/// A program with its arguments, to be started in a folder.
pub(crate) struct Program {
    command: Command,
}

impl Program {
    /// The program; a bare name is looked up on PATH.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(program) }
    }

    /// The cargo that this process was started by, else the one on PATH.
    pub(crate) fn cargo() -> Self {
        let mut program = Self::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
        // What cargo tells of this crate must not leak into the build of another one.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
                || name.starts_with("CARGO_BIN_")
            {
                program.command.env_remove(name.as_ref());
            }
        }
        program
    }

    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn in_folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Runs it to its end with this process's own output.
    pub(crate) fn run(mut self) -> Result<(), Failed> {
        let status = self.command.status();
        self.judge(status)
    }

    /// Runs it to its end; what it prints goes to stderr, so that stdout holds nothing but results.
    pub(crate) fn run_quietly(mut self) -> Result<(), Failed> {
        let stderr = std::io::stderr().as_fd().try_clone_to_owned();
        let status = stderr.and_then(|stderr| self.command.stdout(Stdio::from(stderr)).status());
        self.judge(status)
    }

    /// Runs it to its end and gives what it printed on stdout.
    pub(crate) fn output(mut self) -> Result<Vec<u8>, Failed> {
        match self.command.stderr(Stdio::inherit()).output() {
            Ok(output) => self.judge(Ok(output.status)).map(|()| output.stdout),
            Err(error) => Err(self.failed(Outcome::NotStarted(error))),
        }
    }

    /// Becomes the program; comes back only with an error.
    pub(crate) fn exec(mut self) -> Failed {
        let error = self.command.exec();
        self.failed(Outcome::NotStarted(error))
    }

    /// Starts it with stdout piped and stdin empty.
    pub(crate) fn spawn_piped(mut self) -> Result<std::process::Child, Failed> {
        let child = self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        child.map_err(|error| self.failed(Outcome::NotStarted(error)))
    }

    fn judge(&self, status: std::io::Result<ExitStatus>) -> Result<(), Failed> {
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.failed(Outcome::Ended(status))),
            Err(error) => Err(self.failed(Outcome::NotStarted(error))),
        }
    }

    fn failed(&self, outcome: Outcome) -> Failed {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        Failed { command: words.join(" "), outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_named_with_its_arguments_and_its_exit_code_is_kept() {
        let failed = Program::new("sh").args(["-c", "exit 7"]).run().unwrap_err();
        assert_eq!(failed.to_string(), "`sh -c exit 7` failed: exit status: 7");
        assert_eq!(failed.exit_code(), Some(7));
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let failed = Program::new("no-such-program").run().unwrap_err();
        assert!(failed.to_string().starts_with("`no-such-program` could not be started: "), "{failed}");
        assert_eq!(failed.exit_code(), None);
    }

    #[test]
    fn output_is_what_the_program_printed() {
        assert_eq!(Program::new("echo").args(["a", "b"]).output().unwrap(), b"a b\n");
    }
}
