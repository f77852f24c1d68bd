//! Values with their intervals, one below the other.

use super::axis::Axis;
use super::page::{escaped, push};
use crate::evaluation::Estimate;

/// One row of the chart.
#[derive(Debug, Clone)]
pub(super) struct IntervalRow {
    pub(super) label: String,
    pub(super) estimate: Estimate,
    /// Drawn stronger than the others.
    pub(super) strong: bool,
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 210.0;
const RIGHT: f64 = 90.0;
const ROW: f64 = 24.0;

/// The chart as SVG. Values above 0 are good.
pub(super) fn interval_chart(label: &str, rows: &[IntervalRow]) -> String {
    let height = ROW * rows.len() as f64 + 40.0;
    let values = rows.iter().flat_map(|row| [row.estimate.low, row.estimate.high, row.estimate.value, 0.0]);
    let axis = Axis::new(values, (LEFT, WIDTH - RIGHT), 6);
    let mut svg = String::new();
    push(
        &mut svg,
        format_args!(
            "<svg viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" role=\"img\" aria-label=\"{}\">",
            escaped(label)
        ),
    );
    let bottom = height - 30.0;
    for (value, text) in axis.ticks() {
        let x = axis.pixel(value);
        let class = if value == 0.0 { "zero" } else { "grid" };
        push(
            &mut svg,
            format_args!(
                "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"4\" y2=\"{bottom}\"/>\
                 <text class=\"soft\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                bottom + 16.0
            ),
        );
    }
    for (index, row) in rows.iter().enumerate() {
        let y = ROW * (index as f64 + 0.5) + 4.0;
        let Estimate { value, low, high } = row.estimate;
        let class = if value >= 0.0 { "good" } else { "bad" };
        let (width, radius, weight) = if row.strong { (3.0, 5.5, "600") } else { (2.0, 4.0, "400") };
        push(
            &mut svg,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" font-weight=\"{weight}\">{}</text>\
                 <line class=\"{class}\" stroke-width=\"{width}\" x1=\"{:.1}\" x2=\"{:.1}\" \
                 y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <circle class=\"{class}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"{radius}\">\
                 <title>{value:+.4} [{low:+.4}, {high:+.4}]</title></circle>\
                 <text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\">{value:+.3}</text>",
                LEFT - 12.0,
                y + 4.0,
                escaped(&shortened(&row.label, 30)),
                axis.pixel(low),
                axis.pixel(high),
                axis.pixel(value),
                WIDTH - RIGHT + 16.0,
                y + 4.0,
            ),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// A text of at most so many characters.
fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
