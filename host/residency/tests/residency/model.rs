//! Random steps on one thread, each compared with a model that says in a few lines what should happen.

use std::{collections::BTreeMap, time::Instant};

use modularbase_residency::{EventKind, Eviction, EvictionReason, Lease, LeaseError, Owner, ResidenceState};
use proptest::prelude::*;

use crate::support::{Device, Key, LoadError, Thing};

const KEYS: [(Key, u64); 6] = [("a", 10), ("b", 20), ("c", 30), ("d", 40), ("e", 55), ("f", 15)];
const BUDGET: u64 = 100;

#[derive(Debug, Clone)]
enum Step {
    Lease(usize),
    CloneLease(usize),
    EndLease(usize),
    Prefetch(usize),
    Pin(usize),
    Unpin(usize),
    Priority(usize, i32),
    Evict(usize),
    Retire(usize),
    Revive(usize),
    Forget(usize),
    Reserve(u64),
    Grow(usize, u64),
    GiveBack(usize),
    Budget(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS.len();
    prop_oneof![
        8 => key.clone().prop_map(Step::Lease),
        1 => (0..8_usize).prop_map(Step::CloneLease),
        8 => (0..8_usize).prop_map(Step::EndLease),
        2 => key.clone().prop_map(Step::Prefetch),
        1 => key.clone().prop_map(Step::Pin),
        2 => key.clone().prop_map(Step::Unpin),
        1 => (key.clone(), -1..2).prop_map(|(key, priority)| Step::Priority(key, priority)),
        1 => key.clone().prop_map(Step::Evict),
        1 => key.clone().prop_map(Step::Retire),
        2 => key.clone().prop_map(Step::Revive),
        1 => key.prop_map(Step::Forget),
        2 => (1..120_u64).prop_map(Step::Reserve),
        1 => (0..4_usize, 0..120_u64).prop_map(|(index, bytes)| Step::Grow(index, bytes)),
        2 => (0..4_usize).prop_map(Step::GiveBack),
        1 => (20..140_u64).prop_map(Step::Budget),
    ]
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Known {
    resident: Option<u64>,
    leases: usize,
    pinned: bool,
    priority: i32,
    retired: bool,
    forgotten: bool,
    loads: u64,
}

#[derive(Default)]
struct Model {
    budget: u64,
    known: BTreeMap<Key, Known>,
    /// The least recently used one first.
    idle: Vec<Key>,
    caches: Vec<u64>,
    gone: Vec<(Key, EvictionReason)>,
    hits: u64,
    loads: u64,
}

impl Model {
    fn held(&self) -> u64 {
        self.caches.iter().sum::<u64>() + self.known.values().filter_map(|known| known.resident).sum::<u64>()
    }

    fn of(&mut self, key: Key) -> &mut Known {
        self.known.entry(key).or_default()
    }

    fn prune(&mut self) {
        self.known.retain(|_, known| {
            let marked = known.pinned || known.retired || known.priority != 0 || known.loads > 0;
            known.resident.is_some() || (marked && !known.forgotten)
        });
    }

    fn evict(&mut self, key: Key, why: EvictionReason) {
        self.of(key).resident = None;
        self.idle.retain(|idle| *idle != key);
        self.gone.push((key, why));
    }

    fn evict_one(&mut self, why: EvictionReason) -> bool {
        let free_to_go = self.idle.iter().filter(|key| !self.known[*key].pinned);
        let victim = free_to_go.min_by_key(|key| self.known[*key].priority).copied();
        victim.map(|key| self.evict(key, why)).is_some()
    }

    fn settle(&mut self) {
        while self.held() > self.budget && self.evict_one(EvictionReason::BudgetShrunk) {}
    }

    /// Whether `more` bytes can be had for something of `bytes` in all.
    fn make_room(&mut self, bytes: u64, more: u64) -> bool {
        while self.held() + more > self.budget {
            if bytes > self.budget || !self.evict_one(EvictionReason::Budget) {
                return false;
            }
        }
        true
    }

    fn arrive(&mut self, key: Key, bytes: u64, leases: usize) {
        self.loads += 1;
        let known = self.of(key);
        *known = Known { resident: Some(bytes), leases, loads: known.loads + 1, ..known.clone() };
    }

    /// `Some(leased)`, `None` for a retired one.
    fn lease(&mut self, key: Key, bytes: u64) -> Option<bool> {
        if self.of(key).retired {
            return None;
        }
        if self.of(key).resident.is_some() {
            self.hits += 1;
            self.of(key).leases += 1;
            self.idle.retain(|idle| *idle != key);
            return Some(true);
        }
        let fits = self.make_room(bytes, bytes);
        if fits {
            self.arrive(key, bytes, 1);
        }
        Some(fits)
    }

    fn end_lease(&mut self, key: Key) {
        self.of(key).leases -= 1;
        if self.of(key).leases == 0 {
            if self.of(key).retired {
                self.evict(key, EvictionReason::Retired);
            } else {
                self.idle.push(key);
            }
        }
        self.settle();
    }

    fn outcome_of_evict(&mut self, key: Key, pins_hold: bool) -> Eviction {
        let known = self.of(key);
        match known.resident {
            None => Eviction::NotResident,
            Some(_) if known.pinned && pins_hold => Eviction::Pinned,
            Some(bytes) if known.leases == 0 => Eviction::Evicted { bytes },
            Some(_) => Eviction::InUse { leases: known.leases },
        }
    }
}

struct World {
    device: Device,
    model: Model,
    leases: Vec<Lease<Key, Thing>>,
    caches: Vec<modularbase_residency::Reservation>,
}

impl World {
    fn step(&mut self, step: &Step) {
        let (residency, model) = (self.device.residency.clone(), &mut self.model);
        let now = Instant::now();
        match *step {
            Step::Lease(index) => {
                let (key, bytes) = KEYS[index];
                let lease = residency.lease(&key, now, self.device.load(key, bytes));
                let answer = match &lease {
                    Ok(_) => Some(true),
                    Err(LeaseError::Load { error, .. }) if matches!(**error, LoadError::Budget(_)) => {
                        Some(false)
                    }
                    Err(LeaseError::Retired { .. }) => None,
                    Err(other) => panic!("{other}"),
                };
                assert_eq!(answer, model.lease(key, bytes));
                self.leases.extend(lease);
            }
            Step::CloneLease(index) => {
                if let Some(lease) = self.leases.get(index).cloned() {
                    model.of(lease.key()).leases += 1;
                    self.leases.push(lease);
                }
            }
            Step::EndLease(index) => {
                if index < self.leases.len() {
                    let lease = self.leases.swap_remove(index);
                    model.end_lease(lease.key());
                }
            }
            Step::Prefetch(index) => {
                let (key, bytes) = KEYS[index];
                let fetched = self.device.prefetch(key, bytes);
                let known = model.of(key).clone();
                let expected =
                    !known.retired && known.resident.is_none() && model.held() + bytes <= model.budget;
                assert_eq!(fetched.as_ref().is_ok_and(|&loaded| loaded), expected);
                assert_eq!(fetched.is_ok(), expected || (!known.retired && known.resident.is_some()));
                if expected {
                    model.arrive(key, bytes, 0);
                    model.idle.push(key);
                }
            }
            Step::Pin(index) => {
                residency.pin(&KEYS[index].0);
                let known = model.of(KEYS[index].0);
                (known.pinned, known.forgotten) = (true, false);
            }
            Step::Unpin(index) => {
                residency.unpin(&KEYS[index].0);
                let known = model.of(KEYS[index].0);
                (known.pinned, known.forgotten) = (false, false);
                model.settle();
            }
            Step::Priority(index, priority) => {
                residency.set_priority(&KEYS[index].0, priority);
                let known = model.of(KEYS[index].0);
                (known.priority, known.forgotten) = (priority, false);
            }
            Step::Evict(index) => {
                let key = KEYS[index].0;
                let expected = model.outcome_of_evict(key, true);
                assert_eq!(residency.evict(&key), expected);
                if let Eviction::Evicted { .. } = expected {
                    model.evict(key, EvictionReason::Asked);
                    model.settle();
                }
            }
            Step::Retire(index) => {
                let key = KEYS[index].0;
                let expected = model.outcome_of_evict(key, false);
                assert_eq!(residency.retire(&key), expected);
                model.of(key).retired = true;
                if let Eviction::Evicted { .. } = expected {
                    model.evict(key, EvictionReason::Retired);
                    model.settle();
                }
            }
            Step::Revive(index) => {
                residency.revive(&KEYS[index].0);
                let known = model.of(KEYS[index].0);
                (known.retired, known.forgotten) = (false, false);
            }
            Step::Forget(index) => {
                residency.forget(&KEYS[index].0);
                model.of(KEYS[index].0).forgotten = true;
            }
            Step::Reserve(bytes) => {
                let cache = residency.reserve(Owner::Kv, bytes, now);
                assert_eq!(cache.is_ok(), model.make_room(bytes, bytes));
                if let Ok(cache) = cache {
                    model.caches.push(bytes);
                    self.caches.push(cache);
                }
            }
            Step::Grow(index, bytes) => {
                let Some(cache) = self.caches.get_mut(index) else { return };
                let grown = residency.grow(cache, bytes, now).is_ok();
                let more = bytes.saturating_sub(model.caches[index]);
                assert_eq!(grown, more == 0 || model.make_room(bytes, more));
                if grown {
                    model.caches[index] = bytes;
                }
            }
            Step::GiveBack(index) => {
                if index < self.caches.len() {
                    drop(self.caches.remove(index));
                    model.caches.remove(index);
                }
            }
            Step::Budget(bytes) => {
                residency.set_budget(bytes);
                model.budget = bytes;
                model.settle();
            }
        }
        model.prune();
    }

    fn compare(&mut self) {
        let (residency, model) = (&self.device.residency, &mut self.model);
        let snapshot = residency.snapshot();
        let there = model.known.iter().filter(|(_, known)| known.resident.is_some());
        assert_eq!(snapshot.len(), there.clone().count());
        for (is, (key, known)) in snapshot.iter().zip(there) {
            let state = match (known.leases, known.retired) {
                (0, _) => ResidenceState::Idle,
                (_, true) => ResidenceState::Draining,
                (_, false) => ResidenceState::Leased,
            };
            assert_eq!((is.key, is.state, is.leases), (*key, state, known.leases));
            assert_eq!((Some(is.bytes), is.loads), (known.resident, known.loads));
            assert_eq!((is.pinned, is.priority), (known.pinned, known.priority));
        }
        assert_eq!((residency.remembered(), self.device.alive()), (model.known.len(), snapshot.len()));

        let held: u64 = residency.ledger().holders().iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(held, model.held());
        assert_eq!(residency.ledger().overdrawn(), held.saturating_sub(model.budget));
        for lease in &self.leases {
            assert_eq!(
                residency.ledger().held_by(&Owner::Pack((*lease.key()).to_owned())),
                lease.bytes.bytes()
            );
        }

        let gone = self.device.events().into_iter().filter_map(|(key, kind)| match kind {
            EventKind::Evicted { why, .. } => Some((key, why)),
            _ => None,
        });
        assert_eq!(
            gone.collect::<Vec<_>>(),
            std::mem::take(&mut model.gone),
            "what goes, and in which order"
        );
        let totals = residency.totals();
        assert_eq!((totals.hits, totals.loads), (model.hits, model.loads));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_steps_do_what_the_model_says(steps in prop::collection::vec(step(), 1..300)) {
        let mut world = World {
            device: Device::new(BUDGET),
            model: Model { budget: BUDGET, ..Model::default() },
            leases: Vec::new(),
            caches: Vec::new(),
        };
        for step in &steps {
            let was_overdrawn = world.device.residency.ledger().overdrawn();
            world.step(step);
            world.compare();
            let overdrawn = world.device.residency.ledger().overdrawn();
            assert!(overdrawn <= was_overdrawn || matches!(step, Step::Budget(_)), "{step:?}");
        }
        world.leases.clear();
        world.caches.clear();
        for (key, _) in KEYS {
            world.device.residency.retire(&key);
            world.device.residency.forget(&key);
        }
        assert_eq!((world.device.residency.ledger().holders(), world.device.alive()), (vec![], 0));
        assert_eq!(world.device.residency.remembered(), 0);
    }
}
