//! The course of a soak: packs made, a host opened, streams, changes, everything taken out again.

use std::{
    sync::{
        PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use modularbase_engine::Host;
use modularbase_manager::{PackState, Totals};
use modularbase_residency::Owner;

use super::{
    Report, Settings,
    changes::{Folder, operate},
    collection::{Collection, name},
    latencies::Samples,
    random::Random,
    reference::Reference,
    streams::{Counts, Streams},
};
use crate::{Base, Folders, ProcessState, resident_bytes};

/// How long what the host does on its own may take. Nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of caches and working memory of a stream with its conversations, on the small checkpoint and on the default base:
/// about what they take. With much more packs would have the rest; with less all streams come to wait for what the
/// conversations of the others hold.
const CACHES_OF_STREAM: [u64; 2] = [368 << 10, 7 << 20];
/// What copies of packs may take on disk, bytes: less than all of them, so that they are trimmed.
const COPIES: u64 = 160 << 20;

/// What may be allocated more at the end than after the warm-up: the log of events and the samples fill.
const ALLOCATED_GROWTH: i64 = 16 << 20;

/// Of so many requests one may find no room for its caches: the budget is tight, so that packs go. How many do depends on
/// how the streams meet: on a busy machine it was one in 27.
const WITHOUT_ROOM_OF: u64 = 10;
/// How often resident memory is noted.
const MEMORY_EVERY: Duration = Duration::from_secs(5);

/// What is seen of a host while it serves.
#[derive(Default)]
struct Watched {
    loads: Samples,
    most_held: u64,
    /// How many packs were on the device, at each look.
    resident: Vec<usize>,
    /// Bytes of caches and working memory, at each look.
    caches: Vec<u64>,
    /// Bytes, once in `MEMORY_EVERY`.
    resident_memory: Vec<i64>,
    /// Allocated bytes at the same moments.
    allocated: Vec<i64>,
    exceeded: Option<String>,
}

/// Runs it to its end. `allocated` tells the bytes that this process has allocated.
///
/// # Panics
/// Where it can't be set up.
pub fn run(settings: &Settings, allocated: &(dyn Fn() -> usize + Sync)) -> Report {
    let base = if settings.tiny || !Base::Real.is_there() { Base::Tiny } else { Base::Real };
    let folders = Folders::for_base(base);
    let aside = tempfile::tempdir().expect("a temporary folder");
    eprintln!("soak: making {} packs for {}", settings.packs, base.name());
    let collection = Collection::make(base, &folders, settings.packs);
    let reference = Reference::new(base, &collection);
    let folder = Folder { packs: folders.packs.path(), aside: aside.path(), collection: &collection };
    (0..collection.len()).for_each(|pack| folder.put(pack, 0));

    let before = ProcessState::now();
    let host = folders
        .host_with(|options| {
            options.packs.cache_limit = COPIES;
            options.admission_wait = Duration::from_secs(5);
            options.packs.rescan = Duration::from_secs(2);
        })
        .expect("a host");
    let mut faults = Vec::new();
    if !wait_until(|| registered(&host) == collection.len()) {
        faults.push(format!("{} of {} packs are registered", registered(&host), collection.len()));
    }
    let budget = set_budget(&host, base, settings);
    let stop = AtomicBool::new(false);
    let streams = Streams {
        host: &host,
        base,
        collection: &collection,
        reference: &reference,
        stop: &stop,
        counts: Counts::default(),
    };
    let random = |stream: u64| Random::new(settings.seed, stream);
    let length = Duration::from_secs_f64(settings.minutes * 60.0);
    let file_changes = AtomicU64::new(0);
    let (watched, start) = thread::scope(|scope| {
        for stream in 0..settings.streams {
            let streams = &streams;
            scope.spawn(move || streams.run(random(stream as u64)));
        }
        scope.spawn(|| file_changes.store(folder.change(random(1_000), &stop), Ordering::Relaxed));
        scope.spawn(|| operate(&host, collection.len(), random(1_001), &stop));
        let watcher = scope.spawn(|| watch(&host, &stop, allocated));
        // The allocator and the caches take their time to come to a size that stays.
        let warm_up = length / 4;
        thread::sleep(warm_up);
        let start = (ProcessState::now(), allocated() as i64);
        thread::sleep(length - warm_up);
        stop.store(true, Ordering::Relaxed);
        (watcher.join().unwrap_or_default(), start)
    });
    let (start, allocated_at_start) = start;
    let end = ProcessState::now();
    let allocated_growth = allocated() as i64 - allocated_at_start;
    faults.extend(watched.exceeded);

    let counts = streams.counts;

    // What lies there now is what is served.
    if !wait_until(|| serves_what_lies_there(&host, &collection)) {
        faults.push("the host does not come to serve what lies in the folder".to_owned());
    }
    let totals = host.manager().totals();
    faults.extend(take_everything_out(host, &folder));
    let mut after = ProcessState::now();
    let is_back = wait_until(|| {
        after = ProcessState::now();
        after.holds_the_same(&before)
    });
    if !is_back {
        faults.push(format!("before the host: {before:?}, after it: {after:?}"));
    }
    let growth = (end.resident_bytes - start.resident_bytes) >> 20;
    if growth > settings.growth {
        faults.push(format!("resident memory grew by {growth} MiB, {} may be", settings.growth));
    }
    let (asked, without_room) =
        (counts.requests.load(Ordering::Relaxed), counts.without_room.load(Ordering::Relaxed));
    if without_room * WITHOUT_ROOM_OF > asked {
        faults.push(format!("{without_room} of {asked} requests found no room for their caches"));
    }
    if allocated_growth > ALLOCATED_GROWTH {
        faults.push(format!("{allocated_growth} bytes more are allocated, {ALLOCATED_GROWTH} may be"));
    }
    let resident_packs = mean(&watched.resident);
    if resident_packs > settings.room_for as f64 {
        let room = settings.room_for;
        faults.push(format!(
            "{resident_packs:.1} packs were on the device on average, there is room for {room}"
        ));
    }
    let Counts { requests, tokens, checked, refused, without_room, with_omitted, wrong, faults: told, steps } =
        counts;
    faults.extend(told.into_inner().unwrap_or_else(PoisonError::into_inner));
    Report {
        base: base.name().to_owned(),
        minutes: settings.minutes,
        seed: settings.seed,
        packs: settings.packs,
        budget_bytes: budget,
        most_held_bytes: watched.most_held,
        resident_packs,
        caches_bytes: mean_bytes(&watched.caches),
        most_resident_packs: watched.resident.iter().copied().max().unwrap_or_default(),
        resident_memory: watched.resident_memory,
        allocated: watched.allocated,
        allocated_growth,
        streams: settings.streams,
        requests: requests.into_inner(),
        tokens: tokens.into_inner(),
        checked: checked.into_inner(),
        wrong: wrong.into_inner(),
        refused: refused.into_inner(),
        without_room: without_room.into_inner(),
        with_omitted: with_omitted.into_inner(),
        loads: totals.loads,
        evictions: totals.evictions,
        hit_rate: hit_rate(&totals),
        quarantines: totals.quarantines,
        file_changes: file_changes.into_inner(),
        load_ms: watched.loads.quantiles(),
        step_ms: steps.into_inner().unwrap_or_else(PoisonError::into_inner).quantiles(),
        before,
        start,
        end,
        after,
        faults,
    }
}

fn mean(counts: &[usize]) -> f64 {
    counts.iter().sum::<usize>() as f64 / counts.len().max(1) as f64
}

fn mean_bytes(bytes: &[u64]) -> u64 {
    bytes.iter().sum::<u64>() / bytes.len().max(1) as u64
}

fn hit_rate(totals: &Totals) -> f64 {
    totals.hits as f64 / (totals.hits + totals.loads).max(1) as f64
}

fn registered(host: &Host) -> usize {
    host.manager().registered().len()
}

/// Room for the base, for some packs of middle size and for the streams.
fn set_budget(host: &Host, base: Base, settings: &Settings) -> u64 {
    let alone: u64 = sum(host);
    // All sizes that there are.
    let sizes = settings.packs.clamp(1, 6);
    let mut bytes = 0;
    for pack in 0..sizes {
        let choice = name(pack).parse().expect("a mixture");
        let turn = host.turn(&choice).expect("a pack");
        let experts = turn.mixture().parts().iter().map(|(expert, _)| expert);
        bytes += experts.map(|expert| (expert.resident_bytes() + expert.plan_bytes()) as u64).sum::<u64>();
    }
    let caches = CACHES_OF_STREAM[usize::from(base == Base::Real)] * settings.streams as u64;
    let budget = alone + settings.room_for as u64 * bytes / sizes as u64 + caches;
    host.set_budget(budget);
    budget
}

fn sum(host: &Host) -> u64 {
    host.ledger().holders().iter().map(|(_, bytes)| bytes).sum()
}

/// Looks at the ledger and reads the events, until it is told to stop.
fn watch(host: &Host, stop: &AtomicBool, allocated: &(dyn Fn() -> usize + Sync)) -> Watched {
    let mut watched = Watched::default();
    let mut last = 0;
    let budget_holds = |watched: &mut Watched| {
        let budget = host.ledger().budget();
        let holders = host.ledger().holders();
        let held = holders.iter().map(|(_, bytes)| bytes).sum();
        let packs = holders.iter().filter(|(owner, _)| matches!(owner, Owner::Pack(_))).count();
        watched.resident.push(packs);
        let is_cache = |owner: &Owner| matches!(owner, Owner::Kv | Owner::Scratch);
        watched
            .caches
            .push(holders.iter().filter(|(owner, _)| is_cache(owner)).map(|(_, bytes)| bytes).sum());
        watched.most_held = watched.most_held.max(held);
        if held > budget {
            watched.exceeded = Some(format!("{held} bytes were held, the budget is {budget}"));
        }
    };
    let mut next_memory = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if Instant::now() >= next_memory {
            next_memory += MEMORY_EVERY;
            watched.resident_memory.push(resident_bytes());
            watched.allocated.push(allocated() as i64);
        }
        for _ in 0..20 {
            budget_holds(&mut watched);
            thread::sleep(Duration::from_millis(2));
        }
        for event in host.manager().events_after(last, Duration::ZERO) {
            last = event.sequence;
            if event.state == PackState::Resident && !event.took_ms.is_empty() {
                watched.loads.0.push(event.took_ms.values().sum());
            }
        }
    }
    watched
}

fn serves_what_lies_there(host: &Host, collection: &Collection) -> bool {
    let registered = host.manager().registered();
    registered.len() == collection.len()
        && registered.iter().all(|pack| {
            let found = collection.of_generation(&pack.generation.to_hex());
            found.is_some_and(|(of, version)| {
                name(of) == pack.name && collection.lying(of).version == Some(version)
            })
        })
}

/// Everything goes, and what the ledger says comes back.
fn take_everything_out(host: Host, folder: &Folder<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    (0..folder.collection.len()).for_each(|pack| folder.take(pack));
    let no_pack = |host: &Host| {
        let is_pack = |(owner, _): &(Owner, u64)| matches!(owner, Owner::Pack(_) | Owner::Kv);
        host.manager().reports().is_empty() && !host.ledger().holders().iter().any(is_pack)
    };
    if !wait_until(|| no_pack(&host)) {
        let (reports, left) = (host.manager().reports().len(), host.ledger().holders());
        faults
            .push(format!("no pack is left in the folder; {reports} are reported, the ledger says {left:?}"));
    }
    let ledger = host.ledger().clone();
    drop(host);
    let left = ledger.holders();
    if !left.is_empty() {
        faults.push(format!("the host is gone, and its ledger says {left:?}"));
    }
    faults
}

fn wait_until(mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() > until {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}
