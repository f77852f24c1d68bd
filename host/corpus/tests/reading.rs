//! Readers of every kind of file, and what they say of files that are not right.

use std::io::Write;
use std::path::{Path, PathBuf};

use modularbase_corpus::{
    Body, CorpusError, Document, Format, Message, ReadOptions, read_documents, read_documents_with,
    write_documents,
};
use tempfile::TempDir;

fn file(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    path
}

fn read(path: &Path) -> Result<Vec<Document>, CorpusError> {
    read_documents(path, None)?.collect()
}

fn said(path: &Path) -> String {
    read(path).unwrap_err().to_string()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(content).unwrap();
    out.finish().unwrap()
}

#[test]
fn what_is_written_is_read_again_however_it_is_compressed() {
    let folder = tempfile::tempdir().unwrap();
    let talk = vec![Message::new("user", "Wie geht's?"), Message::new("assistant", "\"Gut\"\n")];
    let documents = vec![
        Document {
            id: "b".into(),
            group: Some("g".into()),
            source: Some("s".into()),
            license: Some("CC0-1.0".into()),
            body: Body::Conversation(talk),
        },
        Document { body: Body::Conversation(vec![Message::new("user", "花")]), ..Document::text("a", "") },
    ];
    for name in ["x.jsonl", "x.jsonl.zst", "x.jsonl.gz"] {
        let path = folder.path().join(name);
        assert_eq!(write_documents(&path, documents.iter().cloned().map(Ok)).unwrap(), 2);
        assert_eq!(read(&path).unwrap(), documents, "{name}");
    }
    let plain = std::fs::metadata(folder.path().join("x.jsonl")).unwrap().len();
    assert!(plain > 100);
}

#[test]
fn a_failed_write_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.jsonl.zst");
    let documents = [Ok(Document::text("a", "text")), Err(CorpusError::Cancelled)];
    assert!(matches!(write_documents(&path, documents), Err(CorpusError::Cancelled)));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_is_read_in_the_order_of_paths_and_other_files_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    file(&folder, "b.txt", "\u{feff}Ein Text.\nZwei Zeilen.\n");
    file(&folder, "a/two.jsonl", "\n{\"question\": \"q\", \"answer\": \"a\"}\r\n\n");
    file(&folder, "a/one.jsonl.gz", gzip(b"{\"text\": \"eins\"}\n{\"text\": \"zwei\", \"id\": \"z\"}"));
    file(&folder, "notes.md", "not read");
    file(&folder, ".hidden.jsonl", "not read");
    file(&folder, "empty.txt", " \n");
    let documents = read(folder.path()).unwrap();
    let ids: Vec<&str> = documents.iter().map(|document| document.id.as_str()).collect();
    assert_eq!(ids, ["a/one.jsonl.gz:1", "z", "a/two.jsonl:2", "b.txt"]);
    assert_eq!(documents[3].body, Body::Text("Ein Text.\nZwei Zeilen.\n".into()));
}

#[test]
fn a_format_that_is_asked_for_is_not_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "x.jsonl", r#"{"text": "t", "question": "q", "answer": "a"}"#);
    assert_eq!(read(&path).unwrap()[0].body, Body::Text("t".into()));
    let asked = read_documents(&path, Some(Format::QuestionAnswer)).unwrap().next().unwrap().unwrap();
    assert!(matches!(asked.body, Body::Conversation(messages) if messages.len() == 2));
    let lines = "{\"question\": \"q\", \"answer\": \"a\"}\n{\"text\": \"t\"}\n";
    let mixed = read(&file(&folder, "mixed.jsonl", lines)).unwrap();
    assert!(matches!((&mixed[0].body, &mixed[1].body), (Body::Conversation(_), Body::Text(_))));
    let both = "{\"question\": \"q\", \"answer\": \"a\"}\n{\"text\": \"t\", \"question\": \"q\", \"answer\": \"a\"}\n";
    let as_first = read(&file(&folder, "both.jsonl", both)).unwrap();
    assert!(matches!(as_first[1].body, Body::Conversation(_)));
    assert_eq!("question-answer".parse(), Ok(Format::QuestionAnswer));
    assert!("csv".parse::<Format>().unwrap_err().contains("expected one of text, conversations"));
}

#[test]
fn a_document_of_fifty_megabytes_on_one_line_goes_through_and_a_limit_refuses_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = "langer Text ".repeat(50_000_000 / 12);
    let path = file(&folder, "long.jsonl", format!("{{\"text\": \"{text}\"}}\n{{\"text\": \"kurz\"}}\n"));
    let documents = read(&path).unwrap();
    assert_eq!((documents.len(), documents[0].body.bytes()), (2, text.len() as u64));
    let options = ReadOptions { max_document_bytes: 1 << 20, ..ReadOptions::default() };
    let mut refused = read_documents_with(&path, &options).unwrap();
    let error = refused.next().unwrap().unwrap_err().to_string();
    assert!(error.contains(":1: the document is longer than the limit of 1048576 bytes"), "{error}");
    assert!(refused.next().is_none());
    let text_file = file(&folder, "long.txt", "x".repeat(2 << 20));
    let error = read_documents_with(&text_file, &options).unwrap().next().unwrap().unwrap_err();
    assert!(matches!(error, CorpusError::TooLong { limit: 1_048_576, .. }));
}

#[test]
fn faults_name_file_line_and_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "fields.jsonl", "{\"text\": \"a\"}\n{\"body\": \"b\"}\n");
    assert!(said(&path).ends_with(
        "fields.jsonl:2: the record has no text that is known here; expected `text`; found `body`"
    ));
    let path = file(&folder, "first.jsonl", "{\"body\": \"b\", \"title\": \"t\"}\n");
    assert!(said(&path).contains("first.jsonl:1: "));
    assert!(said(&path).ends_with("found `body`, `title`"));
    let path = file(&folder, "json.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"\n");
    assert!(said(&path).contains("json.jsonl:2: expected one JSON object a line: "), "{}", said(&path));
    let path = file(&folder, "list.jsonl", "[1, 2]\n");
    assert!(said(&path).contains("list.jsonl:1: expected one JSON object a line: it is another kind"));
    let path = file(&folder, "latin.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"\xe4\"}\n");
    assert!(said(&path).contains("latin.jsonl:2: byte 11 of the line is not UTF-8"), "{}", said(&path));
    let path = file(&folder, "latin.txt", b"eins\nzw\xe4i\n");
    assert!(said(&path).contains("latin.txt:2: byte 3 of the line is not UTF-8"), "{}", said(&path));
}

#[test]
fn damaged_compression_is_told_from_wrong_content() {
    let folder = tempfile::tempdir().unwrap();
    let line = "{\"text\": \"einige Worte, die sich wiederholen\"}\n";
    let content: String = (0..5000).map(|n| line.replace("einige", &format!("{n} und {}", n * n))).collect();
    for (name, whole) in [
        ("x.jsonl.gz", gzip(content.as_bytes())),
        ("x.jsonl.zst", zstd::encode_all(content.as_bytes(), 3).unwrap()),
    ] {
        let path = file(&folder, name, &whole);
        assert_eq!(read(&path).unwrap().len(), 5000);
        file(&folder, name, &whole[..whole.len() / 2]);
        assert!(matches!(read(&path), Err(CorpusError::Damaged { .. })), "cut: {}", said(&path));
        file(&folder, name, "this is no archive at all");
        assert!(matches!(read(&path), Err(CorpusError::Damaged { line: 0, .. })), "text: {}", said(&path));
    }
}

#[test]
fn nothing_to_read_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    assert!(said(&folder.path().join("absent.jsonl")).contains("absent.jsonl: can't be read"));
    assert!(said(folder.path()).contains("no file of text; expected .jsonl, .jsonl.zst"));
    assert!(said(&file(&folder, "x.parquet", "PAR1")).contains("no file of text"));
    let empty = file(&folder, "empty.jsonl", "\n  \n");
    assert!(said(&empty).contains("holds no document"));
    assert!(said(folder.path()).contains("holds no document"));
}
