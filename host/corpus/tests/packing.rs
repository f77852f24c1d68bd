//! Rows: every token once an epoch, an order that follows from the seed, any row from its index alone.

mod support;

use std::collections::HashMap;
use std::sync::Arc;

use modularbase_corpus::{
    Body, CorpusError, Document, LossOn, Message, MixedRows, PackedRows, TokenizedCorpus, windows,
};
use proptest::prelude::*;
use support::{END, ROLE, Words};

/// Documents of the given lengths whose ids are all different: 10, 11, 12 ...
fn numbered(lengths: &[usize]) -> Vec<Document> {
    let mut next = 10;
    let document = |(index, length): (usize, &usize)| {
        let text: Vec<String> = (next..next + length).map(|id| id.to_string()).collect();
        next += length;
        Document::text(format!("d{index}"), text.join(" "))
    };
    lengths.iter().enumerate().map(document).collect()
}

fn corpus(documents: Vec<Document>) -> Arc<TokenizedCorpus> {
    Arc::new(TokenizedCorpus::encode(documents.into_iter().map(Ok), &Words::default(), &()).unwrap())
}

fn rows(corpus: &Arc<TokenizedCorpus>, length: usize, seed: u64) -> PackedRows {
    PackedRows::new(corpus.clone(), length, seed, LossOn::Everything).unwrap()
}

/// The targets of the stream's first `count` positions, from rows.
fn stream(rows: &PackedRows, count: u64) -> Vec<u32> {
    let needed = count.div_ceil(rows.length() as u64);
    let mut stream: Vec<u32> =
        (0..needed).flat_map(|index| rows.row_in_order(index).targets().to_vec()).collect();
    stream.truncate(count as usize);
    stream
}

fn conversation(question: &str, answer: &str) -> Document {
    let messages = vec![Message::new("user", question), Message::new("assistant", answer)];
    Document { body: Body::Conversation(messages), ..Document::text("c", "") }
}

proptest! {
    #[test]
    fn each_token_is_a_target_exactly_once_an_epoch(
        lengths in prop::collection::vec(1usize..40, 1..20), length in 1usize..30, seed: u64, epochs in 1u64..4,
    ) {
        let corpus = corpus(numbered(&lengths));
        prop_assume!(corpus.tokens() as usize + corpus.len() >= length);
        let rows = rows(&corpus, length, seed);
        let positions = rows.positions_per_epoch();
        let stream = stream(&rows, positions * epochs);
        for epoch in stream.chunks(positions as usize) {
            let mut seen: HashMap<u32, usize> = HashMap::new();
            epoch.iter().for_each(|id| *seen.entry(*id).or_default() += 1);
            prop_assert_eq!(seen.remove(&END), Some(lengths.len()));
            prop_assert_eq!(seen.len() as u64, corpus.tokens());
            prop_assert!(seen.values().all(|count| *count == 1));
            // Documents stay whole and end with their end.
            for document in epoch.split_inclusive(|id| *id == END) {
                let (end, ids) = document.split_last().unwrap();
                prop_assert_eq!(*end, END);
                prop_assert!(corpus.documents().any(|known| known.ids == ids));
            }
        }
    }

    #[test]
    fn a_row_follows_from_its_index_and_goes_on_where_the_last_one_ended(
        lengths in prop::collection::vec(1usize..40, 1..20), length in 1usize..30, seed: u64, start in 0u64..500,
    ) {
        let corpus = corpus(numbered(&lengths));
        prop_assume!(corpus.tokens() as usize + corpus.len() >= length);
        let (from_start, resumed) = (rows(&corpus, length, seed), rows(&corpus, length, seed));
        for index in 0..start {
            from_start.row(index);
        }
        prop_assert_eq!(resumed.row(start), from_start.row(start));
        let (row, next) = (from_start.row_in_order(start), from_start.row_in_order(start + 1));
        prop_assert_eq!(&resumed.row_in_order(start), &row);
        prop_assert_eq!(row.ids.len(), length + 1);
        prop_assert_eq!(row.counts.len(), length);
        prop_assert_eq!(row.ids.last(), next.ids.first());
        prop_assert_eq!(from_start.row_in_order(0).ids[0], END);
    }

    #[test]
    fn the_rows_of_an_epoch_are_those_in_order_in_another_order(
        lengths in prop::collection::vec(1usize..40, 1..20), length in 1usize..30, seed: u64, epoch in 0u64..4,
    ) {
        let corpus = corpus(numbered(&lengths));
        prop_assume!(corpus.tokens() as usize + corpus.len() >= length);
        let rows = rows(&corpus, length, seed);
        let block = rows.positions_per_epoch() / length as u64;
        let of = |row: fn(&PackedRows, u64) -> modularbase_corpus::Row| {
            let mut ids: Vec<_> =
                (block * epoch..block * (epoch + 1)).map(|index| row(&rows, index).ids).collect();
            ids.sort_unstable();
            ids
        };
        prop_assert_eq!(of(PackedRows::row), of(PackedRows::row_in_order));
    }

    #[test]
    fn windows_score_each_token_of_each_document_once(
        lengths in prop::collection::vec(1usize..40, 1..10), length in 1usize..50,
    ) {
        let corpus = corpus(numbered(&lengths));
        let mut scored = vec![Vec::new(); lengths.len()];
        for window in windows(&corpus, length, LossOn::Everything) {
            prop_assert!(!window.targets().is_empty() && window.targets().len() <= length);
            prop_assert_eq!(window.counts.len(), window.targets().len());
            let so_far: &mut Vec<u32> = &mut scored[window.document];
            prop_assert_eq!(window.ids[0], so_far.last().copied().unwrap_or(END));
            so_far.extend(window.targets());
        }
        for (document, scored) in corpus.documents().zip(scored) {
            prop_assert_eq!(document.ids, scored);
        }
    }
}

#[test]
fn the_order_follows_from_the_seed_and_changes_with_the_epoch() {
    let corpus = corpus(numbered(&[3; 50]));
    let epochs = |seed| stream(&rows(&corpus, 16, seed), 400);
    assert_eq!(epochs(1), epochs(1));
    assert_ne!(epochs(1), epochs(2));
    let both = epochs(1);
    assert_ne!(both[..200], both[200..]);
}

#[test]
fn the_shares_of_a_mix_hold_and_its_rows_follow_from_their_index() {
    let (special, general) = (corpus(numbered(&[30; 20])), corpus(numbered(&[7; 100])));
    let mix = |seed| {
        let sources = vec![(rows(&special, 8, 1), 0.8), (rows(&general, 8, 2), 0.2)];
        MixedRows::new(sources, seed).unwrap()
    };
    let (mixed, again) = (mix(5), mix(5));
    for start in [0, 3, 9_990, 123_456] {
        let general = (start..start + 100).filter(|row| mixed.source_of(*row) == 1).count();
        assert_eq!(general, 20, "of 100 rows from {start} on");
    }
    // Each source is gone through row by row, without a gap, across the end of a period.
    let mut next = [0, 0];
    for index in 0..20_100 {
        let source = mixed.source_of(index);
        if index % 997 < 3 || (9_990..10_010).contains(&index) {
            let row = mixed.row(index);
            assert_eq!(row, again.row(index));
            assert_eq!(row.source, source);
            assert_eq!(row.ids, mixed.sources()[source].row(next[source]).ids);
        }
        next[source] += 1;
    }
    let sources = |seed| (0..20).map(|row| mix(seed).source_of(row)).collect::<Vec<_>>();
    assert!((0..10).any(|seed| sources(seed) != sources(5)), "the seed shifts the order");
}

#[test]
fn less_text_than_a_row_is_refused_with_both_numbers() {
    let error = PackedRows::new(corpus(numbered(&[5, 5])), 13, 0, LossOn::Everything).unwrap_err();
    assert_eq!(
        error.to_string(),
        "2 documents with 12 tokens are less than one row of 13; add text or choose a shorter length"
    );
    assert!(PackedRows::new(corpus(numbered(&[5, 5])), 12, 0, LossOn::Everything).is_ok());
}

#[test]
fn where_only_answers_count_questions_do_not_and_running_text_does() {
    let corpus = corpus(vec![conversation("5 6", "7 8"), Document::text("t", "9 10")]);
    let rows = PackedRows::new(corpus.clone(), 10, 3, LossOn::Answers).unwrap();
    let counted = |ids: &[u32], counts: &[bool]| -> Vec<u32> {
        ids.iter().zip(counts).filter_map(|(id, counts)| counts.then_some(*id)).collect()
    };
    let row = rows.row(0);
    let mut counting = counted(row.targets(), &row.counts);
    assert_eq!(counting.iter().filter(|id| **id == END).count(), 2);
    counting.retain(|id| *id != END);
    counting.sort_unstable();
    assert_eq!(counting, [7, 8, 9, 10]);
    let scored: Vec<Vec<u32>> = windows(&corpus, 4, LossOn::Answers)
        .map(|window| counted(window.targets(), &window.counts))
        .collect();
    assert_eq!(scored, [vec![7, 8], vec![9, 10]]);
    assert_eq!(corpus.document(0).unwrap().ids, [ROLE, 5, 6, ROLE, 7, 8]);
}

#[test]
fn answers_alone_are_refused_where_there_are_none() {
    let mut document = conversation("5 6", "");
    if let Body::Conversation(messages) = &mut document.body {
        messages.pop();
    }
    let corpus = corpus(vec![document]);
    assert!(matches!(PackedRows::new(corpus, 2, 0, LossOn::Answers), Err(CorpusError::NothingCounts)));
}

#[test]
fn a_part_of_a_corpus_keeps_ids_answers_and_labels() {
    let mut last = conversation("15 16 17", "18");
    last.source = Some("web".into());
    let whole = corpus(vec![conversation("5 6", "7 8"), Document::text("t", "9 10"), last]);
    let part = whole.filtered(|document| document.source == Some("web") || document.id == "t");
    assert_eq!(part.len(), 2);
    let (text, talk) = (part.document(0).unwrap(), part.document(1).unwrap());
    assert_eq!((text.ids, text.text_bytes), (&[9, 10][..], 4));
    assert_eq!((talk.ids, talk.source), (&[ROLE, 15, 16, 17, ROLE, 18][..], Some("web")));
    let answers: Vec<bool> = (0..6).map(|index| talk.is_answer(index)).collect();
    assert_eq!(answers, [false, false, false, false, false, true]);
}
