//! Training text with needles: pieces of documents, facts hidden in them, questions and answers behind them.
//!
//! `needle_text DOCUMENTS OUT COUNT BYTES NEEDLES [SEED]`: `COUNT` documents, each of up to `BYTES` bytes of the text in
//! `DOCUMENTS` with up to `NEEDLES` needles, at least one. With 0 bytes they are needles alone, each said four times.

use std::error::Error;
use std::path::{Path, PathBuf};

use modularbase_corpus::{Document, DocumentWriter, NeedleSource, read_documents};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [documents, out, count, bytes, needles, rest @ ..] = arguments.as_slice() else {
        return Err("expected DOCUMENTS OUT COUNT BYTES NEEDLES [SEED]".into());
    };
    let (count, bytes, needles): (u64, usize, usize) = (count.parse()?, bytes.parse()?, needles.parse()?);
    let seed = rest.first().map_or(Ok(1), |seed| seed.parse())?;
    let mut text = String::new();
    for document in read_documents(&PathBuf::from(documents), None)? {
        for piece in document?.body.pieces() {
            text.push_str(piece);
            text.push_str("\n\n");
        }
    }
    let mut writer = DocumentWriter::create(Path::new(out))?;
    for index in 0..count {
        let mut source = NeedleSource::new(seed, index);
        let length = source.below(bytes + 1).min(text.len());
        let piece = cut(&text, source.below(text.len() - length + 1), length);
        let count = 1 + source.below(needles);
        let needles = source.needles(count);
        let body = match bytes {
            0 => source.repeated(&needles, 4),
            _ => source.training_text(piece, &needles),
        };
        writer.push(&Document::text(format!("needles/{index}"), body))?;
    }
    writer.finish()?;
    Ok(())
}

/// About `length` bytes of `text` from about `start`, whole words.
fn cut(text: &str, start: usize, length: usize) -> &str {
    let word = |from: usize| {
        let space = text.bytes().skip(from).position(|byte| byte == b' ' || byte == b'\n');
        space.map_or(text.len(), |at| from + at)
    };
    let from = if start == 0 { 0 } else { word(start) };
    text[from..word(start + length).max(from)].trim()
}
