//! A host with shipped packs, and what is asked of it.

use std::sync::atomic::AtomicBool;

use manifests::{MixtureChoice, RoutingConfig};
use modularbase_core::SamplingOptions;
use modularbase_engine::{Answer, AnswerLimits, Host, Session};
use modularbase_manager::PackState;
use pack_sdk::SlotRange;
use system_tests::{Folders, wait_for_state};

/// The slot of the default base's manifest, which the shipped packs are made for.
const SLOT: SlotRange = SlotRange { start: 14, end: 26 };

/// A host on these packs, all of them registered.
pub fn host(folders: &Folders, packs: &[&str], routing: RoutingConfig) -> Host {
    let host = folders.host_with(|options| {
        options.slot = Some(SLOT);
        // Two that wait for each other at every step crawl where other tests want the cores too.
        options.threads = 1;
        options.routing = routing;
    });
    let host = host.unwrap();
    packs.iter().for_each(|pack| drop(wait_for_state(&host, pack, &[PackState::Registered])));
    host
}

/// Bytes of the budget that are taken.
pub fn held(host: &Host) -> u64 {
    host.ledger().holders().iter().map(|(_, bytes)| bytes).sum()
}

/// A greedy answer of a session, with the packs that the router chooses for the prompt alone.
pub fn answer(session: &mut Session<'_>, host: &Host, prompt: &str, tokens: usize) -> Answer {
    session.choose(host.choose(&MixtureChoice::Auto, &[prompt]).unwrap());
    let prompt = host.tokenizer().encode_prompt(prompt, false).unwrap();
    let limits = AnswerLimits { max_tokens: tokens, stop: Vec::new() };
    session
        .answer(&prompt, &SamplingOptions::greedy(), &limits, &AtomicBool::new(false), &mut |_| {})
        .unwrap()
}
