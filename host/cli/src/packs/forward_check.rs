//! One forward of a pack, in a child process: it may ask for more memory than there is.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use manifests::MixtureChoice;
use modularbase_engine::effect_on_hidden_states;
use serde::{Deserialize, Serialize};

use crate::model::{self, explain};
use crate::settings::Settings;
use crate::terminal::print_json;

/// The name of the hidden command that the child runs.
pub(super) const COMMAND: &str = "forward-check";

/// What the pack reads.
const TEXT: &str = "Gravity is the force by which a planet draws objects toward its centre.";

/// The child is ended after this time.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// What one forward showed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct ForwardReport {
    /// Tokens that went through.
    pub(super) tokens: usize,
    /// How far the hidden states behind the slot are from those of the base's own layers; 0 is no effect.
    pub(super) effect: f64,
    /// Device bytes of the pack's own weights.
    pub(super) resident_bytes: u64,
}

/// The child's side: loads base and pack, runs them, and prints the report.
pub(super) fn answer(dir: &Path, settings: &Settings) -> anyhow::Result<()> {
    let name = manifests::PackManifest::read(&dir.join(manifests::PACK_MANIFEST_FILE))?.pack.name;
    // A packs folder with this one pack in it.
    let packs = tempfile::tempdir().context("can't make a folder for the pack")?;
    let dir = dir.canonicalize().with_context(|| format!("can't find {}", dir.display()))?;
    std::os::unix::fs::symlink(&dir, packs.path().join("pack"))
        .context("can't make a folder for the pack")?;
    let mut settings = settings.clone();
    settings.host.packs_dir = Some(packs.path().to_path_buf());
    // A machine may be busy; a pack that is not ready in time would be left out.
    settings.host.packs.admission_wait = TIME_LIMIT;
    let model = model::load(&settings, Instant::now())?;
    let tokens = model.host.tokenizer().encode_prompt(TEXT, false).map_err(|error| explain(error.into()))?;
    let turn = model.host.turn(&MixtureChoice::Packs(vec![(name, 1.0)])).map_err(explain)?;
    if let Some(omitted) = turn.omitted().first() {
        bail!("{}", omitted.reason);
    }
    let (expert, _) = turn.mixture().parts().first().context("the mixture is empty")?;
    let effect = effect_on_hidden_states(model.host.core(), expert, &tokens)?;
    print_json(&ForwardReport {
        tokens: tokens.len(),
        effect,
        resident_bytes: expert.resident_bytes() as u64,
    })
}

/// The parent's side: starts the child and waits for its report.
pub(super) fn run(dir: &Path, settings: &Settings) -> anyhow::Result<ForwardReport> {
    let program = std::env::current_exe().context("this program's own file can't be found")?;
    let mut command = Command::new(program);
    command.args(["packs", COMMAND, "--json", "--base", &settings.host.base]);
    command.args(["--device", &settings.host.device.to_string()]);
    command.args(["--threads", &settings.host.threads.to_string()]);
    if let Some(dtype) = settings.host.dtype {
        command.args(["--dtype", dtype.name()]);
    }
    if let Some(slot) = settings.slot {
        command.args(["--slot", &format!("{}..{}", slot.start(), slot.end())]);
    }
    command.arg(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("can't start a child process")?;
    let (stdout, stderr) = (read_all(child.stdout.take()), read_all(child.stderr.take()));
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().context("can't wait for the child process")? {
            break status;
        }
        if begin.elapsed() > TIME_LIMIT {
            child.kill().and_then(|()| child.wait()).context("can't end the child process")?;
            bail!("it did not finish within {} s", TIME_LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr);
        let said = said.trim().strip_prefix("error: ").unwrap_or(said.trim()).replace("\n  ", "; ");
        bail!("{}", if said.is_empty() { status.to_string() } else { said });
    }
    serde_json::from_slice(&stdout).context("can't read the child's report")
}

/// Reads a pipe to its end beside the main thread, so that the child never waits for a reader.
fn read_all(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before a failure is still worth showing.
            pipe.read_to_end(&mut bytes).ok();
        }
        bytes
    })
}
