//! `train baseline lora|full`: what packs are compared with, trained on the same text with the same loop.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};
use modularbase_core::BaseFile;
use modularbase_corpus::TokenCache;
use modularbase_trainer::baseline::{Baseline, FullModel, LoraModel, LoraOptions};
use modularbase_trainer::{
    BaseEncoder, Compute, QuantizationConfig, Run, TextSource, TrainConfig, TrainingBase, TrainingText,
};
use serde_json::json;

use super::ending::{best_text, train_to_the_end};
use super::pack::{Interruptible, explain};
use crate::base::ChosenBase;
use crate::interrupt::{Meaning, Scope};
use crate::packs::base_context;
use crate::settings::{Settings, cache_folder};
use crate::terminal::{bytes_text, notice, print_json, print_line};

/// `train baseline`.
#[derive(Debug, Args)]
pub(crate) struct TrainBaselineArguments {
    /// What is trained.
    kind: BaselineKind,
    /// The training configuration of the pack that it is compared with; quantization is left out.
    #[arg(long, value_name = "FILE")]
    train_config: PathBuf,
    /// Where relative paths of texts in the configuration begin (default: its own folder).
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where checkpoints, metrics and weights go; a run that is there goes on.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Rank of LoRA's matrices.
    #[arg(long, value_name = "R", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    rank: u32,
    /// LoRA's alpha: its products count alpha / rank (default: twice the rank).
    #[arg(long, value_name = "ALPHA")]
    alpha: Option<f64>,
    /// A setting that stands above the configuration's, such as `optimizer.learning_rate=3e-4`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::arguments::key_value)]
    set: Vec<(String, String)>,
}

/// The baselines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BaselineKind {
    /// Low-rank sums beside every linear layer.
    Lora,
    /// Every weight of the base.
    Full,
}

/// Trains a baseline and writes the file that `eval --baseline NAME=FILE` reads.
pub(crate) fn train(arguments: &TrainBaselineArguments, settings: &Settings) -> anyhow::Result<()> {
    let _scope = Scope::enter(Meaning::Cancel);
    let config = TrainConfig::read_with(&arguments.train_config, arguments.data.as_deref(), &arguments.set);
    let config = TrainConfig { quantization: QuantizationConfig::default(), ..config.map_err(explain)? };
    let context = base_context(settings)?;
    let compute = Compute::on(settings.host.device).map_err(explain)?;
    let base = ChosenBase::find(&settings.host.base)?;
    let file = BaseFile::open(&base.path).context("the base can't be read")?;
    let encoder = BaseEncoder::new(&file, &context.fingerprint.to_string()).map_err(explain)?;
    let cache = TokenCache::new(cache_folder()?.join("tokens"));
    let source = TextSource { cache: &cache, encoder: &encoder, progress: &Interruptible };
    let text = TrainingText::open(&config, &source).map_err(explain)?;
    let base = Arc::new(TrainingBase::load(file, context.slot, compute).map_err(explain)?);
    let (baseline, identity) = match arguments.kind {
        BaselineKind::Full => (Baseline::Full(FullModel::new(base).map_err(explain)?), "full".to_owned()),
        BaselineKind::Lora => {
            let usual = LoraOptions::of_rank(arguments.rank as usize, config.seed);
            let options = LoraOptions { alpha: arguments.alpha.unwrap_or(usual.alpha), ..usual };
            (Baseline::Lora(LoraModel::new(base, options).map_err(explain)?), format!("{options:?}"))
        }
    };
    let parameters = baseline.model().parameters().elements();
    notice(&format!("{parameters} parameters are trained"));
    let identity = format!("{} baseline {identity}", context.fingerprint);
    let mut run = Run::open(&config, baseline.model(), &text, &arguments.out, &identity).map_err(explain)?;
    let (step, best) = train_to_the_end(&mut run, config.steps)?;
    let (checkpoint, _) = run.best().map_err(explain)?;
    let weights = arguments.out.join("model.safetensors");
    let bytes = baseline.write(&checkpoint, &weights).map_err(explain)?;
    if settings.json {
        return print_json(&json!({
            "run": arguments.out, "steps": step, "best": best, "weights": weights, "bytes": bytes,
            "parameters": parameters,
        }));
    }
    print_line(&format!(
        "{step} steps{}; weights in {} ({})",
        best_text(best),
        weights.display(),
        bytes_text(bytes)
    ))
}
