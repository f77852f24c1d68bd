//! Device memory as a bar: who holds how much of the budget. Each owner has a glyph of its own, so that the bar can be
//! read without colours.

use modularbase_manager::HostStatus;
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};

use crate::terminal::bytes_text;

/// What is free in the bar.
const FREE: &str = "·";

/// One owner, or all packs together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    label: String,
    bytes: u64,
    glyph: &'static str,
    colour: Color,
}

/// Who holds something, in a fixed order.
fn parts(status: &HostStatus) -> Vec<Part> {
    let mut parts = [
        ("base", "█", Color::Blue),
        ("packs", "▓", Color::Green),
        ("kv", "▒", Color::Cyan),
        ("plan", "░", Color::Magenta),
        ("scratch", "▞", Color::Yellow),
        ("other", "▚", Color::Red),
    ]
    .map(|(label, glyph, colour)| Part { label: label.to_owned(), bytes: 0, glyph, colour });
    let mut packs = 0;
    for (owner, bytes) in &status.held_bytes {
        let label = if owner.starts_with("pack ") {
            packs += usize::from(*bytes > 0);
            "packs"
        } else {
            owner.as_str()
        };
        let index = parts.iter().position(|part| part.label == label).unwrap_or(parts.len() - 1);
        parts[index].bytes += bytes;
    }
    parts[1].label = format!("{packs} {}", if packs == 1 { "pack" } else { "packs" });
    parts.into_iter().filter(|part| part.bytes > 0).collect()
}

/// The bar, `width` columns wide.
pub(super) fn bar(status: &HostStatus, width: usize, colour: bool) -> Line<'static> {
    let parts = parts(status);
    let cells = cells(&parts.iter().map(|part| part.bytes).collect::<Vec<_>>(), status.budget_bytes, width);
    let mut spans: Vec<Span> = parts
        .iter()
        .zip(&cells)
        .map(|(part, cells)| Span::styled(part.glyph.repeat(*cells), style(part.colour, colour)))
        .collect();
    let free = width.saturating_sub(cells.iter().sum());
    spans.push(Span::styled(FREE.repeat(free), style(Color::DarkGray, colour)));
    Line::from(spans)
}

/// What the glyphs of the bar mean, with bytes: an item each.
pub(super) fn legend(status: &HostStatus, colour: bool) -> Vec<Vec<Span<'static>>> {
    let item =
        |glyph, wanted, text: String| vec![Span::styled(glyph, style(wanted, colour)), Span::raw(text)];
    let free = status.budget_bytes.saturating_sub(held(status));
    let parts = parts(status).into_iter();
    parts
        .map(|part| item(part.glyph, part.colour, format!(" {} {}", part.label, bytes_text(part.bytes))))
        .chain([item(FREE, Color::DarkGray, format!(" free {}", bytes_text(free)))])
        .collect()
}

/// `128.4 MB of 200.0 MB (64 %)`.
pub(super) fn sum(status: &HostStatus) -> String {
    let (held, budget) = (held(status), status.budget_bytes);
    let part = if budget == 0 { 0.0 } else { held as f64 * 100.0 / budget as f64 };
    format!("{} of {} ({part:.0} %)", bytes_text(held), bytes_text(budget))
}

fn held(status: &HostStatus) -> u64 {
    status.held_bytes.values().sum()
}

fn style(wanted: Color, colour: bool) -> Style {
    if colour { Style::new().fg(wanted) } else { Style::new() }
}

/// Columns for each share of `whole`. Whoever holds something has a column as long as there are enough; together they
/// are never wider than the bar.
fn cells(shares: &[u64], whole: u64, width: usize) -> Vec<usize> {
    let whole = whole.max(shares.iter().sum()).max(1);
    let mut cells: Vec<usize> = shares
        .iter()
        .map(|share| {
            ((u128::from(*share) * width as u128 + u128::from(whole) / 2) / u128::from(whole)) as usize
        })
        .zip(shares)
        .map(|(cells, share)| if *share > 0 { cells.max(1) } else { 0 })
        .collect();
    while cells.iter().sum::<usize>() > width {
        // Rounding took too much: the widest misses it least.
        match cells.iter_mut().max_by_key(|cells| **cells) {
            Some(widest) => *widest -= 1,
            None => break,
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_as_wide_as_it_may_be_and_small_holders_are_seen() {
        assert_eq!(cells(&[50, 25], 100, 40), [20, 10]);
        assert_eq!(cells(&[1, 0, 98], 100, 10), [1, 0, 9]);
        assert_eq!(cells(&[1, 1, 1], 3, 2).iter().sum::<usize>(), 2);
        assert_eq!(cells(&[300, 100], 100, 8), [6, 2], "more than the budget fills the bar");
        assert_eq!(cells(&[u64::MAX / 2, 7], u64::MAX, 10), [5, 1]);
        assert_eq!(cells(&[5], 0, 0), [0]);
        assert_eq!(cells(&[], 0, 9), [] as [usize; 0]);
    }

    #[test]
    fn every_owner_is_in_the_legend_and_packs_are_one() {
        let mut status = super::super::view::tests::status(9);
        status.held_bytes.insert("something new".to_owned(), 1_000_000);
        let items: Vec<String> =
            legend(&status, false).into_iter().map(|item| Line::from(item).to_string()).collect();
        let expected =
            ["█ base 98.4 MB", "▓ 3 packs 18.0 MB", "▒ kv 12.0 MB", "▚ other 1.0 MB", "· free 70.6 MB"];
        assert_eq!(items, expected);
        assert_eq!(sum(&status), "129.4 MB of 200.0 MB (65 %)");
        let bar = bar(&status, 40, false).to_string();
        assert_eq!(
            bar,
            format!("{}{}{}{}{}", "█".repeat(20), "▓".repeat(4), "▒".repeat(2), "▚", "·".repeat(13))
        );
    }
}
