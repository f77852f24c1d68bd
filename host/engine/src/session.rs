//! One text on a host: its caches, and the answers that continue it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use manifests::MixtureChoice;
use modularbase_context::ContextError;
use modularbase_core::{
    Advance, CHUNK_ROWS, CoreError, LogitRows, Mixture, Sampler, SamplingOptions, Sequence, TextStream,
};
use modularbase_residency::{Owner, Reservation};

use crate::{
    Answer, AnswerLimits, Chosen, ContextReport, EngineError, FinishReason, Host, MixtureChange, MixturePart,
    Timings, Turn,
    again::{Again, Serving},
    kept_text::KeptText,
    parked_caches::{Parked, ParkingPlace},
    working_memory::Work,
};

/// Tokens of a prompt between two looks at whether it is cancelled; whole chunks of a step, so that pieces change no bit.
const PIECE: usize = 8 * CHUNK_ROWS;

/// A sequence on a host with the memory set aside for it. Prompts that begin as the last one did reuse its caches.
///
/// Packs are leased for the time of an answer only: between two answers they may be evicted or replaced.
pub struct Session<'a> {
    pub(crate) host: &'a Host,
    pub(crate) chosen: Chosen,
    pub(crate) sequence: Sequence,
    pub(crate) memory: Reservation,
    pub(crate) parking: ParkingPlace,
    /// As the last answer ended; `None` without a window.
    pub(crate) context: Option<ContextReport>,
    /// Where the text is kept; after the caches, which let go of its store first.
    pub(crate) kept: Option<KeptText>,
}

impl<'a> Session<'a> {
    /// An empty session.
    ///
    /// # Errors
    /// Not enough memory for the smallest caches, or no place for the cold blocks of long texts.
    pub fn new(host: &'a Host, choice: MixtureChoice) -> Result<Self, EngineError> {
        Self::keeping(host, choice, 0)
    }

    /// An empty session. Where its text stays in a window, the first `first` tokens, such as a system prompt's, never leave
    /// it, as far as it has room ([`Session::first_tokens`]).
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn keeping(host: &'a Host, choice: MixtureChoice, first: usize) -> Result<Self, EngineError> {
        let memory = host.reserve(Owner::Kv, 0)?;
        let sequence = host.new_sequence(first)?;
        let context = ContextReport::of(&sequence);
        let (chosen, parking) = (choice.into(), host.parking_place());
        Ok(Self { host, chosen, sequence, memory, parking, context, kept: None })
    }

    /// Which packs are asked for.
    pub fn choice(&self) -> &MixtureChoice {
        &self.chosen.choice
    }

    /// Asks for other packs in the answers to come. The understanding caches stay; what lies behind the slot is
    /// recomputed.
    pub fn choose(&mut self, chosen: impl Into<Chosen>) {
        self.chosen = chosen.into();
    }

    /// Tokens in the caches.
    pub fn tokens(&self) -> usize {
        self.sequence.tokens().len()
    }

    /// Tokens at the beginning of `text` that are in the caches.
    pub fn known_tokens(&self, text: &[u32]) -> usize {
        common_prefix(self.sequence.tokens(), text)
    }

    /// How many of the text's first tokens never leave its window; `None` without one.
    pub fn first_tokens(&self) -> Option<usize> {
        self.sequence.context().map(|context| context.shape.sinks)
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
        let context = prompt.len() + longest;
        let work = Work { rows: context, context, logit_rows: 1, window };
        let (host, choice) = (self.host, self.chosen.choice.clone());
        let (turn, working) = host.turn_taking(&choice, |turn, until| {
            self.attach(turn, context, until)?;
            host.begin_work_until(turn.mixture(), work, until).inspect_err(|_| self.park())
        })?;
        // Now that the answer has its own memory.
        host.bring_nearest(&self.chosen);
        let serving = Serving { choice, turn, _working: working };
        let answer = self.generate(prompt, sampler, limits, work, serving, cancel, on_text);
        self.park();
        answer.map(|answer| Answer { context: self.context, ..answer })
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one answer, taken apart just above")]
    fn generate(
        &mut self,
        prompt: &[u32],
        mut sampler: Sampler,
        limits: &AnswerLimits,
        work: Work,
        mut serving: Serving<'a>,
        cancel: &AtomicBool,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Answer, EngineError> {
        let (mixture, omitted) = (mixture_parts(serving.turn.mixture()), serving.turn.omitted().to_vec());
        // Packs that were asked for by name stay.
        let again = self.chosen.routing.as_ref().and_then(|_| Again::of(self.host.routing_config()));
        let longest = work.context - prompt.len();
        let mut changes = Vec::new();
        let started = Instant::now();
        // The last prompt token is always run again: its logits are needed.
        let known = common_prefix(self.sequence.tokens(), prompt).min(prompt.len() - 1);
        let known = self.sequence.truncate(known);
        let mut next = self.last_logits(prompt, cancel)?;
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
            let Some(logits) = next.filter(|_| !cancel.load(Ordering::Relaxed)) else {
                break FinishReason::Cancelled;
            };
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
            if let Some(again) = again.as_ref().filter(|again| again.is_due(token_ids.len()))
                && token_ids.len() < longest
                && let Some(reason) = self.look_again(again, &mut serving, work)?
            {
                let mixture = mixture_parts(serving.turn.mixture());
                changes.push(MixtureChange { token: token_ids.len(), mixture, reason });
            }
            next = match token_ids.len() < longest {
                true => self.last_logits(&history, cancel)?,
                false => Some(logits),
            };
        };
        emit(&stream.finish().text);
        let decode = started.elapsed();
        Ok(Answer {
            text,
            prompt_tokens: prompt.len(),
            reused_tokens: known,
            finish_reason,
            mixture,
            changes,
            omitted,
            context: None,
            timings: timings(prefill, prompt.len() - known, decode, token_ids.len().saturating_sub(1)),
            token_ids,
        })
    }

    /// Appends what the sequence has not of `text`, which goes on where the sequence ends, and gives the logits of the
    /// last token; `None` where it was cancelled on the way. Where a cold block turns out to be damaged, the text is
    /// computed again from there.
    fn last_logits(&mut self, text: &[u32], cancel: &AtomicBool) -> Result<Option<Vec<f32>>, CoreError> {
        loop {
            let mut tokens = &text[self.sequence.tokens().len()..];
            let more = tokens.len() > PIECE;
            if more {
                if cancel.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                tokens = &tokens[..PIECE];
            }
            let logits = if more { LogitRows::None } else { LogitRows::Last };
            let step = Advance { sequence: &mut self.sequence, tokens, logits };
            let _step = self.host.begin_step();
            let error = match self.host.core().advance(&mut [step]) {
                Ok(_) if more => continue,
                Ok(logits) => match logits.into_iter().flatten().next() {
                    Some(logits) => return Ok(Some(logits.to_vec()?)),
                    None => CoreError::Mismatch {
                        what: "logits",
                        expected: "one row".into(),
                        found: "none".into(),
                    },
                },
                Err(error) => error,
            };
            match (&error, &mut self.kept, self.sequence.context().map(|context| context.shape.block)) {
                (CoreError::Context(refused), Some(kept), Some(block))
                    if let ContextError::Refused { index, .. } = **refused =>
                {
                    // Each time it ends further ahead, so it comes to an end.
                    let left = self.sequence.truncate(index as usize * block);
                    kept.notices.push(format!("{error}; the text is read again from token {left} on"));
                }
                _ => return Err(error),
            }
        }
    }

    /// Takes the packs of a turn, with the caches that were parked if they were made with the same, and sets memory
    /// aside for `tokens` tokens.
    fn attach(&mut self, turn: &Turn, tokens: usize, until: Instant) -> Result<(), EngineError> {
        let caches = self.parking.take().map(|Parked { caches, memory }| {
            // One ledger and one owner: it can't be refused.
            let _ = self.memory.join(memory);
            caches
        });
        self.sequence.attach(self.host.core(), turn.mixture().clone(), caches);
        let needed = self.host.sequence_bytes(&self.sequence, turn.mixture(), tokens);
        // It may have been longer before.
        let held = self.sequence.bytes() as u64 + self.cold_bytes();
        let grown = self.host.grow_until(&mut self.memory, needed.max(held), until);
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
        if let Some(context) = self.sequence.context() {
            context.store.stop_prefetch();
            if let Err(error) = context.store.flush() {
                // They stay in memory, and are counted there.
                tracing::warn!(%error, "cold blocks can't be written");
            }
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
