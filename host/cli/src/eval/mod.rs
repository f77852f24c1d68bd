//! `eval`: how well base, packs, mixtures and baselines predict held-out text, domain by domain.

mod columns;
mod domains;
mod eval_arguments;
mod matrix_table;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use manifests::{DeltaWeights, DeviceChoice};
use modularbase_core::BaseFile;
use modularbase_corpus::{LossOn, TokenizedCorpus};
use modularbase_trainer::evaluation::{
    BaseFacts, BootstrapOptions, ColumnFacts, ColumnType, DeltaRounding, DomainResult, Evaluation, Evaluator,
    MeanResult, PackFacts, Sample, SampleOptions, ScoreOptions, SettingsFacts, own_column,
};
use modularbase_trainer::{BaseEncoder, Compute, TrainError, TrainingBase, report};

use crate::base::ChosenBase;
use crate::failure::{Exit, Failure};
use crate::model::explain;
use crate::packs;
use crate::settings::Settings;
use crate::terminal::{notice, print, print_json, step_bar};

pub(crate) use domains::Domain;
pub(crate) use eval_arguments::{EvalArguments, NamedFile};

/// Rows of a pass, where nothing is said.
const ROWS_ON_CPU: usize = 2048;
const ROWS_ON_GPU: usize = 16_384;

/// Evaluates and prints the matrix; writes it as JSON and HTML where a folder is said.
pub(crate) fn eval(arguments: &EvalArguments, settings: &Settings) -> anyhow::Result<()> {
    // What can be wrong with the words is told before anything slow is done.
    let domains = domains::find(arguments)?;
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder).map_err(|error| {
            let failure = Failure::usage(format!("--out: can't make {}", folder.display()));
            anyhow::Error::new(error).context(failure)
        })?;
    }
    let subject = Subject::load(arguments, settings)?;
    let evaluation = subject.evaluate(&domains, arguments)?;
    if let Some(folder) = &arguments.out {
        write_reports(folder, &evaluation)?;
    }
    if settings.json { print_json(&evaluation) } else { print(&matrix_table::matrix(&evaluation)) }
}

/// Base and columns on a device.
struct Subject {
    evaluator: Evaluator,
    encoder: BaseEncoder,
    base: BaseFacts,
    packs: Vec<PackFacts>,
    columns: Vec<ColumnFacts>,
    device: DeviceChoice,
    rounding: DeltaRounding,
}

impl Subject {
    fn load(arguments: &EvalArguments, settings: &Settings) -> anyhow::Result<Self> {
        let device = settings.host.device;
        let mut compute = Compute::on(device).map_err(as_failure)?;
        if arguments.f32 {
            compute = compute.in_f32();
        }
        let chosen = ChosenBase::find(&settings.host.base)?;
        chosen.require()?;
        let context = packs::base_context(settings)?;
        let file = BaseFile::open(&chosen.path).map_err(|error| explain(error.into()))?;
        let encoder = BaseEncoder::new(&file, &context.fingerprint.to_string()).map_err(as_failure)?;
        let base = TrainingBase::load(file, context.slot, compute).map_err(as_failure)?;
        let mut evaluator = Evaluator::new(Arc::new(base)).map_err(as_failure)?;
        let rounding = match (arguments.as_host, settings.host.packs.delta) {
            // Packed deltas are multiplied as they are, beside the base's own matrix.
            (false, _) | (true, DeltaWeights::Packed) => DeltaRounding::Exact,
            (true, DeltaWeights::Q8_0) => DeltaRounding::Q8_0,
            (true, DeltaWeights::Bf16) => DeltaRounding::Bf16,
        };
        let (packs, columns) = columns::add_all(&mut evaluator, arguments, settings, rounding)?;
        let base = BaseFacts {
            name: chosen.name,
            fingerprint: context.fingerprint.prefixed(),
            slot: [context.slot.start, context.slot.end],
        };
        Ok(Self { evaluator, encoder, base, packs, columns, device, rounding })
    }

    fn evaluate(self, domains: &[Domain], arguments: &EvalArguments) -> anyhow::Result<Evaluation> {
        let bootstrap = BootstrapOptions { resamples: arguments.resamples as usize, seed: arguments.seed };
        let rows = match (arguments.rows, self.device) {
            (Some(rows), _) => rows as usize,
            (None, DeviceChoice::Cpu) => ROWS_ON_CPU,
            (None, DeviceChoice::Cuda(_)) => ROWS_ON_GPU,
        };
        let options = ScoreOptions {
            length: arguments.length as usize,
            loss_on: if arguments.answers_only { LossOn::Answers } else { LossOn::Everything },
            max_tokens: arguments.max_tokens,
            rows,
        };
        let (mut results, mut samples) = (Vec::new(), BTreeMap::new());
        let mut seconds = 0.0;
        for domain in domains {
            let corpus = domain.tokens(&self.encoder)?;
            let started = Instant::now();
            let bar = step_bar(&format!("Evaluating {}", domain.name), 0);
            let scores = self.evaluator.score(&corpus, &options, &mut |done, total| {
                bar.set_length(total);
                bar.set_position(done);
            });
            bar.finish_and_clear();
            let scores =
                scores.map_err(as_failure).with_context(|| format!("the domain `{}`", domain.name))?;
            seconds += started.elapsed().as_secs_f64();
            results.push(DomainResult::new(&domain.name, scores, bootstrap));
            if arguments.sample > 0 {
                samples.insert(domain.name.clone(), self.samples(domain, &corpus, arguments)?);
            }
        }
        let tokens: u64 = results.iter().map(|result| result.all.tokens).sum();
        let mean = MeanResult::new(&results, |domain| own_column(&self.columns, domain));
        Ok(Evaluation {
            settings: SettingsFacts {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                command: command_line(),
                device: self.device.to_string(),
                dtype: format!("{:?}", self.evaluator.base().compute().dtype).to_lowercase(),
                deltas: self.rounding.to_string(),
                length: options.length,
                max_tokens: options.max_tokens,
                seconds,
                tokens_per_second: tokens as f64 / seconds.max(1e-9),
            },
            base: self.base,
            packs: self.packs,
            columns: self.columns,
            bootstrap,
            domains: results,
            mean,
            samples,
        })
    }

    fn samples(
        &self,
        domain: &Domain,
        corpus: &TokenizedCorpus,
        arguments: &EvalArguments,
    ) -> anyhow::Result<Vec<Sample>> {
        let options = SampleOptions {
            documents: arguments.sample as usize,
            prompt: arguments.sample_prompt as usize,
            tokens: arguments.sample_tokens as usize,
        };
        let own = own_column(&self.columns, &domain.name);
        // Of many packs only the domain's own one is worth reading, if it has one.
        let columns: Vec<usize> = (0..self.columns.len())
            .filter(|index| {
                self.columns[*index].kind != ColumnType::Pack || own.is_none_or(|own| own == *index)
            })
            .collect();
        let bar = step_bar(&format!("Sampling {}", domain.name), 0);
        let decode = |ids: &[u32]| self.encoder.tokenizer().decode(ids);
        let samples = self.evaluator.samples(corpus, &columns, options, &decode).map_err(as_failure);
        bar.finish_and_clear();
        let samples = samples?;
        if samples.is_empty() {
            let prompt = options.prompt;
            notice(&format!(
                "note: no document of `{}` has more than {prompt} tokens to continue",
                domain.name
            ));
        }
        Ok(samples)
    }
}

fn write_reports(folder: &Path, evaluation: &Evaluation) -> anyhow::Result<()> {
    let json = serde_json::to_vec(evaluation).context("the evaluation can't be written as JSON")?;
    let page = report::evaluation_page(evaluation);
    for (name, bytes) in [("evaluation.json", json), ("evaluation.html", page.into_bytes())] {
        let path = folder.join(name);
        manifests::write_atomically(&path, &bytes)
            .with_context(|| format!("can't write {}", path.display()))?;
        notice(&format!("wrote {}", path.display()));
    }
    Ok(())
}

/// The words of this process, without the folder of the program.
pub(crate) fn command_line() -> String {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let program = Path::new(&program).file_name().map(|name| name.to_string_lossy().into_owned());
    let words: Vec<String> = std::iter::once(program.unwrap_or_default()).chain(words).collect();
    // Words with a NUL never came through a command line.
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_default()
}

/// An error of the trainer with the exit code that goes with it.
pub(crate) fn as_failure(error: TrainError) -> anyhow::Error {
    let exit = match &error {
        TrainError::Core(_) | TrainError::Tokenizer(_) => Exit::BaseMissing,
        TrainError::Evaluation(_) | TrainError::Device { .. } | TrainError::OutOfMemory { .. } => Exit::Usage,
        _ => Exit::Failed,
    };
    let message = error.to_string();
    anyhow::Error::new(error).context(Failure::new(exit, message))
}
