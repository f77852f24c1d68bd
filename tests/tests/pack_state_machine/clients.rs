//! Requests that begin, go on and end, and whether what they are answered is right.

use std::{collections::BTreeSet, sync::atomic::AtomicBool, time::Duration};

use manifests::MixtureChoice;
use modularbase_core::{LogitRows, SamplingOptions, Sequence};
use modularbase_engine::{
    Answer, AnswerLimits, EngineError, Host, OmittedPack, Session, Turn, mixture_parts,
};
use modularbase_manager::LeaseFailure;
use modularbase_residency::Reservation;
use system_tests::same_bits;

use crate::{
    folder_model::FolderModel,
    operations::Choice,
    reference::{Parts, Reference, advance},
    shelf::NAMES,
};

/// What requests ask.
pub const PROMPTS: [&str; 3] = ["The capital of France is", "Once upon a time", "x"];

/// A request that is under way.
pub struct Running {
    // Dropped before the leases: it holds the experts.
    sequence: Sequence,
    pub turn: Turn,
    tokens: Vec<u32>,
    _memory: Option<Reservation>,
}

/// A conversation.
pub struct Conversation<'h> {
    session: Session<'h>,
    choice: Choice,
    text: Vec<u32>,
}

/// What was answered.
#[derive(Debug, Default, Clone, Copy)]
pub struct Answered {
    pub right: u64,
    pub refused: u64,
    pub omitted: u64,
}

/// Who judges answers.
pub struct Judge<'a> {
    pub reference: &'a Reference<'a>,
    pub prompts: Vec<Vec<u32>>,
}

/// What the judge has to know of the moment.
pub struct Moment<'a> {
    pub model: &'a FolderModel<'a>,
    /// The budget has room for everything.
    pub ample: bool,
}

impl Choice {
    /// As requests write it.
    pub fn to_mixture(&self) -> MixtureChoice {
        let text = match self {
            Self::One(name) => NAMES[*name].to_owned(),
            Self::Two(three, one) => format!("{}=3,{}", NAMES[*three], NAMES[*one]),
            Self::Nothing => "none".to_owned(),
        };
        text.parse().unwrap()
    }

    /// The names with their weights.
    pub fn names(&self) -> Vec<(usize, f32)> {
        match self {
            Self::One(name) => vec![(*name, 1.0)],
            Self::Two(three, one) => vec![(*three, 3.0), (*one, 1.0)],
            Self::Nothing => Vec::new(),
        }
    }
}

impl<'a> Judge<'a> {
    pub fn new(reference: &'a Reference<'a>) -> Self {
        Self { reference, prompts: PROMPTS.iter().map(|text| reference.tokens(text)).collect() }
    }

    /// Judges a request from its beginning to its logits.
    pub fn request(
        &self,
        host: &Host,
        choice: &Choice,
        prompt: usize,
        moment: &Moment<'_>,
        answered: &mut Answered,
    ) -> Result<(), String> {
        let outcome = ask(host, choice, &self.prompts[prompt]);
        self.asked(choice, prompt, outcome, moment, answered)
    }

    /// Judges what [`ask`] gave.
    pub fn asked(
        &self,
        choice: &Choice,
        prompt: usize,
        outcome: Result<Asked, EngineError>,
        moment: &Moment<'_>,
        answered: &mut Answered,
    ) -> Result<(), String> {
        let asked = match outcome {
            Ok(asked) => asked,
            Err(error) => return self.refusal(choice, &error, moment, answered),
        };
        self.packs(choice, &asked.parts, &asked.omitted, moment, answered)?;
        self.logits(&asked.parts, &self.prompts[prompt], &asked.logits)
    }

    fn logits(&self, parts: &Parts, tokens: &[u32], found: &[f32]) -> Result<(), String> {
        let expected = self.reference.logits(parts, tokens);
        let rows = found.len().min(expected.len());
        if !same_bits(found, &expected[expected.len() - rows..]) {
            return Err(format!("{parts:?} gave other logits than alone"));
        }
        Ok(())
    }

    /// Whether these packs may answer that choice now.
    fn packs(
        &self,
        choice: &Choice,
        parts: &Parts,
        omitted: &[OmittedPack],
        moment: &Moment<'_>,
        answered: &mut Answered,
    ) -> Result<(), String> {
        answered.right += 1;
        answered.omitted += u64::from(!omitted.is_empty());
        let left_out: BTreeSet<&str> = omitted.iter().map(|pack| pack.pack.as_str()).collect();
        let wanted = choice.names();
        let had: Vec<_> = wanted.iter().filter(|(name, _)| !left_out.contains(NAMES[*name])).collect();
        if had.len() + left_out.len() != wanted.len() {
            return Err(format!("{choice:?} was answered without {omitted:?}"));
        }
        for pack in omitted {
            let for_memory = pack.reason.contains("can't be loaded now");
            if for_memory && moment.ample {
                return Err(format!("there is memory for all packs: {pack:?}"));
            }
        }
        if had.is_empty() {
            let base_alone = parts.len() == 1 && parts[0] == ("base".to_owned(), 1.0);
            return base_alone
                .then_some(())
                .ok_or(format!("{choice:?} without packs was answered by {parts:?}"));
        }
        let sum: f32 = had.iter().map(|(_, weight)| weight).sum();
        for ((name, weight), (generation, found)) in had.iter().zip(parts) {
            let served = &moment.model.of(*name).served;
            if !served.contains(generation) {
                let name = NAMES[*name];
                return Err(format!("`{name}` was answered by {generation}, may be one of {served:?}"));
            }
            if (weight / sum - found).abs() > 1e-6 {
                return Err(format!("{choice:?} was answered with {parts:?}"));
            }
        }
        if parts.len() != had.len() {
            return Err(format!("{choice:?} was answered by {parts:?}"));
        }
        Ok(())
    }

    /// Whether a request may be refused so now.
    fn refusal(
        &self,
        choice: &Choice,
        error: &EngineError,
        moment: &Moment<'_>,
        answered: &mut Answered,
    ) -> Result<(), String> {
        answered.refused += 1;
        let may = match error {
            EngineError::Pack(failure) => {
                let (name, kind) = match failure {
                    LeaseFailure::Unknown { name, .. } => (name, "unknown"),
                    LeaseFailure::Quarantined { name, .. } => (name, "quarantined"),
                    other => return Err(format!("{choice:?} was refused: {other}")),
                };
                let names = choice.names();
                let asked = names.iter().find(|(index, _)| NAMES[*index] == name);
                asked.is_some_and(|(index, _)| {
                    let entries = moment.model.of(*index);
                    if kind == "unknown" { entries.had_nothing } else { entries.may_be_refused() }
                })
            }
            EngineError::Budget(_) => !moment.ample,
            _ => false,
        };
        if may {
            return Ok(());
        }
        let states: Vec<_> = choice.names().iter().map(|(name, _)| moment.model.of(*name).clone()).collect();
        Err(format!("{choice:?} was refused: {error}; {states:?}"))
    }

    /// Begins a request that goes on.
    pub fn begin(
        &self,
        host: &Host,
        choice: &Choice,
        prompt: usize,
        moment: &Moment<'_>,
        answered: &mut Answered,
    ) -> Result<Option<Running>, String> {
        let turn = match host.turn(&choice.to_mixture()) {
            Ok(turn) => turn,
            Err(error) => return self.refusal(choice, &error, moment, answered).map(|()| None),
        };
        let parts = parts_of(&turn);
        self.packs(choice, &parts, turn.omitted(), moment, answered)?;
        // One that gets no memory goes on without having set any aside, as a test may.
        let memory = host.reserve_kv(turn.mixture(), 256).ok();
        let sequence = Sequence::new(host.core(), turn.mixture().clone());
        let mut running = Running { sequence, turn, tokens: Vec::new(), _memory: memory };
        running.advance(self, host, &self.prompts[prompt])?;
        Ok(Some(running))
    }

    /// Asks for the next tokens of a conversation.
    pub fn answer(
        &self,
        conversation: &mut Conversation<'_>,
        tokens: usize,
        moment: &Moment<'_>,
        answered: &mut Answered,
    ) -> Result<(), String> {
        if conversation.text.len() > 200 {
            conversation.text.truncate(7);
        }
        let outcome = conversation.answer(tokens);
        let answer = match outcome {
            Ok(answer) => answer,
            Err(error) => return self.refusal(&conversation.choice, &error, moment, answered),
        };
        let parts: Parts = answer.mixture.iter().map(|part| (part.generation.clone(), part.weight)).collect();
        self.packs(&conversation.choice, &parts, &answer.omitted, moment, answered)?;
        let expected = self.reference.answer(&parts, &conversation.text, tokens);
        if answer.token_ids != expected {
            return Err(format!("{parts:?} answered {:?}, alone {expected:?}", answer.token_ids));
        }
        // The user's next words.
        conversation.text.extend(&answer.token_ids);
        conversation.text.extend([5, 9]);
        Ok(())
    }
}

/// What a host gave.
pub struct Asked {
    parts: Parts,
    omitted: Vec<OmittedPack>,
    logits: Vec<f32>,
}

/// Asks a host for the logits of a prompt.
pub fn ask(host: &Host, choice: &Choice, prompt: &[u32]) -> Result<Asked, EngineError> {
    let turn = host.turn(&choice.to_mixture())?;
    let mut sequence = Sequence::new(host.core(), turn.mixture().clone());
    let logits = advance(host, &mut sequence, prompt, LogitRows::All);
    Ok(Asked { parts: parts_of(&turn), omitted: turn.omitted().to_vec(), logits })
}

fn parts_of(turn: &Turn) -> Parts {
    mixture_parts(turn.mixture()).into_iter().map(|part| (part.generation, part.weight)).collect()
}

impl Running {
    /// The generations that it holds.
    pub fn generations(&self) -> impl Iterator<Item = &str> {
        let generations = self.turn.mixture().parts().iter().map(|(expert, _)| expert.generation());
        generations.filter(|generation| *generation != "base")
    }

    /// Goes on by a token.
    pub fn go_on(&mut self, judge: &Judge<'_>, host: &Host) -> Result<(), String> {
        let next = (self.tokens.len() * 7 % 50 + 3) as u32;
        if self.tokens.len() > 100 {
            self.tokens.clear();
            self.sequence.truncate(0);
        }
        self.advance(judge, host, &[next])
    }

    fn advance(&mut self, judge: &Judge<'_>, host: &Host, tokens: &[u32]) -> Result<(), String> {
        self.tokens.extend(tokens);
        let found = advance(host, &mut self.sequence, tokens, LogitRows::Last);
        judge.logits(&parts_of(&self.turn), &self.tokens, &found)
    }
}

impl<'h> Conversation<'h> {
    /// An empty one.
    pub fn open(host: &'h Host, choice: Choice, prompt: &[u32]) -> Result<Self, EngineError> {
        let session = Session::new(host, choice.to_mixture())?;
        Ok(Self { session, choice, text: prompt.to_vec() })
    }

    /// Asks other packs from now on.
    pub fn choose(&mut self, choice: Choice) {
        self.session.choose(choice.to_mixture());
        self.choice = choice;
    }

    fn answer(&mut self, tokens: usize) -> Result<Answer, EngineError> {
        let limits = AnswerLimits { max_tokens: tokens, stop: Vec::new() };
        let never = AtomicBool::new(false);
        self.session.answer(&self.text, &SamplingOptions::greedy(), &limits, &never, &mut |_| {})
    }
}

/// How long requests wait for memory in this test, which has no other thread that could give any back.
pub const ADMISSION_WAIT: Duration = Duration::from_millis(60);
