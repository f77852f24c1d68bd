//! The folder of a run: settings, metrics, checkpoints.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{CheckpointFolder, TrainConfig, TrainError, tensorboard::EventFile};

const METRICS: &str = "metrics.jsonl";
const CONFIG: &str = "config.toml";

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Metric {
    /// A step was taken.
    Step(StepMetric),
    /// The validation text was looked at.
    Look(LookMetric),
}

/// What a step gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepMetric {
    /// Steps taken, this one included.
    pub step: u64,
    /// Nats a token before the step, of the rows that learn their next token.
    pub loss: f64,
    /// Nats a token from the base before the step, of the rows that are to stay at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<f64>,
    /// Global norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// Targets a second, of this step.
    pub tokens_per_second: f64,
    /// Time spent training so far, s.
    pub seconds: f64,
}

/// What a look at the validation text gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LookMetric {
    /// Steps taken.
    pub step: u64,
    /// Nats a token on the domain's validation text.
    pub loss: f64,
    /// Nats a token on general text, where the run has some to look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub general_loss: Option<f64>,
    /// Whether the weights were quantized.
    pub quantized: bool,
}

impl Metric {
    fn step(&self) -> u64 {
        match self {
            Self::Step(step) => step.step,
            Self::Look(look) => look.step,
        }
    }
}

/// A run's folder, open for writing.
pub struct RunFolder {
    path: PathBuf,
    metrics: File,
    events: EventFile,
}

impl RunFolder {
    /// Makes or opens the folder of a run that has taken `step` steps: later lines of its metrics are dropped, since
    /// their steps are taken again.
    ///
    /// # Errors
    /// A folder that can't be written.
    pub fn open(path: &Path, config: &TrainConfig, step: u64) -> Result<Self, TrainError> {
        fs::create_dir_all(path).map_err(TrainError::file("create", path))?;
        let file = path.join(CONFIG);
        manifests::write_atomically(&file, config.to_toml().as_bytes())
            .map_err(TrainError::file("write", &file))?;
        let file = path.join(METRICS);
        let mut kept = String::new();
        for metric in read_metrics(path)?.iter().filter(|metric| metric.step() <= step && step > 0) {
            kept.push_str(&line(metric));
        }
        manifests::write_atomically(&file, kept.as_bytes()).map_err(TrainError::file("write", &file))?;
        let metrics =
            OpenOptions::new().append(true).open(&file).map_err(TrainError::file("write", &file))?;
        let events = path.join("tensorboard");
        fs::create_dir_all(&events).map_err(TrainError::file("create", &events))?;
        let events = EventFile::create(&events, wall_time())?;
        Ok(Self { path: path.to_path_buf(), metrics, events })
    }

    /// Adds a line to the metrics and values to the event file.
    ///
    /// # Errors
    /// A full disk, say.
    pub fn record(&mut self, metric: &Metric) -> Result<(), TrainError> {
        let file = self.path.join(METRICS);
        self.metrics.write_all(line(metric).as_bytes()).map_err(TrainError::file("write", file))?;
        let values = match metric {
            Metric::Step(step) => {
                let divergence = step.divergence.map(|divergence| ("train/divergence", divergence));
                let always = [
                    ("train/loss", step.loss),
                    ("train/gradient_norm", step.gradient_norm),
                    ("train/learning_rate", step.learning_rate),
                    ("train/tokens_per_second", step.tokens_per_second),
                ];
                always.into_iter().chain(divergence).collect::<Vec<_>>()
            }
            Metric::Look(look) => {
                let general = look.general_loss.map(|loss| ("validation/general_loss", loss));
                std::iter::once(("validation/loss", look.loss)).chain(general).collect()
            }
        };
        for (tag, value) in values {
            self.events.scalar(tag, metric.step(), value, wall_time())?;
        }
        Ok(())
    }
}

/// The checkpoints of the run in `path`.
pub fn checkpoints_of(path: &Path) -> CheckpointFolder {
    CheckpointFolder::new(path.join("checkpoints"))
}

/// All metrics of the run in `path`; none where there is no run. The line that a killed run left half is left out.
///
/// # Errors
/// A file that can't be read.
pub fn read_metrics(path: &Path) -> Result<Vec<Metric>, TrainError> {
    let file = path.join(METRICS);
    match fs::read_to_string(&file) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(TrainError::file("read", file)(error)),
    }
}

fn line(metric: &Metric) -> String {
    // Structs of numbers: JSON has a place for each.
    serde_json::to_string(metric).map(|line| line + "\n").unwrap_or_default()
}

/// Seconds since 1970.
fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
