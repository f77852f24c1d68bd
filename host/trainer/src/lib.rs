//! The second executor of pack graphs: training, quantization, evaluation, routing keys.
//!
//! A [`Network`] runs the graph that serves, batch by batch and with gradients; a [`TrainedModel`] puts such networks
//! together to something that has a loss; a [`Run`] trains it. Nothing of a pack's code is needed for any of it.
//!
//! Everywhere, rows are `[sequences * length, width]`, sequence after sequence, all of one length.
//!
//! *Deliberately not here*: terminals, arguments, fetching data; operators' gradients (`modularbase-gradients`).

#![forbid(unsafe_code)]

pub mod baseline;
mod checkpoint;
mod compute;
mod config;
mod config_template;
mod data_card;
mod encoder;
mod error;
pub mod evaluation;
mod initial_values;
mod model;
mod network;
mod new_base;
mod pack_model;
mod parameters;
mod quantizer;
pub mod report;
pub mod routing;
mod run;
mod run_folder;
mod schedule;
mod shipped_weights;
mod tensorboard;
mod text_batch;
mod text_loss;
mod training_base;
mod training_text;

pub use checkpoint::{Best, Checkpoint, CheckpointFolder, RunState};
pub use compute::{Batch, Compute};
pub use config::{
    BatchConfig, CheckpointConfig, DataConfig, EvaluationConfig, FinishConfig, GeneralLoss, OptimizerConfig,
    QuantizationConfig, ScheduleKind, TrainConfig,
};
pub use data_card::{DataCard, TextRole};
pub use encoder::BaseEncoder;
pub use error::TrainError;
pub use initial_values::initial_values;
pub use model::{HEAD_ROWS, TrainedModel};
pub use network::{Network, NetworkInput, WeightValues};
pub use new_base::{BaseRecipe, BaseSizes, TokenizerKind, TokenizerRecipe, create_base, write_base};
pub use pack_model::PackModel;
pub use parameters::Parameters;
pub use quantizer::Quantizer;
pub use run::{Ending, Run, RunObserver, deltas};
pub use run_folder::{LookMetric, Metric, StepMetric, checkpoints_of, read_metrics};
pub use schedule::learning_rate;
pub use shipped_weights::ShippedWeights;
pub use text_batch::TextBatch;
pub use text_loss::{base_text_loss, text_loss};
pub use training_base::TrainingBase;
pub use training_text::{TextSource, TrainingText, ValidationText};
