//! What packs give on hosts where nothing else happens.

use std::{cell::RefCell, collections::HashMap};

use modularbase_core::{Advance, LogitRows, Mixture, Sampler, SamplingOptions, Sequence};
use modularbase_engine::Host;
use system_tests::{Base, Folders, first_logits, same_bits};

use crate::shelf::{LOOKS, Shelf};

/// A mixture as an answer names it: generations and weights.
pub type Parts = Vec<(String, f32)>;

type Key = (Vec<(Option<usize>, u32)>, Vec<u32>);

/// A host that holds every look from its start to its end. Each look alone gives there what it gives on a host of its own.
pub struct Reference<'a> {
    host: Host,
    _folders: Folders,
    shelf: &'a Shelf,
    known: RefCell<HashMap<Key, Vec<f32>>>,
}

impl<'a> Reference<'a> {
    /// Opens the hosts, and compares them.
    pub fn new(shelf: &'a Shelf) -> Self {
        let folders = Folders::for_base(Base::Tiny);
        let lay_out = |folders: &Folders, look: usize| {
            let (width, blocks, seed) = LOOKS[look];
            let settings = toml::toml! { width = width
            blocks = blocks };
            let fixture = folders.fixture("sized").named(&format!("look-{look}"));
            fixture.settings(settings).seeded(seed).lay_out(folders.packs.path());
        };
        (0..LOOKS.len()).for_each(|look| lay_out(&folders, look));
        let host = folders.host_with(|options| options.packs.watch = false).unwrap();
        let mut different: Vec<Vec<f32>> = Vec::new();
        for look in 0..LOOKS.len() {
            let name = format!("look-{look}");
            let alone = Folders::for_base(Base::Tiny);
            lay_out(&alone, look);
            let alone = first_logits(&alone.host(), &name).unwrap();
            assert!(same_bits(&first_logits(&host, &name).unwrap(), &alone), "{name} alone");
            assert!(different.iter().all(|other| !same_bits(other, &alone)), "{name} is like another one");
            different.push(alone);
        }
        Self { host, _folders: folders, shelf, known: RefCell::default() }
    }

    /// The tokens of a prompt.
    pub fn tokens(&self, text: &str) -> Vec<u32> {
        self.host.tokenizer().encode_prompt(text, false).unwrap()
    }

    /// The logits of every token, `[tokens, vocab]` row by row.
    pub fn logits(&self, parts: &Parts, tokens: &[u32]) -> Vec<f32> {
        let part = |(generation, weight): &(String, f32)| (self.shelf.look_of(generation), weight.to_bits());
        let key = (parts.iter().map(part).collect(), tokens.to_vec());
        if let Some(known) = self.known.borrow().get(&key) {
            return known.clone();
        }
        let mut sequence = Sequence::new(self.host.core(), self.mixture(parts));
        let logits = advance(&self.host, &mut sequence, tokens, LogitRows::All);
        self.known.borrow_mut().insert(key, logits.clone());
        logits
    }

    /// The likeliest tokens, one after the other, up to an end token.
    pub fn answer(&self, parts: &Parts, prompt: &[u32], tokens: usize) -> Vec<u32> {
        let mut sequence = Sequence::new(self.host.core(), self.mixture(parts));
        let mut sampler = Sampler::new(SamplingOptions::greedy()).unwrap();
        let mut logits = advance(&self.host, &mut sequence, prompt, LogitRows::Last);
        let mut answer = Vec::new();
        loop {
            let token = sampler.sample(&logits, &[]).unwrap();
            answer.push(token);
            if self.host.tokenizer().is_end(token) || answer.len() == tokens {
                return answer;
            }
            logits = advance(&self.host, &mut sequence, &[token], LogitRows::Last);
        }
    }

    fn mixture(&self, parts: &Parts) -> Mixture {
        let expert = |generation: &str| {
            let choice = match self.shelf.look_of(generation) {
                Some(look) => format!("look-{look}"),
                None => {
                    assert_eq!(generation, "base", "a generation that nobody made");
                    "none".to_owned()
                }
            };
            let turn = self.host.turn(&choice.parse().unwrap()).unwrap();
            turn.mixture().parts()[0].0.clone()
        };
        let parts = parts.iter().map(|(generation, weight)| (expert(generation), *weight));
        Mixture::new(parts.collect()).unwrap()
    }
}

/// Appends tokens to a sequence and gives logits.
pub fn advance(host: &Host, sequence: &mut Sequence, tokens: &[u32], rows: LogitRows) -> Vec<f32> {
    let step = Advance { sequence, tokens, logits: rows };
    let logits = host.core().advance(&mut [step]).unwrap().remove(0).unwrap();
    logits.to_vec().unwrap()
}
