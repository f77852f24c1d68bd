//! What a name means, as packs come, change and go.

use std::path::Path;

use manifests::{PackKind, Sha256};
use rustix::time::{ClockId, clock_gettime};

use super::*;

const SETTLE: Duration = Duration::from_secs(2);
const NOBODY: &dyn Fn(Generation) -> bool = &|_| false;

/// An entry with content of its own: the stamp of a real file that is written anew.
fn candidate_of(folder: &Path, entry: &str, content: &str) -> Candidate {
    let path = folder.join(entry);
    std::fs::write(&path, content).unwrap();
    Candidate { canonical: path.clone(), stamp: Stamp::of(&path).unwrap(), kind: CandidateKind::Folder, path }
}

fn admitted(name: &str, content: &str, needs: &[(&str, &str)]) -> Admitted {
    let hash = Sha256::of_bytes(format!("{name} {content}").as_bytes());
    let dependencies = needs.iter().map(|(id, range)| (id.parse().unwrap(), range.parse().unwrap()));
    let summary = PackSummary {
        id: format!("org.example.{name}").parse().unwrap(),
        name: name.parse().unwrap(),
        version: content.parse().unwrap(),
        kind: PackKind::Expert,
        dependencies: dependencies.collect(),
        base_range: None,
        file_bytes: 10,
        default_weight: 1.0,
        warnings: Box::default(),
        signer: None,
    };
    Admitted {
        generation: Generation::new(&hash, &hash, None),
        summary: summary.into(),
        folder: name.into(),
        timings: Default::default(),
        was_probed: true,
    }
}

struct Folder {
    files: tempfile::TempDir,
    catalogue: Catalogue,
}

impl Folder {
    fn new() -> Self {
        Self { files: tempfile::tempdir().unwrap(), catalogue: Catalogue::default() }
    }

    /// An entry arrives or changes, is looked at and found to be sound.
    fn drop_in(&mut self, entry: &str, pack: Admitted) -> Vec<Action> {
        let mut actions = Vec::new();
        let candidate = candidate_of(self.files.path(), entry, &pack.generation.to_hex());
        assert!(self.catalogue.noticed(entry.as_ref(), Some(candidate), &mut actions));
        self.catalogue.register(entry.as_ref(), pack, BTreeMap::new(), &mut actions);
        assert!(!self.catalogue.looked(entry.as_ref()));
        actions
    }

    fn take_out(&mut self, entry: &str) -> Vec<Action> {
        let mut actions = Vec::new();
        self.catalogue.noticed(entry.as_ref(), None, &mut actions);
        actions
    }

    fn route(&self, name: &str) -> Route {
        self.catalogue.route(name)
    }
}

fn retired(actions: &[Action]) -> Vec<Generation> {
    let retired = actions.iter().filter_map(|action| match action {
        Action::Retire(generation) => Some(*generation),
        _ => None,
    });
    retired.collect()
}

#[test]
fn a_replacement_changes_what_the_name_means_in_one_step() {
    let mut folder = Folder::new();
    let (old, new) = (admitted("law", "1.0.0", &[]), admitted("law", "2.0.0", &[]));
    let (old_generation, new_generation) = (old.generation, new.generation);
    assert_eq!(folder.route("law"), Route::Unknown);
    folder.drop_in("law", old.clone());
    assert_eq!(folder.route("law"), Route::Ready(old_generation));

    // Changed, and not looked at yet: the old one serves.
    let candidate = candidate_of(folder.files.path(), "law", "new");
    let mut actions = Vec::new();
    assert!(folder.catalogue.noticed("law".as_ref(), Some(candidate), &mut actions));
    folder.catalogue.incomplete("law".as_ref(), "half there".to_owned(), SETTLE);
    assert_eq!(folder.route("law"), Route::Ready(old_generation));
    folder.catalogue.register("law".as_ref(), new, BTreeMap::new(), &mut actions);
    assert_eq!(folder.route("law"), Route::Ready(new_generation));
    assert_eq!(retired(&actions), [old_generation]);
    assert!(folder.catalogue.forget(old_generation), "nothing of the old one is kept");
    assert!(!folder.catalogue.forget(new_generation));
}

#[test]
fn a_replacement_that_is_no_good_leaves_the_old_one_only_while_it_is_on_the_device() {
    for resident in [true, false] {
        let mut folder = Folder::new();
        let old = admitted("law", "1.0.0", &[]);
        let generation = old.generation;
        folder.drop_in("law", old);
        let candidate = candidate_of(folder.files.path(), "law", "bad");
        let mut actions = Vec::new();
        assert!(folder.catalogue.noticed("law".as_ref(), Some(candidate), &mut actions));
        let reason = "bad".to_owned();
        folder.catalogue.quarantine("law".as_ref(), None, None, reason, &|_| resident, &mut actions);
        if resident {
            assert_eq!(folder.route("law"), Route::Ready(generation));
            folder.catalogue.drop_if_superseded(generation, &mut actions);
        }
        assert_eq!(folder.route("law"), Route::Quarantined("bad".to_owned()));
        assert_eq!(retired(&actions), [generation]);
    }
}

#[test]
fn of_two_packs_with_one_name_the_first_serves_and_the_other_takes_over_when_it_goes() {
    let mut folder = Folder::new();
    let (first, second) = (admitted("law", "1.0.0", &[]), admitted("law", "2.0.0", &[]));
    let (first_generation, second_generation) = (first.generation, second.generation);
    folder.drop_in("a", first);
    folder.drop_in("b", second);
    assert_eq!(folder.route("law"), Route::Ready(first_generation));
    let reason = folder.catalogue.slots[OsStr::new("b")].status.reason.clone().unwrap();
    assert!(reason.contains("taken by"), "{reason}");
    let actions = folder.take_out("a");
    assert_eq!(folder.route("law"), Route::Ready(second_generation));
    assert_eq!(retired(&actions), [first_generation]);
}

#[test]
fn a_pack_that_was_kept_out_and_is_damaged_by_now_does_not_take_over() {
    let mut folder = Folder::new();
    let (first, second) = (admitted("law", "1.0.0", &[]), admitted("law", "2.0.0", &[]));
    folder.drop_in("a", first);
    folder.drop_in("b", second.clone());
    let mut actions = Vec::new();
    let damaged = candidate_of(folder.files.path(), "b", "damaged");
    assert!(folder.catalogue.noticed("b".as_ref(), Some(damaged), &mut actions));
    folder.catalogue.incomplete("b".as_ref(), "its weights are missing".to_owned(), SETTLE);
    assert!(!folder.catalogue.looked("b".as_ref()));
    folder.take_out("a");
    assert!(matches!(folder.route("law"), Route::Arriving(_)));
    folder.drop_in("b", second.clone());
    assert_eq!(folder.route("law"), Route::Ready(second.generation));
}

#[test]
fn the_same_bytes_under_another_entry_are_one_generation() {
    let mut folder = Folder::new();
    let pack = admitted("law", "1.0.0", &[]);
    folder.drop_in("a", pack.clone());
    folder.take_out("a");
    assert_eq!(folder.route("law"), Route::Unknown);
    // Still draining when it comes back.
    let actions = folder.drop_in("b", pack.clone());
    assert!(actions.contains(&Action::Offer(pack.generation, "law".to_owned())));
    assert_eq!(folder.route("law"), Route::Ready(pack.generation));
    assert!(!folder.catalogue.forget(pack.generation));
}

#[test]
fn unmet_dependencies_keep_a_pack_registered_but_not_routable_until_they_are_met() {
    let mut folder = Folder::new();
    let law = admitted("law", "1.0.0", &[("org.example.german", "^1.2")]);
    let law_generation = law.generation;
    folder.drop_in("law", law);
    let unmet = |folder: &Folder| match folder.route("law") {
        Route::NotRoutable(reason) => reason,
        other => panic!("{other:?}"),
    };
    assert!(unmet(&folder).contains("`org.example.german` ^1.2, which is not registered"));
    folder.drop_in("german", admitted("german", "1.1.0", &[]));
    assert!(unmet(&folder).contains("found version 1.1.0"));
    let german = admitted("german", "1.3.0", &[("org.example.latin", "*")]);
    let german_generation = german.generation;
    folder.drop_in("german", german);
    assert!(unmet(&folder).contains("which can't be used"), "{}", unmet(&folder));
    let latin = admitted("latin", "0.1.0", &[]);
    let latin_generation = latin.generation;
    folder.drop_in("latin", latin);
    assert_eq!(folder.route("law"), Route::Ready(law_generation));
    assert_eq!(folder.catalogue.dependencies(law_generation), [latin_generation, german_generation]);
    folder.take_out("german");
    assert!(unmet(&folder).contains("not registered"));
}

#[test]
fn a_cycle_of_dependencies_is_refused_with_the_way_it_goes() {
    let mut folder = Folder::new();
    folder.drop_in("a", admitted("a", "1.0.0", &[("org.example.b", "*")]));
    folder.drop_in("b", admitted("b", "1.0.0", &[("org.example.c", "*")]));
    folder.drop_in("c", admitted("c", "1.0.0", &[("org.example.a", "*")]));
    let Route::Quarantined(reason) = folder.route("c") else { panic!("{:?}", folder.route("c")) };
    assert!(reason.contains("org.example.c -> org.example.a -> org.example.b -> org.example.c"), "{reason}");
    assert!(matches!(folder.route("a"), Route::NotRoutable(_)));
    // Without the cycle it is as good as any.
    let c = admitted("c", "1.1.0", &[]);
    let generation = c.generation;
    folder.drop_in("c", c);
    assert_eq!(folder.route("c"), Route::Ready(generation));
    assert!(matches!(folder.route("a"), Route::Ready(_)));
}

#[test]
fn a_name_that_may_be_arriving_is_told_from_one_that_nobody_has() {
    let mut folder = Folder::new();
    let mut actions = Vec::new();
    let candidate = candidate_of(folder.files.path(), "folder-1", "x");
    assert!(folder.catalogue.noticed("folder-1".as_ref(), Some(candidate), &mut actions));
    assert!(matches!(folder.route("folder-1"), Route::Arriving(_)));
    assert!(matches!(folder.route("law"), Route::Arriving(_)), "the folder may be named otherwise");
    folder.catalogue.quarantine("folder-1".as_ref(), Some("law"), None, "bad".into(), NOBODY, &mut actions);
    assert!(!folder.catalogue.looked("folder-1".as_ref()));
    assert_eq!(folder.route("law"), Route::Quarantined("bad".to_owned()));
    assert_eq!(folder.route("folder-1"), Route::Unknown);
}

#[test]
fn an_entry_that_changes_while_it_is_looked_at_is_looked_at_again() {
    let mut folder = Folder::new();
    let mut actions = Vec::new();
    let first = candidate_of(folder.files.path(), "law", "1");
    assert!(folder.catalogue.noticed("law".as_ref(), Some(first.clone()), &mut actions));
    assert!(!folder.catalogue.noticed("law".as_ref(), Some(first), &mut actions), "nothing new");
    let second = candidate_of(folder.files.path(), "law", "22");
    assert!(!folder.catalogue.noticed("law".as_ref(), Some(second), &mut actions), "a worker is on it");
    assert!(folder.catalogue.looked("law".as_ref()), "it changed");
    assert!(!folder.catalogue.looked("law".as_ref()));
}

#[test]
fn entries_that_wait_for_nothing_are_not_walked_through() {
    let mut folder = Folder::new();
    let mut actions = Vec::new();
    folder.drop_in("law", admitted("law", "1.0.0", &[]));
    assert_eq!(folder.catalogue.wake_ups.next(), None, "registered");
    for entry in ["gone", "half"] {
        let candidate = candidate_of(folder.files.path(), entry, "half");
        assert!(folder.catalogue.noticed(entry.as_ref(), Some(candidate), &mut actions));
        assert_eq!(folder.catalogue.wake_ups.next(), None, "a worker looks at it");
        folder.catalogue.incomplete(entry.as_ref(), "half there".to_owned(), SETTLE);
        assert!(!folder.catalogue.looked(entry.as_ref()));
        folder.take_out("gone");
    }
    let due = folder.catalogue.wake_ups.next().unwrap();
    assert_eq!(due, folder.catalogue.slots[OsStr::new("half")].changed + SETTLE);
    assert_eq!(folder.catalogue.wake_ups.take_due(due), ["half"]);
    folder.catalogue.look_again("half".as_ref());
    let candidate = candidate_of(folder.files.path(), "half", "whole");
    assert!(folder.catalogue.noticed("half".as_ref(), Some(candidate), &mut actions));
    assert_eq!(folder.catalogue.wake_ups.next(), None, "it is being looked at");
}

#[test]
fn what_fails_for_no_fault_of_its_own_is_tried_again_later_and_later_until_it_changes() {
    let mut folder = Folder::new();
    let mut actions = Vec::new();
    let first = candidate_of(folder.files.path(), "law", "1");
    assert!(folder.catalogue.noticed("law".as_ref(), Some(first.clone()), &mut actions));
    let mut pauses = Vec::new();
    for _ in 0..3 {
        folder.catalogue.postpone("law".as_ref(), Some("law"), "the disk is full".to_owned(), &mut actions);
        let due = folder.catalogue.wake_ups.next().unwrap();
        pauses.push(due.saturating_duration_since(Instant::now()));
        assert!(!folder.catalogue.looked("law".as_ref()));
        assert_eq!(folder.catalogue.wake_ups.take_due(due), ["law"]);
        folder.catalogue.look_again("law".as_ref());
        assert!(folder.catalogue.noticed("law".as_ref(), Some(first.clone()), &mut actions));
    }
    assert!(pauses.windows(2).all(|pair| pair[1] > pair[0] * 3 / 2), "{pauses:?}");
    let Route::Arriving(reason) = folder.route("law") else { panic!("{:?}", folder.route("law")) };
    assert!(reason.contains("the disk is full"), "{reason}");
    assert!(!folder.catalogue.looked("law".as_ref()));
    let second = candidate_of(folder.files.path(), "law", "22");
    assert!(folder.catalogue.noticed("law".as_ref(), Some(second), &mut actions));
    folder.catalogue.postpone("law".as_ref(), None, "the disk is full".to_owned(), &mut actions);
    let due = folder.catalogue.wake_ups.next().unwrap();
    assert!(due.saturating_duration_since(Instant::now()) < pauses[1], "other files, from the start");
}

/// Time that this thread has had a processor: what it waits for one says nothing of its work. `/proc` counts it in ticks of
/// milliseconds.
fn processor_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

#[test]
fn a_registration_costs_the_same_however_many_packs_there_are() {
    let mut folder = Folder::new();
    let stamped = candidate_of(folder.files.path(), "any", "any");
    let mut register = |numbers: std::ops::Range<usize>| {
        let packs: Vec<_> = numbers
            .map(|number| {
                let name = format!("pack-{number}");
                (Candidate { path: name.clone().into(), ..stamped.clone() }, admitted(&name, "1.0.0", &[]))
            })
            .collect();
        let start = processor_time();
        for (candidate, pack) in packs {
            let (entry, mut actions) = (candidate.path.clone().into_os_string(), Vec::new());
            assert!(folder.catalogue.noticed(&entry, Some(candidate), &mut actions));
            folder.catalogue.register(&entry, pack, BTreeMap::new(), &mut actions);
            assert!(!folder.catalogue.looked(&entry));
            assert!(folder.catalogue.wake_ups.take_due(Instant::now()).is_empty());
        }
        processor_time() - start
    };
    let few = register(0..1_000);
    register(1_000..20_000);
    let many = register(20_000..21_000);
    // Walking through all of them would cost forty times as much.
    assert!(many < few * 8, "{few:?} for the first thousand, {many:?} beside twenty thousand");
}
