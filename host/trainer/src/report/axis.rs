//! Where the ticks of an axis lie, and where values lie between its ends.

/// One axis of a chart.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    /// Ends in pixels; the second may be the smaller one.
    pixels: (f64, f64),
    step: f64,
}

impl Axis {
    /// An axis that holds these values, with about `ticks` ticks at round numbers.
    pub(super) fn new(values: impl Iterator<Item = f64>, pixels: (f64, f64), ticks: usize) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if high - low < 1e-12 * high.abs().max(1e-12) {
            let room = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
            (low, high) = (low - room, high + room);
        }
        let step = round_step((high - low) / ticks.max(1) as f64);
        Self { low: (low / step).floor() * step, high: (high / step).ceil() * step, pixels, step }
    }

    /// Where a value lies.
    pub(super) fn pixel(&self, value: f64) -> f64 {
        let (from, to) = self.pixels;
        from + (to - from) * (value - self.low) / (self.high - self.low)
    }

    /// The ticks with what stands at them.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let count = ((self.high - self.low) / self.step).round() as usize;
        let decimals = (-self.step.log10().floor()).clamp(0.0, 8.0) as usize;
        (0..=count)
            .map(|index| self.low + index as f64 * self.step)
            // -0.00 is no number for people.
            .map(|value| if value.abs() < self.step / 1e6 { 0.0 } else { value })
            .map(|value| match value.abs() {
                small if small > 0.0 && !(1e-4..1e6).contains(&small) => (value, format!("{value:.1e}")),
                _ => (value, format!("{value:.decimals$}")),
            })
            .collect()
    }
}

/// The next of 1, 2 or 5 times a power of ten.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= step * 0.999).unwrap_or(10.0);
    factor * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_every_value() {
        let axis = Axis::new([0.13, 2.9].into_iter(), (0.0, 100.0), 5);
        let labels: Vec<String> = axis.ticks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["0", "1", "2", "3"]);
        assert_eq!((axis.pixel(0.0), axis.pixel(3.0)), (0.0, 100.0));
        let small = Axis::new([-0.02, 0.031].into_iter(), (0.0, 1.0), 4);
        assert!(small.ticks().iter().any(|(value, label)| *value == 0.0 && label == "0.00"));
    }

    #[test]
    fn one_value_or_none_makes_an_axis_too() {
        for values in [vec![], vec![f64::NAN], vec![0.0], vec![3.0, 3.0], vec![1e-9]] {
            let axis = Axis::new(values.iter().copied(), (10.0, 0.0), 4);
            assert!(axis.pixel(axis.low).is_finite() && axis.ticks().len() > 1, "{values:?}: {axis:?}");
        }
    }
}
