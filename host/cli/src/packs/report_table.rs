//! Packs of a running host as a table, and one pack in full.

use manifests::PackManifest;
use modularbase_manager::{PackReport, PackState};

use crate::terminal::{bytes_text, table, wrapped};
use crate::times::{age, now_ms, utc};

/// Reasons narrower than this get lines of their own, characters.
const NARROW: usize = 24;

/// The packs, one a line. In a terminal of `width` characters long reasons are wrapped: beside the other columns where
/// there is room, else under them. Elsewhere (`None`) each pack has one line and its whole reason.
pub(crate) fn report_table(packs: &[PackReport], width: Option<usize>) -> String {
    let now = now_ms();
    let header = ["NAME", "VERSION", "KIND", "GENERATION", "STATE", "SINCE", "LEASES", "MEMORY", "REASON"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(packs.iter().map(|pack| row(pack, now)));
    align_right(&mut rows, 6);
    align_right(&mut rows, 7);
    let reasons: Vec<String> = packs.iter().map(|pack| one_line(&reason(pack).unwrap_or_default())).collect();
    let Some(width) = width else {
        for (row, reason) in rows.iter_mut().skip(1).zip(reasons) {
            row.push(reason);
        }
        return table(&rows);
    };
    if reasons.iter().all(String::is_empty) {
        rows[0].pop();
        return table(&rows);
    }
    // Every line is padded to where the last column begins.
    let widths: Vec<usize> = (0..header.len() - 1)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let indent = widths.iter().map(|width| width + 2).sum::<usize>();
    let room = width.saturating_sub(indent);
    let beside = room >= NARROW;
    if !beside {
        rows[0].pop();
    }
    let lines = table(&rows);
    let mut lines = lines.lines();
    let mut text = format!("{}\n", lines.next().unwrap_or_default());
    for (line, reason) in lines.zip(&reasons) {
        if beside {
            let mut pieces = wrapped(reason, room).into_iter();
            let first = pieces.next().unwrap_or_default();
            text.push_str(format!("{line:indent$}{first}").trim_end());
            text.push('\n');
            pieces.for_each(|piece| text.push_str(&format!("{:indent$}{piece}\n", "")));
        } else {
            text.push_str(&format!("{line}\n"));
            let pieces = wrapped(reason, width.saturating_sub(4).max(NARROW));
            pieces.iter().for_each(|piece| text.push_str(&format!("    {piece}\n")));
        }
    }
    text
}

/// Everything that is known of a pack.
pub(crate) fn report_rows(pack: &PackReport) -> Vec<Vec<String>> {
    let now = now_ms();
    let moment = |ms: u64| format!("{} ({})", utc(ms), ago(ms, now));
    let mut rows = Vec::new();
    let mut add = |key: &str, value: String| rows.push(vec![key.to_owned(), value]);
    add("name", pack.name.clone());
    add("path", pack.path.display().to_string());
    add("state", pack.reason.as_ref().map_or(pack.state.to_string(), |why| format!("{}: {why}", pack.state)));
    add("since", moment(pack.since_ms));
    if let Some(generation) = &pack.generation {
        add("generation", generation.clone());
    }
    let routable = match (&pack.not_routable, pack.routable) {
        (Some(why), _) => format!("no: {why}"),
        (None, true) => "yes".to_owned(),
        (None, false) => "no".to_owned(),
    };
    add("can be asked for", routable);
    add("kept on the device", if pack.keep { "yes" } else { "no" }.to_owned());
    add("priority", pack.priority.to_string());
    add("requests now", pack.leases.to_string());
    add("device memory", bytes_text(pack.resident_bytes));
    add("files", bytes_text(pack.file_bytes));
    add("last used", pack.last_used_ms.map_or("never".to_owned(), moment));
    add("loads", pack.loads.to_string());
    if !pack.load_ms.is_empty() {
        add("last load", stages(&pack.load_ms));
    }
    add("signer", pack.signer.clone().unwrap_or_else(|| "unsigned".to_owned()));
    if pack.library_pinned {
        add("library", "the dynamic linker keeps it mapped: no other version of it can be loaded".to_owned());
    }
    for warning in &pack.warnings {
        add("warning", warning.clone());
    }
    rows
}

/// What a manifest says beside the name.
pub(crate) fn manifest_rows(manifest: &PackManifest) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut add = |key: &str, value: String| rows.push(vec![key.to_owned(), value]);
    add("id", manifest.pack.id.to_string());
    add("version", manifest.pack.version.to_string());
    add("kind", manifest.pack.kind.to_string());
    add("description", manifest.pack.description.clone());
    add("licence", manifest.pack.license.clone());
    add("keywords", manifest.pack.keywords.join(", "));
    add("ABI", format!("{}, opset {}, {}", manifest.abi.version, manifest.abi.opset, manifest.abi.target));
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
    rows
}

/// Why a pack is where it is, or why nobody gets it.
pub(crate) fn reason(pack: &PackReport) -> Option<String> {
    match (&pack.reason, &pack.not_routable) {
        (Some(reason), Some(why)) => Some(format!("{reason}; not routable: {why}")),
        (Some(reason), None) => Some(reason.clone()),
        (None, Some(why)) => Some(format!("not routable: {why}")),
        (None, None) => None,
    }
}

/// Stages of an admission and of a load, as one follows the other.
const STAGES: [&str; 6] = ["verify", "inspect", "cache", "probe", "build", "place"];

/// Stages with their times, in their order: `cache 0.4 ms, probe 4.3 ms`.
pub(crate) fn stages(ms: &std::collections::BTreeMap<String, f64>) -> String {
    let mut stages: Vec<_> = ms.iter().collect();
    stages.sort_by_key(|(stage, _)| STAGES.iter().position(|known| known == stage).unwrap_or(STAGES.len()));
    stages.iter().map(|(stage, ms)| format!("{stage} {ms:.1} ms")).collect::<Vec<_>>().join(", ")
}

/// The first digits of a generation, as people compare them.
pub(crate) fn short(generation: &str) -> &str {
    generation.get(..12).unwrap_or(generation)
}

/// A text without line breaks.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Numbers are compared at their ends.
fn align_right(rows: &mut [Vec<String>], column: usize) {
    let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    rows.iter_mut().for_each(|row| row[column] = format!("{:>width$}", row[column]));
}

fn ago(at_ms: u64, now: u64) -> String {
    match age(at_ms, now).as_str() {
        "now" => "now".to_owned(),
        age => format!("{age} ago"),
    }
}

/// Whether its state is marked as that of a pack that an operator keeps on the device.
pub(crate) fn has_star(pack: &PackReport) -> bool {
    pack.keep && pack.state != PackState::Quarantined
}

fn row(pack: &PackReport, now: u64) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    // The state alone does not tell that an operator keeps it.
    let state = if has_star(pack) { format!("{}*", pack.state) } else { pack.state.to_string() };
    vec![
        pack.name.clone(),
        or_dash(pack.version.clone()),
        or_dash(pack.kind.map(|kind| kind.to_string())),
        or_dash(pack.generation.as_deref().map(|generation| short(generation).to_owned())),
        state,
        age(pack.since_ms, now),
        pack.leases.to_string(),
        if pack.resident_bytes == 0 { "-".to_owned() } else { bytes_text(pack.resident_bytes) },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    pub(crate) fn pack(name: &str, state: PackState, reason: Option<&str>) -> PackReport {
        PackReport {
            name: name.to_owned(),
            path: format!("/packs/{name}").into(),
            id: None,
            version: Some("1.0.0".to_owned()),
            kind: Some(manifests::PackKind::Expert),
            generation: Some("0123456789abcdef".repeat(4)),
            state,
            since_ms: now_ms() - 90_000,
            reason: reason.map(str::to_owned),
            routable: true,
            not_routable: None,
            keep: false,
            priority: 0,
            leases: 2,
            resident_bytes: 6_000_000,
            file_bytes: 7,
            library_pinned: false,
            signer: None,
            last_used_ms: None,
            loads: 1,
            load_ms: BTreeMap::from([("build".to_owned(), 0.44), ("place".to_owned(), 12.0)]),
            warnings: vec!["loud".to_owned()],
        }
    }

    #[test]
    fn the_table_has_a_line_a_pack_and_the_whole_reason_where_no_person_reads() {
        let why = "the library asks for sockets, ".repeat(6);
        let packs =
            [pack("law", PackState::Resident, None), pack("code", PackState::Quarantined, Some(&why))];
        let text = report_table(&packs, None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[0].starts_with(
                "NAME  VERSION  KIND    GENERATION    STATE        SINCE  LEASES  MEMORY  REASON"
            )
        );
        assert_eq!(lines[1], "law   1.0.0    expert  0123456789ab  resident     1m          2  6.0 MB");
        assert!(lines[2].ends_with(&one_line(&why)), "{text}");
    }

    #[test]
    fn in_a_terminal_no_line_is_wider_and_no_word_of_a_reason_is_lost() {
        let why = "the library asks for sockets and threads: a pack may not, its author must take them out";
        let packs = [pack("law", PackState::Resident, None), pack("code", PackState::Quarantined, Some(why))];
        for width in [78, 80, 100, 120] {
            let text = report_table(&packs, Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
            let words = one_line(&text);
            assert!(why.split(' ').all(|word| words.contains(word)), "{text}");
        }
        assert!(!report_table(&packs[..1], Some(100)).contains("REASON"));
    }

    #[test]
    fn stages_are_told_as_one_follows_the_other() {
        let told = ["build", "cache", "dream", "place", "probe", "inspect", "verify"];
        let ms = told.into_iter().map(|stage| (stage.to_owned(), 1.0)).collect();
        let text = stages(&ms).replace(" 1.0 ms", "");
        assert_eq!(text, "verify, inspect, cache, probe, build, place, dream");
    }

    #[test]
    fn a_kept_pack_is_marked_and_shown_in_full() {
        let mut kept = pack("law", PackState::Resident, None);
        kept.keep = true;
        kept.not_routable = Some("needs org.x.y ^1".to_owned());
        assert!(report_table(&[kept.clone()], None).contains(" resident* "));
        let shown = table(&report_rows(&kept));
        for words in
            ["build 0.4 ms, place 12.0 ms", "no: needs org.x.y ^1", "unsigned", "loud", "(1m ago)", "6.0 MB"]
        {
            assert!(shown.contains(words), "{words}: {shown}");
        }
    }
}
