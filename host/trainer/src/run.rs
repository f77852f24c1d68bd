//! A training run: steps, looks at the validation text, checkpoints, the best weights.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use modularbase_corpus::Row;
use modularbase_gradients::{self as gradients, AdamW, AdamWConfig, Parameter, accumulate};

use crate::checkpoint::digest;
use crate::model::{divergence_sum, loss_sum};
use crate::run_folder::{LookMetric, Metric, RunFolder, StepMetric, checkpoints_of};
use crate::{
    Best, Checkpoint, CheckpointFolder, GeneralLoss, Quantizer, RunState, TextBatch, TrainConfig, TrainError,
    TrainedModel, TrainingText, ValidationText, WeightValues, learning_rate, text_loss,
};

/// Name of the checkpoint with the lowest validation loss.
const BEST: &str = "best";

/// Who is told how a run goes.
pub trait RunObserver {
    /// A step was taken, of so many.
    fn stepped(&mut self, step: &StepMetric, steps: u64) {
        let _ = (step, steps);
    }

    /// The validation text was looked at.
    fn looked(&mut self, look: &LookMetric) {
        let _ = look;
    }
}

impl RunObserver for () {}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// It took all its steps, or no better loss came for as many looks as it was to wait.
    Finished {
        /// Steps taken.
        step: u64,
        /// The look whose weights are kept.
        best: Option<Best>,
    },
    /// It was asked to stop and can go on.
    Stopped {
        /// Steps taken.
        step: u64,
        /// Where it goes on from.
        checkpoint: PathBuf,
    },
}

/// A run that is set up.
pub struct Run<'a> {
    config: &'a TrainConfig,
    model: &'a dyn TrainedModel,
    text: &'a TrainingText,
    optimizer: AdamW,
    quantizer: Option<Quantizer>,
    state: RunState,
    folder: RunFolder,
    checkpoints: CheckpointFolder,
}

impl<'a> Run<'a> {
    /// Sets a run up in `folder`, where it goes on from the last checkpoint if there is one. `identity` names what is
    /// trained: a checkpoint of something else is refused.
    ///
    /// # Errors
    /// Settings without meaning, a checkpoint of another run, a folder that can't be written.
    pub fn open(
        config: &'a TrainConfig,
        model: &'a dyn TrainedModel,
        text: &'a TrainingText,
        folder: &Path,
        identity: &str,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let optimizer = &config.optimizer;
        let variables = model.parameters().iter();
        let variables = variables.map(|(name, variable)| Parameter::new(name, variable.clone()));
        let settings = AdamWConfig {
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            eps: optimizer.epsilon,
            weight_decay: optimizer.weight_decay,
        };
        let mut adamw = AdamW::new(variables.collect(), settings)?;
        let fingerprint = fingerprint(config, &text.fingerprint, identity);
        let checkpoints = checkpoints_of(folder);
        let mut state = RunState { fingerprint: fingerprint.clone(), ..RunState::default() };
        let mut quantizer = None;
        if let Some(checkpoint) = checkpoints.last()? {
            if checkpoint.state.fingerprint != fingerprint {
                return Err(TrainError::checkpoint(format!(
                    "{} holds a run with other settings, other text or another pack; choose another folder with \
                     --out, or remove this one to start anew",
                    folder.display()
                )));
            }
            model.parameters().set(&checkpoint.weights)?;
            adamw.load_state(&checkpoint.moments)?;
            quantizer = quantizer_of(config, &checkpoint.state)?;
            state = checkpoint.state;
        }
        let run_folder = RunFolder::open(folder, config, state.step)?;
        Ok(Self { config, model, text, optimizer: adamw, quantizer, state, folder: run_folder, checkpoints })
    }

    /// Where it stands.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// Takes steps until the end, or until `stop` is set: then a checkpoint is written first.
    ///
    /// # Errors
    /// A loss that is no number, a device without room, a disk that is full. The last checkpoint stays.
    pub fn train(&mut self, stop: &AtomicBool, observer: &mut dyn RunObserver) -> Result<Ending, TrainError> {
        if self.state.step == 0 && self.state.best.is_none() {
            let looked = self.look(observer);
            self.with_advice(looked)?;
        }
        while self.state.step < self.config.steps {
            if stop.load(Ordering::Relaxed) {
                let checkpoint = self.save()?;
                return Ok(Ending::Stopped { step: self.state.step, checkpoint });
            }
            let stepped = self.step(observer);
            self.with_advice(stepped)?;
            let step = self.state.step;
            let due = |every: u64| every > 0 && step.is_multiple_of(every);
            let last = step == self.config.steps;
            if due(self.config.evaluation.every) || last {
                let looked = self.look(observer);
                self.with_advice(looked)?;
                let patience = self.config.evaluation.patience;
                if patience > 0 && self.state.looks_without_better >= patience {
                    if !self.has_quantized_steps_left() {
                        break;
                    }
                    // What is waited for no longer are steps in full precision: those in the form that ships are due.
                    self.state.step = self.config.quantized_from();
                    self.state.looks_without_better = 0;
                }
            }
            if due(self.config.checkpoints.every) && !last {
                self.save()?;
            }
        }
        self.save()?;
        Ok(Ending::Finished { step: self.state.step, best: self.state.best })
    }

    /// Whether the run has yet to come to the steps that see quantized weights.
    fn has_quantized_steps_left(&self) -> bool {
        self.config.quantization.steps > 0 && self.state.step < self.config.quantized_from()
    }

    /// The weights with the lowest validation loss, and the quantizer that goes with them; without any look, the last
    /// ones.
    ///
    /// # Errors
    /// A damaged checkpoint.
    pub fn best(&self) -> Result<(Checkpoint, Option<Quantizer>), TrainError> {
        let checkpoint = match self.checkpoints.named(BEST)? {
            Some(best) => best,
            None => self.checkpoint()?,
        };
        let quantizer = quantizer_of(self.config, &checkpoint.state)?;
        Ok((checkpoint, quantizer))
    }

    fn step(&mut self, observer: &mut dyn RunObserver) -> Result<(), TrainError> {
        let started = Instant::now();
        let step = self.state.step;
        if step == self.config.quantized_from() && self.quantizer.is_none() {
            self.start_quantizing()?;
        }
        let rows: Vec<Row> = (0..self.config.batch.rows as u64)
            .map(|row| self.text.rows.row(step * self.config.batch.rows as u64 + row))
            .collect();
        let counted: usize = rows.iter().map(|row| row.counts.iter().filter(|counts| **counts).count()).sum();
        let weights = self.model.weights(self.quantizer.as_ref())?;
        let mut total = None;
        let mut losses = Losses::default();
        for part in rows.chunks(self.config.rows_at_once()) {
            self.accumulate(part, &weights, counted.max(1), &mut total, &mut losses)?;
        }
        let rate = learning_rate(&self.config.optimizer, step, self.config.steps);
        let clip = Some(self.config.optimizer.clip).filter(|clip| *clip > 0.0);
        let total = total.ok_or_else(|| TrainError::config("batch.rows", "must be at least 1, found 0"))?;
        let norm = self.optimizer.step(&total, rate, clip)?.to_scalar::<f32>()?;
        if !norm.is_finite() {
            return Err(self.not_finite("the gradients", norm)?);
        }
        let seconds = started.elapsed().as_secs_f64();
        self.state.step += 1;
        self.state.tokens += counted as u64;
        self.state.seconds += seconds;
        let metric = StepMetric {
            step: self.state.step,
            loss: losses.text.mean().unwrap_or_default(),
            divergence: losses.divergence.mean(),
            gradient_norm: f64::from(norm),
            learning_rate: rate,
            tokens_per_second: counted as f64 / seconds.max(1e-9),
            seconds: self.state.seconds,
        };
        self.folder.record(&Metric::Step(metric.clone()))?;
        observer.stepped(&metric, self.config.steps);
        Ok(())
    }

    /// Adds the gradients of one part of a step's rows, which has `counted` tokens in all, and its losses.
    fn accumulate(
        &self,
        part: &[Row],
        weights: &WeightValues,
        counted: usize,
        total: &mut Option<GradStore>,
        losses: &mut Losses,
    ) -> Result<(), TrainError> {
        let data = &self.config.data;
        let apart = data.general_loss == GeneralLoss::Distillation || data.general_weight != 1.0;
        let is_general = |row: &&Row| apart && row.source >= self.text.general_from;
        let (general, own): (Vec<&Row>, Vec<&Row>) = part.iter().partition(is_general);
        let groups = [(own, GeneralLoss::Text, 1.0), (general, data.general_loss, data.general_weight)];
        for (rows, kind, weight) in groups.into_iter().filter(|(rows, _, _)| !rows.is_empty()) {
            let text = TextBatch::of_rows(&rows, &self.model.compute().device)?;
            let (sum, losses) = match kind {
                GeneralLoss::Text => (loss_sum(self.model, &text, weights)?, &mut losses.text),
                GeneralLoss::Distillation => {
                    (divergence_sum(self.model, &text, weights)?, &mut losses.divergence)
                }
            };
            let value = sum.to_scalar::<f32>()?;
            if !value.is_finite() {
                let place = self.model.first_not_finite(&text.ids, text.batch, weights)?;
                let place = place.map_or("the loss".to_owned(), |node| format!("`{node}`"));
                return Err(self.not_finite(&place, value)?);
            }
            losses.add(f64::from(value), text.counted);
            let more = gradients::backward(&gradients::scale(&sum, (weight / counted as f64) as f32)?)?;
            match total {
                Some(total) => accumulate(total, more)?,
                None => *total = Some(more),
            }
        }
        Ok(())
    }

    fn not_finite(&self, place: &str, value: f32) -> Result<TrainError, TrainError> {
        let checkpoint = match self.checkpoints.last()? {
            Some(checkpoint) => {
                format!("that of step {} in {}", checkpoint.state.step, self.checkpoints.path().display())
            }
            None => "not there yet: none was due before this step".to_owned(),
        };
        Ok(TrainError::NotFinite {
            step: self.state.step,
            value,
            place: place.to_owned().into_boxed_str(),
            checkpoint: checkpoint.into_boxed_str(),
        })
    }

    /// Of a device without room: how many rows do fit, found by half as many each time until a pass succeeds.
    fn with_advice(&self, result: Result<(), TrainError>) -> Result<(), TrainError> {
        if !result.as_ref().is_err_and(TrainError::is_out_of_memory) {
            return result;
        }
        let (rows, length) = (self.config.rows_at_once(), self.config.batch.length);
        let fits = |rows: usize| {
            let rows: Vec<Row> = (0..rows as u64).map(|row| self.text.rows.row(row)).collect();
            let weights = self.model.weights(self.quantizer.as_ref())?;
            self.accumulate(&rows, &weights, 1, &mut None, &mut Losses::default())
        };
        let fitting = std::iter::successors(Some(rows / 2), |rows| Some(rows / 2))
            .take_while(|rows| *rows > 0)
            .filter(|fewer| self.config.batch.rows.is_multiple_of(*fewer))
            .find(|fewer| fits(*fewer).is_ok());
        let advice = match fitting {
            Some(rows) => {
                format!("{rows} rows fit: set batch.rows_at_once = {rows}, which takes the same steps")
            }
            None => format!(
                "not even one fits: use a batch.length below {length}, end what else runs there, or use another device"
            ),
        };
        Err(TrainError::OutOfMemory {
            device: self.model.compute().device_name().into_boxed_str(),
            rows,
            length,
            advice: advice.into_boxed_str(),
        })
    }

    fn start_quantizing(&mut self) -> Result<(), TrainError> {
        let Some(format) = self.config.quantization.format else { return Ok(()) };
        let deltas = deltas(self.model, &self.model.parameters().values()?)?;
        let quantizer = Quantizer::fit(format, &deltas)?;
        self.state.levels = quantizer.levels();
        self.quantizer = Some(quantizer);
        // What was best in full precision may not be it in the form that ships.
        self.state.best = None;
        self.state.looks_without_better = 0;
        Ok(())
    }

    fn look(&mut self, observer: &mut dyn RunObserver) -> Result<(), TrainError> {
        if self.text.validation.is_empty() {
            return Ok(());
        }
        let weights = self.model.weights(self.quantizer.as_ref())?;
        let loss = self.mean_loss(&self.text.validation, &weights)?;
        let general = match self.text.general.is_empty() {
            true => None,
            false => Some(self.mean_loss(&self.text.general, &weights)?),
        };
        let look = LookMetric {
            step: self.state.step,
            loss,
            general_loss: general,
            quantized: self.quantizer.is_some(),
        };
        self.folder.record(&Metric::Look(look.clone()))?;
        observer.looked(&look);
        if self.state.step == 0 {
            return Ok(());
        }
        if self.state.best.is_none_or(|best| loss < best.loss) {
            self.state.best = Some(Best { step: self.state.step, loss });
            self.state.looks_without_better = 0;
            let checkpoint = self.checkpoint()?;
            self.checkpoints.write(BEST, &checkpoint)?;
        } else {
            self.state.looks_without_better += 1;
        }
        Ok(())
    }

    /// Nats a token.
    fn mean_loss(&self, text: &ValidationText, weights: &WeightValues) -> Result<f64, TrainError> {
        text_loss(self.model, text, weights, self.config.rows_at_once())
    }

    fn save(&self) -> Result<PathBuf, TrainError> {
        self.checkpoints.save(&self.checkpoint()?)
    }

    fn checkpoint(&self) -> Result<Checkpoint, TrainError> {
        let moments = self.optimizer.state()?.into_iter();
        let moments = moments
            .map(|(name, tensor)| Ok((name, tensor.to_device(&Device::Cpu)?.copy()?)))
            .collect::<Result<HashMap<String, Tensor>, TrainError>>()?;
        Ok(Checkpoint { state: self.state.clone(), weights: self.model.parameters().values()?, moments })
    }
}

/// What the rows of a step lost, by what was asked of them.
#[derive(Default)]
struct Losses {
    /// Their next token.
    text: Sum,
    /// To stay at the base.
    divergence: Sum,
}

#[derive(Default)]
struct Sum {
    nats: f64,
    tokens: usize,
}

impl Sum {
    fn add(&mut self, nats: f64, tokens: usize) {
        self.nats += nats;
        self.tokens += tokens;
    }

    /// Nats a token; `None` without tokens.
    fn mean(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.nats / self.tokens as f64)
    }
}

/// The quantizer that a state was reached with; `None` before the first quantized step.
fn quantizer_of(config: &TrainConfig, state: &RunState) -> Result<Option<Quantizer>, TrainError> {
    match config.quantization.format {
        Some(format) if !state.levels.is_empty() => Quantizer::with_levels(format, &state.levels).map(Some),
        _ => Ok(None),
    }
}

/// Trained values less the base's, f32 in host memory, of each parameter that ships as a delta.
///
/// # Errors
/// The base can't be read.
pub fn deltas(
    model: &dyn TrainedModel,
    values: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Vec<f32>>, TrainError> {
    let mut deltas = BTreeMap::new();
    for (name, mut base) in model.delta_bases()? {
        let value = values
            .get(&name)
            .ok_or_else(|| TrainError::checkpoint(format!("`{name}` is missing")))?
            .flatten_all()?
            .to_vec1::<f32>()?;
        base.iter_mut().zip(value).for_each(|(base, value)| *base = value - *base);
        deltas.insert(name, base);
    }
    Ok(deltas)
}

/// What the numbers of a run depend on.
fn fingerprint(config: &TrainConfig, text: &str, identity: &str) -> String {
    let mut config = config.clone();
    config.checkpoints = Default::default();
    config.finish = Default::default();
    // Where the text lies changes nothing; what it says is in its own fingerprint.
    for files in [&mut config.data.train, &mut config.data.validation, &mut config.data.general] {
        files.clear();
    }
    config.data.general_validation.clear();
    digest(&[config.to_toml().as_bytes(), text.as_bytes(), identity.as_bytes()])
}
