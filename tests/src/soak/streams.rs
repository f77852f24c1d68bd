//! Streams of requests, and whether what they are answered is right.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use modularbase_core::{Sampler, SamplingOptions, Sequence};
use modularbase_engine::{AnswerLimits, EngineError, Host, MixturePart, OmittedPack, Session, mixture_parts};
use modularbase_manager::LeaseFailure;

use super::{
    collection::{Collection, name},
    latencies::Samples,
    random::Random,
    reference::{Reference, advance},
};
use crate::{Base, same_bits};

/// Packs that many requests ask for; the others are asked for now and then.
const POPULAR: usize = 10;
/// Conversations that a stream has open.
const CONVERSATIONS: usize = 2;
/// Faults that are told of; more say nothing new.
const TOLD: usize = 10;

/// What the streams share.
pub(crate) struct Streams<'a> {
    pub(crate) host: &'a Host,
    pub(crate) base: Base,
    pub(crate) collection: &'a Collection,
    pub(crate) reference: &'a Reference,
    pub(crate) stop: &'a AtomicBool,
    pub(crate) counts: Counts,
}

/// What the streams counted.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) requests: AtomicU64,
    pub(crate) tokens: AtomicU64,
    pub(crate) checked: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) without_room: AtomicU64,
    pub(crate) with_omitted: AtomicU64,
    pub(crate) wrong: AtomicU64,
    pub(crate) faults: Mutex<Vec<String>>,
    pub(crate) steps: Mutex<Samples>,
}

struct Conversation<'h> {
    session: Session<'h>,
    wanted: Vec<usize>,
    text: Vec<u32>,
}

impl Counts {
    pub(crate) fn fault(&self, fault: String) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.len() < TOLD {
            faults.push(fault);
        }
    }

    fn wrong(&self, fault: String) {
        self.wrong.fetch_add(1, Ordering::Relaxed);
        self.fault(fault);
    }
}

impl Streams<'_> {
    /// One stream, until it is told to stop.
    pub(crate) fn run(&self, mut random: Random) {
        let mut conversations: Vec<Conversation<'_>> = Vec::new();
        let mut steps = Samples::default();
        while !self.stop.load(Ordering::Relaxed) {
            self.counts.requests.fetch_add(1, Ordering::Relaxed);
            if random.below(4) > 0 {
                let wanted = self.wanted(&mut random);
                self.request(&wanted, &mut random, &mut steps);
                continue;
            }
            if conversations.len() < CONVERSATIONS {
                let wanted = self.wanted(&mut random);
                match Session::new(self.host, choice(&wanted)) {
                    Ok(session) => {
                        let text = self.prompt(&mut random);
                        conversations.push(Conversation { session, wanted, text });
                    }
                    Err(error) => self.counts.wrong(format!("no session: {error}")),
                }
                continue;
            }
            let index = random.below(conversations.len());
            if random.below(8) == 0 {
                conversations.swap_remove(index);
                continue;
            }
            if random.below(6) == 0 {
                conversations[index].wanted = self.wanted(&mut random);
                let choice = choice(&conversations[index].wanted);
                conversations[index].session.choose(choice);
            }
            self.go_on(&mut conversations[index], &mut random);
        }
        drop(conversations);
        self.counts.steps.lock().unwrap_or_else(PoisonError::into_inner).0.extend(steps.0);
    }

    fn wanted(&self, random: &mut Random) -> Vec<usize> {
        let mut one = || {
            let of =
                if random.below(10) < 6 { POPULAR.min(self.collection.len()) } else { self.collection.len() };
            random.below(of)
        };
        let (first, second) = (one(), one());
        if first == second || random.below(4) > 0 { vec![first] } else { vec![first, second] }
    }

    fn prompt(&self, random: &mut Random) -> Vec<u32> {
        let text = ["The capital of France is", "Once upon a time", "In law, a contract"][random.below(3)];
        self.host.tokenizer().encode_prompt(text, false).expect("a prompt")
    }

    /// One request, each step of it timed.
    fn request(&self, wanted: &[usize], random: &mut Random, steps: &mut Samples) {
        let certain = self.certain(wanted);
        let turn = match self.host.turn(&choice(wanted)) {
            Ok(turn) => turn,
            Err(error) => return self.refused(wanted, &certain, &error),
        };
        let prompt = self.prompt(random);
        let tokens = 2 + random.below(5);
        let mut sequence = Sequence::new(self.host.core(), turn.mixture().clone());
        let mut sampler = Sampler::new(SamplingOptions::greedy()).expect("greedy");
        let mut answer = Vec::new();
        let mut next = prompt.clone();
        let last = loop {
            let started = Instant::now();
            let Some(logits) = advance(self.host, &mut sequence, &next) else {
                return self.counts.wrong("a step failed".to_owned());
            };
            if !answer.is_empty() {
                steps.0.push(started.elapsed().as_secs_f64() * 1e3);
            }
            let Ok(token) = sampler.sample(&logits, &[]) else {
                return self.counts.wrong("logits that are no numbers".to_owned());
            };
            answer.push(token);
            if answer.len() == tokens || self.host.tokenizer().is_end(token) {
                break logits;
            }
            next = vec![token];
        };
        drop(sequence);
        let parts = mixture_parts(turn.mixture());
        let omitted = turn.omitted().to_vec();
        drop(turn);
        self.counts.tokens.fetch_add(answer.len() as u64, Ordering::Relaxed);
        self.judge(wanted, &certain, &parts, &omitted);
        if self.is_checked(random)
            && let Some((expected, expected_last)) = self.reference.answer(&parts, &prompt, tokens)
        {
            self.counts.checked.fetch_add(1, Ordering::Relaxed);
            if answer != expected || !same_bits(&last, &expected_last) {
                self.counts.wrong(format!("{parts:?} answered {answer:?}, alone {expected:?}"));
            }
        }
    }

    /// The next answer of a conversation.
    fn go_on(&self, conversation: &mut Conversation<'_>, random: &mut Random) {
        if conversation.text.len() > 64 {
            conversation.text.truncate(6);
        }
        let certain = self.certain(&conversation.wanted);
        let tokens = 2 + random.below(5);
        let limits = AnswerLimits { max_tokens: tokens, stop: Vec::new() };
        let never = AtomicBool::new(false);
        let greedy = SamplingOptions::greedy();
        let outcome = conversation.session.answer(&conversation.text, &greedy, &limits, &never, &mut |_| {});
        let answer = match outcome {
            Ok(answer) => answer,
            Err(error) => return self.refused(&conversation.wanted, &certain, &error),
        };
        self.counts.tokens.fetch_add(answer.token_ids.len() as u64, Ordering::Relaxed);
        self.judge(&conversation.wanted, &certain, &answer.mixture, &answer.omitted);
        if self.is_checked(random)
            && let Some((expected, _)) = self.reference.answer(&answer.mixture, &conversation.text, tokens)
        {
            self.counts.checked.fetch_add(1, Ordering::Relaxed);
            if answer.token_ids != expected {
                let (parts, found) = (&answer.mixture, &answer.token_ids);
                self.counts.wrong(format!("{parts:?} went on with {found:?}, alone {expected:?}"));
            }
        }
        conversation.text.extend(answer.token_ids);
        conversation.text.extend([5, 9]);
    }

    /// On the default base an answer takes as long to check as to give.
    fn is_checked(&self, random: &mut Random) -> bool {
        self.base == Base::Tiny || random.below(2) == 0
    }

    /// The generations that must answer, where that does not depend on how far the host has come.
    fn certain(&self, wanted: &[usize]) -> Vec<Option<usize>> {
        wanted.iter().map(|pack| self.collection.lying(*pack).certain()).collect()
    }

    /// Whether the packs that answered are those that were asked for.
    fn judge(
        &self,
        wanted: &[usize],
        certain: &[Option<usize>],
        parts: &[MixturePart],
        omitted: &[OmittedPack],
    ) {
        self.counts.with_omitted.fetch_add(u64::from(!omitted.is_empty()), Ordering::Relaxed);
        let had: Vec<(&usize, &Option<usize>)> = wanted
            .iter()
            .zip(certain)
            .filter(|(pack, _)| !omitted.iter().any(|omitted| omitted.pack == name(**pack)))
            .collect();
        if had.len() + omitted.len() != wanted.len() || had.len().max(1) != parts.len() {
            return self.counts.wrong(format!("{wanted:?} was answered by {parts:?} without {omitted:?}"));
        }
        for ((pack, certain), part) in had.iter().zip(parts) {
            let found = self.collection.of_generation(&part.generation);
            let right = found.is_some_and(|(of, version)| {
                of == **pack && certain.is_none_or(|certain| certain == version)
            });
            if !right {
                let name = name(**pack);
                self.counts.wrong(format!("`{name}` in version {certain:?} was answered by {part:?}"));
            }
        }
    }

    /// Whether a request may be refused: for a pack whose files changed a moment ago, or for want of memory.
    fn refused(&self, wanted: &[usize], certain: &[Option<usize>], error: &EngineError) {
        if matches!(error, EngineError::Budget(_)) {
            self.counts.without_room.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        let EngineError::Pack(
            LeaseFailure::Unknown { name: of, .. } | LeaseFailure::Quarantined { name: of, .. },
        ) = error
        else {
            return self.counts.wrong(format!("{wanted:?} was refused: {error}"));
        };
        let asked = wanted.iter().zip(certain).find(|(pack, _)| name(**pack) == *of);
        if asked.is_none_or(|(_, certain)| certain.is_some()) {
            self.counts.wrong(format!("{wanted:?} was refused: {error}"));
        }
    }
}

fn choice(wanted: &[usize]) -> manifests::MixtureChoice {
    let text = match wanted {
        [one] => name(*one),
        [three, one, ..] => format!("{}=3,{}", name(*three), name(*one)),
        [] => "none".to_owned(),
    };
    text.parse().expect("a mixture")
}
