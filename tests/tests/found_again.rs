//! What was said far behind the hot window is found again, on a base that was trained to look for it.

use std::sync::atomic::AtomicBool;

use modularbase_context::{ContextOptions, KvBits};
use modularbase_core::SamplingOptions;
use modularbase_corpus::{Needle, NeedleSource, with_needles};
use modularbase_engine::{AnswerLimits, Host, Session};
use system_tests::{Base, Folders, passkey_base};

const NOVEL: &str = include_str!("../../host/core/tests/data/novel.txt");
/// Letters of a text: it has thrice the tokens that the base knows positions for.
const LENGTH: usize = 24_000;

fn host(folders: &Folders, retrieved_blocks: usize) -> Host {
    let host = folders.host_with(|options| {
        options.base = passkey_base();
        options.slot = None;
        options.context = Some(ContextOptions {
            hot_tokens: 1024,
            sinks: 64,
            retrieved_blocks,
            bits: KvBits::B4,
            ..ContextOptions::default()
        });
    });
    host.unwrap()
}

/// How many of the keys, each hidden at another depth of a text of its own, the host finds.
fn found(host: &Host, needles: &[Needle]) -> usize {
    let filler: String = NOVEL.chars().cycle().take(LENGTH).collect();
    let limits = AnswerLimits { max_tokens: 8, stop: Vec::new() };
    let asked = needles.iter().enumerate().map(|(number, needle)| {
        let depth = (number as f64 + 0.5) / (2 * needles.len()) as f64;
        let text = with_needles(&filler, &[(depth, needle)]) + &needle.question();
        let prompt = host.tokenizer().encode_prompt(&text, false).unwrap();
        assert!(prompt.len() > 2 * host.core().shape().max_position, "{} tokens", prompt.len());
        let mut session = Session::new(host, "none".parse().unwrap()).unwrap();
        let never = AtomicBool::new(false);
        let greedy = SamplingOptions::greedy();
        let answer = session.answer(&prompt, &greedy, &limits, &never, &mut |_| {}).unwrap();
        println!("{}: {:?}", needle.key, answer.text);
        usize::from(needle.is_answer(&answer.text))
    });
    asked.sum()
}

#[test]
fn keys_far_behind_the_hot_window_are_found_in_retrieved_blocks_and_not_in_a_sliding_window() {
    let needles: Vec<Needle> = (0..4).flat_map(|round| NeedleSource::new(7, round).needles(1)).collect();
    let folders = Folders::for_base(Base::Tiny);
    let sliding = found(&host(&folders, 0), &needles);
    let retrieved = found(&host(&folders, 8), &needles);
    assert!(retrieved >= 3 && sliding <= 1, "{retrieved} of 4, and {sliding} without retrieved blocks");
}
