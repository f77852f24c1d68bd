//! How well a base, packs, mixtures of them and whole trained models predict held-out text.
//!
//! An [`Evaluator`] has columns: the base, each pack alone, mixtures, baselines. It computes the hidden states in front
//! of the slot once a batch, every expert once, and then each column; so all columns see the very same windows. What
//! comes out is the loss of each document ([`DocumentScore`]): [`TextResult`] adds them up with intervals from a
//! bootstrap over documents.

mod bootstrap;
mod document_score;
mod evaluator;
mod pack_weights;
mod record;
mod results;
mod samples;
mod slot_expert;
mod whole_model;
mod window_choice;

pub use bootstrap::{Estimate, Resamples};
pub use document_score::DocumentScore;
pub use evaluator::{Evaluator, ScoreOptions};
pub use pack_weights::{DeltaRounding, pack_weights};
pub use record::{BaseFacts, ColumnFacts, ColumnType, Evaluation, PackFacts, SettingsFacts, own_column};
pub use results::{BootstrapOptions, ColumnFigures, DomainResult, MeanResult, OwnGain, TextResult};
pub use samples::{Continuation, Sample, SampleOptions};
pub use slot_expert::SlotExpert;
pub use whole_model::WholeModel;
pub(crate) use whole_model::{LORA_A, LORA_B, LORA_SCALE_KEY};
