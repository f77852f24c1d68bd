//! Answers on texts longer than the hot window. A program of its own: its allocator counts the whole process.

use std::{
    alloc::System,
    sync::{Mutex, PoisonError, atomic::AtomicBool},
};

use cap::Cap;
use modularbase_context::ContextOptions;
use modularbase_core::SamplingOptions;
use modularbase_engine::{Answer, AnswerLimits, Host, Session};
use system_tests::{Base, Folders, small_base};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// One test at a time: the other's bytes would be counted.
static ALONE: Mutex<()> = Mutex::new(());

/// What the host keeps of a text beside its caches: its tokens, prompt and index of blocks.
const BESIDE: i64 = 512 << 10;

fn host(folders: &Folders, context: Option<ContextOptions>) -> Host {
    let host = folders.host_with(|options| {
        options.base = small_base();
        options.slot = None;
        options.context = context;
    });
    host.unwrap()
}

/// 128 hot tokens behind a block of sinks.
fn options() -> ContextOptions {
    ContextOptions {
        hot_tokens: 128,
        block_tokens: 32,
        sinks: 32,
        retrieved_blocks: 2,
        ram_bytes: 256 << 10,
        ..ContextOptions::default()
    }
}

fn prompt(host: &Host, tokens: usize) -> Vec<u32> {
    let text =
        "The court finds that the tenant paid the rent on the first day of each month. ".repeat(tokens / 8);
    let mut found = host.tokenizer().encode_prompt(&text, false).unwrap();
    assert!(found.len() >= tokens, "{} tokens", found.len());
    found.truncate(tokens);
    found
}

fn answer(session: &mut Session<'_>, prompt: &[u32], max_tokens: usize, on_text: &mut dyn FnMut()) -> Answer {
    let limits = AnswerLimits { max_tokens, stop: Vec::new() };
    let greedy = SamplingOptions { temperature: 0.0, ..SamplingOptions::default() };
    session.answer(prompt, &greedy, &limits, &AtomicBool::new(false), &mut |_| on_text()).unwrap()
}

/// Bytes allocated beyond what the ledger says.
fn beside(host: &Host) -> i64 {
    let said: u64 = host.ledger().holders().iter().map(|(_, bytes)| *bytes).sum();
    ALLOCATOR.allocated() as i64 - said as i64
}

#[test]
fn an_answer_on_a_text_longer_than_the_base_context_takes_the_memory_that_the_ledger_says() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folders = Folders::for_base(Base::Tiny);
    let host = host(&folders, Some(options()));
    let limit = host.core().shape().max_position;
    let tokens = prompt(&host, limit + 400);
    let mut session = Session::new(&host, "none".parse().unwrap()).unwrap();
    // Once before: the workspace and the threads are there.
    answer(&mut session, &tokens[..60], 4, &mut || {});
    let before = beside(&host);

    let mut most = i64::MIN;
    let first = answer(&mut session, &tokens[..limit + 100], 8, &mut || most = most.max(beside(&host)));
    assert!(most - before < BESIDE, "{} bytes in the answer that nobody holds", most - before);
    assert!((beside(&host) - before).abs() < BESIDE, "{} bytes after it", beside(&host) - before);
    let report = first.context.unwrap();
    assert_eq!(report.hot_tokens + report.cold_tokens, report.tokens);
    assert!(report.tokens > limit && report.hot_tokens <= 32 + 128 + 32, "{report:?}");
    assert_eq!(report.retrieved_tokens, 2 * 32);
    assert!(report.hit_rate.is_some_and(|rate| (0.0..=1.0).contains(&rate)), "{report:?}");
    assert!(report.ram_bytes <= 256 << 10 && report.disk_bytes > 0, "{report:?}");
    // Caches that are parked know the tokens they were made of.
    let known = (report.tokens * size_of::<u32>()) as u64;
    assert_eq!(host.memory().kv_bytes, report.hot_bytes + report.ram_bytes + known);

    // The text goes on.
    let longer = [&tokens[..limit + 100], &first.token_ids, &tokens[limit + 100..]].concat();
    let second = answer(&mut session, &longer, 8, &mut || {});
    assert!(second.context.unwrap().cold_tokens > report.cold_tokens);
    assert!((beside(&host) - before).abs() < BESIDE, "{} bytes at the end", beside(&host) - before);

    // A text that has nothing in common with it, and no longer than the window: nothing is cold any more.
    let short = answer(&mut session, &longer[5..100], 8, &mut || {}).context.unwrap();
    assert_eq!((short.cold_tokens, short.disk_bytes), (0, 0));
    drop(session);
    assert_eq!(host.memory().kv_bytes, 0);
}

#[test]
fn within_the_hot_window_answers_are_those_without_a_window_and_beyond_the_base_context_only_a_window_answers()
 {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folders = Folders::for_base(Base::Tiny);
    let (plain, windowed) = (host(&folders, None), host(&folders, Some(options())));
    let tokens = prompt(&plain, 120);
    let mut answers = [&plain, &windowed].map(|host| {
        let mut session = Session::new(host, "none".parse().unwrap()).unwrap();
        let first = answer(&mut session, &tokens[..70], 24, &mut || {});
        let second = answer(&mut session, &tokens, 24, &mut || {});
        assert_eq!(session.context().is_some(), first.context.is_some());
        [first, second].map(|answer| (answer.text, answer.token_ids))
    });
    let [expected, found] = &mut answers;
    assert_eq!(expected, found);

    let long = prompt(&plain, plain.core().shape().max_position);
    let mut session = Session::new(&plain, "none".parse().unwrap()).unwrap();
    let limits = AnswerLimits { max_tokens: 1, stop: Vec::new() };
    let refused =
        session.answer(&long, &SamplingOptions::default(), &limits, &AtomicBool::new(false), &mut |_| {});
    assert!(refused.is_err());
}

#[test]
fn a_window_that_the_base_has_no_positions_for_is_refused_when_the_host_starts() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folders = Folders::for_base(Base::Tiny);
    let opened = folders.host_with(|options| {
        options.base = small_base();
        options.slot = None;
        options.context = Some(ContextOptions::default());
    });
    let error = opened.err().unwrap().to_string();
    assert!(error.contains("[context]") && error.contains("1024"), "{error}");
}
