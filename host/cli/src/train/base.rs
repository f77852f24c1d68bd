//! `train base RECIPE`: a base from nothing, or an existing one trained further.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use modularbase_core::BaseFile;
use modularbase_corpus::{TokenCache, read_documents};
use modularbase_engine::derived_slot;
use modularbase_trainer::baseline::FullModel;
use modularbase_trainer::{
    BaseEncoder, BaseRecipe, Compute, Run, TextSource, TrainingBase, TrainingText, create_base, write_base,
};
use serde_json::json;

use super::ending::{best_text, train_to_the_end};
use super::pack::{Interruptible, explain};
use crate::arguments::TrainBaseArguments;
use crate::failure::Failure;
use crate::interrupt::{self, Meaning, Scope};
use crate::settings::{Settings, cache_folder};
use crate::terminal::{notice, print_json, print_line};

/// The folder of the base before its first step, in the folder of the run.
const START: &str = "start";
/// The folder of the trained base.
const RESULT: &str = "base";

/// Trains a base.
pub(crate) fn train(arguments: &TrainBaseArguments, settings: &Settings) -> anyhow::Result<()> {
    let _scope = Scope::enter(Meaning::Cancel);
    let recipe = BaseRecipe::read(&arguments.recipe, arguments.data.as_deref()).map_err(explain)?;
    let config = &recipe.training;
    let start = match &arguments.from {
        Some(folder) => folder.clone(),
        None => arguments.out.join(START),
    };
    if arguments.from.is_none() && !start.join("model.safetensors").exists() {
        notice("making the tokenizer");
        create_base(&start, &recipe, &texts(&recipe)?).map_err(explain)?;
    }
    if !start.is_dir() {
        let failure = Failure::usage(format!("{} is no Hugging Face folder", start.display()));
        return Err(failure.help("a base that is trained further is given as a folder").into());
    }
    let file = BaseFile::open(&start).context("the base can't be read")?;
    let fingerprint = file.fingerprint().context("the base can't be read")?;
    let encoder = BaseEncoder::new(&file, &fingerprint).map_err(explain)?;
    let cache = TokenCache::new(cache_folder()?.join("tokens"));
    let source = TextSource { cache: &cache, encoder: &encoder, progress: &Interruptible };
    let text = TrainingText::open(config, &source).map_err(explain)?;
    let (shape, tied) = (file.shape().clone(), file.tied_head());
    let compute = Compute::on(settings.host.device).map_err(explain)?;
    let slot = derived_slot(shape.num_layers);
    let base = Arc::new(TrainingBase::load(file, slot, compute).map_err(explain)?);
    let model = FullModel::new(base).map_err(explain)?;
    let mut run = Run::open(config, &model, &text, &arguments.out, &fingerprint).map_err(explain)?;
    let (step, best) = train_to_the_end(&mut run, config.steps)?;
    let (checkpoint, _) = run.best().map_err(explain)?;
    let result = arguments.out.join(RESULT);
    copy_around_weights(&start, &result)?;
    write_base(&result, &shape, tied, &checkpoint.weights).map_err(explain)?;
    if settings.json {
        return print_json(&json!({ "run": arguments.out, "steps": step, "best": best, "base": result }));
    }
    print_line(&format!("{step} steps{}; the base is in {}", best_text(best), result.display()))
}

/// The running text of the recipe's training files, for the tokenizer.
fn texts(recipe: &BaseRecipe) -> anyhow::Result<Vec<String>> {
    let mut texts = Vec::new();
    let mut bytes = 0;
    for file in &recipe.training.data.train {
        let documents = read_documents(file, recipe.training.data.format)
            .with_context(|| format!("can't read {}", file.display()))?;
        for document in documents {
            interrupt::check()?;
            let document = document.with_context(|| format!("can't read {}", file.display()))?;
            for piece in document.body.pieces() {
                bytes += piece.len();
                texts.push(piece.to_owned());
            }
            if bytes > recipe.tokenizer.bytes {
                return Ok(texts);
            }
        }
    }
    Ok(texts)
}

/// Everything of a base but its weights.
fn copy_around_weights(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("can't create {}", to.display()))?;
    for name in ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
        let file = from.join(name);
        if file.exists() {
            std::fs::copy(&file, to.join(name)).with_context(|| format!("can't copy {}", file.display()))?;
        }
    }
    Ok(())
}
