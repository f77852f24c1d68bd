//! The parent's side of a probe: starts the child, waits, and puts what happened into words.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{
    PROBE_ARGUMENT, ProbeLimits, ProbeReport,
    report::{Answer, Request},
};
use crate::text::clipped;

/// Most bytes of an answer; the graph of a network of 100,000 nodes fits.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Most bytes kept of what a pack prints.
const MAX_PRINTED_BYTES: usize = 8 << 10;
/// How long the pipes may stay open after the child has ended. Only a grandchild that left the group can hold them; on a
/// busy machine the threads that read them come to their turn late, and a good pack must not be refused for that.
const PIPE_GRACE: Duration = Duration::from_secs(5);

/// Starts probes.
#[derive(Debug, Clone)]
pub struct Prober {
    program: PathBuf,
    limits: ProbeLimits,
    /// Shared by clones.
    cancelled: Arc<AtomicBool>,
}

/// Why a pack failed its probe.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The child could not be started or watched.
    #[error("can't start the probe `{}`: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The library gave no graph; the reason in words.
    #[error("{0}")]
    Failed(String),
    /// Killed after the limit.
    #[error("it did not finish within {} ms and was stopped", .0.as_millis())]
    TimedOut(Duration),
    /// Stopped because the host ends.
    #[error("it was stopped because the host ends")]
    Cancelled,
    /// Used up its processor time.
    #[error("it used more than {0} s of processor time and was stopped")]
    CpuTime(u64),
    /// Asked for more memory than it may have.
    #[error("it ran out of memory: more than {} MiB were asked for", .limit >> 20)]
    OutOfMemory {
        /// The limit, bytes.
        limit: u64,
    },
    /// Tried to write a file.
    #[error("it tried to write to a file")]
    WroteFile,
    /// Ended the process instead of returning.
    #[error("it ended the process with exit code {code} instead of returning{printed}", printed = after(.printed))]
    Exited {
        /// The code.
        code: i32,
        /// What it had printed.
        printed: String,
    },
    /// Killed by a signal.
    #[error("it crashed with {signal}{printed}", printed = after(.printed))]
    Crashed {
        /// Name or number of the signal.
        signal: String,
        /// What it had printed.
        printed: String,
    },
    /// Threads of it were alive after its graph was built.
    #[error("it left {0} thread(s) running, so its library can't be unloaded")]
    LeavesThreads(usize),
}

fn after(printed: &str) -> String {
    if printed.is_empty() { String::new() } else { format!(", after printing: {printed}") }
}

impl Prober {
    /// A prober whose child is `program PROBE_ARGUMENT ..`: a program that calls [`super::probe_child_main`].
    pub fn new(program: impl Into<PathBuf>, limits: ProbeLimits) -> Self {
        Self { program: program.into(), limits, cancelled: Arc::default() }
    }

    /// A prober whose child is this very program, whose `main` calls [`super::probe_child_main`] first. It works even
    /// when the program's file was replaced since.
    pub fn this_program(limits: ProbeLimits) -> Self {
        Self::new("/proc/self/exe", limits)
    }

    /// Stops the probes that run and those to come, of this prober and of its clones: nobody waits for them any more.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// The limits.
    pub fn limits(&self) -> &ProbeLimits {
        &self.limits
    }

    /// Lets a child open the library, check it, build its graph with `config` (JSON) and close it; then `cycles` times
    /// more. `library` must not be a path that is replaced while the host runs.
    ///
    /// # Errors
    /// [`ProbeError`]; this process is not harmed by any of it.
    pub fn probe(&self, library: &Path, config: &str, cycles: u32) -> Result<ProbeReport, ProbeError> {
        let start_error = |source| ProbeError::Start { program: self.program.clone(), source };
        let folder = tempfile::tempdir().map_err(start_error)?;
        let request_path = folder.path().join("request.json");
        let library = library.canonicalize().map_err(start_error)?;
        let request = Request { library, config: config.to_owned(), limits: self.limits, cycles };
        let request = serde_json::to_vec(&request).map_err(|error| start_error(error.into()))?;
        fs::write(&request_path, request).map_err(start_error)?;

        let child = self.start(folder.path(), request_path.into_os_string()).map_err(start_error)?;
        let end = watch(child, self.limits.wall_time, &self.cancelled).map_err(start_error)?;
        self.judge(end)
    }

    fn start(&self, folder: &Path, request: OsString) -> io::Result<Child> {
        Command::new(&self.program)
            .arg(PROBE_ARGUMENT)
            .arg(request)
            .env_clear()
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that what it starts ends with it.
            .process_group(0)
            .spawn()
    }

    fn judge(&self, end: End) -> Result<ProbeReport, ProbeError> {
        let printed = end.printed.trim_end().to_owned();
        let Some(status) = end.status else {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(ProbeError::Cancelled);
            }
            return Err(ProbeError::TimedOut(self.limits.wall_time));
        };
        if let Some(signal) = status.signal() {
            return Err(match signal {
                libc::SIGXCPU => ProbeError::CpuTime(self.limits.cpu_seconds),
                libc::SIGKILL if end.elapsed >= Duration::from_secs(self.limits.cpu_seconds) => {
                    ProbeError::CpuTime(self.limits.cpu_seconds)
                }
                libc::SIGXFSZ => ProbeError::WroteFile,
                // What Rust's allocator says before it aborts.
                libc::SIGABRT if printed.contains("memory allocation of") => {
                    ProbeError::OutOfMemory { limit: self.limits.address_space }
                }
                signal => ProbeError::Crashed { signal: signal_name(signal), printed },
            });
        }
        let code = status.code().unwrap_or(-1);
        match serde_json::from_slice(&end.answer) {
            Ok(Answer::Built(report)) if code == 0 => {
                if report.threads_left > 0 {
                    return Err(ProbeError::LeavesThreads(report.threads_left));
                }
                Ok(ProbeReport { printed, ..*report })
            }
            Ok(Answer::Failed(reason)) if code == 0 => Err(ProbeError::Failed(reason)),
            _ => Err(ProbeError::Exited { code, printed }),
        }
    }
}

struct End {
    /// `None`: it was killed when its time was over, or when nobody waited for it any more.
    status: Option<ExitStatus>,
    answer: Vec<u8>,
    printed: String,
    elapsed: Duration,
}

fn watch(mut child: Child, wall_time: Duration, cancelled: &AtomicBool) -> io::Result<End> {
    let start = Instant::now();
    let answer = read_in_background(child.stdout.take(), MAX_ANSWER_BYTES);
    let printed = read_in_background(child.stderr.take(), MAX_PRINTED_BYTES);
    let mut pause = Duration::from_micros(200);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() >= wall_time || cancelled.load(Ordering::Relaxed) {
            break None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    };
    // Also after it ended by itself: it may have started others.
    if let Some(group) = Pid::from_raw(child.id() as i32) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    if status.is_none() {
        child.wait()?;
    }
    let answer = answer.recv_timeout(PIPE_GRACE).unwrap_or_default();
    let printed = printed.recv_timeout(PIPE_GRACE).unwrap_or_default();
    let printed = String::from_utf8_lossy(&printed);
    let printed = clipped(&printed, MAX_PRINTED_BYTES).to_owned();
    Ok(End { status, answer, printed, elapsed: start.elapsed() })
}

/// Reads to the end, so that the child never waits for a full pipe, and keeps the first `limit` bytes.
fn read_in_background(pipe: Option<impl Read + Send + 'static>, limit: usize) -> mpsc::Receiver<Vec<u8>> {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.by_ref().take(limit as u64).read_to_end(&mut kept);
            // Nobody waits any more if this fails.
            let _ = done.send(kept);
            let _ = io::copy(&mut pipe, &mut io::sink());
        }
    });
    is_done
}

fn signal_name(signal: i32) -> String {
    match signal {
        libc::SIGSEGV => "SIGSEGV (it used memory that is not its own)".to_owned(),
        libc::SIGBUS => "SIGBUS (it used memory that its file does not have)".to_owned(),
        libc::SIGABRT => "SIGABRT (it aborted)".to_owned(),
        libc::SIGILL => "SIGILL (it holds instructions that this machine does not have)".to_owned(),
        libc::SIGFPE => "SIGFPE (it divided by zero)".to_owned(),
        other => format!("signal {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(script: &str) -> End {
        let child = Command::new("/bin/sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        watch(child, Duration::from_secs(30), &AtomicBool::new(false)).unwrap()
    }

    #[test]
    fn an_answer_that_is_read_late_still_counts() {
        // Its pipes are open for a second after the child has ended, as when who reads them comes to his turn late.
        let end = watched("setsid sh -c 'sleep 1; echo answer' &\nsleep 0.3; echo printed >&2");
        assert_eq!(
            (end.status.and_then(|status| status.code()), end.printed.as_str()),
            (Some(0), "printed\n")
        );
        assert_eq!(end.answer, b"answer\n");
    }
}
