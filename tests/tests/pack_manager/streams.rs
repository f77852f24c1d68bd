//! Requests that go on while packs come and go.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use modularbase_core::{Advance, LogitRows, Sequence};
use modularbase_engine::Host;
use modularbase_residency::Owner;
use system_tests::{Base, Folders, answer, first_logits, same_bits};

/// How long requests of a crowded host wait for memory: longer than a test takes.
const WAIT: Duration = Duration::from_secs(60);

/// A tiny host with packs `pack-0`.. of equal size and a budget for some of them, with what each pack gives alone.
fn crowded(packs: u64, room_for: u64) -> (Folders, Host, Vec<(String, Vec<f32>)>) {
    let folders = Folders::for_base(Base::Tiny);
    let names: Vec<String> = (0..packs).map(|seed| format!("pack-{seed}")).collect();
    for (seed, name) in names.iter().enumerate() {
        folders.fixture("sized").named(name).seeded(seed as u64).lay_out(folders.packs.path());
    }
    let host = folders.host_with(|options| options.admission_wait = WAIT).unwrap();
    let expected: Vec<_> =
        names.iter().map(|name| (name.clone(), first_logits(&host, name).unwrap())).collect();
    let held = host.ledger().holders();
    let pack_bytes = held.iter().find(|(owner, _)| matches!(owner, Owner::Pack(_))).unwrap().1;
    let fixed: u64 =
        held.iter().filter(|(owner, _)| !matches!(owner, Owner::Pack(_))).map(|(_, bytes)| bytes).sum();
    host.set_budget(fixed + room_for * pack_bytes + (2 << 20));
    (folders, host, expected)
}

#[test]
fn packs_load_and_unload_while_requests_stream() {
    let (folders, host, expected) = crowded(6, 3);
    let done = AtomicBool::new(false);
    let answered = AtomicU64::new(0);
    thread::scope(|scope| {
        for stream in 0..4_usize {
            let (host, expected, done, answered) = (&host, &expected, &done, &answered);
            scope.spawn(move || {
                for round in 0.. {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    let (name, expected) = &expected[(stream * 5 + round) % expected.len()];
                    // One that is being replaced under this name comes back with the same bytes.
                    match first_logits(host, name) {
                        Ok(logits) if same_bits(&logits, expected) => {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(_) => panic!("`{name}` gave other logits than alone"),
                        Err(error) => assert!(error.to_string().contains("no pack named"), "{error}"),
                    }
                }
            });
        }
        let until = Instant::now() + Duration::from_secs(4);
        for round in 0_usize.. {
            if Instant::now() > until {
                break;
            }
            let name = &expected[round % expected.len()].0;
            match round % 3 {
                0 => drop(host.manager().evict(name)),
                1 => {
                    let folder = folders.packs.path().join(name);
                    let aside = folders.cache.path().join("aside");
                    std::fs::rename(&folder, &aside).unwrap();
                    thread::sleep(Duration::from_millis(20));
                    std::fs::rename(&aside, &folder).unwrap();
                }
                _ => thread::sleep(Duration::from_millis(10)),
            }
            let held: u64 = host.ledger().holders().iter().map(|(_, bytes)| bytes).sum();
            assert!(held <= host.ledger().budget(), "{held}");
        }
        done.store(true, Ordering::Relaxed);
    });
    let totals = host.manager().totals();
    println!(
        "{} answers, {} loads, {} evictions",
        answered.load(Ordering::Relaxed),
        totals.loads,
        totals.evictions
    );
    assert!(answered.load(Ordering::Relaxed) > 100 && totals.evictions > 10, "{totals:?}");
}

#[test]
fn evicting_a_pack_that_is_requested_again_makes_progress() {
    let (_folders, host, expected) = crowded(2, 1);
    let rounds = 200;
    let started = Instant::now();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let requesters: Vec<_> = (0..3_usize)
            .map(|stream| {
                let (host, expected) = (&host, &expected);
                scope.spawn(move || {
                    for round in 0..rounds {
                        let (name, expected) = &expected[(stream + round) % 2];
                        assert!(same_bits(&first_logits(host, name).unwrap(), expected), "{name}");
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                expected.iter().for_each(|(name, _)| drop(host.manager().evict(name)));
                thread::sleep(Duration::from_micros(500));
            }
        });
        let ended: Vec<_> = requesters.into_iter().map(|requester| requester.join()).collect();
        done.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    let totals = host.manager().totals();
    println!("{} requests in {:?}: {totals:?}", 3 * rounds, started.elapsed());
    assert!(totals.evictions >= rounds as u64 / 2, "the victims were requested again: {totals:?}");
    assert_eq!(totals.omitted, 0, "everybody got the pack");
}

#[test]
fn requests_that_need_more_than_one_pack_do_not_wait_for_each_other() {
    let (_folders, host, _expected) = crowded(4, 2);
    let turn = |choice: &str| host.turn(&choice.parse().unwrap()).unwrap();
    let choices = ["pack-0,pack-1", "pack-2,pack-3", "pack-1,pack-2", "pack-3"];
    host.manager().registered().iter().for_each(|pack| drop(host.manager().evict(&pack.name)));
    let both = turn(choices[0]);
    // Room for two packs and what a load takes in passing, and for no third.
    let held: u64 = host.ledger().holders().iter().map(|(_, bytes)| bytes).sum();
    host.set_budget(held + (8 << 10));
    drop(both);
    let rounds = 100;
    let started = Instant::now();
    thread::scope(|scope| {
        for choice in choices {
            let turn = &turn;
            scope.spawn(move || {
                for _ in 0..rounds {
                    let turn = turn(choice);
                    assert_eq!(turn.omitted(), [], "{choice}");
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
    });
    println!("{} turns in {:?}: {:?}", rounds * choices.len(), started.elapsed(), host.manager().totals());
    assert!(started.elapsed() < WAIT, "some waited for each other");
}

#[test]
fn load_never_stalls_another_request_by_more_than_one_step() {
    // A pack of 21 million parameters, as the default slot has them.
    let folders = Folders::with(&["general"]);
    folders.fixture("own-slot").owning_everything().lay_out(folders.packs.path());
    let host = folders.host();
    let turn = host.turn(&"own-slot".parse().unwrap()).unwrap();
    assert!(turn.mixture().parts()[0].0.resident_bytes() > 20 << 20);
    drop(turn);

    let turn = host.turn(&"general".parse().unwrap()).unwrap();
    let steps = |during: &mut dyn FnMut() -> bool| {
        let mut sequence = Sequence::new(host.core(), turn.mixture().clone());
        let mut times = Vec::new();
        while during() {
            if times.len() % 512 == 511 {
                sequence.truncate(0);
            }
            let started = Instant::now();
            let step = Advance { sequence: &mut sequence, tokens: &[7], logits: LogitRows::Last };
            host.core().advance(&mut [step]).unwrap();
            times.push(started.elapsed());
        }
        times.sort_unstable();
        times
    };
    // The machine has pauses of its own. A load that really holds up steps does so in every round.
    let stalled = (0..6).all(|round| {
        let mut left = 100;
        let quiet = steps(&mut || {
            left -= 1;
            left > 0
        });
        let done = AtomicBool::new(false);
        let (beside, loads) = thread::scope(|scope| {
            let loader = scope.spawn(|| {
                let mut loads = Vec::new();
                for _ in 0..4 {
                    host.manager().evict("own-slot").unwrap();
                    let started = Instant::now();
                    drop(host.turn(&"own-slot".parse().unwrap()).unwrap());
                    loads.push(started.elapsed());
                }
                done.store(true, Ordering::Relaxed);
                loads
            });
            (steps(&mut || !done.load(Ordering::Relaxed)), loader.join().unwrap())
        });
        let median = quiet[quiet.len() / 2];
        let longest = |times: &[Duration]| *times.last().unwrap();
        println!(
            "round {round}: a step takes {median:?}, at most {:?} of {}; beside loads at most {:?} of {}; loads {loads:?}",
            longest(&quiet),
            quiet.len(),
            longest(&beside),
            beside.len()
        );
        longest(&beside) > longest(&quiet) + median
    });
    assert!(!stalled, "loads stalled steps");
}

#[test]
fn health_turns_red_when_the_engine_makes_no_progress() {
    let folders = Folders::with(&["general"]);
    let host = folders.host();
    let limit = Duration::from_millis(20);
    assert_eq!(host.unhealthy(limit), None);
    let red = thread::scope(|scope| {
        // One step of the model that takes longer than the limit: a prompt of some thousand tokens.
        let busy = scope.spawn(|| {
            let prompt = host.tokenizer().encode_prompt(&"word ".repeat(1500), false).unwrap();
            let limits = modularbase_engine::AnswerLimits { max_tokens: 1, stop: Vec::new() };
            let mut session = modularbase_engine::Session::new(&host, "general".parse().unwrap()).unwrap();
            let never = AtomicBool::new(false);
            session.answer(&prompt, &Default::default(), &limits, &never, &mut |_| {}).unwrap();
        });
        let mut red = None;
        while !busy.is_finished() {
            red = red.or_else(|| host.unhealthy(limit));
            thread::sleep(Duration::from_millis(1));
        }
        red
    });
    let red = red.expect("a step was running for longer than the limit, and health stayed green");
    assert!(red.contains("a step of the model"), "{red}");
    assert_eq!(host.unhealthy(limit), None, "green again");
    assert!(answer(&host, "auto", 2).is_ok());
}
