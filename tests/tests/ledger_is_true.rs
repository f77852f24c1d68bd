//! What the ledger says against what the allocator says, while packs and sessions come and go. One test in a program of
//! its own: the allocator counts the whole process.

use std::{alloc::System, sync::atomic::AtomicBool};

use cap::Cap;
use manifests::Dtype;
use modularbase_core::SamplingOptions;
use modularbase_engine::{AnswerLimits, Host, Session, Turn};
use system_tests::{Folders, seed, wait_for};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const STEPS: usize = 120;

fn ledger(host: &Host) -> i64 {
    host.ledger().holders().iter().map(|(_, bytes)| *bytes as i64).sum()
}

/// SplitMix64 (Steele et al. 2014).
fn draw(state: &mut u64, limit: usize) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % limit as u64) as usize
}

#[test]
fn the_ledger_says_what_the_allocator_says_at_every_step_of_a_random_run() {
    let mut state = seed();
    let folders = Folders::with(&["general", "moe"]);
    folders.fixture("own-slot").owning_everything().lay_out(folders.packs.path());
    let deltas = folders.fixture("own-slot").named("deltas").delta(Dtype::DeltaQ2, folders.fingerprint());
    deltas.lay_out(folders.packs.path());
    let wide = |blocks: i64| {
        toml::toml! { width = 256
        blocks = 2 }
        .into_iter()
        .map(|(key, value)| if key == "blocks" { (key, blocks.into()) } else { (key, value) })
        .collect()
    };
    for (name, blocks) in [("small", 2), ("large", 6)] {
        folders.fixture("sized").named(name).settings(wide(blocks)).lay_out(folders.packs.path());
    }
    let packs = ["general", "moe", "own-slot", "deltas", "small", "large"];

    let host = folders.host();
    assert!(host.manager().wait_until_looked(std::time::Duration::from_secs(120)));
    // What is neither weights nor caches nor working memory: tokenizer, catalogue, threads.
    let beside = ALLOCATOR.allocated() as i64 - ledger(&host);
    let prompts: Vec<Vec<u32>> = [3, 40, 300, 700]
        .iter()
        .map(|words| host.tokenizer().encode_prompt(&"word ".repeat(*words), false).unwrap())
        .collect();

    let mut sessions: Vec<Session<'_>> = Vec::new();
    let mut turns: Vec<Turn> = Vec::new();
    let mut worst = 0.0_f64;
    for step in 0..STEPS {
        let pack = packs[draw(&mut state, packs.len())];
        let other = packs[draw(&mut state, packs.len())];
        let what = match draw(&mut state, 8) {
            0 | 1 => {
                let choice = match pack == other {
                    true => pack.parse().unwrap(),
                    false => format!("{pack}=1,{other}=2").parse().unwrap(),
                };
                turns.push(host.turn(&choice).unwrap());
                format!("lease {pack} and {other}")
            }
            2 if !turns.is_empty() => {
                turns.swap_remove(draw(&mut state, turns.len()));
                "release a lease".to_owned()
            }
            3 | 4 => {
                if sessions.len() == 3 {
                    sessions.remove(0);
                }
                sessions.push(Session::new(&host, pack.parse().unwrap()).unwrap());
                "a session".to_owned()
            }
            5 | 6 if !sessions.is_empty() => {
                let index = draw(&mut state, sessions.len());
                let prompt = &prompts[draw(&mut state, prompts.len())];
                let limits = AnswerLimits { max_tokens: 1 + draw(&mut state, 3), stop: Vec::new() };
                let never = AtomicBool::new(false);
                let session = &mut sessions[index];
                session.answer(prompt, &SamplingOptions::greedy(), &limits, &never, &mut |_| {}).unwrap();
                format!("an answer to {} tokens", prompt.len())
            }
            _ => {
                let outcome = host.manager().evict(pack).unwrap();
                format!("evict {pack}: {outcome:?}")
            }
        };
        let difference = wait_for("the ledger to be true", || {
            let says = ledger(&host);
            let is = ALLOCATOR.allocated() as i64 - beside;
            let difference = (is - says).abs() as f64 / says as f64;
            if difference >= 0.01 {
                println!("step {step}, {what}: ledger {says}, allocator {is}: {:?}", host.ledger().holders());
            }
            (difference < 0.01).then_some(difference)
        });
        worst = worst.max(difference);
    }
    println!("{STEPS} steps, largest difference {:.3} %", worst * 100.0);
}
