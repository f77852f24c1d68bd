//! Rows of one length to train on, cut from all documents laid end to end.
//!
//! The documents of an epoch, in an order that follows from seed and epoch, each with its end-of-text token, form one
//! stream; epochs follow each other without a gap. Row `i` is to predict the positions `[i * length, (i + 1) *
//! length)` of the stream, each from the position before it (the stream's first from an end of text). So every token
//! of every document is a target exactly once an epoch, and a row follows from its index alone.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::CorpusError;
use crate::shuffle::shuffled;
use crate::tokenized_corpus::{TokenizedCorpus, TokenizedDocument};

/// Which tokens count for the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LossOn {
    /// All of them.
    #[default]
    Everything,
    /// Of conversations only the answers; of running text everything.
    Answers,
}

impl LossOn {
    /// Whether the token at `index` of the document counts.
    pub fn counts(self, document: &TokenizedDocument<'_>, index: usize) -> bool {
        self == Self::Everything || !document.is_conversation || document.is_answer(index)
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// `length + 1` ids.
    pub ids: Vec<u32>,
    /// For each of the `length` targets whether it counts for the loss.
    pub counts: Vec<bool>,
    /// Which source of a mix it comes from; 0 without one.
    pub source: usize,
}

impl Row {
    /// What the model reads: all ids but the last.
    pub fn inputs(&self) -> &[u32] {
        &self.ids[..self.ids.len() - 1]
    }

    /// What it is to predict: all ids but the first.
    pub fn targets(&self) -> &[u32] {
        &self.ids[1..]
    }
}

/// The rows of one corpus, endlessly.
#[derive(Debug)]
pub struct PackedRows {
    corpus: Arc<TokenizedCorpus>,
    length: usize,
    seed: u64,
    loss_on: LossOn,
    /// Positions of an epoch: all tokens, and one end a document.
    positions: u64,
    /// The order of the epoch that was last asked for, and of the one before: rows lie across the border.
    orders: Mutex<[Option<Arc<EpochOrder>>; 2]>,
    /// The order of the rows that were last asked for, with its number.
    row_order: Mutex<Option<(u64, Arc<Vec<usize>>)>>,
}

#[derive(Debug)]
struct EpochOrder {
    epoch: u64,
    documents: Vec<usize>,
    /// Where each document ends in the epoch, its end of text included.
    ends: Vec<u64>,
}

impl PackedRows {
    /// Rows of `length` targets.
    ///
    /// # Errors
    /// [`CorpusError::TooFewTokens`] when an epoch is shorter than a row, [`CorpusError::NothingCounts`] when no token
    /// would count for the loss.
    ///
    /// # Panics
    /// `length` is 0.
    pub fn new(
        corpus: Arc<TokenizedCorpus>,
        length: usize,
        seed: u64,
        loss_on: LossOn,
    ) -> Result<Self, CorpusError> {
        assert!(length > 0, "a row holds at least one target");
        let positions = corpus.tokens() + corpus.len() as u64;
        if positions < length as u64 {
            let (documents, needed) = (corpus.len(), length as u64);
            return Err(CorpusError::TooFewTokens { documents, found: positions, needed });
        }
        let has_any = |document: TokenizedDocument<'_>| {
            (0..document.ids.len()).any(|index| loss_on.counts(&document, index))
        };
        if !corpus.documents().any(has_any) {
            return Err(CorpusError::NothingCounts);
        }
        Ok(Self {
            corpus,
            length,
            seed,
            loss_on,
            positions,
            orders: Mutex::new([None, None]),
            row_order: Mutex::new(None),
        })
    }

    /// Targets of a row.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The documents that the rows are cut from.
    pub fn corpus(&self) -> &TokenizedCorpus {
        &self.corpus
    }

    /// Targets of an epoch: all tokens and one end a document.
    pub fn positions_per_epoch(&self) -> u64 {
        self.positions
    }

    /// Rows of an epoch; seldom a whole number.
    pub fn rows_per_epoch(&self) -> f64 {
        self.positions as f64 / self.length as f64
    }

    /// The row at `index`, of any number: epochs follow each other. The rows of an epoch come in an order of their own,
    /// so that neighbours are seldom of one document.
    pub fn row(&self, index: u64) -> Row {
        let block_rows = self.positions / self.length as u64;
        let block = index / block_rows;
        let place = self.row_order(block, block_rows as usize)[(index % block_rows) as usize];
        self.row_in_order(block * block_rows + place as u64)
    }

    /// The row at `index` of the documents one after the other, as [`PackedRows::row`] shuffles them: each row goes on
    /// where the one before it ended.
    pub fn row_in_order(&self, index: u64) -> Row {
        let first = index * self.length as u64;
        let mut row = Row {
            ids: Vec::with_capacity(self.length + 1),
            counts: Vec::with_capacity(self.length + 1),
            source: 0,
        };
        match first.checked_sub(1) {
            Some(before) => self.copy(before, self.length + 1, &mut row),
            None => {
                row.ids.push(self.corpus.end_of_text());
                row.counts.push(false);
                self.copy(0, self.length, &mut row);
            }
        }
        row.counts.remove(0);
        row
    }

    /// Appends `count` positions of the stream from `position` on.
    fn copy(&self, mut position: u64, mut count: usize, row: &mut Row) {
        while count > 0 {
            let order = self.order(position / self.positions);
            let mut in_epoch = position % self.positions;
            let mut place = order.ends.partition_point(|end| *end <= in_epoch);
            while count > 0 && place < order.documents.len() {
                let Some(document) = self.corpus.document(order.documents[place]) else { return };
                let start = order.ends[place] - (document.ids.len() as u64 + 1);
                let from = (in_epoch - start) as usize;
                let to = document.ids.len().min(from + count);
                row.ids.extend_from_slice(&document.ids[from.min(to)..to]);
                row.counts.extend((from..to).map(|index| self.loss_on.counts(&document, index)));
                let mut taken = to - from.min(to);
                if taken < count {
                    row.ids.push(self.corpus.end_of_text());
                    // Where the text before it counts, its end is to be learned too.
                    row.counts.push(self.loss_on.counts(&document, document.ids.len().saturating_sub(1)));
                    taken += 1;
                    place += 1;
                }
                count -= taken;
                in_epoch += taken as u64;
                position += taken as u64;
            }
        }
    }

    /// The order of the `block`-th so many rows.
    fn row_order(&self, block: u64, rows: usize) -> Arc<Vec<usize>> {
        let mut known = self.row_order.lock().unwrap_or_else(PoisonError::into_inner);
        match known.as_ref().filter(|(of, _)| *of == block) {
            Some((_, order)) => order.clone(),
            None => {
                // Another stream of the seed than the documents' order.
                let order = Arc::new(shuffled(rows, !self.seed, block));
                *known = Some((block, order.clone()));
                order
            }
        }
    }

    fn order(&self, epoch: u64) -> Arc<EpochOrder> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = orders.iter().flatten().find(|order| order.epoch == epoch) {
            return known.clone();
        }
        let documents = shuffled(self.corpus.len(), self.seed, epoch);
        let mut end = 0;
        let ends = documents
            .iter()
            .map(|index| {
                end += self.corpus.document(*index).map_or(0, |document| document.ids.len() as u64 + 1);
                end
            })
            .collect();
        let order = Arc::new(EpochOrder { epoch, documents, ends });
        orders.swap(0, 1);
        orders[0] = Some(order.clone());
        order
    }
}
