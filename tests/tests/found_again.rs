//! What was said far behind the hot window is found again, on a base that was trained to look for it.

use std::sync::atomic::AtomicBool;

use modularbase_context::{ContextOptions, KvBits};
use modularbase_core::SamplingOptions;
use modularbase_corpus::{Needle, NeedleSource, with_needles};
use modularbase_engine::{AnswerLimits, Host, Session};
use system_tests::{Base, Folders, passkey_base};

const NOVEL: &str = include_str!("../../host/core/tests/data/novel.txt");
/// Letters of the text: it has twice the tokens that the base knows positions for.
const LENGTH: usize = 60_000;

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

/// How many of the keys, all of them hidden in the first half of one text, the host finds, asked one after the other.
fn found(host: &Host, needles: &[Needle]) -> usize {
    let filler: String = NOVEL.chars().cycle().take(LENGTH).collect();
    let depth = |number: usize| (number as f64 + 0.5) / (2 * needles.len()) as f64;
    let placed: Vec<(f64, &Needle)> =
        needles.iter().enumerate().map(|(number, needle)| (depth(number), needle)).collect();
    let mut text = with_needles(&filler, &placed);
    let mut session = Session::new(host, "none".parse().unwrap()).unwrap();
    let limits = AnswerLimits { max_tokens: 8, stop: Vec::new() };
    let never = AtomicBool::new(false);
    let mut right = 0;
    for needle in needles {
        let prompt = host.tokenizer().encode_prompt(&(text.clone() + &needle.question()), false).unwrap();
        assert!(prompt.len() > 2 * host.core().shape().max_position, "{} tokens", prompt.len());
        let answer =
            session.answer(&prompt, &SamplingOptions::greedy(), &limits, &never, &mut |_| {}).unwrap();
        println!("{}: {:?}", needle.key, answer.text);
        right += usize::from(needle.is_answer(&answer.text));
        text += &needle.answered();
    }
    right
}

#[test]
fn keys_far_behind_the_hot_window_are_found_in_retrieved_blocks_and_not_in_a_sliding_window() {
    let needles = NeedleSource::new(7, 0).needles(8);
    let folders = Folders::for_base(Base::Tiny);
    let sliding = found(&host(&folders, 0), &needles);
    let retrieved = found(&host(&folders, 8), &needles);
    assert!(retrieved >= 7 && sliding <= 1, "{retrieved} of 8, and {sliding} without retrieved blocks");
}
