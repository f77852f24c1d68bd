//! `packs pin|unpin|priority|evict`: what an operator wishes of packs on the device.

use std::path::Path;

use manifests::{ManifestError, OperatorWishes, PackName};
use modularbase_control::{Client, ClientError};
use modularbase_manager::EvictOutcome;
use serde_json::json;

use super::folder;
use crate::arguments::HostChoice;
use crate::host_choice::{Operated, explain, find, unknown_pack};
use crate::settings::Settings;
use crate::terminal::{bytes_text, notice, print_json, print_line};

/// A running host would have been told.
const NO_HOST: &str = "note: no running host was asked; it holds from the next start";

/// Keeps a pack on the device, or no longer.
pub(crate) fn keep(
    name: &PackName,
    keep: bool,
    choice: &HostChoice,
    settings: &Settings,
) -> anyhow::Result<()> {
    wish(
        name,
        // A wish for a pack that has gone may still be taken back.
        keep,
        choice,
        settings,
        |client| client.pin(name.as_str(), keep),
        |folder| OperatorWishes::set_keep(folder, name, keep),
    )?;
    if settings.json {
        return print_json(&json!({ "pack": name, "keep": keep }));
    }
    print_line(&match keep {
        true => format!("`{name}` is kept on the device"),
        false => format!("`{name}` is no longer kept on the device"),
    })
}

/// Sets how late a pack is evicted.
pub(crate) fn priority(
    name: &PackName,
    priority: i32,
    choice: &HostChoice,
    settings: &Settings,
) -> anyhow::Result<()> {
    wish(
        name,
        true,
        choice,
        settings,
        |client| client.set_priority(name.as_str(), priority),
        |folder| OperatorWishes::set_priority(folder, name, priority),
    )?;
    if settings.json {
        return print_json(&json!({ "pack": name, "priority": priority }));
    }
    print_line(&format!("`{name}` has the priority {priority}"))
}

/// Tells a wish to the running host, or writes it down for the next one. `must_exist`: without a host, the folder has to
/// hold a pack of this name.
fn wish(
    name: &PackName,
    must_exist: bool,
    choice: &HostChoice,
    settings: &Settings,
    tell: impl FnOnce(&mut Client) -> Result<(), ClientError>,
    write_down: impl FnOnce(&Path) -> Result<OperatorWishes, ManifestError>,
) -> anyhow::Result<()> {
    if let Some(mut host) = find(choice, settings)? {
        host.packs_with(name.as_str())?;
        tell(&mut host.client).map_err(explain)?;
        return Ok(());
    }
    if must_exist {
        folder_with(name.as_str(), settings)?;
    }
    write_down(settings.packs_dir()?)?;
    notice(NO_HOST);
    Ok(())
}

/// Takes a pack from the device.
pub(crate) fn evict(name: &str, choice: &HostChoice, settings: &Settings) -> anyhow::Result<()> {
    let outcome = match find(choice, settings)? {
        Some(mut host) => evict_on(&mut host, name)?,
        None => {
            folder_with(name, settings)?;
            notice("note: no running host was asked");
            EvictOutcome::NotResident
        }
    };
    if settings.json {
        return print_json(&outcome);
    }
    print_line(&format!("`{name}` {}", outcome_text(&outcome)))
}

/// What became of a pack, behind its name.
pub(crate) fn outcome_text(outcome: &EvictOutcome) -> String {
    match outcome {
        EvictOutcome::Evicted { bytes } => format!("was evicted; {} came back", bytes_text(*bytes)),
        EvictOutcome::InUse { leases: 1 } => "stays: 1 request uses it".to_owned(),
        EvictOutcome::InUse { leases } => format!("stays: {leases} requests use it"),
        EvictOutcome::NotResident => "is not on a device".to_owned(),
    }
}

fn evict_on(host: &mut Operated, name: &str) -> anyhow::Result<EvictOutcome> {
    host.packs_with(name)?;
    host.client.evict(name).map_err(explain)
}

/// An error where the folder holds no pack of this name.
fn folder_with(name: &str, settings: &Settings) -> anyhow::Result<()> {
    let folder = settings.packs_dir()?;
    let packs = folder::read(folder)?;
    if packs.iter().any(|pack| pack.name == name) {
        return Ok(());
    }
    let known = packs.iter().map(|pack| pack.name.as_str());
    Err(unknown_pack(name, &format!("in {}", folder.display()), known).into())
}
