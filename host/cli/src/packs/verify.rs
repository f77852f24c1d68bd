//! `packs verify`: every check that the host makes before it serves a pack, and more, as one table.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use manifests::{PACK_MANIFEST_FILE, PackKind, PackManifest};
use modularbase_engine::{policy, usable_detector};
use modularbase_graph::infer_shapes;
use modularbase_loader::{
    ElfInspection, LibraryError, LoadContext, LoadFailure, PackFolder, ProbeError, ProbeReport, Unload,
    copies_fit_base, fits_base, inspect, probe_pack, read_router, weights_of,
};
use router::RoutingKey;
use serde_json::json;

use super::forward_check;
use super::installed_router::InstalledRouter;
use super::verification::{Status, Verification};
use crate::failure::{Exit, Failure};
use crate::settings::Settings;
use crate::terminal::{bytes_text, print, print_json, print_line, table};

/// Cycles of open, check, build, close.
const CYCLES: u32 = 100;
/// Below this share of the hidden states' size, a difference is rounding and no effect.
const LEAST_EFFECT: f64 = 1e-5;

/// Checks of a library, of which a router pack has none.
const OF_LIBRARY: [&str; 9] =
    ["elf", "abi note", "layout", "build", "unload", "cycles", "graph", "forward", "effect"];

const FROM_CHILD: [&str; 6] = ["layout", "build", "unload", "cycles", "graph", "forward"];

/// Verifies the pack in `dir` and prints the table; the exit code tells whether all of it passed.
pub(crate) fn verify(dir: &Path, settings: &Settings) -> anyhow::Result<ExitCode> {
    if !dir.join(PACK_MANIFEST_FILE).is_file() {
        let failure = Failure::usage(format!("{} holds no {PACK_MANIFEST_FILE}", dir.display()));
        return Err(failure.help("name the folder that `cargo xtask pack build` laid out").into());
    }
    let context = super::load_context(settings, super::prober())?;
    let mut verification = Verification::default();
    let manifest = check_all(dir, &context, settings, &mut verification);
    let passed = verification.passed();
    if settings.json {
        print_json(&json!({
            "path": dir,
            "pack": manifest.as_ref().map(|manifest| &manifest.pack.name),
            "version": manifest.as_ref().map(|manifest| manifest.pack.version.to_string()),
            "passed": passed,
            "checks": verification.checks,
        }))?;
    } else {
        print(&table(&verification.rows()))?;
        let name =
            manifest.map_or_else(|| dir.display().to_string(), |manifest| manifest.pack.name.to_string());
        print_line(&format!("{name}: {}", if passed { "verified" } else { "NOT verified" }))?;
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::from(Exit::BadPack as u8) })
}

/// Makes every check that the ones before it allow; gives the manifest if it can be read.
fn check_all(
    dir: &Path,
    context: &LoadContext,
    settings: &Settings,
    verification: &mut Verification,
) -> Option<PackManifest> {
    let why = "needs what failed above";
    let manifest = verification.check("manifest", || {
        let manifest =
            PackManifest::read(&dir.join(PACK_MANIFEST_FILE)).map_err(|error| error.to_string())?;
        let pack = &manifest.pack;
        let detail = format!("{} {} ({}), {}", pack.name, pack.version, pack.id, pack.kind);
        Ok((manifest, detail))
    });
    let Some(manifest) = manifest else {
        verification.skip(&["hashes", "base", "elf", "abi note"], why);
        verification.skip(&FROM_CHILD, why);
        verification.skip(&["effect"], why);
        return None;
    };
    let folder = verification.check("hashes", || {
        let folder = PackFolder::read(dir).map_err(|error| error.to_string())?;
        let bytes: u64 = folder.manifest.files().iter().map(|record| record.size).sum();
        let detail = format!(
            "{} named files, {}, generation {}",
            folder.manifest.files().len(),
            bytes_text(bytes),
            folder.generation
        );
        Ok((folder, detail))
    });
    let fits = verification.check("base", || {
        fits_base(&manifest, &context.base).map_err(|error| error.to_string())?;
        Ok((
            (),
            format!(
                "fits width {} and slot [{}, {})",
                context.base.shape.hidden_size, context.base.slot.start, context.base.slot.end
            ),
        ))
    });
    if manifest.pack.kind == PackKind::Router {
        if let Some(folder) = folder {
            check_router(&folder, context, verification);
        }
        verification.skip(&OF_LIBRARY, "a router pack is weights alone");
        return Some(manifest);
    }
    if let (Some(folder), Some(_)) = (&folder, &manifest.routing_key) {
        check_routing_key(folder, context, settings, verification);
    }
    let elf = folder.and_then(|_| inspect_elf(dir, &manifest, verification));
    if fits.is_none() || elf.is_none() {
        if verification.checks.iter().all(|check| check.check != "elf") {
            verification.skip(&["elf", "abi note"], why);
        }
        verification.skip(&FROM_CHILD, why);
        verification.skip(&["effect"], why);
        return Some(manifest);
    }
    check_in_child(dir, &manifest, context, settings, verification);
    Some(manifest)
}

fn check_router(folder: &PackFolder, context: &LoadContext, verification: &mut Verification) {
    verification.check("router", || {
        let weights = read_router(folder).map_err(|error| error.to_string())?;
        if weights.facts.base != context.base.fingerprint {
            return Err(format!("it was made on the base sha256:{}", weights.facts.base));
        }
        let (prompts, general) = (weights.facts.prompts, weights.general().len());
        let detail =
            format!("projection {}, from {prompts} prompts, {general} general ones", weights.projection());
        Ok(((), detail))
    });
}

/// Whether the detector may be used beside the router of the packs folder, and what it takes of general prompts.
fn check_routing_key(
    folder: &PackFolder,
    context: &LoadContext,
    settings: &Settings,
    verification: &mut Verification,
) {
    verification.check("routing key", || {
        let Some(record) = &folder.manifest.routing_key else { return Ok(((), "none".to_owned())) };
        let bytes = std::fs::read(record.file.in_folder(&folder.path)).map_err(|error| error.to_string())?;
        let key = RoutingKey::from_bytes(&bytes).map_err(|error| error.to_string())?;
        if key.facts.base != context.base.fingerprint {
            return Err(format!("it was made on the base sha256:{}", key.facts.base));
        }
        let Some(detector) = key.detector.clone() else {
            return Ok((
                (),
                "sound; without a detector the pack answers only where it is asked for".to_owned(),
            ));
        };
        let Some(InstalledRouter { weights: router, .. }) = InstalledRouter::find(settings) else {
            return Ok(((), "sound; no router pack is installed to try its detector with".to_owned()));
        };
        let policy = policy(&settings.host.routing, router.facts.policy.clone());
        usable_detector(key, &router, router.projection(), policy.most_of_general)?;
        let share = 100.0 * detector.share_of_general(&router);
        Ok(((), format!("takes {share:.1} % of {} general prompts", router.general().len())))
    });
}

fn inspect_elf(
    dir: &Path,
    manifest: &PackManifest,
    verification: &mut Verification,
) -> Option<ElfInspection> {
    let elf = verification.check("elf", || {
        let elf = inspect(dir).map_err(|error| error.failure.to_string())?.elf;
        let elf = elf.ok_or("the pack names no library")?;
        let refusals: Vec<String> = elf.refusals().map(ToString::to_string).collect();
        if !refusals.is_empty() {
            return Err(refusals.join("; "));
        }
        let mut detail = format!("needs {}; {} imports", elf.needed.join(", "), elf.imports.len());
        for warning in elf.warnings() {
            detail.push_str(&format!("; warning: {warning}"));
        }
        Ok((elf, detail))
    });
    let Some(elf) = elf else {
        verification.skip(&["abi note"], "needs what failed above");
        return None;
    };
    verification.check("abi note", || {
        let note = elf.note.as_ref().ok_or("the library carries no note")?;
        let stated =
            (manifest.abi.version.major.to_string(), manifest.abi.opset, manifest.abi.target.to_string());
        let found = (note.abi_major.to_string(), note.opset, note.target.clone());
        if stated != found {
            return Err(format!("the manifest states {stated:?}, the library {found:?}: rebuild the pack"));
        }
        let version = format!("{}.{}.{}", note.abi_major, note.abi_minor, note.abi_patch);
        Ok(((), format!("ABI {version}, opset {}, {}, {}", note.opset, note.target, note.rustc)))
    })?;
    Some(elf)
}

/// The checks that run the pack's code or its graph, each in a child process.
fn check_in_child(
    dir: &Path,
    manifest: &PackManifest,
    context: &LoadContext,
    settings: &Settings,
    verification: &mut Verification,
) {
    let why = "needs what failed above";
    let begin = Instant::now();
    let probed = probe_pack(dir, context, CYCLES);
    let elapsed = begin.elapsed();
    let report = match probed {
        Ok((_, report)) => report,
        Err(error) => {
            let (check, rest) = match &*error.failure {
                LoadFailure::Probe(ProbeError::Failed(reason)) if is_about_layout(reason) => {
                    ("layout", &FROM_CHILD[1..])
                }
                LoadFailure::Probe(ProbeError::Failed(reason)) if reason.starts_with("in cycle ") => {
                    ("cycles", &FROM_CHILD[4..])
                }
                _ => ("build", &FROM_CHILD[2..]),
            };
            verification.note(check, Status::Fail, error.failure.to_string(), elapsed);
            verification.skip(rest, why);
            verification.skip(&["effect"], why);
            return;
        }
    };
    note_report(&report, elapsed, verification);
    let graph = verification.check("graph", || {
        let graph = infer_shapes(report.graph.clone()).map_err(|error| error.to_string())?;
        graph.suits_slot(context.base.shape.hidden_size).map_err(|error| error.to_string())?;
        copies_fit_base(graph.graph(), &context.base.shape).map_err(|error| error.to_string())?;
        let weights = weights_of(graph.graph()).count();
        Ok(((), format!("{} nodes, {weights} weights, shapes fit", graph.graph().nodes.len())))
    });
    if graph.is_none() {
        verification.skip(&["forward", "effect"], why);
        return;
    }
    let forward = verification.check("forward", || {
        let report = forward_check::run(dir, settings).map_err(|error| format!("{error:#}"))?;
        let bytes = bytes_text(report.resident_bytes);
        Ok((report, format!("{} tokens in a child process; {bytes} resident", report.tokens)))
    });
    let Some(forward) = forward else { return verification.skip(&["effect"], why) };
    verification.check("effect", || match (manifest.pack.kind, forward.effect) {
        (_, effect) if !effect.is_finite() => Err("its hidden states are not finite".to_owned()),
        (PackKind::General, effect) if effect < LEAST_EFFECT => {
            Ok(((), "same as the base, by design".to_owned()))
        }
        (PackKind::General, effect) => Err(format!(
            "a general pack stands for the base's own layers, but it moves the hidden states by {:.3} %",
            effect * 100.0
        )),
        (_, effect) if effect < LEAST_EFFECT => {
            Err("none: its hidden states are those of the base's own layers; train it or give it its weights"
                .to_owned())
        }
        (_, effect) => {
            Ok(((), format!("moves the hidden states behind the slot by {:.2} %", effect * 100.0)))
        }
    });
}

fn note_report(report: &ProbeReport, elapsed: Duration, verification: &mut Verification) {
    let built = Duration::from_micros(report.build_micros);
    let info = &report.info;
    let by = format!("{} {}, SDK {}, {}", info.name, info.version, info.sdk_version, info.rustc);
    verification.note("layout", Status::Pass, format!("types agree: {by}"), Duration::ZERO);
    let mut detail = "one open, check, build, close in a child process".to_owned();
    if !report.printed.is_empty() {
        detail.push_str("; it prints, which nobody sees when it serves: log instead");
    }
    verification.note("build", Status::Pass, detail, built);
    match report.unload {
        Unload::Unloaded => {
            verification.note("unload", Status::Pass, "no mapping of it is left", Duration::ZERO)
        }
        Unload::Pinned => {
            let detail = "it stays mapped after it was closed: a thread or a thread-local of it lives on";
            verification.note("unload", Status::Fail, detail, Duration::ZERO);
        }
    }
    match &report.cycles {
        Some(cycles) => {
            let growth = cycles.resident_growth_bytes;
            let detail = format!(
                "{} cycles, median {} us; memory grew by {growth} bytes, {} mappings left",
                cycles.cycles, cycles.median_micros, cycles.regions_left
            );
            let status = if cycles.returns_every_byte() { Status::Pass } else { Status::Fail };
            verification.note("cycles", status, detail, elapsed.saturating_sub(built));
        }
        None => verification.note("cycles", Status::Fail, "the child reported none", elapsed),
    }
}

/// Whether the reason that a child gave is about the types at the border, before any of the pack's own code.
fn is_about_layout(reason: &str) -> bool {
    let beginnings = [
        LibraryError::Layout(String::new()).to_string(),
        LibraryError::NoLayout.to_string(),
        LibraryError::Header(String::new()).to_string(),
    ];
    let is_major = reason.starts_with("built for ABI ");
    is_major || beginnings.iter().any(|beginning| reason.starts_with(beginning.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_about_the_border_are_told_from_those_of_the_build() {
        let about_layout = [
            LibraryError::Layout("field x".into()),
            LibraryError::NoLayout,
            LibraryError::Header("magic".into()),
            LibraryError::AbiMajor { expected: 1, found: 2 },
        ];
        for error in about_layout {
            assert!(is_about_layout(&error.to_string()), "{error}");
        }
        for error in [LibraryError::Build("no".into()), LibraryError::Panicked("panicked".into())] {
            assert!(!is_about_layout(&error.to_string()), "{error}");
        }
    }
}
