//! `packs list` and `packs show`: what lies in the folder, and how far a running host has brought it. No code of a pack
//! runs here.

use manifests::{OperatorWishes, PACK_MANIFEST_FILE, PackManifest};
use modularbase_loader::Generation;
use modularbase_manager::PackReport;
use serde_json::{Value, json};

use super::folder::{FolderPack, judged};
use super::report_table::{has_star, manifest_rows, report_rows, report_table};
use crate::arguments::HostChoice;
use crate::host_choice::{Operated, explain, find, unknown_pack};
use crate::settings::Settings;
use crate::terminal::{bytes_text, notice, print, print_json, stdout_width, table};

/// Prints the packs of the folder.
pub(crate) fn list(choice: &HostChoice, settings: &Settings) -> anyhow::Result<()> {
    if let Some(mut host) = find(choice, settings)? {
        let packs = host.client.packs().map_err(explain)?;
        return print_reports(&packs, settings);
    }
    let packs = judged(settings)?;
    if settings.json {
        let wishes = wishes(settings);
        return print_json(&packs.iter().map(|pack| pack_json(pack, &wishes)).collect::<Vec<_>>());
    }
    if packs.is_empty() {
        return no_packs(settings);
    }
    let mut rows = vec![header()];
    rows.extend(packs.iter().map(row));
    print(&table(&rows))
}

/// Prints packs of a running host.
pub(super) fn print_reports(packs: &[PackReport], settings: &Settings) -> anyhow::Result<()> {
    if settings.json {
        return print_json(&packs);
    }
    if packs.is_empty() {
        return no_packs(settings);
    }
    print(&report_table(packs, stdout_width()))?;
    if packs.iter().any(has_star) {
        notice("* kept on the device until `modularbase packs unpin NAME`");
    }
    Ok(())
}

/// Prints one pack.
pub(crate) fn show(name: &str, choice: &HostChoice, settings: &Settings) -> anyhow::Result<()> {
    match find(choice, settings)? {
        Some(host) => show_running(host, name, settings),
        None => show_folder(name, settings),
    }
}

/// Shows what requests for the name get, then what else has it: the old generation that still drains.
fn show_running(mut host: Operated, name: &str, settings: &Settings) -> anyhow::Result<()> {
    let mut reports = host.packs_with(name)?;
    reports.retain(|pack| pack.name == name);
    reports.sort_by_key(|pack| !pack.routable);
    let mut texts = Vec::new();
    let mut values = Vec::new();
    for report in &reports {
        let manifest = manifest_of(report);
        let mut value = json!(report);
        value["manifest"] = json!(manifest);
        values.push(value);
        let mut rows = report_rows(report);
        rows.extend(manifest.iter().flat_map(manifest_rows));
        texts.push(table(&rows));
    }
    if settings.json {
        let mut values = values.into_iter();
        let mut first = values.next().unwrap_or_default();
        first["others"] = values.collect();
        return print_json(&first);
    }
    print(&texts.join("\n"))
}

fn show_folder(name: &str, settings: &Settings) -> anyhow::Result<()> {
    let packs = judged(settings)?;
    let Some(pack) = packs.iter().find(|pack| pack.name == name) else {
        let known = packs.iter().map(|pack| pack.name.as_str());
        return Err(unknown_pack(name, &format!("in {}", settings.packs_dir()?.display()), known).into());
    };
    if settings.json {
        let mut value = pack_json(pack, &wishes(settings));
        value["manifest"] = json!(pack.manifest);
        return print_json(&value);
    }
    let mut rows = vec![vec!["name".to_owned(), pack.name.clone()]];
    let mut add = |key: &str, value: String| rows.push(vec![key.to_owned(), value]);
    add("folder", pack.path.display().to_string());
    add("state", state_text(pack));
    if let Some(generation) = pack.generation() {
        add("generation", generation.to_hex());
    }
    if let Some(signer) = &pack.signer {
        add("signer", signer.clone());
    }
    rows.extend(pack.manifest.iter().flat_map(manifest_rows));
    print(&table(&rows))
}

/// A table of packs as a running host sees them.
pub(crate) fn reports_table(packs: &[PackReport]) -> String {
    match packs {
        [] => "no packs: the base's own layers answer\n".to_owned(),
        packs => report_table(packs, stdout_width()),
    }
}

/// The manifest beside a host's pack, if it still is that generation's.
fn manifest_of(report: &PackReport) -> Option<PackManifest> {
    let path = report.path.join(PACK_MANIFEST_FILE);
    let bytes = std::fs::read(path).ok()?;
    let manifest = PackManifest::parse_bytes(&bytes).ok()?;
    let generation = Generation::of_manifest(&manifest, &bytes).to_hex();
    let is_its = report.generation.as_ref().is_none_or(|known| *known == generation);
    is_its.then_some(manifest)
}

/// Wishes that can't be read are a host's to complain about; the list goes without them.
fn wishes(settings: &Settings) -> OperatorWishes {
    let read = settings.packs_dir().ok().map(OperatorWishes::read);
    match read {
        Some(Ok(wishes)) => wishes,
        Some(Err(error)) => {
            notice(&format!("note: {error}"));
            OperatorWishes::default()
        }
        None => OperatorWishes::default(),
    }
}

fn pack_json(pack: &FolderPack, wishes: &OperatorWishes) -> Value {
    let manifest = pack.manifest.as_ref();
    let name = manifest.map(|manifest| &manifest.pack.name);
    json!({
        "name": pack.name,
        "id": manifest.map(|manifest| &manifest.pack.id),
        "version": manifest.map(|manifest| manifest.pack.version.to_string()),
        "kind": manifest.map(|manifest| manifest.pack.kind),
        "generation": pack.generation().map(|generation| generation.to_hex()),
        "state": pack.state,
        "reason": pack.reason,
        "path": pack.path.display().to_string(),
        "file_bytes": pack.file_bytes(),
        "signer": pack.signer,
        "keep": name.is_some_and(|name| wishes.keep.contains(name)),
        "priority": name.and_then(|name| wishes.priorities.get(name)).unwrap_or(&0),
    })
}

fn no_packs(settings: &Settings) -> anyhow::Result<()> {
    let folder = settings.packs_dir()?.display();
    notice(&format!("no packs in {folder}; `cargo xtask run` lays out those of the repository"));
    Ok(())
}

fn header() -> Vec<String> {
    ["NAME", "VERSION", "KIND", "GENERATION", "SIZE", "STATE"].map(str::to_owned).to_vec()
}

fn row(pack: &FolderPack) -> Vec<String> {
    let manifest = pack.manifest.as_ref();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        pack.name.clone(),
        or_dash(manifest.map(|manifest| manifest.pack.version.to_string())),
        or_dash(manifest.map(|manifest| manifest.pack.kind.to_string())),
        or_dash(pack.generation().map(|generation| generation.to_string())),
        or_dash(pack.file_bytes().map(bytes_text)),
        state_text(pack),
    ]
}

fn state_text(pack: &FolderPack) -> String {
    pack.reason.as_ref().map_or(pack.state.to_string(), |why| format!("{}: {why}", pack.state))
}
