//! Client programs of package registries, run as they are set up on the machine, watched and stopped.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use super::error::SourceFault;
use super::progress::RecipeProgress;

/// How often the work is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Lines of a failed client's words that are shown.
const LAST_LINES: usize = 12;

/// Runs `command` to its end; gives what it wrote to stdout. `progress` is told the bytes in `folder`, where the client
/// keeps what it brings.
pub(crate) fn run(
    command: &mut Command,
    folder: &Path,
    what: &str,
    progress: &dyn RecipeProgress,
) -> Result<String, SourceFault> {
    let in_words = in_words(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            SourceFault::NoClient { programs: format!("`{}`", command.get_program().to_string_lossy()) }
        }
        _ => SourceFault::Client {
            command: in_words.clone(),
            status: "not started".into(),
            said: error.to_string(),
        },
    })?;
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let status = loop {
        if progress.is_cancelled() {
            stop(&mut child);
            return Err(SourceFault::Cancelled);
        }
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => std::thread::sleep(LOOK),
            Err(error) => {
                stop(&mut child);
                let (status, said) = ("lost".into(), error.to_string());
                return Err(SourceFault::Client { command: in_words, status, said });
            }
        }
        progress.downloading(what, bytes_in(folder));
    };
    let [stdout, stderr] = [stdout, stderr].map(|text| text.join().unwrap_or_default());
    if status.success() {
        return Ok(stdout);
    }
    let said = last_lines(&format!("{stdout}{stderr}"));
    Err(SourceFault::Client { command: in_words, status: status.to_string(), said })
}

/// Whether `command --version` answers.
pub(crate) fn answers(command: &[&str]) -> bool {
    let Some((program, arguments)) = command.split_first() else { return false };
    let mut version = Command::new(program);
    version.args(arguments).arg("--version");
    version.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

fn in_words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks gives what came before.
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).ok();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn stop(child: &mut Child) {
    // It may have ended by itself in the meantime.
    child.kill().ok();
    child.wait().ok();
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

/// Bytes of all files below `folder`; what can't be read counts nothing.
pub(crate) fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => bytes_in(&entry.path()),
        _ => entry.metadata().map_or(0, |facts| facts.len()),
    };
    entries.filter_map(Result::ok).map(size).sum()
}
