//! `packs install` and `packs remove`: the folder at one stroke, then the running host's word.

use std::path::{Path, PathBuf};

use modularbase_loader::{InstallError, PackFolder};
use serde_json::json;

use super::verdict::{self, Expected};
use super::{file_cache, report_table::short};
use crate::arguments::HostChoice;
use crate::failure::{Exit, Failure};
use crate::host_choice::{explain, find};
use crate::settings::Settings;
use crate::terminal::{notice, print_json, print_line};

/// Puts a pack into the folder; where a host runs, waits for what it makes of it.
pub(crate) fn install(source: &Path, choice: &HostChoice, settings: &Settings) -> anyhow::Result<()> {
    let mut host = find(choice, settings)?;
    // Asked before: afterwards, what the host tells of the pack may be told already.
    let asked = match &mut host {
        Some(host) => Some(Expected::after_now(host)?),
        None => None,
    };
    let installed =
        modularbase_loader::install(source, settings.packs_dir()?, &file_cache()?).map_err(refused)?;
    let name = installed.name.as_str();
    let what = if installed.replaced.is_some() { "was replaced" } else { "was installed" };
    let generation = PackFolder::read(&installed.path).ok().map(|folder| folder.generation.to_hex());
    let mut note =
        "no running host was asked; `modularbase packs list` tells what is known without one".to_owned();
    if let (Some(mut host), Some(asked)) = (host, asked) {
        let expected = asked.of(name, installed.path.clone(), generation.clone());
        let asked = host.client.rescan().map_err(explain);
        match asked.and_then(|()| verdict::wait(&mut host, &expected)) {
            Ok(verdict) => return verdict::print(verdict, &host, &expected, what, settings),
            // It lies in the folder, whatever became of the host.
            Err(error) => note = format!("what the host makes of it is not known: {error}"),
        }
    }
    if settings.json {
        return print_json(&json!({
            "name": name,
            "path": installed.path.display().to_string(),
            "generation": generation,
            "replaced": installed.replaced.map(|path| path.display().to_string()),
        }));
    }
    print_line(&format!("`{name}` {what} ({})", short(generation.as_deref().unwrap_or("-"))))?;
    notice(&format!("note: {note}"));
    Ok(())
}

/// Takes a pack out of the folder; where a host runs, waits until nothing of it is left there.
pub(crate) fn remove(name: &str, choice: &HostChoice, settings: &Settings) -> anyhow::Result<()> {
    let host = find(choice, settings)?;
    let removed = modularbase_loader::remove(settings.packs_dir()?, name).map_err(refused)?;
    let Some(mut host) = host else { return tell_removed(name, removed, "was removed", settings) };
    let asked = host.client.rescan().map_err(explain);
    let left = match asked.and_then(|()| verdict::wait_until_gone(&mut host, name, &removed)) {
        Ok(Some(left)) => left,
        Ok(None) => {
            return tell_removed(name, removed, "was removed, and the host has let go of it", settings);
        }
        // It is out of the folder, whatever became of the host.
        Err(error) => {
            notice(&format!("note: whether the host has let go of it is not known: {error}"));
            return tell_removed(name, removed, "was removed", settings);
        }
    };
    let requests = match left.leases {
        0 => "the host still holds it".to_owned(),
        1 => "1 request still uses it, and it goes when that ends".to_owned(),
        leases => format!("{leases} requests still use it, and it goes when the last of them ends"),
    };
    let failure =
        Failure::new(Exit::Failed, format!("`{name}` was removed, but {requests} ({})", left.state));
    Err(failure.help(format!("`modularbase packs show {name}` tells more")).into())
}

fn tell_removed(name: &str, path: PathBuf, what: &str, settings: &Settings) -> anyhow::Result<()> {
    if settings.json {
        return print_json(&json!({ "name": name, "path": path.display().to_string(), "removed": true }));
    }
    print_line(&format!("`{name}` {what}"))
}

/// Why the folder is as it was.
fn refused(error: InstallError) -> anyhow::Error {
    let message = error.to_string();
    let failure = match &error {
        // A full disk says nothing against the archive.
        InstallError::Archive(archive) if archive.is_the_hosts() => Failure::new(Exit::Failed, message),
        InstallError::Folder(_) | InstallError::Archive(_) => Failure::new(Exit::BadPack, message),
        InstallError::NotFound { .. } => {
            Failure::usage(message).help("`modularbase packs list` shows what is there")
        }
        InstallError::Ambiguous { .. } | InstallError::NotAPack(_) | InstallError::Occupied { .. } => {
            Failure::usage(message)
        }
        InstallError::Scan(_)
        | InstallError::Changed(_)
        | InstallError::Full { .. }
        | InstallError::Io { .. } => Failure::new(Exit::Failed, message),
    };
    anyhow::Error::new(error).context(failure)
}
