//! `packs list` and `packs show`: what lies in the folder and whether it can be used. No code of a pack runs.

use manifests::{PackManifest, PackName};
use modularbase_engine::{PackEntry, PackState};
use modularbase_loader::{BaseContext, fits_base, inspect};
use serde_json::{Value, json};

use crate::failure::{Exit, Failure};
use crate::settings::Settings;
use crate::terminal::{bytes_text, notice, print, print_json, table};

/// A pack of the folder with the reason not to use it.
struct Judged {
    entry: PackEntry,
    /// Why it is kept out, in words.
    refused: Option<String>,
}

/// Prints the packs of the folder.
pub(crate) fn list(settings: &Settings) -> anyhow::Result<()> {
    let packs = judged(settings)?;
    if settings.json {
        return print_json(&packs.iter().map(Judged::json).collect::<Vec<_>>());
    }
    if packs.is_empty() {
        notice(&format!(
            "no packs in {}; `cargo xtask run` lays out those of the repository",
            settings.packs_dir()?.display()
        ));
        return Ok(());
    }
    let mut rows = vec![header()];
    rows.extend(packs.iter().map(|pack| row(&pack.entry, pack.state(), pack.refused.as_deref())));
    print(&table(&rows))
}

/// Prints one pack.
pub(crate) fn show(name: &PackName, settings: &Settings) -> anyhow::Result<()> {
    let packs = judged(settings)?;
    let Some(pack) = packs.iter().find(|pack| pack.entry.name == name.as_str()) else {
        let known: Vec<&str> = packs.iter().map(|pack| pack.entry.name.as_str()).collect();
        let message = format!("there is no pack `{name}` in {}", settings.packs_dir()?.display());
        let help = if known.is_empty() {
            "there are none".to_owned()
        } else {
            format!("there are: {}", known.join(", "))
        };
        return Err(Failure::usage(message).help(help).into());
    };
    if settings.json {
        let mut value = pack.json();
        value["manifest"] = json!(pack.entry.manifest);
        return print_json(&value);
    }
    let mut rows = vec![vec!["name".to_owned(), pack.entry.name.clone()]];
    let mut add = |key: &str, value: String| rows.push(vec![key.to_owned(), value]);
    add("folder", pack.entry.path.display().to_string());
    add(
        "state",
        pack.refused.as_ref().map_or(pack.state().to_owned(), |why| format!("{}: {why}", pack.state())),
    );
    if let Some(generation) = pack.entry.generation {
        add("generation", generation.to_hex());
    }
    if let Some(manifest) = &pack.entry.manifest {
        add("id", manifest.pack.id.to_string());
        add("version", manifest.pack.version.to_string());
        add("kind", manifest.pack.kind.to_string());
        add("description", manifest.pack.description.clone());
        add("licence", manifest.pack.license.clone());
        add("keywords", manifest.pack.keywords.join(", "));
        add(
            "ABI",
            format!("{}, opset {}, {}", manifest.abi.version, manifest.abi.opset, manifest.abi.target),
        );
        add("base", manifest.base.fingerprint.to_string());
        for record in manifest.files() {
            add("file", format!("{}, {}, sha256:{}", record.file, bytes_text(record.size), record.sha256));
        }
        let memory = manifest.memory.resident_bytes.iter();
        let memory: Vec<_> = memory.map(|(dtype, bytes)| format!("{dtype} {}", bytes_text(*bytes))).collect();
        add("memory", memory.join(", "));
        add("fusion weight", manifest.fusion.default_weight.to_string());
        for (id, versions) in &manifest.dependencies {
            add("needs", format!("{id} {versions}"));
        }
    }
    print(&table(&rows))
}

/// A table of packs as a running host sees them.
pub(crate) fn entries_table(entries: &[PackEntry]) -> String {
    if entries.is_empty() {
        return "no packs: the base's own layers answer\n".to_owned();
    }
    let mut rows = vec![header()];
    rows.extend(entries.iter().map(|entry| {
        let reason = match &entry.state {
            PackState::Quarantined(reason) => Some(reason.to_string()),
            _ => None,
        };
        row(entry, entry.state.word(), reason.as_deref())
    }));
    table(&rows)
}

fn judged(settings: &Settings) -> anyhow::Result<Vec<Judged>> {
    let entries = modularbase_engine::scan(settings.packs_dir()?).map_err(crate::model::explain)?;
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    // Without a base, what can be known of the files alone is still worth showing.
    let base = match super::base_context(settings) {
        Ok(base) => Some(base),
        Err(error) => {
            notice(&format!("note: {error}; whether packs fit it is not checked"));
            None
        }
    };
    let judge = |entry: PackEntry| {
        let refused = match &entry.state {
            PackState::Quarantined(reason) => Some(reason.to_string()),
            _ => refusal(&entry, base.as_ref()),
        };
        Judged { entry, refused }
    };
    Ok(entries.into_iter().map(judge).collect())
}

/// What speaks against a pack whose files are sound, as far as it can be known without running its code.
fn refusal(entry: &PackEntry, base: Option<&BaseContext>) -> Option<String> {
    if let (Some(manifest), Some(base)) = (&entry.manifest, base)
        && let Err(mismatch) = fits_base(manifest, base)
    {
        return Some(mismatch.to_string());
    }
    match inspect(&entry.path) {
        Ok(inspection) => inspection.elf.refusals().next().map(ToString::to_string),
        Err(error) => Some(error.failure.to_string()),
    }
}

impl Judged {
    fn state(&self) -> &'static str {
        if self.refused.is_some() { "quarantined" } else { self.entry.state.word() }
    }

    fn json(&self) -> Value {
        let manifest = self.entry.manifest.as_ref();
        json!({
            "name": self.entry.name,
            "id": manifest.map(|manifest| &manifest.pack.id),
            "version": manifest.map(|manifest| manifest.pack.version.to_string()),
            "kind": manifest.map(|manifest| manifest.pack.kind),
            "generation": self.entry.generation.map(|generation| generation.to_hex()),
            "state": self.state(),
            "reason": self.refused,
            "path": self.entry.path,
            "file_bytes": manifest.map(file_bytes),
        })
    }
}

fn header() -> Vec<String> {
    ["NAME", "VERSION", "KIND", "GENERATION", "SIZE", "STATE"].map(str::to_owned).to_vec()
}

fn row(entry: &PackEntry, state: &str, reason: Option<&str>) -> Vec<String> {
    let manifest = entry.manifest.as_ref();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        entry.name.clone(),
        or_dash(manifest.map(|manifest| manifest.pack.version.to_string())),
        or_dash(manifest.map(|manifest| manifest.pack.kind.to_string())),
        or_dash(entry.generation.map(|generation| generation.to_string())),
        or_dash(manifest.map(|manifest| bytes_text(file_bytes(manifest)))),
        reason.map_or(state.to_owned(), |why| format!("{state}: {why}")),
    ]
}

fn file_bytes(manifest: &PackManifest) -> u64 {
    manifest.files().iter().map(|record| record.size).sum()
}

/// The failure of a pack that can't be looked at.
pub(super) fn bad_pack(message: impl Into<String>) -> Failure {
    Failure::new(Exit::BadPack, message)
}
