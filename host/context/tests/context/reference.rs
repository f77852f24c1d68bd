//! Random texts that grow, are cut, saved, closed, taken up by others and collected, held against the texts
//! themselves: a block is decided by its tokens, so a reference that keeps every token knows every block.

use std::collections::BTreeSet;

use modularbase_context::{BlockId, ContextError, Session, Sessions};
use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

use crate::support::{SMALL, append, block_of, ids, small_options};

/// Few tokens, so that texts meet again after they parted.
const TOKENS: u32 = 2;

#[derive(Debug, Clone)]
enum Step {
    Extend(Vec<u32>),
    /// Some of the blocks that are missing, by number.
    Append(usize),
    Truncate(prop::sample::Index),
    Look(prop::sample::Index),
    Prefetch(prop::sample::Index),
    Flush,
    Save {
        as_prefix: bool,
    },
    /// Closed and opened again.
    Reopen,
    /// Closed and removed; another session of this name begins with the other one's text.
    BeginWithTheOther,
    /// Closed, then all KV of sessions that are not open is given up.
    GiveUp,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(0..TOKENS, 1..12).prop_map(Step::Extend),
        6 => (1_usize..9).prop_map(Step::Append),
        2 => any::<prop::sample::Index>().prop_map(Step::Truncate),
        6 => any::<prop::sample::Index>().prop_map(Step::Look),
        1 => any::<prop::sample::Index>().prop_map(Step::Prefetch),
        1 => Just(Step::Flush),
        3 => any::<bool>().prop_map(|as_prefix| Step::Save { as_prefix }),
        3 => Just(Step::Reopen),
        1 => Just(Step::BeginWithTheOther),
        1 => Just(Step::GiveUp),
    ]
}

#[derive(Debug, Clone, Default)]
struct Kept {
    text: Vec<u32>,
    blocks: BTreeSet<BlockKey>,
}

type BlockKey = (&'static str, u32, u32);

fn key(id: BlockId<'static>) -> BlockKey {
    (id.stream, id.layer, id.index)
}

/// A session, what it must hold now, and what at its last save.
struct Player {
    name: &'static str,
    session: Option<Session>,
    now: Kept,
    saved: Option<(Kept, Vec<u8>)>,
    saves: u8,
}

impl Player {
    fn new(sessions: &Sessions, name: &'static str) -> Self {
        let session = Some(sessions.open(name, "base", &small_options(), &[]).unwrap());
        Self { name, session, now: Kept::default(), saved: None, saves: 0 }
    }

    fn session(&self) -> &Session {
        self.session.as_ref().unwrap()
    }

    fn step(&mut self, step: Step, sessions: &Sessions, other: &Self) {
        let store = self.session.as_ref().unwrap().store();
        let length = self.now.text.len();
        match step {
            Step::Extend(tokens) => {
                store.extend(&tokens);
                self.now.text.extend(tokens);
            }
            Step::Append(count) => {
                let missing = ids(length).filter(|id| !self.now.blocks.contains(&key(*id)));
                for id in missing.take(count).collect::<Vec<_>>() {
                    append(store, &self.now.text, id).unwrap();
                    self.now.blocks.insert(key(id));
                }
            }
            Step::Truncate(at) => {
                let tokens = at.index(length + 1);
                self.session().store().truncate(tokens);
                self.now.text.truncate(tokens);
                let blocks = (tokens / SMALL.block_tokens) as u32;
                self.now.blocks.retain(|(_, _, index)| *index < blocks);
            }
            Step::Look(at) => {
                let blocks: Vec<_> = ids(length).collect();
                if !blocks.is_empty() {
                    self.look(blocks[at.index(blocks.len())]);
                }
            }
            Step::Prefetch(at) => {
                let blocks: Vec<_> = ids(length).skip(at.index(length + 1)).collect();
                for id in blocks {
                    store.prefetch(id.stream, id.layer, &[id.index]);
                }
            }
            Step::Flush => store.flush().unwrap(),
            Step::Save { as_prefix } => {
                self.saves += 1;
                let hot = vec![self.saves; usize::from(self.saves) * 10];
                self.session().save(self.name, &[("hot", &hot)], as_prefix).unwrap();
                self.saved = Some((self.now.clone(), hot));
            }
            Step::Reopen => {
                self.session = None;
                self.open(sessions, &[]);
            }
            Step::BeginWithTheOther => {
                self.session = None;
                sessions.remove(self.name).unwrap();
                // What has no text or no KV is nothing to begin with.
                self.saved =
                    other.saved.clone().filter(|(kept, hot)| !kept.text.is_empty() && !hot.is_empty());
                let prefix = self.saved.as_ref().map(|(kept, _)| kept.text.clone()).unwrap_or_default();
                self.open(sessions, &prefix);
            }
            Step::GiveUp => {
                self.session = None;
                sessions.collect(0).unwrap();
                if let Some((kept, hot)) = &mut self.saved {
                    kept.blocks.clear();
                    hot.clear();
                }
                self.open(sessions, &[]);
            }
        }
    }

    /// Opens what was saved, and nothing else.
    fn open(&mut self, sessions: &Sessions, prefix: &[u32]) {
        let mut session = sessions.open(self.name, "base", &small_options(), prefix).unwrap();
        let turn = session.take_saved();
        assert_eq!(turn.is_some(), self.saved.is_some());
        self.now = Kept::default();
        if let (Some(turn), Some((kept, hot))) = (turn, &self.saved) {
            assert_eq!(turn.tokens, kept.text);
            match turn.parts.as_slice() {
                [] => assert!(hot.is_empty()),
                [(_, part)] => assert_eq!(part, hot),
                more => panic!("{more:?}"),
            }
            self.now = kept.clone();
        }
        assert_eq!(session.store().tokens(), self.now.text);
        self.session = Some(session);
    }

    /// A block that must be there is, and none is ever another one.
    fn look(&self, id: BlockId<'static>) {
        match self.session().store().block(id) {
            Ok(found) => assert_eq!(*found, block_of(&self.now.text, id), "{id:?}"),
            Err(ContextError::NotKept { .. }) => {
                assert!(!self.now.blocks.contains(&key(id)), "{id:?} is lost")
            }
            Err(other) => panic!("{id:?}: {other}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_sessions_are_what_a_reference_that_keeps_everything_says(
        steps in prop::collection::vec((any::<bool>(), step()), 1..60)
    ) {
        let root: TempDir = tempdir().unwrap();
        let sessions = Sessions::new(root.path());
        let mut players = [Player::new(&sessions, "one"), Player::new(&sessions, "two")];
        for (second, step) in steps {
            let (one, two) = players.split_at_mut(1);
            let (player, other) = if second { (&mut two[0], &one[0]) } else { (&mut one[0], &two[0]) };
            player.step(step, &sessions, other);
        }
        for player in &players {
            for id in ids(player.now.text.len()) {
                player.look(id);
            }
            prop_assert!(player.session().store().stats().ram_bytes <= small_options().ram_bytes);
        }
    }
}
