//! Detectors from labelled prompts: one binary classifier a pack, trained against everything that is not its own.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::{AdamW, Linear, Module, Optimizer, ParamsAdamW, VarBuilder, VarMap, linear, ops::dropout};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use router::Detector;

use crate::TrainError;

/// A prompt as the router sees it, and the packs that it wants.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledFeature {
    /// The intent feature, `[2 * hidden]`.
    pub feature: Vec<f32>,
    /// Names of the packs it wants, in order; none for general prompts.
    pub packs: Vec<String>,
    /// How much it counts.
    pub weight: f32,
}

/// How a detector is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectorOptions {
    /// Units of the hidden layer.
    pub units: usize,
    /// Steps of AdamW.
    pub steps: usize,
    /// Prompts of a step; a quarter of them want the pack.
    pub rows: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Share of the feature's values that a step does without.
    pub dropout: f32,
    /// What all choices follow from.
    pub seed: u64,
}

impl Default for DetectorOptions {
    fn default() -> Self {
        Self { units: 32, steps: 600, rows: 512, learning_rate: 4e-3, dropout: 0.4, seed: 1 }
    }
}

/// Labels are softened by so much: nothing is ever quite certain.
const SMOOTHING: f32 = 0.02;

/// The detector of a pack. `share` tells what share of prompts wants it where it will be used: the logit is shifted from
/// the quarter of the training batches to it (Saerens, Latinne and Decaestecker 2002, eq. 4).
///
/// # Errors
/// No prompt that wants the pack, none that does not, features of several widths.
pub fn train_detector(
    pack: &str,
    prompts: &[LabelledFeature],
    share: f64,
    options: DetectorOptions,
) -> Result<Detector, TrainError> {
    let width = prompts.first().map_or(0, |prompt| prompt.feature.len());
    if prompts.iter().any(|prompt| prompt.feature.len() != width || width == 0) {
        return Err(TrainError::evaluation("the features of the prompts have several widths"));
    }
    let wants = |index: &usize| prompts[*index].packs.iter().any(|name| name == pack);
    let (own, others): (Vec<usize>, Vec<usize>) = (0..prompts.len()).partition(wants);
    if own.is_empty() || others.is_empty() {
        let (own, others) = (own.len(), others.len());
        return Err(TrainError::evaluation(format!(
            "the detector of `{pack}` needs prompts that want it and prompts that don't, found {own} and {others}"
        )));
    }
    let device = Device::Cpu;
    let (mean, deviation) = standards(prompts, width);
    let own = Draw::new(prompts, own);
    let others = Draw::new(prompts, others);
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);

    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &device);
    let first = linear(width, options.units, builder.pp("hidden"))?;
    let second = linear(options.units, 1, builder.pp("output"))?;
    set_start(&first, &second, &mut random, &variables)?;
    let settings = ParamsAdamW { lr: options.learning_rate, weight_decay: 0.1, ..ParamsAdamW::default() };
    let mut optimizer = AdamW::new(variables.all_vars(), settings)?;
    let own_rows = (options.rows / 4).max(1);
    for step in 0..options.steps {
        let warm_up = (step + 1) as f64 / 30.0;
        let left = 1.0 - step as f64 / options.steps as f64;
        optimizer.set_learning_rate(options.learning_rate * warm_up.min(1.0) * left);
        let mut values = Vec::with_capacity(options.rows * width);
        let mut wanted = Vec::with_capacity(options.rows);
        for row in 0..options.rows {
            let (draw, label) = if row < own_rows { (&own, 1.0) } else { (&others, 0.0) };
            let feature = &prompts[draw.next(&mut random)].feature;
            let standard = feature.iter().zip(&mean).zip(&deviation);
            values.extend(standard.map(|((value, mean), deviation)| {
                let keep = (random.next_u32() >> 8) as f32 / (1_u32 << 24) as f32 >= options.dropout;
                if keep { (value - mean) / deviation / (1.0 - options.dropout) } else { 0.0 }
            }));
            wanted.push(label * (1.0 - 2.0 * SMOOTHING) + SMOOTHING);
        }
        let x = Tensor::from_vec(values, (options.rows, width), &device)?;
        let wanted = Tensor::from_vec(wanted, options.rows, &device)?;
        let inner = dropout(&first.forward(&x)?.relu()?, options.dropout / 2.0)?;
        let logits = second.forward(&inner)?.squeeze(D::Minus1)?;
        optimizer.backward_step(&cross_entropy(&logits, &wanted)?)?;
    }
    folded(&first, &second, &mean, &deviation, shift(own_rows as f64 / options.rows as f64, share))
}

/// The mean binary cross entropy, from logits: `max(x, 0) - x z + ln(1 + exp(-|x|))`, which no logit is too large for.
fn cross_entropy(logits: &Tensor, wanted: &Tensor) -> candle_core::Result<Tensor> {
    let far = (logits.abs()?.neg()?.exp()? + 1.0)?.log()?;
    ((logits.relu()? - (logits * wanted)?)? + far)?.mean_all()
}

/// What is added to a logit when the share of prompts that want the pack changes from `trained` to `used`.
fn shift(trained: f64, used: f64) -> f32 {
    let odds = |share: f64| (share / (1.0 - share)).ln();
    (odds(used.clamp(1e-6, 1.0 - 1e-6)) - odds(trained)) as f32
}

/// Mean and deviation of every value of the features.
fn standards(prompts: &[LabelledFeature], width: usize) -> (Vec<f32>, Vec<f32>) {
    let count = prompts.len() as f64;
    let (mut sums, mut squares) = (vec![0.0_f64; width], vec![0.0_f64; width]);
    for prompt in prompts {
        for ((sum, square), value) in sums.iter_mut().zip(&mut squares).zip(&prompt.feature) {
            *sum += f64::from(*value);
            *square += f64::from(*value) * f64::from(*value);
        }
    }
    let deviation = |(sum, square): (&f64, &f64)| {
        let mean = sum / count;
        ((square / count - mean * mean).max(0.0).sqrt() as f32).max(1e-4)
    };
    let deviations = sums.iter().zip(&squares).map(deviation).collect();
    (sums.iter().map(|sum| (sum / count) as f32).collect(), deviations)
}

/// Draws prompts by weight; labels that many prompts have count by the root of their number.
struct Draw {
    prompts: Vec<usize>,
    /// Running sums of the weights.
    sums: Vec<f64>,
}

impl Draw {
    fn new(all: &[LabelledFeature], prompts: Vec<usize>) -> Self {
        let mut labels: HashMap<&[String], f64> = HashMap::new();
        for &index in &prompts {
            *labels.entry(&all[index].packs).or_default() += f64::from(all[index].weight);
        }
        let mut sum = 0.0;
        let mut running = |index: &usize| {
            sum += f64::from(all[*index].weight) / labels[all[*index].packs.as_slice()].sqrt();
            sum
        };
        let sums = prompts.iter().map(&mut running).collect();
        Self { prompts, sums }
    }

    fn next(&self, random: &mut ChaCha8Rng) -> usize {
        let uniform = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let at = uniform * self.sums.last().copied().unwrap_or(0.0);
        let place = self.sums.partition_point(|sum| *sum <= at);
        self.prompts[place.min(self.prompts.len() - 1)]
    }
}

/// Starts from the seed's own numbers, uniform within the root of one by the inputs.
fn set_start(
    first: &Linear,
    second: &Linear,
    random: &mut ChaCha8Rng,
    variables: &VarMap,
) -> Result<(), TrainError> {
    let known = variables.data().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for (name, layer) in [("hidden", first), ("output", second)] {
        let bound = 1.0 / (layer.weight().dim(1)? as f32).sqrt();
        for part in ["weight", "bias"] {
            let Some(variable) = known.get(&format!("{name}.{part}")) else { continue };
            let values: Vec<f32> = (0..variable.elem_count())
                .map(|_| ((random.next_u32() >> 8) as f32 / (1_u32 << 23) as f32 - 1.0) * bound)
                .collect();
            variable.set(&Tensor::from_vec(values, variable.shape(), &Device::Cpu)?)?;
        }
    }
    Ok(())
}

/// The layers as one detector of plain features: the standardization goes into the first layer.
fn folded(
    first: &Linear,
    second: &Linear,
    mean: &[f32],
    deviation: &[f32],
    shift: f32,
) -> Result<Detector, TrainError> {
    let bias = |layer: &Linear| -> Result<Vec<f32>, TrainError> {
        let found = layer.bias().map(|bias| bias.to_vec1::<f32>()).transpose()?;
        found.ok_or_else(|| TrainError::evaluation("a layer of the detector has no bias"))
    };
    let mut hidden = Vec::new();
    let mut hidden_bias = bias(first)?;
    for (row, bias) in first.weight().to_vec2::<f32>()?.iter().zip(&mut hidden_bias) {
        for ((weight, mean), deviation) in row.iter().zip(mean).zip(deviation) {
            hidden.push(weight / deviation);
            *bias -= weight * mean / deviation;
        }
    }
    let output = second.weight().flatten_all()?.to_vec1()?;
    let output_bias = bias(second)?.iter().sum::<f32>() + shift;
    Ok(Detector { hidden, hidden_bias, output, output_bias })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prompts of two packs and of none, told apart by their first values.
    fn prompts() -> Vec<LabelledFeature> {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut noise = || (random.next_u32() >> 8) as f32 / (1_u32 << 24) as f32 - 0.5;
        (0..300)
            .map(|at| {
                let kind = at % 3;
                let feature =
                    (0..8).map(|column| 5.0 + noise() + if column == kind { 2.0 } else { 0.0 }).collect();
                let packs = [vec!["law".to_owned()], vec!["code".to_owned()], Vec::new()][kind].clone();
                LabelledFeature { feature, packs, weight: 1.0 }
            })
            .collect()
    }

    const OPTIONS: DetectorOptions =
        DetectorOptions { units: 8, steps: 150, rows: 64, learning_rate: 2e-2, dropout: 0.1, seed: 1 };

    #[test]
    fn a_detector_tells_its_packs_prompts_from_all_others_and_follows_from_its_seed() {
        let prompts = prompts();
        let detector = train_detector("law", &prompts, 0.25, OPTIONS).unwrap();
        for prompt in &prompts {
            let logit = detector.logit(&prompt.feature).unwrap();
            assert_eq!(logit > 0.0, prompt.packs == ["law"], "{logit} {:?}", prompt.packs);
        }
        assert_eq!(detector.inputs(), 8);
    }

    #[test]
    fn the_loss_of_large_logits_is_finite_and_theirs() {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let loss = |logit: f32, wanted: f32| {
            cross_entropy(&tensor(&[logit]), &tensor(&[wanted])).unwrap().to_scalar::<f32>().unwrap()
        };
        assert!((loss(0.0, 1.0) - 2.0_f32.ln()).abs() < 1e-6);
        assert_eq!((loss(500.0, 0.0), loss(-500.0, 0.0)), (500.0, 0.0));
    }

    #[test]
    fn a_smaller_share_shifts_every_logit_by_the_same() {
        assert!((shift(0.25, 0.25)).abs() < 1e-6);
        assert!((shift(0.25, 0.1) - (0.1_f32 / 0.9 * 3.0).ln()).abs() < 1e-5);
    }

    #[test]
    fn a_pack_that_no_prompt_wants_is_an_error_that_says_so() {
        let error = train_detector("medical", &prompts(), 0.25, OPTIONS).unwrap_err().to_string();
        assert!(error.contains("`medical`") && error.contains("found 0 and 300"), "{error}");
    }
}
