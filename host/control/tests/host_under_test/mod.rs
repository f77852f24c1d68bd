//! A host without a model: it keeps events and writes down what it was asked.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex},
    time::Duration,
};

use modularbase_control::Operate;
use modularbase_manager::{EvictOutcome, HostStatus, PackEvent, PackReport, PackState, Totals};

#[derive(Default)]
pub struct TestHost {
    events: Mutex<Vec<PackEvent>>,
    told: Condvar,
    asked: Mutex<Vec<String>>,
}

impl TestHost {
    /// Something happens to a pack.
    pub fn tell(&self, pack: &str, state: PackState) {
        let mut events = self.events.lock().unwrap();
        let sequence = events.len() as u64 + 1;
        events.push(PackEvent {
            sequence,
            at_ms: 1_700_000_000_000 + sequence,
            pack: pack.to_owned(),
            generation: Some("ab".repeat(32)),
            state,
            reason: Some("\"quoted\"\nand broken".to_owned()),
            took_ms: BTreeMap::from([("probe".to_owned(), 4.25)]),
        });
        self.told.notify_all();
    }

    /// What was asked so far, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub fn report(&self) -> HostStatus {
        HostStatus {
            pid: std::process::id(),
            uptime_ms: 12,
            base: "tiny".to_owned(),
            device: "cpu".to_owned(),
            packs_dir: Some("/packs".into()),
            budget_bytes: u64::MAX,
            held_bytes: BTreeMap::from([("base".to_owned(), 98), ("pack law".to_owned(), 6)]),
            totals: Totals { requests: 1, tokens: 2, ..Totals::default() },
            unhealthy: None,
            packs: vec![PackReport {
                name: "law".to_owned(),
                path: "/packs/law".into(),
                id: Some("org.example.law".to_owned()),
                version: Some("1.0.0".to_owned()),
                kind: None,
                generation: Some("ab".repeat(32)),
                state: PackState::Resident,
                since_ms: 1_700_000_000_000,
                reason: None,
                routable: true,
                not_routable: None,
                keep: false,
                priority: -1,
                leases: 0,
                resident_bytes: 6,
                file_bytes: 7,
                library_pinned: false,
                signer: None,
                last_used_ms: None,
                loads: 1,
                load_ms: BTreeMap::from([("place".to_owned(), 0.1)]),
                warnings: vec!["ä".to_owned()],
            }],
        }
    }

    fn note(&self, words: String) -> Result<(), String> {
        self.asked.lock().unwrap().push(words);
        Ok(())
    }
}

impl Operate for TestHost {
    fn status(&self) -> HostStatus {
        self.report()
    }

    fn events_after(&self, sequence: u64, wait: Duration) -> Vec<PackEvent> {
        let newer = |events: &Vec<PackEvent>| events.last().is_some_and(|event| event.sequence > sequence);
        let events = self.events.lock().unwrap();
        let (events, _) = self.told.wait_timeout_while(events, wait, |events| !newer(events)).unwrap();
        events.iter().filter(|event| event.sequence > sequence).cloned().collect()
    }

    fn keep(&self, pack: &str, keep: bool) -> Result<(), String> {
        self.note(format!("keep {pack} {keep}"))
    }

    fn set_priority(&self, pack: &str, priority: i32) -> Result<(), String> {
        self.note(format!("priority {pack} {priority}"))
    }

    fn evict(&self, pack: &str) -> Result<EvictOutcome, String> {
        match pack {
            "law" => Ok(EvictOutcome::Evicted { bytes: 6_000_000 }),
            "poems" => Ok(EvictOutcome::InUse { leases: 2 }),
            "code" => Ok(EvictOutcome::NotResident),
            _ => Err(format!("there is no pack `{pack}`")),
        }
    }

    fn clear_quarantine(&self, pack: &str) -> Result<(), String> {
        self.note(format!("clear {pack}"))
    }

    fn rescan(&self) {
        self.note("rescan".to_owned()).unwrap();
    }
}
