//! `packs quarantine list|clear`: packs that are kept out, and another try for them.

use modularbase_manager::PackState;
use serde_json::json;

use super::folder::{self, FolderPack};
use super::report_table::one_line;
use super::verdict::{self, Expected};
use super::{list, load_context, prober};
use crate::arguments::{HostChoice, QuarantineCommand};
use crate::failure::Failure;
use crate::host_choice::{Operated, explain, find, unknown_pack};
use crate::settings::Settings;
use crate::terminal::{notice, print, print_json, print_line, table};

/// Runs one of the commands.
pub(crate) fn command(command: &QuarantineCommand, settings: &Settings) -> anyhow::Result<()> {
    match command {
        QuarantineCommand::List { host } => list_quarantined(host, settings),
        QuarantineCommand::Clear { name, host } => match find(host, settings)? {
            Some(host) => clear_on(host, name, settings),
            None => clear_in_folder(name, settings),
        },
    }
}

fn list_quarantined(choice: &HostChoice, settings: &Settings) -> anyhow::Result<()> {
    let nothing = || {
        notice("nothing is in quarantine");
        Ok(())
    };
    if let Some(mut host) = find(choice, settings)? {
        let mut packs = host.client.packs().map_err(explain)?;
        packs.retain(|pack| pack.state == PackState::Quarantined);
        return if packs.is_empty() && !settings.json {
            nothing()
        } else {
            list::print_reports(&packs, settings)
        };
    }
    let packs = quarantined(settings)?;
    if settings.json {
        let value = |pack: &FolderPack| {
            json!({
                "name": pack.name,
                "path": pack.path.display().to_string(),
                "generation": pack.generation().map(|generation| generation.to_hex()),
                "state": pack.state,
                "reason": pack.reason,
            })
        };
        return print_json(&packs.iter().map(value).collect::<Vec<_>>());
    }
    if packs.is_empty() {
        return nothing();
    }
    let mut rows = vec![["NAME", "GENERATION", "REASON"].map(str::to_owned).to_vec()];
    rows.extend(packs.iter().map(|pack| {
        let generation = pack.generation().map_or("-".to_owned(), |generation| generation.to_string());
        vec![pack.name.clone(), generation, one_line(pack.reason.as_deref().unwrap_or_default())]
    }));
    print(&table(&rows))
}

fn quarantined(settings: &Settings) -> anyhow::Result<Vec<FolderPack>> {
    let mut packs = folder::judged(settings)?;
    packs.retain(|pack| pack.state == PackState::Quarantined);
    Ok(packs)
}

/// Lets the host try again, and tells what came of it.
fn clear_on(mut host: Operated, name: &str, settings: &Settings) -> anyhow::Result<()> {
    let packs = host.packs_with(name)?;
    let Some(pack) = packs.iter().find(|pack| pack.name == name && pack.state == PackState::Quarantined)
    else {
        return Err(not_quarantined(name).into());
    };
    let expected = Expected::after_now(&mut host)?.of(name, pack.path.clone(), None);
    host.client.clear_quarantine(name).map_err(explain)?;
    verdict::print(verdict::wait(&mut host, &expected)?, &host, &expected, "was tried again", settings)
}

/// What the hosts of these settings remember of the pack goes, whether that was good or bad.
fn clear_in_folder(name: &str, settings: &Settings) -> anyhow::Result<()> {
    let folder = settings.packs_dir()?;
    let packs = folder::read(folder)?;
    let Some(pack) = packs.iter().find(|pack| pack.name == name) else {
        let known = packs.iter().map(|pack| pack.name.as_str());
        return Err(unknown_pack(name, &format!("in {}", folder.display()), known).into());
    };
    let context = load_context(settings, prober())?;
    let index = context.index();
    // In this order: the entry of the path knows the probe that is to be forgotten with it.
    if let Some(generation) = pack.generation() {
        index.forget(generation);
    }
    index.forget_path(&pack.canonical);
    if settings.json {
        return print_json(&json!({ "pack": name, "forgotten": true }));
    }
    print_line(&format!("what is remembered of `{name}` is forgotten; the next host looks at it anew"))?;
    if let Some(why) = pack.reason.as_ref().filter(|_| pack.state == PackState::Quarantined) {
        notice(&format!("note: it will be refused again: {}", one_line(why)));
    }
    Ok(())
}

fn not_quarantined(name: &str) -> Failure {
    Failure::usage(format!("`{name}` is not in quarantine"))
        .help("`modularbase packs quarantine list` shows what is")
}
