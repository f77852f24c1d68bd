//! General rows that are held at the base's own distribution.

use modularbase_trainer::{GeneralLoss, LookMetric, Metric, StepMetric, TrainConfig};

use crate::fixture::Fixture;

fn steps(metrics: &[Metric]) -> Vec<&StepMetric> {
    metrics
        .iter()
        .filter_map(|metric| if let Metric::Step(step) = metric { Some(step) } else { None })
        .collect()
}

fn looks(metrics: &[Metric]) -> Vec<&LookMetric> {
    metrics
        .iter()
        .filter_map(|metric| if let Metric::Look(look) = metric { Some(look) } else { None })
        .collect()
}

fn distilled(fixture: &Fixture, share: f64, weight: f64) -> TrainConfig {
    let mut config = fixture.mixed(share);
    config.data.general_loss = GeneralLoss::Distillation;
    config.data.general_weight = weight;
    config
}

#[test]
fn general_rows_that_are_distilled_keep_the_base_while_the_domain_is_learned() {
    let fixture = Fixture::new();
    // With a weight of 0 the way from the base is measured, and nothing is done about it.
    let free = fixture.metrics(&distilled(&fixture, 0.5, 0.0), "free");
    let held = fixture.metrics(&distilled(&fixture, 0.5, 4.0), "held");
    let learned = |metrics: &[Metric]| {
        let looks = looks(metrics);
        looks[0].loss - looks.last().unwrap().loss
    };
    let distance = |metrics: &[Metric]| {
        let last = steps(metrics).split_off(16);
        last.iter().filter_map(|step| step.divergence).sum::<f64>() / last.len() as f64
    };
    assert!(
        learned(&held) > 0.7 * learned(&free) && learned(&free) > 0.3,
        "the domain gains {} of {}",
        learned(&held),
        learned(&free)
    );
    assert!(
        distance(&held) < 0.5 * distance(&free),
        "{} nats from the base instead of {}",
        distance(&held),
        distance(&free)
    );
}

#[test]
fn a_pack_that_is_still_the_base_is_no_way_from_it() {
    let fixture = Fixture::new();
    let metrics = fixture.metrics(&distilled(&fixture, 0.5, 1.0), "run");
    let divergences: Vec<f64> = steps(&metrics).iter().filter_map(|step| step.divergence).collect();
    assert_eq!(divergences.len(), 24, "each step has general rows");
    assert!(divergences[0].abs() < 1e-6, "{}", divergences[0]);
    assert!(divergences[8..].iter().all(|divergence| *divergence > 1e-6), "{divergences:?}");
}

#[test]
fn only_general_rows_are_distilled() {
    let fixture = Fixture::new();
    // Every row is general: none learns its next token.
    let metrics = fixture.metrics(&distilled(&fixture, 1.0, 1.0), "general");
    assert!(steps(&metrics).iter().all(|step| step.loss == 0.0 && step.divergence.is_some()));
    let of = |share: f64, name: &str| fixture.metrics(&distilled(&fixture, share, 1.0), name);
    // None is: as without the setting.
    let without = fixture.metrics(&fixture.config(), "without");
    let with = of(0.0, "none");
    let losses = |metrics: &[Metric]| steps(metrics).iter().map(|step| step.loss).collect::<Vec<_>>();
    assert_eq!(losses(&with), losses(&without));
}

#[test]
fn a_weight_of_general_text_counts() {
    let fixture = Fixture::new();
    let weighted = |weight: f64, name: &str| {
        let mut config = fixture.mixed(0.5);
        config.data.general_weight = weight;
        looks(&fixture.metrics(&config, name)).last().unwrap().general_loss.unwrap()
    };
    let (light, even, heavy) = (weighted(0.1, "light"), weighted(1.0, "even"), weighted(3.0, "heavy"));
    assert!(heavy < even && even < light, "{heavy}, {even}, {light}");
}
