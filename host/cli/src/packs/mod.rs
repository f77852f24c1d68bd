//! `packs ...`: what operators and authors do with packs.

mod events;
mod folder;
mod forward_check;
mod init_weights;
mod inspect;
mod install;
mod installed_router;
mod list;
mod measure;
mod quantize;
mod quarantine;
mod report_table;
mod unfinished_pack;
mod verdict;
mod verification;
mod verify;
mod wishes;

use std::process::ExitCode;

use anyhow::Context;
use modularbase_core::BaseFile;
use modularbase_engine::derived_slot;
use modularbase_loader::{BaseContext, FileCache, LoadContext, ProbeLimits, Prober};

use crate::arguments::PacksCommand;
use crate::base::ChosenBase;
use crate::failure::{Exit, Failure};
use crate::model::{explain, slot};
use crate::settings::{Settings, cache_folder};

pub(crate) use folder::read as folder_packs;
pub(crate) use installed_router::InstalledRouter;
pub(crate) use list::reports_table;
pub(crate) use measure::declaration;
pub(crate) use quantize::open_copy;
pub(crate) use report_table::{one_line, reason, short};
pub(crate) use unfinished_pack::{UnfinishedPack, manifest_name};
pub(crate) use wishes::outcome_text;

/// Runs one of the commands.
pub(crate) fn command(command: PacksCommand, settings: &Settings) -> anyhow::Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    match command {
        PacksCommand::List { host } => list::list(&host, settings).map(done),
        PacksCommand::Show { name, host } => list::show(&name, &host, settings).map(done),
        PacksCommand::Events { follow, after, host } => {
            events::events(follow, after, &host, settings).map(done)
        }
        PacksCommand::Pin { name, host } => wishes::keep(&name, true, &host, settings).map(done),
        PacksCommand::Unpin { name, host } => wishes::keep(&name, false, &host, settings).map(done),
        PacksCommand::Priority { name, priority, host } => {
            wishes::priority(&name, priority, &host, settings).map(done)
        }
        PacksCommand::Evict { name, host } => wishes::evict(&name, &host, settings).map(done),
        PacksCommand::Install { source, host } => install::install(&source, &host, settings).map(done),
        PacksCommand::Remove { name, host } => install::remove(&name, &host, settings).map(done),
        PacksCommand::Quarantine(command) => quarantine::command(&command, settings).map(done),
        PacksCommand::Inspect { path } => inspect::inspect(&path, settings).map(done),
        PacksCommand::Verify { dir } => verify::verify(&dir, settings),
        PacksCommand::InitWeights { dir, seed } => init_weights::init_weights(&dir, seed, settings).map(done),
        PacksCommand::Quantize { dir, to, out } => {
            quantize::quantize(&dir, to.0, out.as_deref(), settings).map(done)
        }
        PacksCommand::Measure { dir } => measure::measure(&dir, settings).map(done),
        PacksCommand::ForwardCheck { dir } => forward_check::answer(&dir, settings).map(done),
    }
}

/// The base of the settings as packs need to know it; its weights are not loaded.
pub(crate) fn base_context(settings: &Settings) -> anyhow::Result<BaseContext> {
    let base = ChosenBase::find(&settings.host.base)?;
    base.require()?;
    let file = BaseFile::open(&base.path).map_err(|error| explain(error.into()))?;
    let fingerprint = file.cached_fingerprint(&cache_folder()?).map_err(|error| explain(error.into()))?;
    let fingerprint = fingerprint.parse().context("the base's fingerprint is no SHA-256")?;
    let slot = slot(&base, settings).unwrap_or_else(|| derived_slot(file.shape().num_layers));
    Ok(BaseContext { fingerprint, version: None, shape: file.shape().clone(), slot })
}

/// What loading a pack needs to know, with this prober.
pub(crate) fn load_context(settings: &Settings, prober: Prober) -> anyhow::Result<LoadContext> {
    Ok(LoadContext::new(file_cache()?, base_context(settings)?, prober))
}

/// Where copies of packs' files are kept.
fn file_cache() -> anyhow::Result<FileCache> {
    Ok(FileCache::new(cache_folder()?.join("packs")))
}

/// The prober with the usual limits.
fn prober() -> Prober {
    Prober::this_program(ProbeLimits::default())
}

/// The failure of a pack that can't be looked at.
pub(crate) fn bad_pack(message: impl Into<String>) -> Failure {
    Failure::new(Exit::BadPack, message)
}
