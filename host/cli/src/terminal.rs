//! stdout for results alone, stderr for notices and progress.

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure::StdoutClosed;

/// Writes text to stdout at once, whatever reads it.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
        Err(error) => Err(error).context("can't write to stdout"),
    }
}

/// Writes one line to stdout.
pub(crate) fn print_line(line: &str) -> anyhow::Result<()> {
    print(&format!("{line}\n"))
}

/// Writes one JSON value and a newline to stdout.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print_line(&serde_json::to_string_pretty(value).context("the result can't be written as JSON")?)
}

/// Tells the user something on stderr that is no result.
pub(crate) fn notice(text: &str) {
    // A closed stderr leaves nobody to tell.
    writeln!(std::io::stderr().lock(), "{text}").ok();
}

/// Whether there is a person at both ends.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Columns of the terminal that stdout is; `None` where it is none.
pub(crate) fn stdout_width() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    // A terminal of no size, as some pipelines make, has the usual one.
    let columns = ratatui::crossterm::terminal::size().map_or(0, |(columns, _)| usize::from(columns));
    Some(if columns == 0 { 80 } else { columns })
}

/// A text in pieces of at most `width` characters, broken between words where that is possible.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if let Some(line) = lines.last_mut()
            && line.chars().count() + 1 + length <= width
        {
            line.push(' ');
            line.push_str(word);
            continue;
        }
        let mut rest = word;
        while let Some((at, _)) = rest.char_indices().nth(width) {
            lines.push(rest[..at].to_owned());
            rest = &rest[at..];
        }
        lines.push(rest.to_owned());
    }
    lines
}

/// A bar that counts bytes up to `total`; invisible unless stderr is a terminal.
pub(crate) fn byte_bar(what: &str, total: u64) -> ProgressBar {
    bar(what, total, "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")
}

/// A bar that counts steps up to `total`; invisible unless stderr is a terminal.
pub(crate) fn step_bar(what: &str, total: u64) -> ProgressBar {
    bar(what, total, "{msg} [{bar:30}] {pos}/{len}")
}

/// A spinner with a count of bytes for work of unknown size; invisible unless stderr is a terminal.
pub(crate) fn byte_spinner(what: &str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {bytes} {elapsed}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

fn bar(what: &str, total: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Bytes for people: `98.4 MB`.
pub(crate) fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Rows as columns of equal width, the last one left open; no trailing spaces.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_clean() {
        let rows = [vec!["a".into(), "bb".into()], vec!["ccc".into(), "d".into()]];
        assert_eq!(table(&rows), "a    bb\nccc  d\n");
    }

    #[test]
    fn texts_are_wrapped_between_words_and_long_words_are_cut() {
        assert_eq!(wrapped("", 5), [] as [&str; 0]);
        assert_eq!(wrapped("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrapped("x äöüßäöü y", 3), ["x", "äöü", "ßäö", "ü y"]);
        assert_eq!(wrapped("abc", 0), ["a", "b", "c"]);
    }

    #[test]
    fn bytes_are_rounded_for_people() {
        assert_eq!(bytes_text(0), "0 B");
        assert_eq!(bytes_text(999), "999 B");
        assert_eq!(bytes_text(98_362_432), "98.4 MB");
        assert_eq!(bytes_text(999_960), "1.0 MB");
    }
}
