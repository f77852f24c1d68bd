//! One text on a host: its caches, and the answers that continue it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use modularbase_core::{
    Advance, BaseCore, CoreError, LogitRows, Mixture, Sampler, SamplingOptions, Sequence, TextStream,
};
use modularbase_residency::Reservation;

use crate::{Answer, AnswerLimits, EngineError, FinishReason, Host, MixturePart, Timings};

/// A sequence on a host with the memory set aside for it. Prompts that begin as the last one did reuse its caches.
pub struct Session<'a> {
    host: &'a Host,
    mixture: Mixture,
    sequence: Sequence,
    memory: Reservation,
}

impl<'a> Session<'a> {
    /// An empty session.
    ///
    /// # Errors
    /// Not enough memory for the smallest caches.
    pub fn new(host: &'a Host, mixture: Mixture) -> Result<Self, EngineError> {
        let memory = host.reserve_kv(&mixture, 0)?;
        Ok(Self { host, sequence: Sequence::new(host.core(), mixture.clone()), mixture, memory })
    }

    /// The mixture in force.
    pub fn mixture(&self) -> &Mixture {
        &self.mixture
    }

    /// Changes the mixture for the answers to come. The understanding caches stay; what lies behind the slot is
    /// recomputed.
    pub fn set_mixture(&mut self, mixture: Mixture) {
        self.sequence.set_mixture(self.host.core(), mixture.clone());
        self.mixture = mixture;
    }

    /// Tokens in the caches.
    pub fn tokens(&self) -> usize {
        self.sequence.tokens().len()
    }

    /// Answers a prompt, given as all tokens from the start of the text.
    ///
    /// `on_text` gets the answer's text piece by piece, whole characters only. `cancel` is looked at before every
    /// token; a cancelled answer is returned as far as it came.
    ///
    /// # Errors
    /// An empty prompt, one that does not fit the context, not enough memory, a failing device.
    pub fn answer(
        &mut self,
        prompt: &[u32],
        sampling: &SamplingOptions,
        limits: &AnswerLimits,
        cancel: &AtomicBool,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Answer, EngineError> {
        if prompt.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        let core = self.host.core();
        let context = core.shape().max_position;
        if prompt.len() >= context {
            return Err(CoreError::ContextLength { tokens: prompt.len() + 1, limit: context }.into());
        }
        let longest = limits.max_tokens.min(context - prompt.len());
        let mut sampler = Sampler::new(sampling.clone())?;
        self.reserve(prompt.len() + longest)?;

        let started = Instant::now();
        // The last prompt token is always run again: its logits are needed.
        let known = common_prefix(self.sequence.tokens(), prompt).min(prompt.len() - 1);
        self.sequence.truncate(known);
        let mut logits = last_logits(core, &mut self.sequence, &prompt[known..])?;
        let prefill = started.elapsed();

        let started = Instant::now();
        let tokenizer = self.host.tokenizer();
        let mut stream = TextStream::new(&limits.stop);
        let mut history = prompt.to_vec();
        let mut text = String::new();
        let mut token_ids = Vec::new();
        let mut emit = |piece: &str| {
            if !piece.is_empty() {
                text.push_str(piece);
                on_text(piece);
            }
        };
        let finish_reason = loop {
            if cancel.load(Ordering::Relaxed) {
                break FinishReason::Cancelled;
            }
            if token_ids.len() == longest {
                break FinishReason::Length;
            }
            let token = sampler.sample(&logits, &history)?;
            token_ids.push(token);
            history.push(token);
            if tokenizer.is_end(token) {
                break FinishReason::Stop;
            }
            emit(&stream.push(token, tokenizer).text);
            if stream.stopped() {
                break FinishReason::Stop;
            }
            if token_ids.len() < longest {
                logits = last_logits(core, &mut self.sequence, &[token])?;
            }
        };
        emit(&stream.finish().text);
        let decode = started.elapsed();
        Ok(Answer {
            text,
            prompt_tokens: prompt.len(),
            finish_reason,
            mixture: mixture_parts(&self.mixture),
            timings: timings(prefill, prompt.len() - known, decode, token_ids.len().saturating_sub(1)),
            token_ids,
        })
    }

    /// Sets memory aside for `tokens` tokens.
    fn reserve(&mut self, tokens: usize) -> Result<(), EngineError> {
        let needed = Sequence::bytes_for(self.host.core(), &self.mixture, tokens) as u64;
        Ok(self.memory.resize(needed)?)
    }
}

/// Appends tokens and gives the logits of the last one.
fn last_logits(core: &BaseCore, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, CoreError> {
    let step = Advance { sequence, tokens, logits: LogitRows::Last };
    match core.advance(&mut [step])?.into_iter().flatten().next() {
        Some(logits) => logits.to_vec(),
        None => Err(CoreError::Mismatch { what: "logits", expected: "one row".into(), found: "none".into() }),
    }
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A mixture as answers report it.
pub fn mixture_parts(mixture: &Mixture) -> Vec<MixturePart> {
    let part = |(expert, weight): &(std::sync::Arc<modularbase_core::Expert>, f32)| MixturePart {
        pack: expert.name().to_owned(),
        generation: expert.generation().to_owned(),
        weight: *weight,
    };
    mixture.parts().iter().map(part).collect()
}

fn timings(prefill: Duration, prompt: usize, decode: Duration, decoded: usize) -> Timings {
    let rate = |tokens: usize, time: Duration| match time.as_secs_f64() {
        seconds if seconds > 0.0 => tokens as f64 / seconds,
        _ => 0.0,
    };
    Timings {
        load_ms: 0.0,
        prefill_ms: prefill.as_secs_f64() * 1e3,
        decode_ms: decode.as_secs_f64() * 1e3,
        prefill_tokens_per_s: rate(prompt, prefill),
        decode_tokens_per_s: rate(decoded, decode),
    }
}
