//! How runs end: early, without numbers, and what they leave.

use std::sync::atomic::AtomicBool;

use modularbase_deltas::DeltaFormat;
use modularbase_trainer::{Ending, Metric, TrainError, checkpoints_of};

use crate::fixture::Fixture;

#[test]
fn early_stopping_does_not_end_a_run_before_its_quantized_steps() {
    let fixture = Fixture::new();
    let mut config = fixture.config();
    // Text of which nothing is learned: no look is better than the first.
    config.data.validation = config.data.general_validation.clone();
    config.optimizer.learning_rate = 0.1;
    config.steps = 40;
    config.quantization.format = Some(DeltaFormat::Q2);
    config.quantization.steps = 4;
    config.evaluation.every = 2;
    config.evaluation.patience = 1;
    let metrics = fixture.metrics(&config, "run");
    let steps: Vec<u64> = metrics
        .iter()
        .filter_map(|metric| if let Metric::Step(step) = metric { Some(step.step) } else { None })
        .collect();
    assert!(steps.len() < 40, "it was ended early: {} steps", steps.len());
    let last_look = metrics.iter().rev().find_map(|metric| match metric {
        Metric::Look(look) => Some(look),
        Metric::Step(_) => None,
    });
    assert!(last_look.unwrap().quantized, "the weights that ship were looked at as they ship");
    let quantized = steps.iter().filter(|step| **step > 36).count();
    assert!(quantized >= 2, "steps {steps:?} should hold quantized ones");

    config.quantization.format = None;
    config.quantization.steps = 0;
    let ending = fixture.train(&config, "plain", &AtomicBool::new(false)).unwrap();
    assert!(matches!(ending, Ending::Finished { step, .. } if step < 40), "{ending:?}");
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_leaves_the_checkpoint_before_it() {
    let fixture = Fixture::new();
    let mut config = fixture.config();
    config.checkpoints.every = 1;
    config.optimizer.clip = 0.0;
    config.optimizer.learning_rate = 1e38;
    config.optimizer.warmup = 20;
    let error = fixture.train(&config, "run", &AtomicBool::new(false)).unwrap_err();
    let TrainError::NotFinite { step, .. } = &error else { panic!("{error}") };
    assert!(error.to_string().contains("checkpoint"), "{error}");
    let last = checkpoints_of(&fixture.folder.path().join("run")).last().unwrap().unwrap();
    assert_eq!(last.state.step, *step, "the state in front of the step that failed");
}
