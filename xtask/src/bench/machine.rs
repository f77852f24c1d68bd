//! What a measurement was taken on: commit and machine.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// The commit's id and whether the working tree differs from it; null where git can't tell.
pub(crate) fn commit(root: &Path) -> Value {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).current_dir(root).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_string())
    };
    json!({
        "id": git(&["rev-parse", "HEAD"]),
        "changed": git(&["status", "--porcelain", "--untracked-files=no"]).map(|status| !status.is_empty()),
    })
}

/// Processor, cores that this process may use, memory in bytes, kernel; null where Linux does not tell.
pub(crate) fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let memory_kib: Option<u64> = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|value| value.split_whitespace().next().and_then(|kib| kib.parse().ok()));
    json!({
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "memory_bytes": memory_kib.map(|kib| kib * 1024),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_before": read("/proc/loadavg").split_whitespace().next().and_then(|load| load.parse::<f64>().ok()),
    })
}

/// `<12 digits of the commit>-<seconds since 1970>.json`.
pub(crate) fn result_file_name(commit: &Value) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let id: String = commit["id"].as_str().unwrap_or("unknown").chars().take(12).collect();
    format!("{id}-{seconds}.json")
}

/// The value behind `name:` in the text of a file under /proc.
pub(crate) fn field(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_files_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: A CPU @ 3 GHz\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A CPU @ 3 GHz"));
        assert_eq!(field(text, "flags"), None);
    }
}
