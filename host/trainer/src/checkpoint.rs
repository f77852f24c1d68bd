//! Checkpoints: everything a run needs to go on with the same numbers.
//!
//! A checkpoint is a folder `step-000100` with `weights.safetensors` (masters, f32), `moments.safetensors` (AdamW's
//! state) and `state.json`. It is written beside and renamed, so that a folder of that name is whole.
//! The order of the text depends on seed and step alone and needs no place here.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use manifests::Sha256;
use serde::{Deserialize, Serialize};

use crate::TrainError;

const WEIGHTS: &str = "weights.safetensors";
const MOMENTS: &str = "moments.safetensors";
const STATE: &str = "state.json";

/// Where a run stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Steps taken.
    pub step: u64,
    /// Tokens that counted for a loss.
    pub tokens: u64,
    /// Time spent training, s.
    pub seconds: f64,
    /// SHA-256 over settings, text and graph: what the numbers depend on.
    pub fingerprint: String,
    /// The look at the validation text with the lowest loss.
    #[serde(default)]
    pub best: Option<Best>,
    /// Looks since then.
    pub looks_without_better: u64,
    /// Levels of the quantizer by weight, from the first quantized step on.
    #[serde(default)]
    pub levels: BTreeMap<String, Vec<f32>>,
}

/// The best look at the validation text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// After this many steps.
    pub step: u64,
    /// Nats a token.
    pub loss: f64,
}

/// A state with its tensors in host memory.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Where the run stands.
    pub state: RunState,
    /// Master weights.
    pub weights: BTreeMap<String, Tensor>,
    /// State of the optimizer, by its own names.
    pub moments: HashMap<String, Tensor>,
}

/// The checkpoints of a run in one folder.
#[derive(Debug, Clone)]
pub struct CheckpointFolder {
    path: PathBuf,
}

impl CheckpointFolder {
    /// The folder at `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a checkpoint and then removes older ones: one whole checkpoint is there at any moment.
    ///
    /// # Errors
    /// A full disk, say; the older ones stay as they were.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<PathBuf, TrainError> {
        let name = format!("step-{:06}", checkpoint.state.step);
        let path = self.write(&name, checkpoint)?;
        for (step, older) in self.steps()? {
            if step < checkpoint.state.step {
                fs::remove_dir_all(&older).map_err(TrainError::file("remove", older))?;
            }
        }
        Ok(path)
    }

    /// Writes the checkpoint `name`, replacing one of that name.
    ///
    /// # Errors
    /// As [`CheckpointFolder::save`].
    pub fn write(&self, name: &str, checkpoint: &Checkpoint) -> Result<PathBuf, TrainError> {
        fs::create_dir_all(&self.path).map_err(TrainError::file("create", &self.path))?;
        let staging = tempfile::Builder::new()
            .prefix(".unfinished-")
            .tempdir_in(&self.path)
            .map_err(TrainError::file("create a folder in", &self.path))?;
        write_tensors(&staging.path().join(WEIGHTS), &checkpoint.weights)?;
        write_tensors(&staging.path().join(MOMENTS), &checkpoint.moments)?;
        let state = staging.path().join(STATE);
        let text = serde_json::to_vec_pretty(&checkpoint.state)
            .map_err(|error| TrainError::checkpoint(format!("its state is no JSON: {error}")))?;
        fs::write(&state, text).and_then(|()| sync(&state)).map_err(TrainError::file("write", &state))?;
        let path = self.path.join(name);
        if path.exists() {
            fs::remove_dir_all(&path).map_err(TrainError::file("replace", &path))?;
        }
        fs::rename(staging.keep(), &path).map_err(TrainError::file("rename to", &path))?;
        sync(&self.path).map_err(TrainError::file("write", &self.path))?;
        Ok(path)
    }

    /// The last checkpoint; `None` where there is none.
    ///
    /// # Errors
    /// One that is damaged.
    pub fn last(&self) -> Result<Option<Checkpoint>, TrainError> {
        self.sweep()?;
        match self.steps()?.into_iter().max() {
            Some((_, path)) => read(&path).map(Some),
            None => Ok(None),
        }
    }

    /// The checkpoint `name`; `None` where there is none.
    ///
    /// # Errors
    /// One that is damaged.
    pub fn named(&self, name: &str) -> Result<Option<Checkpoint>, TrainError> {
        let path = self.path.join(name);
        if path.exists() { read(&path).map(Some) } else { Ok(None) }
    }

    /// Removes what a run left that was killed while it wrote.
    fn sweep(&self) -> Result<(), TrainError> {
        for path in self.entries()? {
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".unfinished-")) {
                fs::remove_dir_all(&path).map_err(TrainError::file("remove", path))?;
            }
        }
        Ok(())
    }

    fn steps(&self) -> Result<Vec<(u64, PathBuf)>, TrainError> {
        let step = |path: &PathBuf| -> Option<u64> {
            path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
        };
        Ok(self.entries()?.into_iter().filter_map(|path| Some((step(&path)?, path))).collect())
    }

    fn entries(&self) -> Result<Vec<PathBuf>, TrainError> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(TrainError::file("read", &self.path)(error)),
        };
        entries
            .map(|entry| entry.map(|entry| entry.path()).map_err(TrainError::file("read", &self.path)))
            .collect()
    }
}

fn read(path: &Path) -> Result<Checkpoint, TrainError> {
    let state = path.join(STATE);
    let bytes = fs::read(&state).map_err(TrainError::file("read", &state))?;
    let damaged = |file: &Path, reason: String| {
        TrainError::checkpoint(format!(
            "{}: {reason}; remove {} to go on from an older one or from the start",
            file.display(),
            path.display()
        ))
    };
    let state = serde_json::from_slice(&bytes).map_err(|error| damaged(&state, error.to_string()))?;
    let tensors = |name: &str| -> Result<HashMap<String, Tensor>, TrainError> {
        let file = path.join(name);
        let tensors = candle_core::safetensors::load(&file, &Device::Cpu);
        tensors.map_err(|error| damaged(&file, error.to_string()))
    };
    Ok(Checkpoint { state, weights: tensors(WEIGHTS)?.into_iter().collect(), moments: tensors(MOMENTS)? })
}

fn write_tensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>,
) -> Result<(), TrainError> {
    let tensors: HashMap<&str, Tensor> =
        tensors.into_iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
    candle_core::safetensors::save(&tensors, path).map_err(|error| match error {
        candle_core::Error::Io(source) => TrainError::file("write", path)(source),
        other => TrainError::file("write", path)(std::io::Error::other(other.to_string())),
    })?;
    sync(path).map_err(TrainError::file("write", path))
}

fn sync(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// SHA-256 over parts, each with its length, in hexadecimal digits.
pub(crate) fn digest(parts: &[&[u8]]) -> String {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    Sha256::of_bytes(&bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(step: u64) -> Checkpoint {
        let tensor = Tensor::new(&[step as f32, 0.1, -3.0], &Device::Cpu).unwrap();
        Checkpoint {
            state: RunState { step, tokens: 7, fingerprint: "f".into(), ..RunState::default() },
            weights: [("a".to_owned(), tensor.clone())].into(),
            moments: [("a.m".to_owned(), tensor)].into(),
        }
    }

    #[test]
    fn the_last_checkpoint_comes_back_to_the_bit_and_older_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointFolder::new(folder.path().join("run"));
        assert!(checkpoints.last().unwrap().is_none());
        checkpoints.save(&checkpoint(5)).unwrap();
        checkpoints.save(&checkpoint(10)).unwrap();
        let last = checkpoints.last().unwrap().unwrap();
        assert_eq!(last.state, checkpoint(10).state);
        assert_eq!(last.weights["a"].to_vec1::<f32>().unwrap(), [10.0, 0.1, -3.0]);
        assert_eq!(fs::read_dir(checkpoints.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_run_left_unfinished_is_swept_and_never_read() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointFolder::new(folder.path());
        checkpoints.save(&checkpoint(5)).unwrap();
        let unfinished = folder.path().join(".unfinished-x");
        fs::create_dir(&unfinished).unwrap();
        fs::write(unfinished.join(WEIGHTS), b"half").unwrap();
        assert_eq!(checkpoints.last().unwrap().unwrap().state.step, 5);
        assert!(!unfinished.exists());
    }

    #[test]
    fn a_damaged_checkpoint_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointFolder::new(folder.path());
        let path = checkpoints.save(&checkpoint(5)).unwrap();
        fs::write(path.join(MOMENTS), b"half").unwrap();
        let message = checkpoints.last().unwrap_err().to_string();
        assert!(message.contains(MOMENTS) && message.contains("remove"), "{message}");
    }

    #[test]
    fn a_checkpoint_that_can_not_be_written_leaves_the_one_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointFolder::new(folder.path());
        checkpoints.save(&checkpoint(5)).unwrap();
        // A file where the folder should be made: writing fails for every user, root too.
        let blocked = CheckpointFolder::new(folder.path().join("step-000005").join(STATE));
        assert!(blocked.save(&checkpoint(6)).is_err());
        assert_eq!(checkpoints.last().unwrap().unwrap().state.step, 5);
    }
}
