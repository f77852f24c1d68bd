//! The learning rate of each step.

use crate::config::{OptimizerConfig, ScheduleKind};

/// The rate of step `step` of `steps`, from 0: a straight line up over the warm-up, then down to the final share.
pub fn learning_rate(optimizer: &OptimizerConfig, step: u64, steps: u64) -> f64 {
    let highest = optimizer.learning_rate;
    if step < optimizer.warmup {
        return highest * (step + 1) as f64 / optimizer.warmup as f64;
    }
    let falling = steps.saturating_sub(optimizer.warmup).max(1);
    let passed = ((step - optimizer.warmup) as f64 / falling as f64).min(1.0);
    let share = match optimizer.schedule {
        ScheduleKind::Constant => return highest,
        ScheduleKind::Linear => 1.0 - passed,
        ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * passed).cos()),
    };
    highest * (optimizer.final_share + (1.0 - optimizer.final_share) * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_over_the_warm_up_and_falls_to_its_share() {
        let optimizer = OptimizerConfig::default();
        let rate = |step| learning_rate(&optimizer, step, 300);
        assert!((rate(0) - 5e-5).abs() < 1e-12);
        assert!((rate(19) - 1e-3).abs() < 1e-12);
        assert!((rate(160) - 5.5e-4).abs() < 1e-6, "half way down the cosine: {}", rate(160));
        assert!((rate(300) - 1e-4).abs() < 1e-12);
        assert!((20..299).all(|step| rate(step) > rate(step + 1)));
    }

    #[test]
    fn a_constant_rate_stays_and_a_straight_one_falls_evenly() {
        let constant =
            OptimizerConfig { schedule: ScheduleKind::Constant, warmup: 0, ..OptimizerConfig::default() };
        assert_eq!(learning_rate(&constant, 77, 100), 1e-3);
        let linear = OptimizerConfig { schedule: ScheduleKind::Linear, final_share: 0.0, ..constant };
        assert!((learning_rate(&linear, 50, 100) - 5e-4).abs() < 1e-12);
    }
}
