//! What packs are compared with: a base that is trained as a whole, or by LoRA on every linear layer, on the same text
//! with the same loop. Neither is a pack: nothing of it can be dropped into a folder.

mod full_model;
mod lora_model;
mod whole_base;

use std::path::Path;

pub use full_model::FullModel;
pub use lora_model::{LoraModel, LoraOptions};

use crate::{Checkpoint, TrainError, TrainedModel};

/// One of the baselines.
pub enum Baseline {
    /// Every weight is trained.
    Full(FullModel),
    /// Low-rank sums beside every linear layer are.
    Lora(LoraModel),
}

impl Baseline {
    /// What a run trains.
    pub fn model(&self) -> &dyn TrainedModel {
        match self {
            Self::Full(model) => model,
            Self::Lora(model) => model,
        }
    }

    /// Writes a checkpoint's weights for evaluation; gives the file's bytes.
    ///
    /// # Errors
    /// A full disk, say.
    pub fn write(&self, checkpoint: &Checkpoint, path: &Path) -> Result<u64, TrainError> {
        match self {
            Self::Full(model) => model.write(&checkpoint.weights, path),
            Self::Lora(model) => model.write(&checkpoint.weights, path),
        }
    }
}
