//! One text on a host: its caches, and the answers that continue it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use manifests::MixtureChoice;
use modularbase_core::{
    Advance, CoreError, LogitRows, Mixture, Sampler, SamplingOptions, Sequence, TextStream,
};
use modularbase_residency::{Owner, Reservation};

use crate::{
    Answer, AnswerLimits, ContextReport, EngineError, FinishReason, Host, MixturePart, Timings, Turn,
    parked_caches::{Parked, ParkingPlace},
    working_memory::Work,
};

/// A sequence on a host with the memory set aside for it. Prompts that begin as the last one did reuse its caches.
///
/// Packs are leased for the time of an answer only: between two answers they may be evicted or replaced.
pub struct Session<'a> {
    host: &'a Host,
    choice: MixtureChoice,
    sequence: Sequence,
    memory: Reservation,
    parking: ParkingPlace,
    /// As the last answer ended; `None` without a window.
    context: Option<ContextReport>,
}

impl<'a> Session<'a> {
    /// An empty session.
    ///
    /// # Errors
    /// Not enough memory for the smallest caches, or no place for the cold blocks of long texts.
    pub fn new(host: &'a Host, choice: MixtureChoice) -> Result<Self, EngineError> {
        let memory = host.reserve(Owner::Kv, 0)?;
        let sequence = host.new_sequence()?;
        let context = ContextReport::of(&sequence);
        Ok(Self { host, choice, sequence, memory, parking: host.parking_place(), context })
    }

    /// Which packs are asked for.
    pub fn choice(&self) -> &MixtureChoice {
        &self.choice
    }

    /// Asks for other packs in the answers to come. The understanding caches stay; what lies behind the slot is
    /// recomputed.
    pub fn choose(&mut self, choice: MixtureChoice) {
        self.choice = choice;
    }

    /// Tokens in the caches.
    pub fn tokens(&self) -> usize {
        self.sequence.tokens().len()
    }

    /// Where the tokens of the text are and what they take, as the last answer ended; `None` without a window.
    pub fn context(&self) -> Option<ContextReport> {
        self.context
    }

    /// Answers a prompt, given as all tokens from the start of the text.
    ///
    /// `on_text` gets the answer's text piece by piece, whole characters only. `cancel` is looked at before every
    /// token; a cancelled answer is returned as far as it came.
    ///
    /// # Errors
    /// An empty prompt, one that does not fit the context, a pack that can't be used, not enough memory, a failing
    /// device.
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
        let window = self.sequence.context().map(|context| context.shape);
        // Positions are counted in 32 bits.
        let context = window.map_or(self.host.core().shape().max_position, |_| u32::MAX as usize);
        if prompt.len() >= context {
            return Err(CoreError::ContextLength { tokens: prompt.len() + 1, limit: context }.into());
        }
        let longest = limits.max_tokens.min(context - prompt.len());
        let sampler = Sampler::new(sampling.clone())?;
        self.host.count_request();
        let turn = self.host.turn(&self.choice)?;
        let context = prompt.len() + longest;
        self.attach(&turn, context)?;
        let work = Work { rows: context, context, logit_rows: 1, window };
        let answer = self
            .host
            .begin_work(turn.mixture(), work)
            .and_then(|_working| self.generate(prompt, sampler, limits, longest, &turn, cancel, on_text));
        self.park();
        answer.map(|answer| Answer { context: self.context, ..answer })
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one answer, taken apart just above")]
    fn generate(
        &mut self,
        prompt: &[u32],
        mut sampler: Sampler,
        limits: &AnswerLimits,
        longest: usize,
        turn: &Turn,
        cancel: &AtomicBool,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Answer, EngineError> {
        let started = Instant::now();
        // The last prompt token is always run again: its logits are needed.
        let known = common_prefix(self.sequence.tokens(), prompt).min(prompt.len() - 1);
        let known = self.sequence.truncate(known);
        let mut logits = last_logits(self.host, &mut self.sequence, &prompt[known..])?;
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
            self.host.count_token();
            history.push(token);
            if tokenizer.is_end(token) {
                break FinishReason::Stop;
            }
            emit(&stream.push(token, tokenizer).text);
            if stream.stopped() {
                break FinishReason::Stop;
            }
            if token_ids.len() < longest {
                logits = last_logits(self.host, &mut self.sequence, &[token])?;
            }
        };
        emit(&stream.finish().text);
        let decode = started.elapsed();
        Ok(Answer {
            text,
            prompt_tokens: prompt.len(),
            finish_reason,
            mixture: mixture_parts(turn.mixture()),
            omitted: turn.omitted().to_vec(),
            context: None,
            timings: timings(prefill, prompt.len() - known, decode, token_ids.len().saturating_sub(1)),
            token_ids,
        })
    }

    /// Takes the packs of a turn, with the caches that were parked if they were made with the same, and sets memory
    /// aside for `tokens` tokens.
    fn attach(&mut self, turn: &Turn, tokens: usize) -> Result<(), EngineError> {
        let caches = self.parking.take().map(|Parked { caches, memory }| {
            // One ledger and one owner: it can't be refused.
            let _ = self.memory.join(memory);
            caches
        });
        self.sequence.attach(self.host.core(), turn.mixture().clone(), caches);
        let needed = self.host.sequence_bytes(&self.sequence, turn.mixture(), tokens);
        // It may have been longer before.
        let held = self.sequence.bytes() as u64 + self.cold_bytes();
        let grown = self.host.grow(&mut self.memory, needed.max(held));
        if grown.is_err() {
            self.park();
        }
        grown
    }

    /// Bytes of memory that cold blocks take now.
    fn cold_bytes(&self) -> u64 {
        self.sequence.context().map_or(0, |context| context.store.stats().memory_bytes())
    }

    /// Lets go of the packs. What was set aside and not used comes back; the caches behind the slot go where an eviction
    /// finds them.
    fn park(&mut self) {
        if let Some(context) = self.sequence.context()
            && let Err(error) = context.store.flush()
        {
            // They stay in memory, and are counted there.
            tracing::warn!(%error, "cold blocks can't be written");
        }
        self.context = ContextReport::of(&self.sequence);
        let Some(caches) = self.sequence.detach() else { return };
        let (behind, front) = (caches.bytes() as u64, self.sequence.bytes() as u64 + self.cold_bytes());
        // Less than before: it can't fail.
        let _ = self.memory.resize(behind + front);
        if let Some(memory) = self.memory.split(behind) {
            self.parking.put(Parked { caches, memory });
        }
    }
}

/// Appends tokens and gives the logits of the last one.
fn last_logits(host: &Host, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, CoreError> {
    let _step = host.begin_step();
    let step = Advance { sequence, tokens, logits: LogitRows::Last };
    match host.core().advance(&mut [step])?.into_iter().flatten().next() {
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
