//! `train router`: how prompts become features, and the detectors of packs, from labelled prompts and the packs' own text.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use manifests::{Sha256, Slot};
use modularbase_engine::PromptRows;
use modularbase_trainer::routing::{DetectorOptions, LabelledFeature, make_router, train_detectors};
use router::{Detector, RouterWeights, RoutingKey};

use super::pack::explain;
use super::router_crowd::{Crowded, crowd};
use super::router_means::KeptMeans;
use super::router_measured::{HeldPrompt, Measured, calibrated};
use super::router_prompts::{Labelled, cut_texts, labelled, weighted};
use super::router_report::Report;
use crate::failure::Failure;
use crate::interrupt;
use crate::model::{self, Model};
use crate::packs::base_context;
use crate::settings::{Settings, cache_folder};
use crate::terminal::{notice, step_bar};

/// `modularbase train router`.
#[derive(Debug, Args)]
pub(crate) struct TrainRouterArguments {
    /// Labelled prompts, one JSON object a line: `text`, and `packs` (a list of names, empty for general prompts) or
    /// `intent` (one name; one that is no pack's is general). May be given several times; `FILE=W` counts W times.
    #[arg(long, value_name = "FILE[=W]", required_unless_present = "measure")]
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
    /// The router pack's weights, which all detectors share.
    #[arg(long, value_name = "FILE", default_value = "packs/router/router.safetensors")]
    router: PathBuf,
    /// Makes the router's weights anew from the prompts, and calibrates them on those to measure on. Every detector that
    /// was trained with others is of no use then.
    #[arg(long, conflicts_with = "add")]
    fit: bool,
    /// Chooses temperature and threshold anew by the prompts to measure on, and writes them into the router's weights.
    #[arg(long, requires = "validation")]
    calibrate: bool,
    /// Trains the detector of this pack alone, beside the others' as they are; may be given several times.
    #[arg(long, value_name = "NAME")]
    add: Vec<String>,
    /// Trains and writes nothing: measures the detectors as they are.
    #[arg(long, requires = "validation", conflicts_with_all = ["fit", "add", "leave_one_out"])]
    measure: bool,
    /// Also trains for each pack the others without its prompts, adds it by its key alone, and measures both; nothing of
    /// that is written.
    #[arg(long, requires = "validation", conflicts_with = "add")]
    leave_one_out: bool,
    /// Also measures the packs beside so many keys in all, the others made of slices of the training prompts, and how
    /// long a prompt takes there; nothing of that is written.
    #[arg(long, value_name = "KEYS", requires_all = ["validation", "prompts"])]
    crowd: Option<usize>,
    /// Prompts that want no pack count so many times.
    #[arg(long, value_name = "W", default_value_t = 1.0)]
    general_weight: f32,
    /// Prompts cut of each text.
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    cut: u32,
    /// Steps of the training.
    #[arg(long, value_name = "N", default_value_t = 800, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: u32,
    /// Goes on with the detectors that the keys hold, in place of training them from nothing.
    #[arg(long, conflicts_with_all = ["fit", "measure", "leave_one_out"])]
    go_on: bool,
    /// The highest learning rate.
    #[arg(long, value_name = "RATE", default_value_t = DetectorOptions::default().learning_rate)]
    learning_rate: f64,
    /// Networks that a detector is the mean of, each trained from a seed of its own.
    #[arg(long, value_name = "N", default_value_t = DetectorOptions::default().members as u32, value_parser = clap::value_parser!(u32).range(1..=16))]
    members: u32,
    /// What the contrast between the prompts of a step counts in the loss.
    #[arg(long, value_name = "W", default_value_t = DetectorOptions::default().contrast)]
    contrast: f64,
    /// Seed of the cuts and of the training.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Trains detectors and tells what they are worth.
pub(crate) fn train(
    arguments: &TrainRouterArguments,
    settings: &Settings,
    started: Instant,
) -> anyhow::Result<()> {
    let keys = arguments.keys.iter().map(|folder| Key::read(folder, &arguments.key_file));
    let mut keys = keys.collect::<anyhow::Result<Vec<_>>>()?;
    let names: BTreeSet<String> = keys.iter().map(|key| key.pack.clone()).collect();
    if let Some(name) = arguments.add.iter().find(|name| !names.contains(*name)) {
        return Err(Failure::usage(format!("--add {name}: no folder of that name is among --keys")).into());
    }
    if !(arguments.general_weight.is_finite() && arguments.general_weight > 0.0) {
        let found = arguments.general_weight;
        return Err(
            Failure::usage(format!("--general-weight: expected a number above 0, found {found}")).into()
        );
    }
    let mut texts = Vec::new();
    for source in &arguments.prompts {
        let (file, weight) = weighted(source)?;
        texts.extend(labelled(Path::new(file), weight, &names)?);
    }
    texts.extend(cut_texts(&arguments.text, arguments.cut, arguments.seed, settings, &names)?);
    for general in texts.iter_mut().filter(|prompt| prompt.packs.is_empty()) {
        general.weight *= arguments.general_weight;
    }
    let held = arguments.validation.iter().map(|file| labelled(file, 1.0, &names));
    let held: Vec<Labelled> = held.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect();

    let model = model::load(settings, started)?;
    let token_weights = match arguments.fit {
        true => count_tokens(&model, &texts)?,
        false => read_router(&arguments.router)?.token_weights,
    };
    let timed = match arguments.crowd {
        Some(_) => read_some(&model, &held)?,
        None => Vec::new(),
    };
    let slot = base_context(settings)?.slot;
    let slot = Slot::new(slot.start as u32, slot.end as u32).context("the slot is empty")?;
    let width = 4 * model.host.core().shape().hidden_size;
    let folder = cache_folder()?.join("prompts");
    let mut kept = KeptMeans::open(&folder, model.host.fingerprint(), slot, &token_weights, width)?;
    let trained_on = Means::read(&model, &token_weights, &mut kept, "Reading prompts", texts)?;
    let held = Means::read(&model, &token_weights, &mut kept, "Reading validation prompts", held)?;
    let mut router = match arguments.fit {
        true => trained_on.router(model.host.fingerprint(), slot, token_weights, None)?,
        false => read_router(&arguments.router)?,
    };
    let options = DetectorOptions {
        seed: arguments.seed,
        steps: arguments.steps as usize,
        members: arguments.members as usize,
        contrast: arguments.contrast,
        learning_rate: arguments.learning_rate,
        ..DetectorOptions::default()
    };
    let prompts = trained_on.features(&router, None);
    let held_prompts = held.held_prompts(&router);
    if !arguments.measure {
        train_keys(&mut keys, &arguments.add, arguments.go_on, &router, &prompts, options)?;
    }
    if arguments.fit || arguments.calibrate {
        let policy = router.facts.policy.clone();
        router.facts.policy = calibrated(&detectors(&keys, &router), &held_prompts, policy);
        let bytes = router.to_bytes().context("the router's weights can't be written")?;
        manifests::write_atomically(&arguments.router, &bytes)
            .with_context(|| format!("can't write {}", arguments.router.display()))?;
    }
    if !arguments.measure {
        keys.iter().try_for_each(Key::write)?;
    }
    let real = detectors(&keys, &router);
    let crowded = |count: usize| {
        let more = count.saturating_sub(real.len());
        let crowd = real.first().map_or(Vec::new(), |(_, like)| crowd(more, &prompts, like));
        Crowded::of(&real, &crowd, &held_prompts, &router, &timed, settings.host.threads)
    };
    let mut report = Report {
        trained_on: if arguments.measure { 0 } else { prompts.len() },
        full: Measured::of(&real, &held_prompts, &router.facts.policy),
        crowd: arguments.crowd.map(crowded),
        left_out: Vec::new(),
    };
    if arguments.leave_one_out {
        for name in &names {
            notice(&format!("without {name}"));
            report.left_out.push((name.clone(), without(name, &keys, &router, &trained_on, &held, options)?));
        }
    }
    report.tell(settings)
}

/// What everything is worth when it was fitted without one pack, which came last and by its key alone.
fn without(
    name: &String,
    keys: &[Key],
    router: &RouterWeights,
    trained_on: &Means,
    held: &Means,
    options: DetectorOptions,
) -> anyhow::Result<Measured> {
    let (base, slot) = (router.facts.base, router.facts.slot);
    let other = trained_on.router(base, slot, router.token_weights.clone(), Some(name))?;
    let mut others: Vec<Key> = keys.iter().filter(|key| key.pack != *name).cloned().collect();
    train_keys(&mut others, &[], false, &other, &trained_on.features(&other, Some(name)), options)?;
    others.extend(keys.iter().filter(|key| key.pack == *name).cloned());
    let all = trained_on.features(&other, None);
    train_keys(&mut others, std::slice::from_ref(name), false, &other, &all, options)?;
    Ok(Measured::of(&detectors(&others, &other), &held.held_prompts(&other), &router.facts.policy))
}

/// Units of a detector that joins others. They stay as they are and may be sure of its prompts, which they never saw: it has
/// more to tell apart than one that is trained with them.
const JOINING_UNITS: usize = 20;

/// How many times its own prompts count then: where they lie close to another's, that one can't give way.
const JOINING_WEIGHT: f32 = 4.0;

/// Trains the detectors of `only` beside the others' as they are, or of all keys where it is empty; anew, or from where they
/// are.
fn train_keys(
    keys: &mut [Key],
    only: &[String],
    go_on: bool,
    router: &RouterWeights,
    prompts: &[LabelledFeature],
    options: DetectorOptions,
) -> anyhow::Result<()> {
    let projection = router.projection();
    let is_new = |key: &Key| only.is_empty() || only.contains(&key.pack);
    let wanted: Vec<String> = keys.iter().filter(|key| is_new(key)).map(|key| key.pack.clone()).collect();
    let mut frozen = Vec::new();
    for key in keys.iter().filter(|key| !is_new(key)) {
        // A pack without a detector of this router can't be chosen beside the new one either.
        match &key.key.detector {
            Some(detector) if key.key.facts.router == Some(projection) => {
                frozen.push((key.pack.clone(), detector));
            }
            _ => notice(&format!("note: `{}` has no detector of this router and takes no part", key.pack)),
        }
    }
    let from: Vec<&Detector> = detectors(keys, router)
        .into_iter()
        .filter(|(name, _)| wanted.iter().any(|pack| pack == name))
        .map(|(_, detector)| detector)
        .collect();
    let from = go_on.then_some(&from[..]);
    let (mut options, mut prompts) = (options, Cow::Borrowed(prompts));
    if !only.is_empty() {
        options.units = options.units.max(JOINING_UNITS);
        let joins = |prompt: &&mut LabelledFeature| prompt.packs.iter().any(|pack| only.contains(pack));
        prompts.to_mut().iter_mut().filter(joins).for_each(|prompt| prompt.weight *= JOINING_WEIGHT);
    }
    let bar = step_bar(&format!("Training {}", wanted.join(", ")), (options.members * options.steps) as u64);
    let trained = train_detectors(&wanted, from, &frozen, &prompts, options, &mut |step, _| {
        bar.set_position(step as u64);
    });
    bar.finish_and_clear();
    interrupt::check()?;
    let mut trained = trained.map_err(explain)?.into_iter();
    for key in keys.iter_mut().filter(|key| wanted.contains(&key.pack)) {
        key.key.detector = trained.next();
        key.key.facts.router = Some(projection);
    }
    Ok(())
}

/// The detectors of this router by name.
fn detectors<'a>(keys: &'a [Key], router: &RouterWeights) -> Vec<(&'a str, &'a Detector)> {
    let projection = router.projection();
    let own = keys.iter().filter(|key| key.key.facts.router == Some(projection));
    own.filter_map(|key| Some((key.pack.as_str(), key.key.detector.as_ref()?))).collect()
}

fn read_router(path: &Path) -> anyhow::Result<RouterWeights> {
    let refuse = |what: String| Failure::usage(what).help("make the router's weights first: --fit");
    let bytes =
        std::fs::read(path).map_err(|error| refuse(format!("can't read {}: {error}", path.display())))?;
    RouterWeights::from_bytes(&bytes).map_err(|error| refuse(format!("{}: {error}", path.display())).into())
}

/// How much each token counts, by how often the prompts have it.
fn count_tokens(model: &Model, texts: &[Labelled]) -> anyhow::Result<Vec<f32>> {
    let mut seen = Vec::new();
    for prompt in texts {
        let ids = model.host.tokenizer().encode_prompt(&prompt.text, false);
        seen.extend(ids.map_err(|error| model::explain(error.into()))?);
    }
    Ok(RouterWeights::weights_of_tokens(model.host.core().shape().vocab_size, seen))
}

/// Prompts as the base reads them.
struct Means {
    /// `[4 * hidden]` a prompt; see [`RouterWeights::means`].
    means: Vec<Vec<f32>>,
    labels: Vec<Label>,
}

/// What a prompt wants.
struct Label {
    packs: Vec<String>,
    weight: f32,
    words: usize,
}

/// Prompts whose time is taken.
const TIMED: usize = 200;

/// Some of the prompts as the base reads them, spread over all.
fn read_some(model: &Model, texts: &[Labelled]) -> anyhow::Result<Vec<PromptRows>> {
    let some = texts.iter().step_by((texts.len() / TIMED).max(1));
    some.map(|prompt| PromptRows::of_text(model.host.core(), model.host.tokenizer(), &prompt.text))
        .collect::<Result<_, _>>()
        .map_err(model::explain)
}

impl Means {
    fn read(
        model: &Model,
        token_weights: &[f32],
        kept: &mut KeptMeans,
        what: &str,
        texts: Vec<Labelled>,
    ) -> anyhow::Result<Self> {
        let bar = step_bar(what, texts.len() as u64);
        let mut all =
            Self { means: Vec::with_capacity(texts.len()), labels: Vec::with_capacity(texts.len()) };
        for prompt in texts {
            bar.inc(1);
            interrupt::check()?;
            all.means.push(kept.of(&prompt.text, || {
                let rows = PromptRows::of_text(model.host.core(), model.host.tokenizer(), &prompt.text);
                let rows = rows.map_err(model::explain)?;
                let means = RouterWeights::means(token_weights, &rows.ids, &rows.hidden, &rows.embeddings);
                means.context("the base's hidden states have another size than its embeddings")
            })?);
            let words = prompt.text.split_whitespace().count();
            all.labels.push(Label { packs: prompt.packs, weight: prompt.weight, words });
        }
        bar.finish_and_clear();
        Ok(all)
    }

    /// The router of these prompts but those that want `without`.
    fn router(
        &self,
        base: Sha256,
        slot: Slot,
        token_weights: Vec<f32>,
        without: Option<&str>,
    ) -> anyhow::Result<RouterWeights> {
        let stays = |packs: &[String]| without.is_none_or(|name| !packs.iter().any(|pack| pack == name));
        let (means, general): (Vec<Vec<f32>>, Vec<bool>) = self
            .means
            .iter()
            .zip(&self.labels)
            .filter(|(_, label)| stays(&label.packs))
            .map(|(mean, label)| (mean.clone(), label.packs.is_empty()))
            .unzip();
        make_router(base, slot, token_weights, &means, &general).map_err(explain)
    }

    /// The features of these prompts but those that want `without`.
    fn features(&self, router: &RouterWeights, without: Option<&str>) -> Vec<LabelledFeature> {
        let prompts = self.means.iter().zip(&self.labels);
        prompts
            .filter(|(_, label)| without.is_none_or(|name| !label.packs.iter().any(|pack| pack == name)))
            .map(|(mean, label)| LabelledFeature {
                feature: router.standardized(mean),
                packs: label.packs.clone(),
                weight: label.weight,
            })
            .collect()
    }

    fn held_prompts(&self, router: &RouterWeights) -> Vec<HeldPrompt> {
        let words = self.labels.iter().map(|label| label.words);
        let held = self.features(router, None).into_iter().zip(words);
        held.map(|(labelled, words)| HeldPrompt { labelled, words }).collect()
    }
}

/// A routing key in its folder.
#[derive(Clone)]
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
