//! Labelled prompts from files, and prompts cut of the packs' texts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use modularbase_core::BaseFile;
use modularbase_trainer::BaseEncoder;
use modularbase_trainer::routing::{PromptForm, PromptOptions, prompts};
use serde::Deserialize;

use super::pack::explain;
use crate::base::ChosenBase;
use crate::documents::JsonLines;
use crate::eval::Domain;
use crate::failure::Failure;
use crate::model;
use crate::packs::base_context;
use crate::settings::Settings;

#[derive(Debug, Deserialize)]
struct LabelledPrompt {
    text: String,
    packs: Option<Vec<String>>,
    intent: Option<String>,
}

/// A prompt and the packs that it wants, in order.
pub(super) struct Labelled {
    pub(super) text: String,
    pub(super) packs: Vec<String>,
    pub(super) weight: f32,
}

/// `FILE=W`, or a file that counts once.
pub(super) fn weighted(source: &str) -> anyhow::Result<(&str, f32)> {
    let Some((file, weight)) = source.rsplit_once('=') else { return Ok((source, 1.0)) };
    let weight: f32 =
        weight.parse().ok().filter(|weight: &f32| weight.is_finite() && *weight > 0.0).ok_or_else(|| {
            Failure::usage(format!(
                "--prompts {source}: expected a number above 0 after `=`, found `{weight}`"
            ))
        })?;
    Ok((file, weight))
}

/// The prompts of a file; packs that are not among `names` count as none.
pub(super) fn labelled(file: &Path, weight: f32, names: &BTreeSet<String>) -> anyhow::Result<Vec<Labelled>> {
    let mut prompts = Vec::new();
    for (index, prompt) in JsonLines::<LabelledPrompt>::open(file)?.enumerate() {
        let LabelledPrompt { text, packs, intent } = prompt?;
        let wanted = match (packs, intent) {
            (Some(packs), _) => packs,
            (None, Some(intent)) => vec![intent],
            (None, None) => {
                let place = format!("{}: prompt {}", file.display(), index + 1);
                return Err(Failure::usage(format!("{place} has neither `packs` nor `intent`")).into());
            }
        };
        // Corpora write names with an underscore, packs with a hyphen.
        let wanted: BTreeSet<String> = wanted.iter().map(|name| name.replace('_', "-")).collect();
        let packs = wanted.into_iter().filter(|name| names.contains(name)).collect();
        if !text.trim().is_empty() {
            prompts.push(Labelled { text, packs, weight });
        }
    }
    Ok(prompts)
}

/// Prompts as users might begin a text of each domain.
///
/// `sources` are `NAME=FILE`; of each, `count` prompts are cut.
pub(super) fn cut_texts(
    sources: &[String],
    count: u32,
    seed: u64,
    settings: &Settings,
    names: &BTreeSet<String>,
) -> anyhow::Result<Vec<Labelled>> {
    if sources.is_empty() {
        return Ok(Vec::new());
    }
    let chosen = ChosenBase::find(&settings.host.base)?;
    chosen.require()?;
    let file = BaseFile::open(&chosen.path).map_err(|error| model::explain(error.into()))?;
    let encoder =
        BaseEncoder::new(&file, &base_context(settings)?.fingerprint.to_string()).map_err(explain)?;
    let mut texts = Vec::new();
    for source in sources {
        let (name, path) = source
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("--text {source}: expected NAME=FILE")))?;
        let name = name.replace('_', "-");
        let domain = Domain { name: name.clone(), path: PathBuf::from(path) };
        let tokens = domain.tokens(&encoder)?;
        let cut = PromptOptions { each_form: count as usize, lengths: (8, 128), seed };
        let cut = prompts(&[&tokens], encoder.tokenizer(), cut).map_err(explain)?;
        let raw = cut.into_iter().filter(|prompt| prompt.form == PromptForm::Raw);
        texts.extend(raw.map(|prompt| Labelled {
            text: encoder.tokenizer().decode(&prompt.ids),
            packs: names.get(&name).into_iter().cloned().collect(),
            weight: 1.0,
        }));
    }
    Ok(texts)
}
