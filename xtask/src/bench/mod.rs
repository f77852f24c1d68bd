//! `bench`: measurements as named steps, written as JSON with the commit, the machine and the settings beside them.
//!
//! Measurements are no tests: they depend on the machine. A step that compares two programs alternates them in one
//! run, so that both see the same machine.

mod library;
mod machine;
mod median;
mod packs;
mod start;
mod tokens;
mod train;
mod venv;

use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use crate::cargo_workspace::CargoWorkspace;
use crate::host_binary::HostBinary;
use crate::run::lay_out_packs;

/// What to measure, and how.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BenchArguments {
    /// What to measure (default: everything).
    #[arg(value_name = "STEP")]
    steps: Vec<Step>,
    /// Threads that compute, on both sides.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// How often each measurement is repeated; medians are reported.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The engine to measure beside this one.
    #[arg(long, value_name = "ENGINE", default_value = "llama-cpp")]
    beside: Beside,
    /// The GGUF file that both engines run (default: the default base).
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// A Python with torch, to measure PyTorch beside `train`.
    #[arg(long, value_name = "PYTHON")]
    torch: Option<PathBuf>,
    /// Where to write the result (default: `target/bench/COMMIT-SECONDS.json`).
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A named part of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Prefill and decode speed, beside another engine on the same file.
    Tokens,
    /// Opening, checking, building and closing a pack's library; RSS over many cycles.
    Library,
    /// Packs: to arrive, to load, to be evicted, ten thousand of them, and what they cost those beside them.
    Packs,
    /// A step of training a pack on the CPU, part by part; beside PyTorch with `--torch`.
    Train,
    /// Time from start to the first token, and peak RSS, of `modularbase run`.
    Start,
}

/// The engine to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Beside {
    /// llama.cpp through `llama-cpp-python`; compiled at first use, for some minutes.
    LlamaCpp,
    /// `ik_llama.cpp` through `ik-llama-cpp-python`.
    IkLlamaCpp,
    /// Nothing: this engine alone.
    Nothing,
}

/// What every step works with.
pub(crate) struct Setting {
    pub(crate) workspace: CargoWorkspace,
    pub(crate) host: HostBinary,
    pub(crate) packs_folder: PathBuf,
    pub(crate) threads: usize,
    pub(crate) rounds: usize,
    pub(crate) beside: Beside,
    /// The model file of both engines.
    pub(crate) model: PathBuf,
    /// Whether `model` was named and has to be handed on.
    pub(crate) model_is_chosen: bool,
    /// A Python with torch.
    pub(crate) torch: Option<PathBuf>,
}

/// Builds, measures, prints a summary to stdout and writes the result.
pub(crate) fn bench(arguments: &BenchArguments) -> anyhow::Result<()> {
    let workspace = CargoWorkspace::current()?;
    let mut packages = vec!["modularbase"];
    packages.extend(workspace.packs().iter().map(|pack| pack.package.as_str()));
    workspace.build(&packages)?;
    let host = HostBinary::built_in(&workspace);
    host.fetch_base()?;
    lay_out_packs(&workspace, &host, true)?;
    let setting = Setting {
        workspace: workspace.clone(),
        host,
        packs_folder: workspace.packs_folder(),
        threads: arguments.threads,
        rounds: arguments.rounds.max(1),
        beside: arguments.beside,
        model: match &arguments.model {
            Some(model) => model.clone(),
            None => default_model()?,
        },
        model_is_chosen: arguments.model.is_some(),
        torch: arguments.torch.clone(),
    };
    let steps = if arguments.steps.is_empty() { Step::value_variants() } else { &arguments.steps };
    let mut results = Map::new();
    for step in steps {
        let name = step.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default();
        eprintln!("bench: {name}");
        let result =
            step.measure(&setting).with_context(|| format!("the step `{name}` could not be measured"))?;
        results.insert(name, result);
    }
    let commit = machine::commit(&workspace.root);
    let report = json!({
        "commit": commit,
        "machine": machine::machine(),
        "settings": {
            "threads": setting.threads,
            "rounds": setting.rounds,
            "model": setting.model.file_name().map(|name| name.to_string_lossy()),
        },
        "steps": results,
    });
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => workspace.target.join("bench").join(machine::result_file_name(&commit)),
    };
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("can't create {}", folder.display()))?;
    }
    let text = format!("{report:#}\n");
    manifests::write_atomically(&out, text.as_bytes())
        .with_context(|| format!("can't write {}", out.display()))?;
    print!("{text}");
    eprintln!("bench: written to {}", out.display());
    Ok(())
}

impl Step {
    fn measure(self, setting: &Setting) -> anyhow::Result<Value> {
        match self {
            Self::Tokens => tokens::measure(setting),
            Self::Library => library::measure(setting),
            Self::Packs => packs::measure(setting),
            Self::Train => train::measure(setting),
            Self::Start => start::measure(setting),
        }
    }
}

/// The file of the default base, which `modularbase base fetch` has put there.
fn default_model() -> anyhow::Result<PathBuf> {
    let base = manifests::builtin_base(manifests::DEFAULT_BASE).context("the default base is unknown")??;
    let file = base.file.context("the default base names no file")?;
    let folder = manifests::folders::bases_folder()
        .context("there is no cache folder: set HOME, XDG_CACHE_HOME or MODULARBASE_CACHE")?;
    Ok(file.name.in_folder(&folder))
}
