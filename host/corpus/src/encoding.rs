//! Documents to ids, in batches, on all cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::document::{Body, Document};
use crate::encoder::{EncodeError, EncodedConversation, Encoder};
use crate::error::CorpusError;
use crate::progress::Progress;

/// A batch ends with this many bytes of text, so that memory does not grow with the corpus.
const BATCH_BYTES: u64 = 4 << 20;
/// Or with this many documents.
const BATCH_DOCUMENTS: usize = 4096;
/// Text beyond this many bytes is encoded in pieces: tokenizers take memory and time of many times the text's length.
const PIECE_BYTES: usize = 1 << 20;
/// More threads than this gain nothing beside the reading.
const MAX_THREADS: usize = 8;

/// Encodes every document and hands it to `take` with its ids, in order. Documents that say nothing are left out.
pub(crate) fn encode_all(
    documents: impl IntoIterator<Item = Result<Document, CorpusError>>,
    encoder: &dyn Encoder,
    progress: &dyn Progress,
    mut take: impl FnMut(Document, EncodedConversation) -> Result<(), CorpusError>,
) -> Result<(), CorpusError> {
    let mut documents = documents.into_iter();
    loop {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES && batch.len() < BATCH_DOCUMENTS {
            let Some(document) = documents.next().transpose()? else { break };
            if crate::document_files::is_blank(&document.body) {
                continue;
            }
            bytes += document.body.bytes();
            batch.push(document);
        }
        if batch.is_empty() {
            return Ok(());
        }
        if progress.is_cancelled() {
            return Err(CorpusError::Cancelled);
        }
        let encoded = encode_batch(&batch, encoder);
        let (mut count, mut tokens) = (0, 0);
        for (document, encoded) in batch.into_iter().zip(encoded) {
            match encoded {
                Ok(encoded) => {
                    count += 1;
                    tokens += encoded.ids.len() as u64;
                    take(document, encoded)?;
                }
                Err(source) => return Err(CorpusError::Encode { document: document.id, source }),
            }
        }
        progress.encoded(count, tokens);
    }
}

type Encoded = Result<EncodedConversation, EncodeError>;

fn encode_batch(batch: &[Document], encoder: &dyn Encoder) -> Vec<Encoded> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(batch.len()));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(document) = batch.get(index) else { return };
            let encoded = encode(&document.body, encoder);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((index, encoded));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(batch.len()) {
            scope.spawn(work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, encoded)| encoded).collect()
}

fn encode(body: &Body, encoder: &dyn Encoder) -> Encoded {
    match body {
        Body::Text(text) => {
            let mut ids = Vec::new();
            for piece in pieces(text, PIECE_BYTES) {
                ids.extend(encoder.text(piece)?);
            }
            let is_answer = vec![false; ids.len()];
            Ok(EncodedConversation { ids, is_answer })
        }
        Body::Conversation(messages) => {
            let encoded = encoder.conversation(messages)?;
            if encoded.ids.len() != encoded.is_answer.len() {
                let (ids, marks) = (encoded.ids.len(), encoded.is_answer.len());
                return Err(format!("the encoder gave {ids} ids and {marks} marks").into());
            }
            Ok(encoded)
        }
    }
}

/// The text in pieces of at most `limit` bytes, cut where a line begins, else before a space, else anywhere.
fn pieces(text: &str, limit: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = rest.len().min(limit);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        if end < rest.len() {
            // Only the second half is searched, so that pieces keep a length that is worth it.
            let mut half = end / 2;
            while !rest.is_char_boundary(half) {
                half -= 1;
            }
            let window = &rest[half..end];
            let line = window.rfind('\n').map(|at| at + 1);
            let cut = line.or_else(|| window.rfind(' ')).map_or(end, |at| half + at);
            end = if cut == 0 { end } else { cut };
        }
        let (piece, after) = rest.split_at(end.max(1).min(rest.len()));
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_to_the_text_and_begin_at_lines_or_spaces() {
        let text = "eins zwei\ndrei vier fünf\nsechs sieben acht neun zehn".repeat(20);
        for limit in [8, 16, 50, 1000, 10_000] {
            let cut: Vec<&str> = pieces(&text, limit).collect();
            assert_eq!(cut.concat(), text);
            assert!(cut.iter().all(|piece| piece.len() <= limit && !piece.is_empty()));
        }
        assert_eq!(pieces("aa bb\ncc dd", 8).collect::<Vec<_>>(), ["aa bb\n", "cc dd"]);
        assert_eq!(pieces("aa bbb cc", 8).collect::<Vec<_>>(), ["aa bbb", " cc"]);
        assert_eq!(pieces("ääää", 5).collect::<Vec<_>>(), ["ää", "ää"]);
    }
}
