//! Small requests, and waiting for what a host does on its own.

use std::{
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use modularbase_core::{Advance, LogitRows, SamplingOptions, Sequence};
use modularbase_engine::{Answer, AnswerLimits, EngineError, Host, Session};
use modularbase_manager::{PackReport, PackState};

/// What the tests ask.
const PROMPT: &str = "The capital of France is";

/// The logits of every token of the prompt under a mixture, `[tokens, vocab]` row by row.
///
/// # Errors
/// A pack that can't be used.
pub fn first_logits(host: &Host, choice: &str) -> Result<Vec<f32>, EngineError> {
    let turn = host.turn(&choice.parse().expect("a mixture"))?;
    let tokens = host.tokenizer().encode_prompt(PROMPT, false)?;
    let mut sequence = Sequence::new(host.core(), turn.mixture().clone());
    let step = Advance { sequence: &mut sequence, tokens: &tokens, logits: LogitRows::All };
    let logits = host.core().advance(&mut [step])?.remove(0).expect("logits were asked for");
    Ok(logits.to_vec()?)
}

/// A greedy answer of `tokens` tokens.
///
/// # Errors
/// As [`Session::answer`].
pub fn answer(host: &Host, choice: &str, tokens: usize) -> Result<Answer, EngineError> {
    let prompt = host.tokenizer().encode_prompt(PROMPT, false)?;
    let mut session = Session::new(host, choice.parse().expect("a mixture"))?;
    let limits = AnswerLimits { max_tokens: tokens, stop: Vec::new() };
    session.answer(&prompt, &SamplingOptions::greedy(), &limits, &AtomicBool::new(false), &mut |_| {})
}

/// Whether two rows of numbers are the same to the bit.
pub fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Waits until `found` gives something, at most 30 s.
///
/// # Panics
/// When nothing comes.
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < until, "{what} did not come");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the pack of that name is in one of these states.
pub fn wait_for_state(host: &Host, name: &str, states: &[PackState]) -> PackReport {
    wait_for(&format!("`{name}` as {states:?}"), || {
        let reports = host.manager().reports();
        reports.into_iter().find(|report| report.name == name && states.contains(&report.state))
    })
}
