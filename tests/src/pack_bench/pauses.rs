//! How long loads hold up a step that is in flight.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use modularbase_core::{Advance, LogitRows, Mixture, Sequence};
use modularbase_engine::Host;
use serde_json::{Value, json};

use super::{median, median_ratio, millis};
use crate::{Base, Folders};

/// Loads in each round.
const LOADS: usize = 4;
/// Steps of the quiet part of a round.
const QUIET: usize = 300;

pub(super) fn measure(base: Base, rounds: usize) -> Value {
    let folders = Folders::for_base(base);
    folders.fixture("own-slot").owning_everything().lay_out(folders.packs.path());
    let host = folders.host();
    let choice = "own-slot".parse().expect("a mixture");
    drop(host.turn(&choice).expect("the pack"));
    let plain = host.turn(&"none".parse().expect("a mixture")).expect("the base");
    let mixture = plain.mixture();
    steps(&host, mixture, &mut |done| done < 50);
    let (mut pauses, mut means, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let quiet = steps(&host, mixture, &mut |done| done < QUIET);
        let ended = AtomicBool::new(false);
        let beside = thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..LOADS {
                    host.manager().evict("own-slot").expect("an eviction");
                    drop(host.turn(&choice).expect("the pack"));
                }
                ended.store(true, Ordering::Relaxed);
            });
            steps(&host, mixture, &mut |_| !ended.load(Ordering::Relaxed))
        });
        let step = median(&quiet);
        let (longest_quiet, longest) = (last(&quiet), last(&beside));
        pauses.push(longest.saturating_sub(longest_quiet).as_secs_f64() / step.as_secs_f64());
        means.push(median(&beside).as_secs_f64() / step.as_secs_f64());
        told.push(json!({
            "step_ms": millis(step),
            "longest_alone_ms": millis(longest_quiet),
            "longest_beside_loads_ms": millis(longest),
            "steps_beside_loads": beside.len(),
        }));
    }
    let pause = median_ratio(pauses);
    json!({
        // The longest step beside loads, less the longest one without, in steps; the median of the rounds.
        "longest_pause_in_steps": pause,
        "bar_in_steps": 1,
        "within_bar": pause < 1.0,
        "median_step_beside_loads_to_alone": median_ratio(means),
        "rounds": told,
    })
}

fn last(sorted: &[Duration]) -> Duration {
    sorted.last().copied().unwrap_or_default()
}

/// Times of decode steps, sorted.
fn steps(host: &Host, mixture: &Mixture, go_on: &mut dyn FnMut(usize) -> bool) -> Vec<Duration> {
    let mut sequence = Sequence::new(host.core(), mixture.clone());
    let mut times = Vec::new();
    while go_on(times.len()) {
        if times.len() % 256 == 255 {
            sequence.truncate(0);
        }
        let start = Instant::now();
        let step = Advance { sequence: &mut sequence, tokens: &[7], logits: LogitRows::Last };
        host.core().advance(&mut [step]).expect("a step");
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times
}
