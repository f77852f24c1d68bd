//! The token cache: encoded once, made again when anything changed or broke.

mod support;

use std::path::Path;
use std::sync::atomic::Ordering;

use modularbase_corpus::{CorpusError, Progress, ReadOptions, TokenCache, TokenizedCorpus};
use support::{ROLE, Words};

const LINES: &str = "{\"text\": \"5 6 7\", \"source\": \"s\", \"license\": \"MIT\", \"group\": \"g\"}
{\"text\": \"  \"}
{\"question\": \"8\", \"answer\": \"9\", \"text\": \"10 11\"}
";

fn tokens(cache: &Path, text: &Path, words: &Words) -> Result<TokenizedCorpus, CorpusError> {
    TokenCache::new(cache).tokens(text, &ReadOptions::default(), words, &())
}

fn times_encoded(words: &Words) -> usize {
    words.texts.swap(0, Ordering::Relaxed)
}

#[test]
fn a_corpus_is_encoded_once_and_comes_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, text) = (folder.path().join("cache/tokens"), folder.path().join("x.jsonl"));
    let talk = "{\"messages\": [{\"role\": \"user\", \"content\": \"20\"}, {\"role\": \"assistant\", \"content\": \"21 22\"}]}\n";
    std::fs::write(&text, LINES).unwrap();
    std::fs::write(folder.path().join("talk.jsonl"), talk).unwrap();
    let words = Words::default();
    for (path, encoded) in [(&text, 2), (&folder.path().join("talk.jsonl"), 2)] {
        let first = tokens(&cache, path, &words).unwrap();
        assert_eq!(times_encoded(&words), encoded);
        let second = tokens(&cache, path, &words).unwrap();
        assert_eq!(times_encoded(&words), 0);
        assert_eq!(first, second);
    }
    let corpus = tokens(&cache, &text, &words).unwrap();
    assert_eq!((corpus.len(), corpus.tokens(), corpus.text_bytes()), (2, 5, 10));
    let first = corpus.document(0).unwrap();
    assert_eq!((first.id, first.group, first.source), ("x.jsonl:1", Some("g"), Some("s")));
    assert_eq!((first.license, first.ids, first.text_bytes), (Some("MIT"), &[5, 6, 7][..], 5));
    assert_eq!(corpus.document(1).unwrap().id, "x.jsonl:3");
    assert!(corpus.document(2).is_none());
    let talk = tokens(&cache, &folder.path().join("talk.jsonl"), &words).unwrap();
    let talk = talk.document(0).unwrap();
    assert_eq!(talk.ids, [ROLE, 20, ROLE, 21, 22]);
    assert_eq!([2, 3, 4].map(|index| talk.is_answer(index)), [false, true, true]);
}

#[test]
fn other_content_another_name_another_encoder_and_other_options_are_encoded_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, text) = (folder.path().join("cache"), folder.path().join("x.jsonl"));
    std::fs::write(&text, LINES).unwrap();
    let words = Words::default();
    let files = |words: &Words, options: &ReadOptions| {
        TokenCache::new(&cache).file_of(&text, options, words).unwrap()
    };
    let base = files(&words, &ReadOptions::default());
    assert_eq!(base, files(&words, &ReadOptions::default()));
    let name = base.file_name().unwrap().to_str().unwrap();
    assert!(name.contains("x-") && name.ends_with(".tokens"), "{name}");
    let other = Words { fingerprint: "other".into(), ..Words::default() };
    assert_ne!(base, files(&other, &ReadOptions::default()));
    let format = Some(modularbase_corpus::Format::QuestionAnswer);
    assert_ne!(base, files(&words, &ReadOptions { format, ..ReadOptions::default() }));
    std::fs::write(&text, LINES.replace('5', "6")).unwrap();
    assert_ne!(base, files(&words, &ReadOptions::default()));
}

#[test]
fn a_damaged_cache_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, text) = (folder.path().join("cache"), folder.path().join("x.jsonl"));
    std::fs::write(&text, LINES).unwrap();
    let words = Words::default();
    let right = tokens(&cache, &text, &words).unwrap();
    let file = TokenCache::new(&cache).file_of(&text, &ReadOptions::default(), &words).unwrap();
    let whole = std::fs::read(&file).unwrap();
    times_encoded(&words);
    let mut damaged = vec![Vec::new(), whole[..whole.len() - 1].to_vec(), [&whole[..], b"x"].concat()];
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        damaged.push(flipped);
    }
    for bytes in damaged {
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(tokens(&cache, &text, &words).unwrap(), right);
        assert_eq!(times_encoded(&words), 2);
        assert_eq!(std::fs::read(&file).unwrap(), whole);
    }
}

#[test]
fn a_cache_that_cannot_be_written_does_not_stop_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("x.jsonl");
    std::fs::write(&text, LINES).unwrap();
    std::fs::write(folder.path().join("occupied"), "a file where the folder should be").unwrap();
    assert_eq!(tokens(&folder.path().join("occupied"), &text, &Words::default()).unwrap().len(), 2);
}

#[test]
fn what_the_encoder_refuses_is_named_and_a_watcher_can_end_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("x.jsonl");
    std::fs::write(&text, format!("{LINES}{{\"text\": \"unspeakable\", \"id\": \"bad\"}}\n")).unwrap();
    let error = tokens(folder.path(), &text, &Words::default()).unwrap_err();
    assert_eq!(error.to_string(), "the document `bad` can't be encoded: no token for that");

    struct Impatient;
    impl Progress for Impatient {
        fn is_cancelled(&self) -> bool {
            true
        }
    }
    let words = Words::default();
    let ended = TokenCache::new(folder.path()).tokens(&text, &ReadOptions::default(), &words, &Impatient);
    assert!(matches!(ended, Err(CorpusError::Cancelled)));
    assert_eq!(times_encoded(&words), 0);
}

#[test]
fn many_documents_keep_their_order_whoever_encodes_them() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("x.jsonl");
    let lines: String =
        (0..20_000).map(|id| format!("{{\"text\": \"{id} {id}\", \"id\": {id}}}\n")).collect();
    std::fs::write(&text, lines).unwrap();
    let corpus = tokens(folder.path(), &text, &Words::default()).unwrap();
    assert_eq!(corpus.len(), 20_000);
    for (index, document) in corpus.documents().enumerate() {
        assert_eq!((document.id.parse(), document.ids), (Ok(index), &[index as u32; 2][..]));
    }
}
