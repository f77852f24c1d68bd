//! Detectors from labelled prompts, under one loss: which pack wins a prompt that several could want is settled between
//! them, though none shares a weight with another.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::ops::log_softmax;
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use router::{Detector, IntentFeature};

use crate::TrainError;

/// A prompt as the router sees it, and the packs that it wants.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledFeature {
    /// The intent feature, `[4 * hidden]`.
    pub feature: IntentFeature,
    /// Names of the packs it wants, in order; none for general prompts.
    pub packs: Vec<String>,
    /// How much it counts.
    pub weight: f32,
}

/// How detectors are trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectorOptions {
    /// Units of the hidden layer, of all members together.
    pub units: usize,
    /// Networks that are trained apart, each from its own seed and with its share of the units; the detector is their mean,
    /// which is a perceptron with all their units (Breiman 1996, "Bagging predictors", with one set of prompts).
    pub members: usize,
    /// Steps of AdamW.
    pub steps: usize,
    /// Prompts of a step.
    pub rows: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Share of the feature's values that a step does without; of the hidden layer's, two thirds of it.
    pub dropout: f64,
    /// What the contrast between the prompts of a step counts; 0 leaves it out.
    pub contrast: f64,
    /// What all choices follow from.
    pub seed: u64,
}

impl Default for DetectorOptions {
    fn default() -> Self {
        Self {
            units: 10,
            members: 1,
            steps: 800,
            rows: 512,
            learning_rate: 4e-3,
            dropout: 0.3,
            contrast: 0.0,
            seed: 1,
        }
    }
}

/// Labels are softened by so much: nothing is ever quite certain.
const SMOOTHING: f64 = 0.02;

/// What each detector's own yes or no counts beside the choice between all.
const ALONE: f64 = 0.3;

/// Trains a detector for each of `packs`, from the seed's numbers or from the detectors in `from`, one for each: those that
/// were trained on prompts that are not all at hand learn of new ones so. Detectors in `frozen`, by name, take part in the choice and stay as they are:
/// so a pack joins others whose prompts and weights its author need not own.
///
/// The loss is the cross entropy of a softmax over no pack (logit 0), `packs` and `frozen`, a prompt that wants several
/// counting for each in equal parts, and the binary cross entropy of every detector by itself. Prompts are mixed in pairs,
/// features and labels alike (Zhang et al. 2018, "mixup", with shares by the arcsine law, which is Beta(1/2, 1/2)).
/// The softmax contrasts packs for one prompt; with [`DetectorOptions::contrast`] prompts are contrasted for one pack as
/// well: among the prompts of a step its own must be the likeliest (van den Oord et al. 2018, "Representation learning
/// with contrastive predictive coding", eq. 4, with the step's other prompts as negatives).
///
/// # Errors
/// A pack that no prompt wants, no prompt that wants none of them, features of several widths, detectors to begin with that
/// are not one for each pack, alike and for a single member.
pub fn train_detectors(
    packs: &[String],
    from: Option<&[&Detector]>,
    frozen: &[(String, &Detector)],
    prompts: &[LabelledFeature],
    options: DetectorOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Detector>, TrainError> {
    let width = prompts.first().map_or(0, |prompt| prompt.feature.width());
    if width == 0 || prompts.iter().any(|prompt| prompt.feature.width() != width) {
        return Err(TrainError::evaluation(
            "the features of the prompts have several widths, or there are none",
        ));
    }
    if let Some((name, _)) = frozen.iter().find(|(_, detector)| detector.inputs() != width) {
        return Err(TrainError::evaluation(format!("the detector of `{name}` is of another router")));
    }
    for pack in packs {
        let own = prompts.iter().filter(|prompt| prompt.packs.contains(pack)).count();
        let others = prompts.len() - own;
        if own == 0 || others == 0 {
            return Err(TrainError::evaluation(format!(
                "the detector of `{pack}` needs prompts that want it and prompts that don't, found {own} and {others}"
            )));
        }
    }
    if options.members == 0 || options.units < options.members {
        let DetectorOptions { units, members, .. } = options;
        return Err(TrainError::evaluation(format!(
            "expected at least one member and a unit for each, found {members} members and {units} units"
        )));
    }
    let names: Vec<&str> =
        packs.iter().map(String::as_str).chain(frozen.iter().map(|(name, _)| name.as_str())).collect();
    let options = match from {
        Some(from) => begun(packs.len(), from, width, options)?,
        None => options,
    };
    let labels: Vec<Vec<f32>> = prompts.iter().map(|prompt| labels(prompt, &names)).collect();
    let frozen = frozen.iter().map(|(_, detector)| Layers::of(detector)).collect::<Result<Vec<_>, _>>()?;
    let draw = Draw::new(prompts);
    let all_steps = options.members * options.steps;
    let mut members = Vec::with_capacity(options.members);
    for member in 0..options.members {
        // The first members have a unit more where they can't all have as many.
        let units = (options.units + options.members - 1 - member) / options.members;
        let seed = options.seed.wrapping_add(MEMBER_SEEDS.wrapping_mul(member as u64));
        let mut run = Run {
            options: DetectorOptions { units, seed, ..options },
            width,
            draw: &draw,
            labels: &labels,
            prompts,
            random: ChaCha8Rng::seed_from_u64(seed),
            from,
            frozen: &frozen,
        };
        let done = member * options.steps;
        members.push(run.train(packs.len(), &mut |step, _| progress(done + step, all_steps))?);
    }
    Ok((0..packs.len()).map(|pack| Layers::mean(members.iter().map(|member| &member[pack]))).collect())
}

/// The options for going on with detectors, which settle the number of units.
fn begun(
    packs: usize,
    from: &[&Detector],
    width: usize,
    options: DetectorOptions,
) -> Result<DetectorOptions, TrainError> {
    let units = from.first().map_or(0, |detector| detector.units());
    let alike = from.iter().all(|detector| detector.units() == units && detector.inputs() == width);
    if from.len() == packs && alike && options.members == 1 {
        return Ok(DetectorOptions { units, ..options });
    }
    Err(TrainError::evaluation(format!(
        "to go on with detectors, one member and {packs} detectors of one size for features of {width} values are \
         needed, found {} members and {} detectors",
        options.members,
        from.len()
    )))
}

/// What lies between the seeds of two members, so that runs with seeds beside each other share none.
const MEMBER_SEEDS: u64 = 0x9e37_79b9;

/// A network in full precision, as it was trained.
struct Trained {
    /// `[units, inputs]` row by row.
    hidden: Vec<f32>,
    hidden_bias: Vec<f32>,
    output: Vec<f32>,
    output_bias: f32,
}

/// For each of `names` in order, and for no pack: how much of the prompt wants it. They sum to 1.
fn labels(prompt: &LabelledFeature, names: &[&str]) -> Vec<f32> {
    let wanted: Vec<bool> = names.iter().map(|name| prompt.packs.iter().any(|pack| pack == name)).collect();
    let count = wanted.iter().filter(|wanted| **wanted).count();
    let share = 1.0 / count.max(1) as f32;
    let none = if count == 0 { 1.0 } else { 0.0 };
    wanted.into_iter().map(|wanted| if wanted { share } else { 0.0 }).chain([none]).collect()
}

/// The layers of detectors of one width beside each other.
struct Layers {
    /// `[detectors * units, inputs]`.
    hidden: Tensor,
    /// `[detectors * units]`.
    hidden_bias: Tensor,
    /// `[detectors * units]`.
    output: Tensor,
    /// `[detectors]`.
    output_bias: Tensor,
}

impl Layers {
    /// The mean of several networks, which is one with the units of all.
    fn mean<'a>(members: impl ExactSizeIterator<Item = &'a Trained>) -> Detector {
        let share = 1.0 / members.len() as f32;
        let mut all =
            Trained { hidden: Vec::new(), hidden_bias: Vec::new(), output: Vec::new(), output_bias: 0.0 };
        for member in members {
            all.hidden.extend(&member.hidden);
            all.hidden_bias.extend(&member.hidden_bias);
            all.output.extend(member.output.iter().map(|weight| weight * share));
            all.output_bias += member.output_bias * share;
        }
        Detector::new(&all.hidden, all.hidden_bias, all.output, all.output_bias)
    }

    fn of(detector: &Detector) -> Result<Self, TrainError> {
        let (hidden, hidden_bias, output, output_bias) = detector.layers();
        let vector = |values: &[f32]| Tensor::new(values, &Device::Cpu);
        Ok(Self {
            hidden: Tensor::from_vec(hidden, (detector.units(), detector.inputs()), &Device::Cpu)?,
            hidden_bias: vector(hidden_bias)?,
            output: vector(output)?,
            output_bias: vector(&[output_bias])?,
        })
    }

    fn beside(detectors: &[&Detector]) -> Result<Self, TrainError> {
        let each = detectors.iter().map(|detector| Self::of(detector)).collect::<Result<Vec<_>, _>>()?;
        let all = |part: fn(&Self) -> &Tensor| Tensor::cat(&each.iter().map(part).collect::<Vec<_>>(), 0);
        Ok(Self {
            hidden: all(|layers| &layers.hidden)?,
            hidden_bias: all(|layers| &layers.hidden_bias)?,
            output: all(|layers| &layers.output)?,
            output_bias: all(|layers| &layers.output_bias)?,
        })
    }

    /// The logits of features `[rows, inputs]`: `[rows, detectors]`. `keep` scales the hidden layer, `[rows, units of
    /// all]`.
    fn logits(&self, features: &Tensor, keep: Option<&Tensor>) -> candle_core::Result<Tensor> {
        let inner = features.matmul(&self.hidden.t()?)?.broadcast_add(&self.hidden_bias)?.relu()?;
        let inner = match keep {
            Some(keep) => (inner * keep)?,
            None => inner,
        };
        let (rows, all) = inner.dims2()?;
        let detectors = self.output_bias.elem_count();
        let weighted = inner.broadcast_mul(&self.output)?.reshape((rows, detectors, all / detectors))?;
        weighted.sum(D::Minus1)?.broadcast_add(&self.output_bias)
    }
}

struct Run<'a> {
    options: DetectorOptions,
    width: usize,
    draw: &'a Draw,
    labels: &'a [Vec<f32>],
    prompts: &'a [LabelledFeature],
    random: ChaCha8Rng,
    from: Option<&'a [&'a Detector]>,
    frozen: &'a [Layers],
}

impl Run<'_> {
    fn train(
        &mut self,
        packs: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Trained>, TrainError> {
        let DetectorOptions { units, steps, learning_rate, .. } = self.options;
        let all = packs * units;
        let start = match self.from {
            Some(from) => Layers::beside(from)?,
            None => Layers {
                hidden: self.start(all * self.width, self.width)?.reshape((all, self.width))?,
                hidden_bias: Tensor::zeros(all, DType::F32, &Device::Cpu)?,
                output: self.start(all, units)?,
                output_bias: Tensor::full(-1.0_f32, packs, &Device::Cpu)?,
            },
        };
        let [hidden, hidden_bias, output, output_bias] =
            [start.hidden, start.hidden_bias, start.output, start.output_bias]
                .map(|tensor| Var::from_tensor(&tensor));
        let (hidden, hidden_bias) = (hidden?, hidden_bias?);
        let (output, output_bias) = (output?, output_bias?);
        let settings = ParamsAdamW { lr: learning_rate, weight_decay: 0.1, ..ParamsAdamW::default() };
        let variables = vec![hidden.clone(), hidden_bias.clone(), output.clone(), output_bias.clone()];
        let mut optimizer = AdamW::new(variables, settings)?;
        let layers = Layers {
            hidden: hidden.as_tensor().clone(),
            hidden_bias: hidden_bias.as_tensor().clone(),
            output: output.as_tensor().clone(),
            output_bias: output_bias.as_tensor().clone(),
        };
        for step in 0..steps {
            let warm_up = ((step + 1) as f64 / 50.0).min(1.0);
            optimizer.set_learning_rate(learning_rate * warm_up * (1.0 - step as f64 / steps as f64));
            optimizer.backward_step(&self.loss(&layers, packs)?)?;
            progress(step + 1, steps);
        }
        let (hidden, hidden_bias) = (hidden.to_vec2::<f32>()?, hidden_bias.to_vec1::<f32>()?);
        let (output, output_bias) = (output.to_vec1::<f32>()?, output_bias.to_vec1::<f32>()?);
        let trained = |pack: usize| {
            let rows = pack * units..(pack + 1) * units;
            Trained {
                hidden: hidden[rows.clone()].concat(),
                hidden_bias: hidden_bias[rows.clone()].to_vec(),
                output: output[rows].to_vec(),
                output_bias: output_bias[pack],
            }
        };
        Ok((0..packs).map(trained).collect())
    }

    /// The loss of the next rows.
    fn loss(&mut self, layers: &Layers, packs: usize) -> Result<Tensor, TrainError> {
        let (rows, width) = (self.options.rows, self.width);
        let classes = packs + self.frozen.len() + 1;
        let mut features = Vec::with_capacity(rows * width);
        let mut wanted = Vec::with_capacity(rows * classes);
        for _ in 0..rows {
            let (one, other) = (self.draw.next(&mut self.random), self.draw.next(&mut self.random));
            let share = (uniform(&mut self.random) * std::f64::consts::FRAC_PI_2).sin().powi(2) as f32;
            let mixed = |(a, b): (f32, f32)| share * a + (1.0 - share) * b;
            let pair = self.prompts[one].feature.values().zip(self.prompts[other].feature.values());
            features.extend(pair.map(mixed));
            let pair = self.labels[one].iter().copied().zip(self.labels[other].iter().copied());
            wanted.extend(pair.map(mixed));
        }
        let features = Tensor::from_vec(features, (rows, width), &Device::Cpu)?;
        let wanted = Tensor::from_vec(wanted, (rows, classes), &Device::Cpu)?;
        let keep = self.keep(rows * width, self.options.dropout)?.reshape((rows, width))?;
        let units = packs * self.options.units;
        let keep_units = self.keep(rows * units, self.options.dropout / 1.5)?.reshape((rows, units))?;
        let logits = layers.logits(&(&features * keep)?, Some(&keep_units))?;
        let mut columns = vec![logits.clone()];
        for frozen in self.frozen {
            columns.push(frozen.logits(&features, None)?);
        }
        columns.push(Tensor::zeros((rows, 1), DType::F32, &Device::Cpu)?);
        let chances = log_softmax(&Tensor::cat(&columns, 1)?, D::Minus1)?;
        let soft = wanted.affine(1.0 - SMOOTHING, SMOOTHING / classes as f64)?;
        let choice = (chances * soft)?.sum(D::Minus1)?.neg()?.mean_all()?;
        let own = wanted.narrow(1, 0, packs)?;
        let soft = own.affine(1.0 - SMOOTHING, SMOOTHING / classes as f64)?;
        let alone = (cross_entropy(&logits, &soft)? * (ALONE * packs as f64))?;
        let loss = (choice + alone)?;
        if self.options.contrast == 0.0 {
            return Ok(loss);
        }
        Ok((loss + (contrast(&logits, &own)? * self.options.contrast)?)?)
    }

    /// Zero for a share of the values, and what keeps their mean for the others.
    fn keep(&mut self, count: usize, dropout: f64) -> Result<Tensor, TrainError> {
        let (least, scale) = ((dropout * 256.0) as u8, 1.0 / (1.0 - (dropout * 256.0).floor() / 256.0));
        let mut bytes = vec![0; count];
        self.random.fill_bytes(&mut bytes);
        let values: Vec<f32> =
            bytes.into_iter().map(|byte| if byte >= least { scale as f32 } else { 0.0 }).collect();
        Ok(Tensor::from_vec(values, count, &Device::Cpu)?)
    }

    /// The seed's own numbers, uniform, with a variance of one by `inputs`.
    fn start(&mut self, count: usize, inputs: usize) -> Result<Tensor, TrainError> {
        let bound = (3.0 / inputs as f64).sqrt();
        let values: Vec<f32> =
            (0..count).map(|_| ((2.0 * uniform(&mut self.random) - 1.0) * bound) as f32).collect();
        Ok(Tensor::from_vec(values, count, &Device::Cpu)?)
    }
}

/// In [0, 1).
fn uniform(random: &mut ChaCha8Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// The mean binary cross entropy, from logits: `max(x, 0) - x z + ln(1 + exp(-|x|))`, which no logit is too large for.
fn cross_entropy(logits: &Tensor, wanted: &Tensor) -> candle_core::Result<Tensor> {
    let far = (logits.abs()?.neg()?.exp()? + 1.0)?.log()?;
    ((logits.relu()? - (logits * wanted)?)? + far)?.mean_all()
}

/// The mean over packs of minus the log-likelihood of a pack's own prompts among all of a step, from `logits` and how much
/// each prompt wants each pack, `[rows, packs]`.
fn contrast(logits: &Tensor, wanted: &Tensor) -> candle_core::Result<Tensor> {
    let shares = wanted.broadcast_div(&(wanted.sum_keepdim(0)? + 1e-6)?)?;
    (log_softmax(logits, 0)? * shares)?.sum(0)?.neg()?.mean_all()
}

/// Draws prompts by weight; labels that many prompts have count by the root of their number.
struct Draw {
    /// Running sums of the weights.
    sums: Vec<f64>,
}

impl Draw {
    fn new(prompts: &[LabelledFeature]) -> Self {
        let mut labels: HashMap<&[String], f64> = HashMap::new();
        for prompt in prompts {
            *labels.entry(&prompt.packs).or_default() += f64::from(prompt.weight);
        }
        let mut sum = 0.0;
        let running = |prompt: &LabelledFeature| {
            sum += f64::from(prompt.weight) / labels[prompt.packs.as_slice()].sqrt();
            sum
        };
        Self { sums: prompts.iter().map(running).collect() }
    }

    fn next(&self, random: &mut ChaCha8Rng) -> usize {
        let at = uniform(random) * self.sums.last().copied().unwrap_or(0.0);
        self.sums.partition_point(|sum| *sum <= at).min(self.sums.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prompts of two packs and of none, told apart by their first values.
    fn prompts() -> Vec<LabelledFeature> {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        (0..300)
            .map(|at| {
                let kind = at % 3;
                let value =
                    |column| uniform(&mut random) as f32 - 0.5 + if column == kind { 2.0 } else { 0.0 };
                let feature = IntentFeature::from_values((0..8).map(value).collect::<Vec<_>>());
                let packs = [vec!["law".to_owned()], vec!["code".to_owned()], Vec::new()][kind].clone();
                LabelledFeature { feature, packs, weight: 1.0 }
            })
            .collect()
    }

    const OPTIONS: DetectorOptions = DetectorOptions {
        units: 8,
        members: 1,
        steps: 200,
        rows: 64,
        learning_rate: 2e-2,
        dropout: 0.1,
        contrast: 0.0,
        seed: 1,
    };

    fn trained(packs: &[&str], frozen: &[(String, &Detector)]) -> Vec<Detector> {
        let packs: Vec<String> = packs.iter().map(|name| (*name).to_owned()).collect();
        train_detectors(&packs, None, frozen, &prompts(), OPTIONS, &mut |_, _| {}).unwrap()
    }

    fn assert_right(detectors: &[(&str, &Detector)]) {
        for prompt in &prompts() {
            let best = detectors
                .iter()
                .map(|(name, detector)| (*name, detector.logit(&prompt.feature).unwrap()))
                .filter(|(_, logit)| *logit > 0.0)
                .max_by(|a, b| a.1.total_cmp(&b.1));
            assert_eq!(best.map(|(name, _)| name), prompt.packs.first().map(String::as_str));
        }
    }

    #[test]
    fn detectors_tell_their_packs_prompts_from_all_others_and_follow_from_their_seed() {
        let detectors = trained(&["law", "code"], &[]);
        assert_right(&[("law", &detectors[0]), ("code", &detectors[1])]);
        assert_eq!(detectors, trained(&["law", "code"], &[]));
        detectors.iter().for_each(|detector| detector.check(8).unwrap());
    }

    #[test]
    fn a_pack_joins_others_that_stay_as_they_are() {
        let law = trained(&["law"], &[]).remove(0);
        let before = law.clone();
        let code = trained(&["code"], &[("law".to_owned(), &law)]).remove(0);
        assert_eq!(law, before);
        assert_right(&[("law", &law), ("code", &code)]);
    }

    #[test]
    fn training_goes_on_with_detectors_that_are_there() {
        let before = trained(&["law", "code"], &[]);
        let from = [&before[0], &before[1]];
        let packs = ["law".to_owned(), "code".to_owned()];
        let go_on = |options| train_detectors(&packs, Some(&from), &[], &prompts(), options, &mut |_, _| {});
        let few = DetectorOptions { steps: 1, learning_rate: 0.0, ..OPTIONS };
        for (after, before) in go_on(few).unwrap().iter().zip(&before) {
            for prompt in prompts().iter().take(20) {
                let logits = [after, before].map(|detector| detector.logit(&prompt.feature).unwrap());
                assert!((logits[0] - logits[1]).abs() < 1e-3, "{logits:?}");
            }
        }
        let after = go_on(DetectorOptions { steps: 20, ..OPTIONS }).unwrap();
        assert_ne!(after, before);
        assert_right(&[("law", &after[0]), ("code", &after[1])]);
        let error = go_on(DetectorOptions { members: 2, ..OPTIONS }).unwrap_err().to_string();
        assert!(error.contains("found 2 members and 2 detectors"), "{error}");
    }

    #[test]
    fn members_are_one_detector_with_the_units_of_all_and_its_logit_is_their_mean() {
        let packs = ["law".to_owned(), "code".to_owned()];
        let options = DetectorOptions { members: 3, ..OPTIONS };
        let together = train_detectors(&packs, None, &[], &prompts(), options, &mut |_, _| {}).unwrap();
        assert!(together.iter().all(|detector| detector.units() == OPTIONS.units));
        assert_right(&[("law", &together[0]), ("code", &together[1])]);
        let seed = |member: u64| OPTIONS.seed + MEMBER_SEEDS * member;
        let one = |member: u64, units| {
            let options = DetectorOptions { units, seed: seed(member), ..OPTIONS };
            train_detectors(&packs, None, &[], &prompts(), options, &mut |_, _| {}).unwrap().remove(0)
        };
        let apart = [one(0, 3), one(1, 3), one(2, 2)];
        for prompt in prompts().iter().take(20) {
            let mean = apart.iter().map(|member| member.logit(&prompt.feature).unwrap()).sum::<f64>() / 3.0;
            let found = together[0].logit(&prompt.feature).unwrap();
            assert!((found - mean).abs() < 1e-4, "{found} {mean}");
        }
        let none = DetectorOptions { members: 9, ..OPTIONS };
        let error =
            train_detectors(&packs, None, &[], &prompts(), none, &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("found 9 members and 8 units"), "{error}");
    }

    #[test]
    fn the_contrast_is_least_where_a_packs_own_prompts_are_the_likeliest() {
        let tensor = |values: &[f32; 3]| Tensor::new(values, &Device::Cpu).unwrap().reshape((3, 1)).unwrap();
        let wanted = tensor(&[1.0, 0.0, 0.0]);
        let loss =
            |logits: &[f32; 3]| contrast(&tensor(logits), &wanted).unwrap().to_scalar::<f32>().unwrap();
        assert!((loss(&[0.0; 3]) - 3.0_f32.ln()).abs() < 1e-4, "all alike");
        assert!(loss(&[20.0, 0.0, 0.0]) < 1e-4 && loss(&[0.0, 9.0, 0.0]) > 8.0);
        let options = DetectorOptions { contrast: 0.3, ..OPTIONS };
        let packs = ["law".to_owned(), "code".to_owned()];
        let trained = train_detectors(&packs, None, &[], &prompts(), options, &mut |_, _| {}).unwrap();
        assert_right(&[("law", &trained[0]), ("code", &trained[1])]);
    }

    #[test]
    fn a_prompt_that_wants_two_packs_counts_for_each_in_equal_parts() {
        let mut prompt = prompts().remove(0);
        prompt.packs = vec!["code".to_owned(), "law".to_owned()];
        assert_eq!(labels(&prompt, &["law", "math", "code"]), [0.5, 0.0, 0.5, 0.0]);
        assert_eq!(labels(&prompt, &["math"]), [0.0, 1.0]);
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
    fn a_pack_that_no_prompt_wants_is_an_error_that_says_so() {
        let error = train_detectors(&["medical".to_owned()], None, &[], &prompts(), OPTIONS, &mut |_, _| {})
            .unwrap_err();
        let error = error.to_string();
        assert!(error.contains("`medical`") && error.contains("found 0 and 300"), "{error}");
    }
}
