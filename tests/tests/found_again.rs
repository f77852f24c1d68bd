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

/// `length` letters of a novel with keys between them, each so far from the beginning as a share of the whole.
fn text_with(needles: &[Needle], length: usize, depth: impl Fn(usize) -> f64) -> String {
    let filler: String = NOVEL.chars().cycle().take(length).collect();
    let placed: Vec<(f64, &Needle)> =
        needles.iter().enumerate().map(|(number, needle)| (depth(number), needle)).collect();
    with_needles(&filler, &placed)
}

/// How many of the keys in a text of `at_least` tokens or more are found, asked one after the other.
fn found(
    mut session: Session<'_>,
    host: &Host,
    needles: &[Needle],
    mut text: String,
    at_least: usize,
) -> usize {
    let limits = AnswerLimits { max_tokens: 8, stop: Vec::new() };
    let never = AtomicBool::new(false);
    let mut right = 0;
    for needle in needles {
        let prompt = host.tokenizer().encode_prompt(&(text.clone() + &needle.question()), false).unwrap();
        assert!(prompt.len() > at_least, "{} tokens", prompt.len());
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
    let found_with = |retrieved_blocks: usize| {
        let host = host(&folders, retrieved_blocks);
        let session = Session::new(&host, "none".parse().unwrap()).unwrap();
        // All in the first half.
        let text = text_with(&needles, LENGTH, |number| (number as f64 + 0.5) / (2 * needles.len()) as f64);
        found(session, &host, &needles, text, 2 * host.core().shape().max_position)
    };
    let (sliding, retrieved) = (found_with(0), found_with(8));
    assert!(retrieved >= 7 && sliding <= 1, "{retrieved} of 8, and {sliding} without retrieved blocks");
}

#[test]
fn the_default_base_finds_in_a_window_what_it_finds_in_the_whole_text() {
    let folders = Folders::for_base(Base::Real);
    let needles = NeedleSource::new(1, 0).needles(3);
    let found_with = |retrieved_blocks: Option<usize>| {
        let host = folders.host_with(|options| {
            options.context = retrieved_blocks.map(|retrieved_blocks| ContextOptions {
                hot_tokens: 512,
                retrieved_blocks,
                ..ContextOptions::default()
            });
        });
        let host = host.unwrap();
        let one = |needle: &Needle| {
            let session = Session::new(&host, "none".parse().unwrap()).unwrap();
            let text = text_with(std::slice::from_ref(needle), 9_000, |_| 0.3);
            found(session, &host, std::slice::from_ref(needle), text, 2_000)
        };
        needles.iter().map(one).sum::<usize>()
    };
    let (whole, retrieved, sliding) = (found_with(None), found_with(Some(4)), found_with(Some(0)));
    assert!(
        retrieved >= whole && whole >= 2 && sliding == 0,
        "{retrieved} of 3 in a window, {whole} in the whole text, {sliding} in a sliding window"
    );
}

#[test]
fn what_instructions_say_is_known_however_long_the_text_is() {
    let needles = NeedleSource::new(7, 0).needles(4);
    let folders = Folders::for_base(Base::Tiny);
    let host = host(&folders, 0);
    let found_with = |first: usize| {
        let session = Session::keeping(&host, "none".parse().unwrap(), first).unwrap();
        assert_eq!(session.first_tokens(), Some(first.next_multiple_of(64).clamp(64, 1024)));
        // Behind the 64 first tokens and before number 500.
        let text = text_with(&needles, 12_000, |number| (400 + 250 * number) as f64 / 12_000.0);
        found(session, &host, &needles, text, 3_000)
    };
    let (as_text, as_instructions) = (found_with(0), found_with(500));
    assert!(
        as_instructions >= 3 && as_text <= 1,
        "{as_instructions} of 4, and {as_text} where they are text"
    );
    let most = Session::keeping(&host, "none".parse().unwrap(), 5_000).unwrap();
    assert_eq!(most.first_tokens(), Some(1024), "as many as there are hot tokens");
}
