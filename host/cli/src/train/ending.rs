//! How a run of any kind is taken to its end, and what is said of it.

use modularbase_trainer::{Best, Ending, Run};

use super::observer::ProgressLine;
use super::pack::explain;
use crate::failure::Failure;
use crate::interrupt;
use crate::terminal::notice;

/// Trains until the last step, or until Ctrl-C, which is an error that says how to go on. Gives the steps taken and the
/// best look.
pub(super) fn train_to_the_end(run: &mut Run<'_>, steps: u64) -> anyhow::Result<(u64, Option<Best>)> {
    match run.train(interrupt::flag(), &mut ProgressLine::new(steps)).map_err(explain)? {
        Ending::Finished { step, best } => Ok((step, best)),
        Ending::Stopped { step, checkpoint } => {
            let checkpoint = checkpoint.display();
            notice(&format!("stopped after step {step}; the same command goes on from {checkpoint}"));
            Err(Failure::interrupted().into())
        }
    }
}

/// The best look as the end of a sentence; nothing where there was none.
pub(super) fn best_text(best: Option<Best>) -> String {
    let text = |best: Best| format!(", validation loss {:.4} at step {}", best.loss, best.step);
    best.map(text).unwrap_or_default()
}
