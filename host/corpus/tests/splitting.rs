//! Splits: whole groups, the same for everybody, nothing nearly the same on both sides.

use modularbase_corpus::{CorpusError, Document, Dropped, Fate, SplitOptions, SplitPlan, split};

fn options(parts: &[(&str, f64)], near: Option<f64>) -> SplitOptions {
    let parts = parts.iter().map(|(name, share)| (name.to_string(), *share)).collect();
    SplitOptions { parts, seed: 1, near }
}

const HALVES: &[(&str, f64)] = &[("train", 0.5), ("val", 0.5)];

fn words(seed: usize) -> String {
    (0..60).map(|word| format!("wort{} ", (word * 7919 + seed * 104_729) % 100_003)).collect()
}

fn documents(groups: usize) -> Vec<Document> {
    let document = |index: usize| {
        let group = Some(format!("group {}", index / 3));
        Document { group, ..Document::text(format!("d{index}"), words(index)) }
    };
    (0..groups * 3).map(document).collect()
}

#[test]
fn groups_stay_whole_and_shares_hold() {
    let shares = [("train", 8.0), ("val", 1.0), ("test", 1.0)];
    let (parts, plan) = split(documents(1000), &options(&shares, None)).unwrap();
    let counts = plan.counts();
    assert_eq!(counts.iter().sum::<usize>(), 3000);
    for (count, share) in counts.iter().zip([2400, 300, 300]) {
        assert!(count.abs_diff(share) < 120, "{counts:?}");
    }
    for (index, part) in parts.iter().enumerate() {
        let others = parts.iter().enumerate().filter(|(other, _)| *other != index);
        let mut elsewhere = others.flat_map(|(_, part)| part);
        assert!(elsewhere.all(|other| part.iter().all(|document| document.group != other.group)));
    }
}

#[test]
fn a_group_keeps_its_part_when_documents_are_added_and_moves_with_the_seed() {
    let fates = |count: usize, seed: u64| {
        let options = SplitOptions { seed, ..options(HALVES, None) };
        split(documents(count), &options).unwrap().1.fates
    };
    assert_eq!(fates(50, 1)[..], fates(200, 1)[..150]);
    assert_ne!(fates(50, 1), fates(50, 2));
}

#[test]
fn what_is_nearly_the_same_stays_in_the_part_that_is_measured_on() {
    let plain = documents(40);
    let plan = |documents: &[Document], near| {
        SplitPlan::of(documents.iter().cloned().map(Ok), &options(HALVES, near)).unwrap()
    };
    let before = plan(&plain, Some(0.7));
    assert_eq!(before.dropped().count(), 0);
    let part_of = |plan: &SplitPlan, index: usize| match plan.fates[index] {
        Fate::Part(part) => part,
        Fate::Dropped(dropped) => dropped.part,
    };
    let in_val = (0..plain.len()).find(|index| part_of(&before, *index) == 1).unwrap();
    let copies =
        (0..40).map(|copy| Document::text(format!("copy {copy}"), format!("{} und mehr", words(in_val))));
    let with_copies: Vec<Document> = plain.iter().cloned().chain(copies).collect();
    let plan_with = plan(&with_copies, Some(0.7));
    let mut dropped = 0;
    for index in plain.len()..with_copies.len() {
        match (part_of(&plan_with, index), plan_with.fates[index]) {
            (0, Fate::Dropped(Dropped { near, similarity, .. })) => {
                assert_eq!(part_of(&plan_with, near), 1);
                assert!(similarity >= 0.7);
                dropped += 1;
            }
            (1, Fate::Part(1)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(dropped > 5);
    assert_eq!(plan_with.fates[..plain.len()], before.fates[..]);
    assert_eq!(plan(&with_copies, None).dropped().count(), 0);
    let counts = plan_with.counts();
    assert_eq!(counts.iter().sum::<usize>() + dropped, with_copies.len());
}

#[test]
fn shares_without_sense_and_parts_without_documents_are_refused() {
    let split = |documents, parts: &[(&str, f64)]| split(documents, &options(parts, None)).unwrap_err();
    assert!(matches!(split(documents(3), &[("a", -1.0)]), CorpusError::Shares { .. }));
    assert!(matches!(split(documents(3), &[("a", 0.0)]), CorpusError::Shares { .. }));
    let error = split(documents(3), &[("train", 0.999_999), ("val", 0.000_001)]).to_string();
    assert!(error.starts_with("the part `val` would be empty: 3 groups of documents are too few"), "{error}");
}
