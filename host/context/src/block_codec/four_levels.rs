//! Zero and step of a group of 2-bit codes.
//!
//! Levels from the minimum to the maximum spend two of four on the ends, where few values are: of a normal group of 64 the
//! squared error is then nearly twice the least possible. So a group's range is narrowed in steps about its middle, what is
//! beyond it goes to the outermost levels, and the best of these is brought nearer by least squares of the values over
//! their codes. The group is never worse than with its whole range.

use half::f16;

use super::{inverse, nearest, stored_step};

const LEVELS: f32 = 3.0;
/// Shares of a group's range that are tried; at 0.58 the step is the best one for a normal group of 64.
const SHARES: [f32; 5] = [0.9, 0.8, 0.7, 0.6, 0.5];
/// Rounds of least squares.
const ROUNDS: usize = 2;

/// Zero and step for `values`, as f16 says them, where `whole` are those of their whole range.
pub(super) fn fit(values: &[f32], whole: (f32, f32)) -> (f32, f32) {
    let (minimum, step) = whole;
    if step <= 0.0 {
        return whole;
    }
    let mut best = (error(values, whole), whole);
    for share in SHARES {
        let narrowed = stored(minimum + 0.5 * LEVELS * step * (1.0 - share), step * share);
        take_better(&mut best, values, narrowed);
    }
    for _ in 0..ROUNDS {
        let Some(fitted) = least_squares(values, best.1) else { break };
        take_better(&mut best, values, fitted);
    }
    best.1
}

fn take_better(best: &mut (f32, (f32, f32)), values: &[f32], group: (f32, f32)) {
    let error = error(values, group);
    if error < best.0 {
        *best = (error, group);
    }
}

/// The squared error of a group.
fn error(values: &[f32], (zero, step): (f32, f32)) -> f32 {
    let inverse = inverse(step);
    let of_value = |&value: &f32| {
        let code = f32::from(nearest((value - zero) * inverse, LEVELS));
        (value - zero - step * code).powi(2)
    };
    values.iter().map(of_value).sum()
}

/// The line through the values over their codes; `None` where all codes are one.
fn least_squares(values: &[f32], (zero, step): (f32, f32)) -> Option<(f32, f32)> {
    let (count, inverse) = (values.len() as f32, inverse(step));
    let (mut codes, mut squares, mut sum, mut products) = (0.0, 0.0, 0.0, 0.0);
    for &value in values {
        let code = f32::from(nearest((value - zero) * inverse, LEVELS));
        codes += code;
        squares += code * code;
        sum += value;
        products += code * value;
    }
    let spread = count * squares - codes * codes;
    let step = (count * products - codes * sum) / spread;
    (spread > 0.0 && step > 0.0).then(|| stored((sum - step * codes) / count, step))
}

fn stored(zero: f32, step: f32) -> (f32, f32) {
    let zero = f16::from_f32(zero).to_f32();
    (zero, stored_step(zero, step, LEVELS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(values: &[f32]) -> (f32, f32) {
        let minimum = values.iter().copied().fold(f32::INFINITY, f32::min);
        let maximum = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        stored(minimum, (maximum - minimum) / LEVELS)
    }

    #[test]
    fn a_group_that_is_dense_in_its_middle_loses_less_than_with_its_whole_range() {
        // Sums of three even spreads: nearly normal.
        let values: Vec<f32> =
            (0..64).map(|n| (n % 4) as f32 + (n / 4 % 4) as f32 + (n / 16) as f32).collect();
        let (narrow, wide) = (fit(&values, whole(&values)), whole(&values));
        let (narrow, wide) = (error(&values, narrow), error(&values, wide));
        assert!(narrow < 0.8 * wide, "{narrow} and {wide}");
    }

    #[test]
    fn four_values_that_lie_evenly_stay_what_they_are() {
        let values = [1.0, 1.5, 2.0, 2.5, 1.0, 2.5];
        let (zero, step) = fit(&values, whole(&values));
        assert_eq!((zero, step, error(&values, (zero, step))), (1.0, 0.5, 0.0));
    }

    #[test]
    fn a_group_of_one_value_has_no_step() {
        assert_eq!(fit(&[2.0; 8], (2.0, 0.0)), (2.0, 0.0));
    }
}
