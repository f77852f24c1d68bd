//! The second executor of pack graphs: training, quantization, evaluation, routing keys.
//!
//! A [`Network`] runs the graph that serves, batch by batch and with gradients; a [`TrainedModel`] puts such networks
//! together to something that has a loss; a [`Run`] trains it. Nothing of a pack's code is needed for any of it.
//!
//! Everywhere, rows are `[sequences * length, width]`, sequence after sequence, all of one length.
//!
//! *Deliberately not here*: terminals, arguments, fetching data; operators' gradients (`modularbase-gradients`).

#![forbid(unsafe_code)]

mod checkpoint;
mod compute;
mod config;
mod encoder;
mod error;
mod initial_values;
mod model;
mod network;
mod pack_model;
mod parameters;
mod quantizer;
mod schedule;
mod tensorboard;
mod training_base;

pub use checkpoint::{Best, Checkpoint, CheckpointFolder, RunState};
pub use compute::{Batch, Compute};
pub use config::{
    BatchConfig, CheckpointConfig, DataConfig, EvaluationConfig, OptimizerConfig, QuantizationConfig,
    ScheduleKind, TrainConfig,
};
pub use encoder::BaseEncoder;
pub use error::TrainError;
pub use initial_values::initial_values;
pub use model::{TextBatch, TrainedModel};
pub use network::{Network, NetworkInput, WeightValue, WeightValues};
pub use pack_model::PackModel;
pub use parameters::Parameters;
pub use quantizer::Quantizer;
pub use schedule::learning_rate;
pub use training_base::TrainingBase;
