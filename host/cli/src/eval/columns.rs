//! The columns of an evaluation: packs from their folders, mixtures of them, whole trained models.

use std::path::{Path, PathBuf};

use anyhow::Context;
use manifests::{MixtureChoice, WeightsRecord};
use modularbase_loader::{LoadContext, ProbeLimits, Prober, TrustPolicy, WeightsFile, open_pack};
use modularbase_manager::PackState;
use modularbase_trainer::TrainingBase;
use modularbase_trainer::evaluation::{
    ColumnFacts, ColumnType, DeltaRounding, Evaluator, PackFacts, SlotExpert, WholeModel, pack_weights,
};

use super::eval_arguments::EvalArguments;
use crate::failure::{Exit, Failure};
use crate::host_choice::unknown_pack;
use crate::packs;
use crate::settings::Settings;
use crate::terminal::notice;

/// Fills an evaluator and says what it was filled with.
pub(super) fn add_all(
    evaluator: &mut Evaluator,
    arguments: &EvalArguments,
    settings: &Settings,
    rounding: DeltaRounding,
) -> anyhow::Result<(Vec<PackFacts>, Vec<ColumnFacts>)> {
    let mut columns =
        vec![ColumnFacts { name: "base".to_owned(), kind: ColumnType::Base, parts: Vec::new() }];
    let mut facts = Vec::new();
    let context = packs::load_context(settings, Prober::this_program(ProbeLimits::default()))?;
    let trust = &settings.host.trust;
    let context = context.with_trust(TrustPolicy::new(trust.policy, trust.keys.clone()));
    for WantedPack { dir, weights } in wanted_packs(arguments, settings)? {
        let base = evaluator.base().clone();
        let (expert, pack) = match weights {
            None => load(&dir, &base, rounding, &context)?,
            Some(weights) => load_with(&dir, weights, &base, rounding, &context)?,
        };
        evaluator.add_expert(expert);
        evaluator.add_mixture(&pack.name, &[(&pack.name, 1.0)])?;
        let parts = vec![(pack.name.clone(), 1.0)];
        columns.push(ColumnFacts { name: pack.name.clone(), kind: ColumnType::Pack, parts });
        facts.push(pack);
    }
    let asked = std::iter::once(&settings.host.mixture).chain(&arguments.mix);
    for mixture in asked {
        let Some(parts) = mixture.normalized() else { continue };
        let name = mixture_name(mixture);
        let parts: Vec<(String, f64)> =
            parts.into_iter().map(|(pack, weight)| (pack.to_string(), weight)).collect();
        let borrowed: Vec<(&str, f64)> =
            parts.iter().map(|(pack, weight)| (pack.as_str(), *weight)).collect();
        evaluator
            .add_mixture(&name, &borrowed)
            .map_err(|error| Failure::usage(format!("the mixture `{name}`: {error}")))?;
        columns.push(ColumnFacts { name, kind: ColumnType::Mixture, parts });
    }
    for baseline in &arguments.baseline {
        let model = WholeModel::read(&baseline.path, evaluator.base()).map_err(|error| {
            let failure = Failure::usage(format!("the baseline `{}` can't be used", baseline.name));
            anyhow::Error::new(error).context(failure)
        })?;
        evaluator.add_model(&baseline.name, model);
        let (name, kind) = (baseline.name.clone(), ColumnType::Baseline);
        columns.push(ColumnFacts { name, kind, parts: Vec::new() });
    }
    for (index, column) in columns.iter().enumerate() {
        if columns[..index].iter().any(|other| other.name == column.name) {
            return Err(Failure::usage(format!("there are two columns named `{}`", column.name)).into());
        }
    }
    Ok((facts, columns))
}

/// As people write it, which tells a mixture of one pack from the pack's own column.
fn mixture_name(mixture: &MixtureChoice) -> String {
    let text = mixture.to_string();
    if text.contains('=') { text } else { format!("{text}=1") }
}

struct WantedPack {
    dir: PathBuf,
    /// Weights to read instead of its own.
    weights: Option<PathBuf>,
}

/// The packs that were asked for, else all sound ones of the packs folder.
fn wanted_packs(arguments: &EvalArguments, settings: &Settings) -> anyhow::Result<Vec<WantedPack>> {
    let mut packs: Vec<(String, PathBuf)> = Vec::new();
    if arguments.pack.is_empty() {
        let Some(folder) = settings.host.packs_dir.as_deref() else { return Ok(Vec::new()) };
        for pack in packs::folder_packs(folder)? {
            match (pack.state, pack.files) {
                (PackState::Registered, Some(files)) => packs.push((pack.name, files.path)),
                (_, _) => {
                    let reason = pack.reason.unwrap_or_default();
                    notice(&format!("note: `{}` is left out: {reason}", pack.name));
                }
            }
        }
    }
    for wanted in &arguments.pack {
        packs.push(find(wanted, settings)?);
    }
    let mut wanted: Vec<WantedPack> =
        packs.iter().map(|(_, dir)| WantedPack { dir: dir.clone(), weights: None }).collect();
    for weights in &arguments.weights {
        let index = match &weights.name {
            Some(name) => packs.iter().position(|(pack, _)| pack == name),
            None if packs.len() == 1 => Some(0),
            None => {
                let failure =
                    Failure::usage(format!("--weights names no pack, and there are {}", packs.len()));
                return Err(failure.help("write --weights PACK=FILE").into());
            }
        };
        let Some(index) = index else {
            let name = weights.name.as_deref().unwrap_or_default();
            let known = packs.iter().map(|(pack, _)| pack.as_str());
            return Err(unknown_pack(name, "to read weights for", known).into());
        };
        wanted[index].weights = Some(weights.path.clone());
    }
    Ok(wanted)
}

/// The name and folder of a pack of the packs folder, or of one in a folder of its own.
fn find(wanted: &str, settings: &Settings) -> anyhow::Result<(String, PathBuf)> {
    let path = Path::new(wanted);
    if wanted.contains('/') || path.join(manifests::PACK_MANIFEST_FILE).is_file() {
        let name = packs::manifest_name(path)?;
        return Ok((name, path.to_path_buf()));
    }
    let folder = settings.packs_dir()?;
    let known = packs::folder_packs(folder)?;
    let Some(pack) = known.iter().find(|pack| pack.name == wanted) else {
        let names = known.iter().map(|pack| pack.name.as_str());
        return Err(unknown_pack(wanted, &format!("in {}", folder.display()), names).into());
    };
    let dir = pack.files.as_ref().map_or(&pack.path, |files| &files.path);
    Ok((pack.name.clone(), dir.clone()))
}

/// A laid-out pack as the host would load it.
fn load(
    dir: &Path,
    base: &TrainingBase,
    rounding: DeltaRounding,
    context: &LoadContext,
) -> anyhow::Result<(SlotExpert, PackFacts)> {
    let pack = open_pack(dir, context).map_err(|error| {
        let failure = Failure::new(Exit::BadPack, format!("the pack in {} can't be used", dir.display()));
        anyhow::Error::new(error)
            .context(failure.help("`modularbase packs verify DIR` checks every part of a pack"))
    })?;
    let manifest = &pack.manifest;
    let name = manifest.pack.name.to_string();
    let facts = PackFacts {
        name: name.clone(),
        version: manifest.pack.version.to_string(),
        generation: Some(pack.generation.to_hex()),
        weights: manifest.weights.as_ref().map(|weights| weights.file.to_string()),
        dtype: manifest.weights.as_ref().map(|weights| weights.dtype.to_string()),
        bytes: manifest.weights.as_ref().map_or(0, |weights| weights.size),
    };
    let own = pack.weights.as_ref().map(|file| pack_weights(file, base, rounding)).transpose()?;
    let expert = SlotExpert::of_pack(&name, base, pack.graph, &own.unwrap_or_default())?;
    Ok((expert, facts))
}

/// A pack's graph with other weights than its own, which need not be there yet.
fn load_with(
    dir: &Path,
    weights: PathBuf,
    base: &TrainingBase,
    rounding: DeltaRounding,
    context: &LoadContext,
) -> anyhow::Result<(SlotExpert, PackFacts)> {
    let pack = packs::UnfinishedPack::read(dir, &context.base)?;
    let unreadable = |error: std::io::Error| {
        let failure = Failure::usage(format!("--weights: can't read {}", weights.display()));
        anyhow::Error::new(error).context(failure)
    };
    // A mapped file must not change under its readers: the pack's author may just write it anew.
    let copies = tempfile::tempdir().context("can't make a folder for a copy of the weights")?;
    let copy = copies.path().join("weights.safetensors");
    let bytes = std::fs::copy(&weights, &copy).map_err(unreadable)?;
    let record = WeightsRecord {
        file: "weights.safetensors".parse().context("a name of a file")?,
        sha256: manifests::Sha256::from_bytes([0; 32]),
        size: bytes,
        // What each tensor is stored as, the file itself says.
        dtype: manifests::Dtype::F32,
    };
    let refused = |error: &dyn std::fmt::Display| {
        let named = error.to_string().replace(&copy.display().to_string(), &weights.display().to_string());
        Failure::new(Exit::BadPack, format!("pack `{}`: {named}", pack.name))
    };
    let file = WeightsFile::open(&copy, &record).map_err(|error| refused(&error))?;
    let mut formats: Vec<String> = file.weights().map(|weight| weight.dtype.to_string()).collect();
    formats.sort();
    formats.dedup();
    let own = pack_weights(&file, base, rounding).map_err(|error| refused(&error))?;
    let expert = SlotExpert::of_pack(&pack.name, base, pack.graph, &own).map_err(|error| refused(&error))?;
    let facts = PackFacts {
        name: pack.name.clone(),
        version: pack.version.to_string(),
        generation: None,
        weights: Some(weights.display().to_string()),
        dtype: Some(formats.join(", ")),
        bytes,
    };
    Ok((expert, facts))
}
