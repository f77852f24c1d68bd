//! One sequence of operations on hosts, one after the other, over one folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    slice::Iter,
    thread,
    time::Duration,
};

use manifests::Sha256;
use modularbase_engine::Host;
use modularbase_loader::ProbeLimits;
use modularbase_manager::{EvictOutcome, PackState};
use modularbase_residency::Owner;
use system_tests::{Base, Folders, probe_program};

use crate::{
    account::account,
    clients::{ADMISSION_WAIT, Answered, Conversation, Judge, Moment, Running, ask},
    invariants::{Invariants, wait_until},
    operations::{Choice, Operation},
    packs_folder::PacksFolder,
    shelf::{NAMES, Shelf},
};

/// Requests and conversations that may be open at once.
const MOST_OPEN: usize = 4;
/// Room for caches beside the packs, bytes.
const CACHES: u64 = 1 << 20;
/// What copies of packs may take on disk, bytes: some three of them.
const COPIES: u64 = 3 << 20;

/// What lasts over restarts of the host.
pub struct World<'a> {
    folders: Folders,
    _aside: tempfile::TempDir,
    folder: PacksFolder<'a>,
    judge: &'a Judge<'a>,
    keep: BTreeSet<usize>,
    /// Room in the budget; `None`: for everything.
    room: Option<u64>,
    answered: Answered,
    /// What a host holds without packs.
    alone: Vec<(Owner, u64)>,
}

/// What belongs to one host.
struct Serving<'h> {
    host: &'h Host,
    running: Vec<Running>,
    conversations: Vec<Conversation<'h>>,
    invariants: Invariants,
}

impl<'a> World<'a> {
    pub fn new(shelf: &'a Shelf, judge: &'a Judge<'a>) -> Self {
        let folders = Folders::for_base(Base::Tiny);
        let aside = tempfile::tempdir().unwrap();
        let folder = PacksFolder::new(shelf, folders.packs.path(), aside.path());
        let keep = BTreeSet::new();
        let answered = Answered::default();
        Self { folders, _aside: aside, folder, judge, keep, room: None, answered, alone: Vec::new() }
    }

    /// Takes the steps; at the end everything is taken out again, and everything has to be back.
    pub fn run(mut self, steps: &[Operation]) -> Result<Answered, String> {
        let mut steps = steps.iter();
        loop {
            let host = self.host();
            let ledger = host.ledger().clone();
            if self.alone.is_empty() {
                self.alone = ledger.holders();
            }
            self.folder.model.begin();
            let ended = self.serve(&host, &mut steps)?;
            drop(host);
            let left = ledger.holders();
            if !left.is_empty() {
                return Err(format!("the host is gone, and its ledger says {left:?}"));
            }
            if ended {
                break;
            }
        }
        self.files_left()?;
        Ok(self.answered)
    }

    fn host(&self) -> Host {
        let host = self.folders.host_with(|options| {
            options.admission_wait = ADMISSION_WAIT;
            options.packs.settle = Duration::from_millis(80);
            options.packs.rescan = Duration::from_millis(400);
            options.packs.cache_limit = COPIES;
            options.packs.keep = self.keep.iter().map(|name| NAMES[*name].to_owned()).collect();
            // A probe that loops is ended by the processor time that it takes: the clock is patient, since the machine
            // may be busy.
            let limits =
                ProbeLimits { wall_time: Duration::from_secs(60), cpu_seconds: 1, ..ProbeLimits::default() };
            options.prober = modularbase_loader::Prober::new(probe_program(), limits);
        });
        host.unwrap()
    }

    /// True: that were all steps. False: the host is to be started again.
    fn serve(&mut self, host: &Host, steps: &mut Iter<'_, Operation>) -> Result<bool, String> {
        let mut serving =
            Serving { host, running: Vec::new(), conversations: Vec::new(), invariants: Invariants::new() };
        self.set_budget(&mut serving, self.room);
        for step in steps {
            if *step == Operation::Restart {
                return Ok(false);
            }
            self.step(&mut serving, step).map_err(|wrong| format!("{step:?}: {wrong}"))?;
            let Serving { invariants, running, .. } = &mut serving;
            let checked = invariants.check(host, &self.folder.model, running);
            checked.map_err(|wrong| format!("after {step:?}: {wrong}"))?;
        }
        self.quiet(&mut serving)?;
        self.take_everything_out(serving)?;
        Ok(true)
    }

    fn moment(&self) -> Moment<'_> {
        Moment { model: &self.folder.model, ample: self.room.is_none() }
    }

    fn step(&mut self, serving: &mut Serving<'_>, step: &Operation) -> Result<(), String> {
        use Operation::*;
        let manager = serving.host.manager();
        match *step {
            Drop(name, look, form) => self.folder.drop_in(name, look, form),
            CopyInPlace(name, look, first) => self.folder.copy_in_place(name, look, first, false),
            HalfCopy(name, look, first) => self.folder.copy_in_place(name, look, first, true),
            Bad(name, fixture) => self.folder.drop_bad(name, fixture),
            Spoil(name, damage) => {
                if !self.folder.damage(name, damage) {
                    return self.request(serving, &Choice::One(name), 2);
                }
            }
            Remove(name) => self.folder.remove(name),
            RemoveLeased(name) => return self.remove_leased(serving, name),
            Request(ref choice, prompt) => return self.request(serving, choice, prompt),
            Beside(ref a, ref b, name) => return self.beside(serving, a, b, name),
            Begin(ref choice, prompt) => {
                if serving.running.len() < MOST_OPEN {
                    let begun = self.begin(serving, choice, prompt)?;
                    serving.running.extend(begun);
                }
            }
            GoOn(which) => {
                if let Some(running) = pick(&mut serving.running, which) {
                    running.go_on(self.judge, serving.host)?;
                }
            }
            End(which) => {
                if !serving.running.is_empty() {
                    let mut ending = serving.running.swap_remove(which % serving.running.len());
                    ending.go_on(self.judge, serving.host)?;
                }
            }
            OpenSession(ref choice) => {
                if serving.conversations.len() < MOST_OPEN {
                    let prompt = &self.judge.prompts[choice.names().len()];
                    let opened = Conversation::open(serving.host, choice.clone(), prompt);
                    serving.conversations.push(opened.map_err(|error| error.to_string())?);
                }
            }
            Answer(which, tokens) => {
                let (model, ample) = (&self.folder.model, self.room.is_none());
                if let Some(conversation) = pick(&mut serving.conversations, which) {
                    let moment = Moment { model, ample };
                    self.judge.answer(conversation, tokens, &moment, &mut self.answered)?;
                }
            }
            Choose(which, ref choice) => {
                if let Some(conversation) = pick(&mut serving.conversations, which) {
                    conversation.choose(choice.clone());
                }
            }
            CloseSession(which) => {
                if !serving.conversations.is_empty() {
                    serving.conversations.swap_remove(which % serving.conversations.len());
                }
            }
            Evict(name) => return self.evict(serving, name),
            Keep(name, keep) => {
                manager.keep(NAMES[name], keep);
                if keep {
                    self.keep.insert(name);
                } else {
                    self.keep.remove(&name);
                }
            }
            Priority(name, priority) => manager.set_priority(NAMES[name], priority),
            Prefetch(name) => manager.prefetch(&[NAMES[name]]),
            Budget(room) => self.set_budget(serving, room),
            // What it says depends on how far the host has come.
            ClearQuarantine(name) => drop(manager.clear_quarantine(NAMES[name])),
            Rescan => manager.rescan(),
            Quiet => return self.quiet(serving),
            Restart => unreachable!("done by whoever holds the host"),
        }
        Ok(())
    }

    fn request(&mut self, serving: &Serving<'_>, choice: &Choice, prompt: usize) -> Result<(), String> {
        let moment = Moment { model: &self.folder.model, ample: self.room.is_none() };
        self.judge.request(serving.host, choice, prompt, &moment, &mut self.answered)
    }

    fn begin(
        &mut self,
        serving: &Serving<'_>,
        choice: &Choice,
        prompt: usize,
    ) -> Result<Option<Running>, String> {
        let moment = Moment { model: &self.folder.model, ample: self.room.is_none() };
        self.judge.begin(serving.host, choice, prompt, &moment, &mut self.answered)
    }

    fn remove_leased(&mut self, serving: &Serving<'_>, name: usize) -> Result<(), String> {
        let running = self.begin(serving, &Choice::One(name), 0)?;
        self.folder.remove(name);
        if let Some(mut running) = running {
            running.go_on(self.judge, serving.host)?;
            thread::sleep(Duration::from_millis(2));
            running.go_on(self.judge, serving.host)?;
        }
        Ok(())
    }

    fn beside(&mut self, serving: &Serving<'_>, a: &Choice, b: &Choice, name: usize) -> Result<(), String> {
        let (host, prompts) = (serving.host, &self.judge.prompts);
        let (first, second) = thread::scope(|scope| {
            let first = scope.spawn(|| ask(host, a, &prompts[0]));
            let second = scope.spawn(|| ask(host, b, &prompts[1]));
            // Whether it is there, in use or gone is anybody's guess.
            let _ = host.manager().evict(NAMES[name]);
            (first.join().unwrap(), second.join().unwrap())
        });
        let mut answered = self.answered;
        let moment = self.moment();
        self.judge.asked(a, 0, first, &moment, &mut answered)?;
        self.judge.asked(b, 1, second, &moment, &mut answered)?;
        self.answered = answered;
        Ok(())
    }

    fn evict(&self, serving: &Serving<'_>, name: usize) -> Result<(), String> {
        let entries = self.folder.model.of(name);
        match serving.host.manager().evict(NAMES[name]) {
            Ok(EvictOutcome::InUse { leases }) => {
                let holds =
                    |running: &&Running| running.generations().any(|held| entries.served.contains(held));
                let using = serving.running.iter().filter(holds).count();
                if using < leases {
                    return Err(format!("{leases} leases, {using} requests that may hold one"));
                }
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(reason) if reason.contains("is kept") && self.keep.contains(&name) => Ok(()),
            Err(reason) if reason.contains("being loaded") => Ok(()),
            Err(_) if entries.may_be_refused() || entries.changed => Ok(()),
            Err(reason) => Err(reason),
        }
    }

    fn set_budget(&mut self, serving: &mut Serving<'_>, room: Option<u64>) {
        let largest = 1 << 18;
        let alone: u64 = self.alone.iter().map(|(_, bytes)| bytes).sum();
        let bytes = alone + CACHES + room.map_or(64 << 20, |room| room * largest);
        self.room = room;
        serving.host.set_budget(bytes);
        serving.invariants.budget_changed(serving.host);
    }

    /// Waits until the host has seen everything that was done to the folder, and compares.
    fn quiet(&mut self, serving: &mut Serving<'_>) -> Result<(), String> {
        let host = serving.host;
        let barrier = self.folder.barrier();
        let seen = wait_until(|| host.manager().reports().iter().any(|report| report.name == barrier));
        if !seen {
            return Err("the host does not see what comes into the folder".to_owned());
        }
        self.folder.lift_barrier();
        let mut difference = None;
        wait_until(|| {
            let looked = host.manager().wait_until_looked(Duration::from_millis(100));
            difference = self.folder.model.difference(host);
            looked && difference.is_none()
        });
        if let Some(difference) = difference {
            return Err(difference);
        }
        self.folder.model.settled(host);
        Ok(())
    }

    /// Everything goes, and everything comes back.
    fn take_everything_out(&mut self, serving: Serving<'_>) -> Result<(), String> {
        let Serving { host, mut running, conversations, mut invariants } = serving;
        (0..NAMES.len()).for_each(|name| self.folder.remove(name));
        // What was leased when its files went answers as before.
        for running in &mut running {
            running.go_on(self.judge, host)?;
        }
        let gone = wait_until(|| {
            let mut reports = host.manager().reports().into_iter();
            reports.all(|report| report.state == PackState::Draining)
        });
        if !gone {
            return Err(format!("packs that are gone are reported{}", accounts(host)));
        }
        for running in &mut running {
            running.go_on(self.judge, host)?;
        }
        drop((running, conversations));
        // What steps work in stays for the steps to come.
        let all_back = || {
            let mut holders = host.ledger().holders();
            holders.retain(|(owner, _)| *owner != Owner::Scratch);
            holders == self.alone
        };
        if !wait_until(|| host.manager().reports().is_empty() && all_back()) {
            let left = host.ledger().holders();
            return Err(format!("without packs the ledger says {left:?}{}", accounts(host)));
        }
        invariants.events(host, &self.folder.model)
    }

    /// Of files, what is known of bases and packs is left, and copies up to their limit; nothing else.
    fn files_left(&self) -> Result<(), String> {
        let mut left = files_in(self.folders.packs.path());
        let mut copies = BTreeMap::new();
        let cache = self.folders.cache.path();
        for path in files_in(cache) {
            let inside = path.strip_prefix(cache).unwrap_or(&path);
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if inside == Path::new("packs/index.jsonl") || inside.starts_with("fingerprints") {
                continue;
            }
            if stem.parse::<Sha256>().is_ok() && inside.parent() == Some(Path::new("packs")) {
                // A library under several names is on the disk once, as long as one of them is left.
                let metadata = fs::metadata(&path).unwrap();
                copies.insert(metadata.ino(), metadata.len());
                continue;
            }
            left.push(path);
        }
        if !left.is_empty() {
            return Err(format!("files stay behind: {left:#?}"));
        }
        let copies: u64 = copies.values().sum();
        if copies > COPIES {
            return Err(format!("{copies} bytes of copies stay behind, {COPIES} may"));
        }
        Ok(())
    }
}

/// Every file and every empty folder.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(files_in(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn pick<T>(of: &mut [T], which: usize) -> Option<&mut T> {
    let count = of.len();
    of.get_mut(which.checked_rem(count)?)
}

fn accounts(host: &Host) -> String {
    NAMES.iter().map(|name| account(host, name)).collect()
}
