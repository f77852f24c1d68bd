//! Curves over steps.

use super::axis::Axis;
use super::page::{escaped, push};

/// One curve.
#[derive(Debug, Clone)]
pub(super) struct Series {
    /// For the legend.
    pub(super) name: String,
    /// Its colour: 1 to 4.
    pub(super) colour: usize,
    /// How it is drawn.
    pub(super) stroke: Stroke,
    pub(super) points: Vec<(f64, f64)>,
}

/// How a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stroke {
    /// What the chart is about.
    Strong,
    /// What lies behind it: noisy values.
    Faint,
    /// Few values that are joined by lines.
    Dots,
}

const WIDTH: f64 = 1040.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 40.0;
/// More points than these can't be told apart.
const MAX_POINTS: usize = 1200;

/// The chart as SVG, with a legend if there are several curves.
pub(super) fn line_chart(label: &str, x_name: &str, series: &[Series]) -> String {
    let points = || series.iter().flat_map(|series| series.points.iter()).filter(|(_, y)| y.is_finite());
    let x = Axis::new(points().map(|(x, _)| *x), (LEFT, WIDTH - RIGHT), 8);
    let y = Axis::new(points().map(|(_, y)| *y), (HEIGHT - BOTTOM, TOP), 5);
    let mut svg = String::new();
    push(
        &mut svg,
        format_args!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" role=\"img\" aria-label=\"{}\">",
            escaped(label)
        ),
    );
    for (value, text) in y.ticks() {
        let at = y.pixel(value);
        push(
            &mut svg,
            format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0
            ),
        );
    }
    for (value, text) in x.ticks() {
        push(
            &mut svg,
            format_args!(
                "<text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                x.pixel(value),
                HEIGHT - BOTTOM + 18.0
            ),
        );
    }
    push(
        &mut svg,
        format_args!(
            "<text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 6.0,
            escaped(x_name)
        ),
    );
    let mut legend = LEFT;
    for series in series {
        push_curve(&mut svg, series, &x, &y);
        if !series.name.is_empty() {
            let opacity = if series.stroke == Stroke::Faint { 0.4 } else { 1.0 };
            push(
                &mut svg,
                format_args!(
                    "<line class=\"s{}\" stroke-width=\"3\" opacity=\"{opacity}\" \
                     x1=\"{legend:.1}\" x2=\"{:.1}\" y1=\"12\" y2=\"12\"/>\
                     <text x=\"{:.1}\" y=\"16\">{}</text>",
                    series.colour,
                    legend + 18.0,
                    legend + 24.0,
                    escaped(&series.name)
                ),
            );
            legend += 44.0 + 7.0 * series.name.chars().count() as f64;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn push_curve(svg: &mut String, series: &Series, x: &Axis, y: &Axis) {
    let stride = series.points.len().div_ceil(MAX_POINTS).max(1);
    let last = series.points.len().saturating_sub(1);
    let drawn: Vec<(f64, f64)> = series
        .points
        .iter()
        .enumerate()
        .filter(|(index, (_, value))| value.is_finite() && (index % stride == 0 || *index == last))
        .map(|(_, point)| *point)
        .collect();
    let mut path = String::new();
    for (index, (at, value)) in drawn.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        push(&mut path, format_args!("{command}{:.1} {:.1}", x.pixel(*at), y.pixel(*value)));
    }
    let (width, opacity) = match series.stroke {
        Stroke::Strong => (2.2, 1.0),
        Stroke::Faint => (1.0, 0.35),
        Stroke::Dots => (1.4, 0.9),
    };
    if !path.is_empty() {
        push(
            svg,
            format_args!(
                "<path class=\"s{}\" stroke-width=\"{width}\" opacity=\"{opacity}\" \
                 stroke-linejoin=\"round\" d=\"{path}\"/>",
                series.colour
            ),
        );
    }
    if series.stroke == Stroke::Dots {
        for (at, value) in drawn {
            push(
                svg,
                format_args!(
                    "<circle class=\"s{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\">\
                     <title>{at}: {value:.4}</title></circle>",
                    series.colour,
                    x.pixel(at),
                    y.pixel(value)
                ),
            );
        }
    }
}

/// Means over the last values, weighted less the older they are: half after `half_life` values (an exponential moving
/// average, corrected for its start).
pub(super) fn smoothed(points: &[(f64, f64)], half_life: f64) -> Vec<(f64, f64)> {
    let keep = 0.5f64.powf(1.0 / half_life.max(1e-9));
    let (mut sum, mut weight) = (0.0, 0.0);
    points
        .iter()
        .filter(|(_, value)| value.is_finite())
        .map(|&(at, value)| {
            sum = sum * keep + value;
            weight = weight * keep + 1.0;
            (at, sum / weight)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_a_constant_and_follows_a_step_half_way_in_a_half_life() {
        let constant: Vec<_> = (0..10).map(|at| (f64::from(at), 2.0)).collect();
        assert!(smoothed(&constant, 3.0).iter().all(|(_, value)| (value - 2.0).abs() < 1e-12));
        let step: Vec<_> = (0..1000).map(|at| (f64::from(at), if at < 900 { 0.0 } else { 1.0 })).collect();
        let (_, after) = smoothed(&step, 10.0)[909];
        assert!((after - 0.5).abs() < 1e-6, "{after}");
    }

    #[test]
    fn long_curves_keep_their_last_point_and_gaps_do_not_break_them() {
        let mut points: Vec<_> = (0..5001).map(|at| (f64::from(at), 1.0)).collect();
        points[7].1 = f64::NAN;
        let series = Series { name: "a".into(), colour: 1, stroke: Stroke::Strong, points };
        let svg = line_chart("x", "step", &[series]);
        assert!(svg.len() < 40_000 && !svg.contains("NaN"), "{} bytes", svg.len());
    }
}
