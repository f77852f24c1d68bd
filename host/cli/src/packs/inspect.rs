//! `packs inspect`: everything that can be known of a pack or library without running its code.

use std::path::Path;

use modularbase_loader::{ElfInspection, Severity, inspect_library};
use serde_json::json;

use super::bad_pack;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::terminal::{print, print_json, table};

/// More than any library of a pack, bytes.
const MAX_LIBRARY_BYTES: u64 = 1 << 30;

/// Inspects a pack's folder or a library. Findings are results, not failures; a folder that is no sound pack fails.
pub(crate) fn inspect(path: &Path, settings: &Settings) -> anyhow::Result<()> {
    if path.is_dir() {
        let inspection = modularbase_loader::inspect(path)
            .map_err(|error| anyhow::Error::new(error).context(bad_pack("the folder is no sound pack")))?;
        let manifest = &inspection.folder.manifest;
        if settings.json {
            return print_json(&json!({
                "path": inspection.folder.path,
                "generation": inspection.folder.generation.to_hex(),
                "manifest": manifest,
                "library": inspection.elf.as_ref().map(elf_json),
            }));
        }
        let identity = format!("{} {} ({})", manifest.pack.name, manifest.pack.version, manifest.pack.id);
        let mut rows = vec![row("pack", identity), row("generation", inspection.folder.generation.to_hex())];
        rows.push(row(
            "files",
            manifest.files().iter().map(|record| record.file.to_string()).collect::<Vec<_>>().join(", "),
        ));
        rows.extend(inspection.elf.iter().flat_map(elf_rows));
        return print(&table(&rows));
    }
    let refuse = |error: std::io::Error| {
        anyhow::Error::new(error).context(Failure::usage(format!("can't read {}", path.display())))
    };
    let facts = std::fs::metadata(path).map_err(refuse)?;
    if !facts.is_file() || facts.len() > MAX_LIBRARY_BYTES {
        let message = format!("{} is no regular file of at most {MAX_LIBRARY_BYTES} bytes", path.display());
        return Err(Failure::usage(message).into());
    }
    let elf = inspect_library(&std::fs::read(path).map_err(refuse)?);
    if settings.json {
        return print_json(&json!({ "path": path, "library": elf_json(&elf) }));
    }
    print(&table(&elf_rows(&elf)))
}

fn elf_json(elf: &ElfInspection) -> serde_json::Value {
    let findings: Vec<_> = elf
        .findings
        .iter()
        .map(|finding| json!({ "severity": finding.severity(), "message": finding.to_string() }))
        .collect();
    json!({ "note": elf.note, "needed": elf.needed, "imports": elf.imports, "findings": findings })
}

fn elf_rows(elf: &ElfInspection) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    if let Some(note) = &elf.note {
        rows.push(row(
            "ABI",
            format!("{}.{}.{}, opset {}", note.abi_major, note.abi_minor, note.abi_patch, note.opset),
        ));
        rows.push(row("target", note.target.clone()));
        rows.push(row("compiler", note.rustc.clone()));
    }
    rows.push(row("needs", elf.needed.join(", ")));
    rows.push(row("imports", format!("{} functions", elf.imports.len())));
    for finding in &elf.findings {
        let word = match finding.severity() {
            Severity::Refuse => "refused",
            Severity::Warn => "warning",
        };
        rows.push(row(word, finding.to_string()));
    }
    if elf.findings.is_empty() {
        rows.push(row("findings", "none".to_owned()));
    }
    rows
}

fn row(key: &str, value: String) -> Vec<String> {
    vec![key.to_owned(), value]
}
