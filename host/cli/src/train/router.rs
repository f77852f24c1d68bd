//! `train router`: the detectors of packs, from labelled prompts and the packs' own text.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use modularbase_core::BaseFile;
use modularbase_engine::intent_feature;
use modularbase_trainer::BaseEncoder;
use modularbase_trainer::routing::{
    DetectorOptions, LabelledFeature, PromptForm, PromptOptions, prompts, train_detector,
};
use router::{RoutingKey, RoutingPolicy, route};
use serde::Deserialize;
use serde_json::json;

use super::pack::explain;
use crate::base::ChosenBase;
use crate::documents::JsonLines;
use crate::eval::Domain;
use crate::failure::Failure;
use crate::interrupt;
use crate::model;
use crate::packs::base_context;
use crate::settings::Settings;
use crate::terminal::{notice, print, print_json, step_bar, table};

/// `modularbase train router`.
#[derive(Debug, Args)]
pub(crate) struct TrainRouterArguments {
    /// Labelled prompts, one JSON object a line: `text`, and `packs` (a list of names, empty for general prompts) or
    /// `intent` (one name; one that is no pack's is general). May be given several times; `FILE=W` counts W times.
    #[arg(long, value_name = "FILE[=W]", required = true)]
    prompts: Vec<String>,
    /// Text of a pack, of which prompts are cut; with a name that is no pack's it is general text.
    #[arg(long, value_name = "NAME=FILE")]
    text: Vec<String>,
    /// Labelled prompts to measure on, as --prompts.
    #[arg(long, value_name = "FILE")]
    validation: Vec<PathBuf>,
    /// Packs whose routing keys get detectors: folders with a routing key, named as the pack.
    #[arg(long, value_name = "DIR", required = true, num_args = 1..)]
    keys: Vec<PathBuf>,
    /// The routing key's file in those folders.
    #[arg(long, value_name = "NAME", default_value = "routing-key.safetensors")]
    key_file: String,
    /// Prompts cut of each text.
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    cut: u32,
    /// Share of all prompts that want one pack where the detectors will be used.
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    share: f64,
    /// Seed of the cuts and of the training.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Deserialize)]
struct LabelledPrompt {
    text: String,
    packs: Option<Vec<String>>,
    intent: Option<String>,
}

/// Trains a detector for every key and tells what they are worth.
pub(crate) fn train(
    arguments: &TrainRouterArguments,
    settings: &Settings,
    started: Instant,
) -> anyhow::Result<()> {
    let keys = arguments.keys.iter().map(|folder| Key::read(folder, &arguments.key_file));
    let mut keys = keys.collect::<anyhow::Result<Vec<_>>>()?;
    let names: BTreeSet<String> = keys.iter().map(|key| key.pack.clone()).collect();
    let mut texts = Vec::new();
    for source in &arguments.prompts {
        let (file, weight) = weighted(source)?;
        texts.extend(labelled(Path::new(file), weight, &names)?);
    }
    texts.extend(cut_texts(arguments, settings, &names)?);
    let held = arguments.validation.iter().map(|file| labelled(file, 1.0, &names));
    let held: Vec<Labelled> = held.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect();

    let model = model::load(settings, started)?;
    let features = |what: &str, texts: Vec<Labelled>| -> anyhow::Result<Vec<LabelledFeature>> {
        let bar = step_bar(what, texts.len() as u64);
        let features = texts.into_iter().map(|prompt| {
            bar.inc(1);
            if interrupt::is_cancelled() {
                return Err(Failure::interrupted().into());
            }
            let feature = intent_feature(model.host.core(), model.host.tokenizer(), &prompt.text)
                .map_err(model::explain)?;
            Ok(LabelledFeature { feature, packs: prompt.packs, weight: prompt.weight })
        });
        let features = features.collect();
        bar.finish_and_clear();
        features
    };
    let trained_on = features("Reading prompts", texts)?;
    let held = features("Reading validation prompts", held)?;
    let options = DetectorOptions { seed: arguments.seed, ..DetectorOptions::default() };
    for key in &mut keys {
        notice(&format!("training the detector of {}", key.pack));
        let detector = train_detector(&key.pack, &trained_on, arguments.share, options).map_err(explain)?;
        key.key.detector = Some(detector);
        key.write()?;
    }
    tell(&keys, &held, trained_on.len(), settings)
}

/// A routing key in its folder.
struct Key {
    pack: String,
    path: PathBuf,
    key: RoutingKey,
}

impl Key {
    fn read(folder: &Path, file: &str) -> anyhow::Result<Self> {
        let refuse =
            |what: String| Failure::usage(what).help("make the pack's routing key first: `routing-key`");
        let pack = folder.file_name().and_then(|name| name.to_str());
        let pack = pack.ok_or_else(|| refuse(format!("{} names no pack", folder.display())))?.to_owned();
        let path = folder.join(file);
        let bytes = std::fs::read(&path)
            .map_err(|error| refuse(format!("can't read {}: {error}", path.display())))?;
        let key =
            RoutingKey::from_bytes(&bytes).map_err(|error| refuse(format!("{}: {error}", path.display())))?;
        Ok(Self { pack, path, key })
    }

    fn write(&self) -> anyhow::Result<()> {
        let bytes = self.key.to_bytes().with_context(|| format!("the key of `{}`", self.pack))?;
        manifests::write_atomically(&self.path, &bytes)
            .with_context(|| format!("can't write {}", self.path.display()))
    }
}

/// A prompt and the packs that it wants, in order.
struct Labelled {
    text: String,
    packs: Vec<String>,
    weight: f32,
}

fn weighted(source: &str) -> anyhow::Result<(&str, f32)> {
    let Some((file, weight)) = source.rsplit_once('=') else { return Ok((source, 1.0)) };
    let weight: f32 =
        weight.parse().ok().filter(|weight: &f32| weight.is_finite() && *weight > 0.0).ok_or_else(|| {
            Failure::usage(format!(
                "--prompts {source}: expected a number above 0 after `=`, found `{weight}`"
            ))
        })?;
    Ok((file, weight))
}

fn labelled(file: &Path, weight: f32, names: &BTreeSet<String>) -> anyhow::Result<Vec<Labelled>> {
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
fn cut_texts(
    arguments: &TrainRouterArguments,
    settings: &Settings,
    names: &BTreeSet<String>,
) -> anyhow::Result<Vec<Labelled>> {
    if arguments.text.is_empty() {
        return Ok(Vec::new());
    }
    let chosen = ChosenBase::find(&settings.host.base)?;
    chosen.require()?;
    let file = BaseFile::open(&chosen.path).map_err(|error| model::explain(error.into()))?;
    let encoder =
        BaseEncoder::new(&file, &base_context(settings)?.fingerprint.to_string()).map_err(explain)?;
    let mut texts = Vec::new();
    for source in &arguments.text {
        let (name, path) = source
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("--text {source}: expected NAME=FILE")))?;
        let name = name.replace('_', "-");
        let domain = Domain { name: name.clone(), path: PathBuf::from(path) };
        let tokens = domain.tokens(&encoder)?;
        let cut =
            PromptOptions { each_form: arguments.cut as usize, lengths: (8, 128), seed: arguments.seed };
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

/// How often the likeliest choice is the right one, pack by pack.
fn tell(
    keys: &[Key],
    held: &[LabelledFeature],
    trained_on: usize,
    settings: &Settings,
) -> anyhow::Result<()> {
    let choice = |prompt: &LabelledFeature| {
        let logits = keys.iter().filter_map(|key| {
            let logit = key.key.detector.as_ref()?.logit(&prompt.feature)?;
            Some((key.pack.clone(), logit))
        });
        let routing = route(logits.collect(), None, RoutingPolicy::default());
        routing.mixture.into_iter().next().map(|share| share.pack)
    };
    let is_right = |prompt: &&LabelledFeature| match choice(prompt) {
        Some(pack) => prompt.packs.contains(&pack),
        None => prompt.packs.is_empty(),
    };
    let mut rows = Vec::new();
    for name in keys.iter().map(|key| Some(key.pack.as_str())).chain([None]) {
        let wanting = held.iter().filter(|prompt| prompt.packs.first().map(String::as_str) == name);
        let right = wanting.clone().filter(is_right).count();
        rows.push((name.unwrap_or("no pack"), wanting.count(), right));
    }
    let (all, right) = rows.iter().fold((0, 0), |(all, sum), (_, count, right)| (all + count, sum + right));
    if settings.json {
        let by_pack: serde_json::Map<String, serde_json::Value> = rows
            .iter()
            .map(|(name, count, right)| ((*name).to_owned(), json!({ "prompts": count, "right": right })))
            .collect();
        return print_json(
            &json!({ "trained_on": trained_on, "prompts": all, "right": right, "packs": by_pack }),
        );
    }
    let share = |count: usize, right: usize| match count {
        0 => "-".to_owned(),
        _ => format!("{:.1} %", 100.0 * right as f64 / count as f64),
    };
    let mut lines = vec![["wanted", "prompts", "right"].map(str::to_owned).to_vec()];
    lines.extend(
        rows.iter()
            .map(|(name, count, right)| vec![(*name).to_owned(), count.to_string(), share(*count, *right)]),
    );
    lines.push(vec!["all".into(), all.to_string(), share(all, right)]);
    print(&table(&lines))
}
