//! Random operations on a host with packs: files that come, change and go, requests, operators' wishes, restarts. After each
//! step everything that always holds is checked, and at the end everything is back.
//!
//! `MODULARBASE_SEED` makes another run, `MODULARBASE_STEPS` a longer or shorter one. Threads take their turns differently each
//! time, so a run is never quite another's.

mod account;
mod clients;
mod folder_model;
mod invariants;
mod operations;
mod packs_folder;
mod reference;
mod shelf;
mod world;

use std::{cell::Cell, process::Command, time::Instant};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use system_tests::{ProcessState, seed};

use crate::{
    clients::Judge, invariants::wait_until, operations::operations, reference::Reference, shelf::Shelf,
    world::World,
};

/// Steps in all, unless the environment says otherwise.
const STEPS: u64 = 10_000;
/// Steps on one folder.
const STEPS_A_CASE: u64 = 250;
/// Set in the process that does the work: a process of its own, with a folder of its own for temporary files, so that
/// what it leaves behind is its own.
const INNER: &str = "MODULARBASE_STATE_MACHINE";

const TEST: &str = "whatever_happens_to_packs_every_answer_is_right_and_everything_comes_back";

#[test]
fn whatever_happens_to_packs_every_answer_is_right_and_everything_comes_back() {
    if std::env::var_os(INNER).is_some() {
        return run();
    }
    let temporary = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture", "--test-threads=1"])
        .env(INNER, "1")
        .env("TMPDIR", temporary.path())
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", output.status);
    let left: Vec<_> =
        std::fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "temporary files stay behind: {left:?}");
}

fn run() {
    let number = |variable: &str| std::env::var(variable).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = seed();
    let steps = number("MODULARBASE_STEPS").unwrap_or(STEPS).max(1);
    println!("MODULARBASE_STEPS={steps}");
    let started = Instant::now();
    let shelf = Shelf::new();
    let reference = Reference::new(&shelf);
    let judge = Judge::new(&reference);
    println!("prepared in {:?}", started.elapsed());

    let a_case = steps.min(STEPS_A_CASE);
    let config = Config {
        cases: steps.div_ceil(a_case) as u32,
        failure_persistence: None,
        max_shrink_iters: number("MODULARBASE_SHRINK").unwrap_or(200) as u32,
        max_shrink_time: 120_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let totals = Cell::new((0, 0, 0));
    let before = ProcessState::now();
    let started = Instant::now();
    let outcome = TestRunner::new_with_rng(config, random).run(&operations(a_case as usize), |operations| {
        let answered = World::new(&shelf, &judge).run(&operations).map_err(TestCaseError::fail)?;
        let (right, refused, omitted) = totals.get();
        totals.set((right + answered.right, refused + answered.refused, omitted + answered.omitted));
        everything_is_back(&before).map_err(TestCaseError::fail)
    });
    let (right, refused, omitted) = totals.get();
    println!("{right} right answers, {omitted} of them without a pack; {refused} requests refused, rightly");
    println!("{:?} for the steps", started.elapsed());
    match outcome {
        Ok(()) => assert!(right > steps / 5 && omitted < right / 2, "most steps asked for nothing"),
        Err(TestError::Fail(reason, operations)) => {
            operations.iter().for_each(|operation| println!("  {operation:?}"));
            panic!("MODULARBASE_SEED={seed}: after the steps above: {reason}")
        }
        Err(TestError::Abort(reason)) => panic!("MODULARBASE_SEED={seed}: {reason}"),
    }
}

/// No thread, no descriptor and no mapped file of a pack more than before.
fn everything_is_back(before: &ProcessState) -> Result<(), String> {
    let mut now = ProcessState::now();
    let is_back = wait_until(|| {
        now = ProcessState::now();
        now.holds_the_same(before)
    });
    if is_back { Ok(()) } else { Err(format!("before: {before:#?}, now: {now:#?}")) }
}
