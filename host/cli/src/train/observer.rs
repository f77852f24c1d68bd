//! How a run is shown while it goes: one live line on a terminal, a line now and then elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use modularbase_trainer::{LookMetric, RunObserver, StepMetric};

use crate::terminal::notice;

/// Steps between two lines where nobody watches a terminal.
const LINE_EVERY: u64 = 20;

/// Shows a run on stderr.
pub(crate) struct ProgressLine {
    bar: ProgressBar,
    /// Smoothed rate, targets a second.
    rate: f64,
    /// Where a run went on from: its first step here.
    first: Option<u64>,
}

impl ProgressLine {
    /// A line for a run of so many steps.
    pub(crate) fn new(steps: u64) -> Self {
        let bar = ProgressBar::new(steps);
        if let Ok(style) = ProgressStyle::with_template("Training [{bar:24}] {pos}/{len} {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, rate: 0.0, first: None }
    }

    fn say(&self, text: &str) {
        if self.bar.is_hidden() { notice(text) } else { self.bar.println(text) }
    }
}

impl RunObserver for ProgressLine {
    fn stepped(&mut self, step: &StepMetric, steps: u64) {
        self.rate = match self.rate > 0.0 {
            true => 0.9 * self.rate + 0.1 * step.tokens_per_second,
            false => step.tokens_per_second,
        };
        let first = *self.first.get_or_insert(step.step);
        let elapsed = self.bar.elapsed().as_secs_f64();
        let left = match step.step > first {
            true => elapsed / (step.step - first) as f64 * (steps - step.step) as f64,
            false => 0.0,
        };
        let text = format!(
            "loss {:.4}{}, {} tokens/s, {} left{}",
            step.loss,
            step.divergence.map(|nats| format!(", {nats:.4} from the base")).unwrap_or_default(),
            self.rate.round(),
            duration(left),
            resident_memory()
                .map(|bytes| format!(", {} in use", crate::terminal::bytes_text(bytes)))
                .unwrap_or_default(),
        );
        if self.bar.is_hidden() {
            if step.step.is_multiple_of(LINE_EVERY) || step.step == steps {
                notice(&format!("step {}/{steps}: {text}", step.step));
            }
        } else {
            self.bar.set_message(text);
            self.bar.set_position(step.step);
        }
    }

    fn looked(&mut self, look: &LookMetric) {
        let general = look.general_loss.map(|loss| format!(", general {loss:.4}")).unwrap_or_default();
        let quantized = if look.quantized { " (quantized)" } else { "" };
        self.say(&format!("step {}: validation loss {:.4}{general}{quantized}", look.step, look.loss));
    }
}

/// Minutes and seconds for people.
fn duration(seconds: f64) -> String {
    let whole = Duration::from_secs_f64(seconds.clamp(0.0, 1e9)).as_secs();
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Bytes that this process holds in memory; `None` where the system does not tell.
fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_for_people() {
        assert_eq!(duration(9.7), "9 s");
        assert_eq!(duration(61.0), "1 min 01 s");
        assert_eq!(duration(3720.0), "1 h 02 min");
        assert_eq!(duration(f64::INFINITY), "277777 h 46 min");
    }
}
