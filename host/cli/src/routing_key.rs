//! `routing-key`: makes a pack's routing key from its training text and checks it on held-out text.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use modularbase_core::{BaseFile, Tokenizer};
use modularbase_corpus::TokenizedCorpus;
use modularbase_trainer::routing::{KeyOptions, held_out_check, make_routing_key};
use modularbase_trainer::{BaseEncoder, Compute, TrainingBase};
use router::RoutingKey;
use serde_json::json;

use crate::base::ChosenBase;
use crate::eval::{Domain, as_failure};
use crate::failure::Failure;
use crate::model::explain;
use crate::packs;
use crate::settings::Settings;
use crate::terminal::{bytes_text, print, print_json, step_bar, table};

/// `modularbase routing-key`.
#[derive(Debug, Args)]
pub(crate) struct RoutingKeyArguments {
    /// The pack's training text, a file or folder; may be given several times.
    #[arg(long, value_name = "FILE", required = true)]
    train: Vec<PathBuf>,
    /// General training text, which the key is to be told from; without it the key is not checked.
    #[arg(long, value_name = "FILE", requires_all = ["validation", "general_validation"])]
    general: Vec<PathBuf>,
    /// Held-out text of the pack's domain.
    #[arg(long, value_name = "FILE", requires = "general")]
    validation: Vec<PathBuf>,
    /// Held-out general text.
    #[arg(long, value_name = "FILE", requires = "general")]
    general_validation: Vec<PathBuf>,
    /// Where the key goes.
    #[arg(long, value_name = "FILE", default_value = "routing-key.safetensors")]
    out: PathBuf,
    /// Prompts of each form, raw and chat.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    prompts: u32,
    /// Prompts of each form, kind and length of the check.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    check_prompts: u32,
    /// Seed of the prompts.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Makes the key and tells what it is worth.
pub(crate) fn routing_key(arguments: &RoutingKeyArguments, settings: &Settings) -> anyhow::Result<()> {
    let chosen = ChosenBase::find(&settings.host.base)?;
    chosen.require()?;
    let context = packs::base_context(settings)?;
    let file = BaseFile::open(&chosen.path).map_err(|error| explain(error.into()))?;
    let encoder = BaseEncoder::new(&file, &context.fingerprint.to_string()).map_err(as_failure)?;
    let read =
        |files: &[PathBuf]| files.iter().map(|file| tokens(file, &encoder)).collect::<Result<Vec<_>, _>>();
    let (train, general) = (read(&arguments.train)?, read(&arguments.general)?);
    let (held, general_held) = (read(&arguments.validation)?, read(&arguments.general_validation)?);
    let compute = Compute::on(settings.host.device).map_err(as_failure)?;
    let base = TrainingBase::load(file, context.slot, compute).map_err(as_failure)?;
    let tokenizer = encoder.tokenizer();
    let options =
        KeyOptions { each_form: arguments.prompts as usize, seed: arguments.seed, ..KeyOptions::default() };
    let make = |what: &str, text: &[TokenizedCorpus], tokenizer: &Tokenizer| {
        let bar = step_bar(what, 0);
        let text: Vec<&TokenizedCorpus> = text.iter().collect();
        let key =
            make_routing_key(&base, context.fingerprint, tokenizer, &text, options, &mut |done, total| {
                bar.set_length(total);
                bar.set_position(done);
            });
        bar.finish_and_clear();
        key.map_err(as_failure)
    };
    let mut key = make("Reading prompts", &train, tokenizer)?;
    if !general.is_empty() {
        let general_key = make("Reading general prompts", &general, tokenizer)?;
        let held: Vec<&TokenizedCorpus> = held.iter().collect();
        let general_held: Vec<&TokenizedCorpus> = general_held.iter().collect();
        let checked = KeyOptions { each_form: arguments.check_prompts as usize, ..options };
        let texts = [held.as_slice(), general_held.as_slice()];
        let check =
            held_out_check(&base, tokenizer, &key, &general_key, texts, checked).map_err(as_failure)?;
        key.facts.check = Some(check);
    }
    let bytes = key.to_bytes().context("the key can't be written")?;
    manifests::write_atomically(&arguments.out, &bytes)
        .with_context(|| format!("can't write {}", arguments.out.display()))?;
    tell(&key, &arguments.out, bytes.len() as u64, settings)
}

fn tokens(file: &Path, encoder: &BaseEncoder) -> anyhow::Result<TokenizedCorpus> {
    let name = file.display().to_string();
    if let Err(error) = std::fs::metadata(file) {
        return Err(anyhow::Error::new(error).context(Failure::usage(format!("can't read {name}"))));
    }
    Domain { name, path: file.to_path_buf() }.tokens(encoder)
}

fn tell(key: &RoutingKey, out: &Path, bytes: u64, settings: &Settings) -> anyhow::Result<()> {
    if settings.json {
        return print_json(
            &json!({ "path": out, "bytes": bytes, "rank": key.scatter.rank(), "facts": key.facts }),
        );
    }
    let mut rows = vec![
        vec!["key".to_owned(), format!("{} ({})", out.display(), bytes_text(bytes))],
        vec!["prompts".to_owned(), key.facts.prompts.to_string()],
        vec!["directions".to_owned(), format!("{} of {}", key.scatter.rank(), key.width())],
    ];
    for (length, share) in key.facts.check.iter().flat_map(|check| &check.right) {
        rows.push(vec![format!("right at {length} tokens"), format!("{:.1} %", share * 100.0)]);
    }
    print(&table(&rows))
}
