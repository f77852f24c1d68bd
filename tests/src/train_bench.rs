//! What a step of training a pack costs on the CPU, part by part: the base in front of the slot, the pack with the layers
//! behind it and the head, the way back, the update.
//!
//! The pack is the slot's own layers, every weight of which is trained; tokens are drawn at random, which changes no time.
//! Measurements are no tests: they depend on the machine, and nothing fails by them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use candle_core::{Device, Tensor};
use modularbase_core::BaseFile;
use modularbase_gradients::{AdamW, AdamWConfig, Parameter, backward, cross_entropy};
use modularbase_graph::{CheckedGraph, Graph, infer_shapes};
use modularbase_trainer::{Batch, Compute, PackModel, TrainedModel, TrainingBase};
use pack_sdk::base_graphs;
use serde_json::{Value, json};

use crate::Base;

/// Logits that are held at once, in rows: as a run has it.
const HEAD_ROWS: usize = modularbase_trainer::HEAD_ROWS;

/// What is measured, and how often.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "train_bench", about = "A step of training a pack on the CPU, as JSON.")]
pub struct Settings {
    /// Sequences of a step.
    #[arg(long, default_value_t = 4)]
    pub rows: usize,
    /// Tokens of each.
    #[arg(long, default_value_t = 256)]
    pub length: usize,
    /// Steps that are measured, after one that is not; medians are reported.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
}

/// How long the parts of a step took.
struct Step {
    base: Duration,
    forward: Duration,
    backward: Duration,
    update: Duration,
}

impl Step {
    fn whole(&self) -> Duration {
        self.base + self.forward + self.backward + self.update
    }
}

/// Trains some steps and tells what they cost.
///
/// # Panics
/// Where it can't be set up.
pub fn run(settings: &Settings) -> Value {
    let base = if Base::Real.is_there() { Base::Real } else { Base::Tiny };
    let (shape, slot) = base.shape();
    let file = BaseFile::open(base.path()).expect("the base");
    let frozen = Arc::new(TrainingBase::load(file, slot, Compute::cpu()).expect("the base"));
    let layers: CheckedGraph = infer_shapes(
        Graph::from_abi(&base_graphs::layers(&shape, slot.layers())).expect("the slot's own layers"),
    )
    .expect("shapes");
    let model = PackModel::new(Arc::clone(&frozen), layers, 1).expect("a pack");
    let parameters = model.parameters().iter().map(|(name, var)| Parameter::new(name, var.clone()));
    let mut optimizer = AdamW::new(parameters.collect(), AdamWConfig::default()).expect("an optimizer");
    let batch = Batch { sequences: settings.rows, length: settings.length };
    let tokens = |offset: usize| {
        let vocabulary = shape.vocab_size as u32;
        let ids =
            (0..batch.rows()).map(|row| ((row + offset) as u32).wrapping_mul(2_654_435_761) % vocabulary);
        Tensor::from_vec(ids.collect(), batch.rows(), &Device::Cpu).expect("ids")
    };
    let (ids, targets) = (tokens(0), tokens(1));
    let counts = Tensor::ones(batch.rows(), candle_core::DType::F32, &Device::Cpu).expect("a mask");
    let mut step = || {
        let weights = model.weights(None).expect("weights");
        let begun = Instant::now();
        let before = frozen.before_slot(&ids, batch).expect("hidden states");
        let at_slot = Instant::now();
        let inside = model.expert(&before, batch, &weights).expect("hidden states");
        let hidden = frozen.behind_slot(&inside, batch).expect("hidden states");
        let head = model.head(&weights);
        let loss = cross_entropy(&hidden, &head, &targets, &counts, HEAD_ROWS).expect("a loss");
        let at_loss = Instant::now();
        let gradients = backward(&loss).expect("gradients");
        let at_gradients = Instant::now();
        optimizer.step(&gradients, 1e-5, Some(1.0)).expect("a step");
        Step {
            base: at_slot - begun,
            forward: at_loss - at_slot,
            backward: at_gradients - at_loss,
            update: at_gradients.elapsed(),
        }
    };
    step();
    let steps: Vec<Step> = (0..settings.rounds.max(1)).map(|_| step()).collect();
    let millis = |part: fn(&Step) -> Duration| {
        let mut times: Vec<f64> = steps.iter().map(|step| part(step).as_secs_f64() * 1e3).collect();
        times.sort_unstable_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let whole = millis(Step::whole);
    json!({
        "base": base.name(),
        "slot": [slot.start, slot.end],
        "layers": shape.num_layers,
        "trained_parameters": model.parameters().elements(),
        "rows": settings.rows,
        "length": settings.length,
        "steps": steps.len(),
        "tokens_per_s": batch.rows() as f64 / whole * 1e3,
        "step_ms": whole,
        "parts_ms": {
            "base_forward": millis(|step| step.base),
            "pack_fusion_and_head_forward": millis(|step| step.forward),
            "backward": millis(|step| step.backward),
            "adamw": millis(|step| step.update),
        },
    })
}
