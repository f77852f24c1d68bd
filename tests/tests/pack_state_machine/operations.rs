//! What may happen, and how often.

use proptest::{collection::vec, prelude::*};

use crate::shelf::{LOOKS, NAMES};

/// A pack by the index of its name.
pub type Name = usize;

/// Packs with weights that sum to 1 exactly, so that a reference computes with the same ones.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// One pack.
    One(Name),
    /// Three parts and one part; the names differ.
    Two(Name, Name),
    /// The base alone.
    Nothing,
}

/// How a pack comes into the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A folder of its own, moved in at one stroke.
    Folder,
    /// A link to a folder elsewhere.
    Link,
    /// A `.mbpack` file, moved in at one stroke.
    Archive,
    /// A `.mbpack` file that is written in place.
    SlowArchive,
}

/// What happens to a pack's files where they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The weights lose their second half.
    Truncate,
    /// A byte of the library is another one.
    Flip,
    /// The manifest is no manifest.
    Manifest,
    /// The weights are gone.
    Missing,
    /// The archive, if it is one, loses its second half.
    Archive,
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// A good pack comes, over whatever lies there in the same form.
    Drop(Name, usize, Form),
    /// A good pack's files are written one by one over whatever lies there, the manifest first or last.
    CopyInPlace(Name, usize, bool),
    /// The same, but it stops before the last file.
    HalfCopy(Name, usize, bool),
    /// A pack that fails its probe comes.
    Bad(Name, usize),
    /// Damage to what lies there.
    Spoil(Name, Damage),
    /// Folder and archive of the name go.
    Remove(Name),
    /// The folder goes while a request uses the pack, which is answered before, meanwhile and after.
    RemoveLeased(Name),
    Request(Choice, usize),
    /// Requests beside each other and beside an eviction.
    Beside(Choice, Choice, Name),
    /// A request begins, and goes on for many steps.
    Begin(Choice, usize),
    GoOn(usize),
    End(usize),
    OpenSession(Choice),
    Answer(usize, usize),
    Choose(usize, Choice),
    CloseSession(usize),
    Evict(Name),
    Keep(Name, bool),
    Priority(Name, i32),
    Prefetch(Name),
    /// The budget has room for so many packs of the largest kind; `None`: for all.
    Budget(Option<u64>),
    ClearQuarantine(Name),
    Rescan,
    Restart,
    /// Waits until the host has seen everything, and compares it with what lies in the folder.
    Quiet,
}

/// `steps` operations.
pub fn operations(steps: usize) -> impl Strategy<Value = Vec<Operation>> {
    vec(operation(), steps)
}

fn name() -> impl Strategy<Value = Name> {
    0..NAMES.len()
}

fn look() -> impl Strategy<Value = usize> {
    0..LOOKS.len()
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![
        8 => name().prop_map(Choice::One),
        3 => (name(), 1..NAMES.len()).prop_map(|(a, offset)| Choice::Two(a, (a + offset) % NAMES.len())),
        1 => Just(Choice::Nothing),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let form = prop_oneof![
        5 => Just(Form::Folder),
        1 => Just(Form::Link),
        2 => Just(Form::Archive),
        1 => Just(Form::SlowArchive),
    ];
    let damage = prop_oneof![
        Just(Damage::Truncate),
        Just(Damage::Flip),
        Just(Damage::Manifest),
        Just(Damage::Missing),
        Just(Damage::Archive),
    ];
    // `loops` takes a second of a processor.
    let bad = prop_oneof![20 => 0..2_usize, 1 => Just(2_usize)];
    let budget = prop_oneof![3 => Just(None), 2 => (1..4_u64).prop_map(Some)];
    let files = prop_oneof![
        60 => (name(), look(), form).prop_map(|(name, look, form)| Drop(name, look, form)),
        25 => (name(), look(), any::<bool>()).prop_map(|(name, look, first)| CopyInPlace(name, look, first)),
        12 => (name(), look(), any::<bool>()).prop_map(|(name, look, first)| HalfCopy(name, look, first)),
        12 => (name(), bad).prop_map(|(name, bad)| Bad(name, bad)),
        16 => (name(), damage).prop_map(|(name, damage)| Spoil(name, damage)),
        25 => name().prop_map(Remove),
        10 => name().prop_map(RemoveLeased),
    ];
    let requests = prop_oneof![
        50 => (choice(), 0..3_usize).prop_map(|(choice, prompt)| Request(choice, prompt)),
        8 => (choice(), choice(), name()).prop_map(|(a, b, name)| Beside(a, b, name)),
        10 => (choice(), 0..3_usize).prop_map(|(choice, prompt)| Begin(choice, prompt)),
        18 => (0..8_usize).prop_map(GoOn),
        9 => (0..8_usize).prop_map(End),
        6 => choice().prop_map(OpenSession),
        18 => (0..8_usize, 1..6_usize).prop_map(|(session, tokens)| Answer(session, tokens)),
        4 => (0..8_usize, choice()).prop_map(|(session, choice)| Choose(session, choice)),
        4 => (0..8_usize).prop_map(CloseSession),
    ];
    let operators = prop_oneof![
        24 => name().prop_map(Evict),
        12 => (name(), any::<bool>()).prop_map(|(name, keep)| Keep(name, keep)),
        10 => (name(), -2..3_i32).prop_map(|(name, priority)| Priority(name, priority)),
        12 => name().prop_map(Prefetch),
        12 => budget.prop_map(Budget),
        10 => name().prop_map(ClearQuarantine),
        8 => Just(Rescan),
        4 => Just(Restart),
        8 => Just(Quiet),
    ];
    prop_oneof![30 => files, 50 => requests, 20 => operators]
}
