//! What lies in the packs folder, and what a host may and must make of it.

use std::collections::BTreeSet;

use modularbase_engine::Host;
use modularbase_manager::{PackReport, PackState};

use crate::{
    account::account,
    shelf::{NAMES, Shelf},
};

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// No pack: no entry, or a folder without a manifest.
    Nothing,
    /// A good pack, by its look.
    Good(usize),
    /// Something that is to be quarantined.
    Bad,
}

/// The two entries that one name may lie in, and what has been there since the host was last known to have seen all.
#[derive(Debug, Clone)]
pub struct Entries {
    pub folder: Content,
    pub archive: Content,
    pub had_nothing: bool,
    pub had_bad: bool,
    pub had_two: bool,
    /// Whether anything changed.
    pub changed: bool,
    /// Generations that the name may lead to.
    pub served: BTreeSet<String>,
}

/// All names.
pub struct FolderModel<'a> {
    shelf: &'a Shelf,
    names: Vec<Entries>,
}

impl<'a> FolderModel<'a> {
    /// An empty folder.
    pub fn new(shelf: &'a Shelf) -> Self {
        let empty = Entries {
            folder: Content::Nothing,
            archive: Content::Nothing,
            had_nothing: true,
            had_bad: false,
            had_two: false,
            changed: false,
            served: BTreeSet::new(),
        };
        Self { shelf, names: vec![empty; NAMES.len()] }
    }

    /// One name's entries.
    pub fn of(&self, name: usize) -> &Entries {
        &self.names[name]
    }

    /// The folder of a name holds something else from now on.
    pub fn folder(&mut self, name: usize, content: Content) {
        self.names[name].folder = content;
        self.note(name);
    }

    /// The archive of a name holds something else from now on.
    pub fn archive(&mut self, name: usize, content: Content) {
        self.names[name].archive = content;
        self.note(name);
    }

    fn note(&mut self, name: usize) {
        let good = self.good(name);
        let entries = &mut self.names[name];
        let both = [entries.folder, entries.archive];
        entries.changed = true;
        entries.had_nothing |= both == [Content::Nothing; 2];
        entries.had_bad |= both.contains(&Content::Bad);
        entries.had_two |= !both.contains(&Content::Nothing);
        entries.served.extend(good);
    }

    /// Generations of the good packs that lie there now.
    fn good(&self, name: usize) -> Vec<String> {
        let generation = |content: Content| match content {
            Content::Good(look) => Some(self.shelf.good(name, look).generation.clone()),
            Content::Nothing | Content::Bad => None,
        };
        [self.names[name].folder, self.names[name].archive].into_iter().filter_map(generation).collect()
    }

    /// A host begins: it knows nothing but what lies in the folder.
    pub fn begin(&mut self) {
        for name in 0..NAMES.len() {
            let good = self.good(name);
            self.names[name].served.clear();
            self.settle(name);
            self.names[name].served.extend(good);
            self.names[name].changed = true;
        }
    }

    /// The host has seen everything, and `comparison` found nothing wrong: what was before is over.
    pub fn settled(&mut self, host: &Host) {
        let registered = host.manager().registered();
        for (name, text) in NAMES.iter().enumerate() {
            let now = registered.iter().find(|pack| pack.name == *text).map(|pack| pack.generation.to_hex());
            self.names[name].served = now.into_iter().collect();
            self.settle(name);
            let good = self.good(name);
            self.names[name].served.extend(good);
        }
    }

    fn settle(&mut self, name: usize) {
        let entries = &mut self.names[name];
        (entries.had_nothing, entries.had_bad, entries.had_two) = (false, false, false);
        self.note(name);
        self.names[name].changed = false;
    }

    /// What differs between the host's view and the folder, if anything does.
    pub fn difference(&self, host: &Host) -> Option<String> {
        let reports = host.manager().reports();
        let registered = host.manager().registered();
        let mut accounted = 0;
        for (index, name) in NAMES.iter().enumerate() {
            let entries = &self.names[index];
            let good = self.good(index);
            let now = registered.iter().find(|pack| pack.name == *name).map(|pack| pack.generation.to_hex());
            let old_serves =
                entries.had_bad_now() && now.as_ref().is_some_and(|now| entries.served.contains(now));
            let right = match &now {
                Some(now) => good.contains(now) || old_serves,
                None => good.is_empty(),
            };
            if !right {
                let account = account(host, name);
                return Some(format!("`{name}` leads to {now:?}, expected {good:?} of {entries:?}{account}"));
            }
            let mut registered_once = false;
            let forms = [(name.to_string(), entries.folder), (format!("{name}.mbpack"), entries.archive)];
            for (entry, content) in forms {
                let of_entry: Vec<&PackReport> =
                    reports.iter().filter(|report| report.path.file_name() == Some(entry.as_ref())).collect();
                let draining = |report: &&&PackReport| report.state == PackState::Draining;
                let of_entry: Vec<_> = of_entry.iter().filter(|report| !draining(report)).collect();
                let is_registered = match content {
                    Content::Good(look) => {
                        let made = &self.shelf.good(index, look).generation;
                        now.as_ref() == Some(made) && !registered_once
                    }
                    Content::Nothing | Content::Bad => false,
                };
                let serving = of_entry.iter().filter(|report| report.routable).count();
                let kept_out =
                    of_entry.iter().filter(|report| report.state == PackState::Quarantined).count();
                let fits = match content {
                    Content::Nothing => of_entry.is_empty(),
                    Content::Good(_) if is_registered && serving == 1 => {
                        registered_once = true;
                        kept_out == 0 && of_entry.len() == 1
                    }
                    // Two entries of the same bytes: either may be the one.
                    Content::Good(_) | Content::Bad => kept_out == 1 && of_entry.len() == 1 + serving,
                };
                if !fits {
                    let account = account(host, name);
                    return Some(format!("`{entry}` holds {content:?} of {entries:?}{account}"));
                }
                accounted += of_entry.len();
            }
        }
        let of_test = reports
            .iter()
            .filter(|report| report.state != PackState::Draining && NAMES.contains(&report.name.as_str()));
        let others = of_test.count();
        (others != accounted).then(|| {
            let accounts: String = NAMES.iter().map(|name| account(host, name)).collect();
            format!("{others} packs, {accounted} of them expected{accounts}")
        })
    }
}

impl Entries {
    fn had_bad_now(&self) -> bool {
        [self.folder, self.archive].contains(&Content::Bad)
    }

    /// Whether a request for the name may be refused.
    pub fn may_be_refused(&self) -> bool {
        self.had_nothing || self.had_bad || self.had_two
    }
}
