//! Looking at the packs again while an answer is written: a long one may change its subject.

use std::ops::Range;
use std::time::{Duration, Instant};

use manifests::{MixtureChoice, RoutingConfig};
use modularbase_core::Activations;

use crate::message::PromptRows;
use crate::working_memory::{Work, Working};
use crate::{Chosen, EngineError, Host, OmittedPack, Session, Turn};

/// Tokens that are looked at: the last ones.
const WINDOW: usize = 128;

/// How much likelier another choice must be, where nothing is said.
const MARGIN: f64 = 0.3;

/// How long a change waits for memory: the answer waits with it.
const WAIT: Duration = Duration::from_millis(250);

/// How often an answer's packs are looked at again, and what makes them change.
#[derive(Debug, Clone)]
pub struct Again {
    every: usize,
    margin: f64,
    config: RoutingConfig,
}

impl Again {
    /// `None`: the configuration does not want it.
    pub fn of(config: &RoutingConfig) -> Option<Self> {
        let every = config.again_every.filter(|every| *every > 0)? as usize;
        Some(Self { every, margin: config.again_margin.unwrap_or(MARGIN), config: config.clone() })
    }

    /// Whether an answer of so many tokens is looked at.
    pub fn is_due(&self, tokens: usize) -> bool {
        tokens > 0 && tokens.is_multiple_of(self.every)
    }

    /// The tokens that are looked at in a text of so many.
    pub fn window(tokens: usize) -> Range<usize> {
        tokens.saturating_sub(WINDOW)..tokens
    }
}

impl Host {
    /// What the router would rather have for the end of a text than the packs that answer at the moment, by enough to
    /// change; `None`: nothing. `ids` are the tokens of [`Again::window`], `hidden` their hidden states in front of the slot
    /// `[tokens, hidden]`, as they lie in the caches: nothing is read a second time.
    ///
    /// # Errors
    /// A failing device.
    pub fn look_again(
        &self,
        again: &Again,
        ids: &[u32],
        hidden: &Activations,
        present: &MixtureChoice,
    ) -> Result<Option<Chosen>, EngineError> {
        let Some(rows) = PromptRows::of_known(self.core(), self.tokenizer(), ids, hidden)? else {
            return Ok(None);
        };
        let Some(routing) = self.route_rows(&rows, &again.config) else { return Ok(None) };
        let present = present.normalized().unwrap_or_default();
        let present: Vec<&str> = present.iter().map(|(name, _)| name.as_str()).collect();
        let beats = routing.beats(&present, again.margin);
        beats.then(|| Chosen::by_router(routing)).transpose()
    }
}

/// The packs that an answer comes from at the moment, and what its steps work in.
pub(crate) struct Serving<'a> {
    pub(crate) choice: MixtureChoice,
    pub(crate) turn: Turn,
    pub(crate) _working: Working<'a>,
}

impl<'a> Session<'a> {
    /// Looks at the text so far, and goes on with other packs where these are by enough likelier: what lies behind the slot
    /// is then recomputed from the hidden states in the cache. Gives the reason in words; `None`: the packs stay, also where
    /// others can't be had for the moment.
    ///
    /// # Errors
    /// A failing device.
    pub(crate) fn look_again(
        &mut self,
        again: &Again,
        serving: &mut Serving<'a>,
        work: Work,
    ) -> Result<Option<String>, EngineError> {
        let host = self.host;
        let window = Again::window(self.sequence.tokens().len());
        let hidden = self.sequence.hidden_of(window.clone())?;
        let ids = &self.sequence.tokens()[window];
        let Some(chosen) = host.look_again(again, ids, &hidden, &serving.choice)? else { return Ok(None) };
        match self.change_to(&chosen, work) {
            Ok(changed) => *serving = changed,
            Err(error) => {
                tracing::warn!(%error, "the answer goes on with the packs that it has");
                return Ok(None);
            }
        }
        host.bring_nearest(&chosen);
        Ok(chosen.routing.map(|routing| routing.reason))
    }

    /// Leases other packs, sets their memory aside, and puts them in force.
    fn change_to(&mut self, chosen: &Chosen, work: Work) -> Result<Serving<'a>, EngineError> {
        let (host, until) = (self.host, Instant::now() + WAIT);
        let turn = host.turn_until(&chosen.choice, until)?;
        if let Some(OmittedPack { pack, reason }) = turn.omitted().first() {
            return Err(EngineError::Option(format!("`{pack}` can't be had now: {reason}")));
        }
        let needed = host.sequence_bytes(&self.sequence, turn.mixture(), work.context);
        let needed = needed.max(self.memory.bytes());
        host.grow_until(&mut self.memory, needed, until)?;
        let working = host.begin_work_until(turn.mixture(), work, until)?;
        self.sequence.set_mixture(host.core(), turn.mixture().clone());
        Ok(Serving { choice: chosen.choice.clone(), turn, _working: working })
    }
}
