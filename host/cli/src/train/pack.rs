//! `train pack NAME`: the pack's own graph in the slot of the base, trained on text.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use manifests::{Sha256, WeightsRecord};
use modularbase_core::BaseFile;
use modularbase_corpus::{Progress, TokenCache};
use modularbase_trainer::{
    BaseEncoder, Compute, PackModel, Run, ShippedWeights, TextSource, TrainConfig, TrainError, TrainingBase,
    TrainingText,
};
use serde_json::json;

use super::ending::{best_text, train_to_the_end};
use super::finish::Finish;
use super::pack_folder::{default_run_folder, find};
use crate::arguments::TrainPackArguments;
use crate::base::ChosenBase;
use crate::failure::{Exit, Failure};
use crate::interrupt::{self, Meaning, Scope};
use crate::packs::{InstalledRouter, UnfinishedPack, bad_pack, base_context};
use crate::settings::{Settings, cache_folder};
use crate::terminal::{bytes_text, notice, print_json, print_line};

/// Trains a pack and writes its weights beside the run.
pub(crate) fn train(arguments: &TrainPackArguments, settings: &Settings) -> anyhow::Result<()> {
    let _scope = Scope::enter(Meaning::Cancel);
    let config = TrainConfig::read_with(&arguments.train_config, arguments.data.as_deref(), &arguments.set)
        .map_err(explain)?;
    let folder = find(&arguments.pack, settings)?;
    let context = base_context(settings)?;
    let pack = UnfinishedPack::read(&folder, &context)?;
    let Some((weights_file, _)) = &pack.weights else {
        let failure = bad_pack(format!("the pack `{}` has no weights of its own to train", pack.name));
        return Err(failure.help("add [weights] with file and dtype to its pack.toml").into());
    };
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => default_run_folder(&pack.name)?,
    };
    let compute = Compute::on(settings.host.device).map_err(explain)?;
    let base = ChosenBase::find(&settings.host.base)?;
    let file = BaseFile::open(&base.path).context("the base can't be read")?;
    let encoder = BaseEncoder::new(&file, &context.fingerprint.to_string()).map_err(explain)?;
    let cache = TokenCache::new(cache_folder()?.join("tokens"));
    let source = TextSource { cache: &cache, encoder: &encoder, progress: &Interruptible };
    let text = TrainingText::open(&config, &source).map_err(explain)?;
    let base = Arc::new(TrainingBase::load(file, context.slot, compute).map_err(explain)?);
    let identity = format!("{} {} {:?}", context.fingerprint, context.slot.start, pack.graph.graph());
    let model = PackModel::new(base, pack.graph.clone(), config.seed).map_err(explain)?;
    let mut run = Run::open(&config, &model, &text, &out, &identity).map_err(explain)?;
    if run.state().step > 0 {
        notice(&format!("going on from step {} in {}", run.state().step, out.display()));
    }
    let (step, best) = train_to_the_end(&mut run, config.steps)?;
    let (checkpoint, quantizer) = run.best().map_err(explain)?;
    let shipped = ShippedWeights::encode(
        &model,
        &checkpoint.weights,
        config.quantization.format,
        quantizer.as_ref(),
        config.strength,
    )
    .map_err(explain)?;
    let weights = out.join("pack").join(weights_file.as_str());
    let bytes = write(&shipped, &weights)?;
    let (sha256, size) =
        Sha256::of_file(&weights).with_context(|| format!("can't read {}", weights.display()))?;
    let record = WeightsRecord { file: weights_file.clone(), sha256, size, dtype: shipped.dtype };
    let finish = Finish {
        config: &config,
        pack: &pack,
        data_folder: arguments.data.as_deref().or(arguments.train_config.parent()).unwrap_or(Path::new("")),
        above: &arguments.set,
        pack_folder: &folder,
        out: &out,
        model: &model,
        context: &context,
        encoder: &encoder,
        source: &source,
        text: &text,
        checkpoint: &checkpoint,
        router: InstalledRouter::find(settings),
        weights: record,
    };
    finish.write()?;
    if settings.json {
        return print_json(&json!({
            "run": out, "steps": step, "best": best, "weights": weights, "bytes": bytes, "dtype": shipped.dtype,
        }));
    }
    print_line(&format!(
        "{}: {step} steps{}; weights in {} ({}, {})",
        pack.name,
        best_text(best),
        weights.display(),
        shipped.dtype,
        bytes_text(bytes)
    ))
}

fn write(shipped: &ShippedWeights, path: &Path) -> anyhow::Result<u64> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("can't create {}", folder.display()))?;
    }
    shipped.write(path).map_err(explain)
}

/// Encoding text ends at Ctrl-C.
pub(super) struct Interruptible;

impl Progress for Interruptible {
    fn is_cancelled(&self) -> bool {
        interrupt::is_cancelled()
    }
}

/// A trainer's error with its exit code and advice.
pub(crate) fn explain(error: TrainError) -> anyhow::Error {
    if error.is_cancelled() {
        return Failure::interrupted().into();
    }
    let message = error.to_string();
    let failure = match &error {
        TrainError::Config { .. } => {
            Failure::usage(message).help("`modularbase train config` prints every setting with its default")
        }
        TrainError::ConfigFile { .. } | TrainError::Corpus(_) | TrainError::Device { .. } => {
            Failure::usage(message)
        }
        TrainError::Graph(_) => Failure::new(Exit::BadPack, message),
        _ => Failure::new(Exit::Failed, message),
    };
    anyhow::Error::new(error).context(failure)
}
