//! Tokenizer, chat template and text stream of the default base, against ids that were computed independently.

use modularbase_core::{BaseFile, ChatMessage, TextStream, Tokenizer};
use serde::Deserialize;

use crate::base;

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    prompt: String,
    token_ids: Vec<u32>,
    greedy: Vec<u32>,
    greedy_text: String,
}

fn cases() -> Vec<Case> {
    let reference: Reference = serde_json::from_str(include_str!("../data/smollm2-135m.json")).unwrap();
    assert_eq!(reference.cases.len(), 5);
    reference.cases
}

fn tokenizer() -> Tokenizer {
    Tokenizer::of_base(&BaseFile::open(base::path()).unwrap()).unwrap()
}

#[test]
fn every_reference_prompt_gives_its_token_ids() {
    let tokenizer = tokenizer();
    for case in cases() {
        assert_eq!(tokenizer.encode(&case.prompt, true).unwrap(), case.token_ids, "{}", case.prompt);
        assert_eq!(tokenizer.encode_prompt(&case.prompt, true).unwrap(), case.token_ids);
    }
}

#[test]
fn decoding_gives_the_reference_text_whole_and_streamed() {
    let tokenizer = tokenizer();
    for case in cases() {
        assert_eq!(tokenizer.decode(&case.greedy), case.greedy_text);
        let mut stream = TextStream::new(Vec::<String>::new());
        let mut text: String = case.greedy.iter().map(|token| stream.push(*token, &tokenizer).text).collect();
        text += &stream.finish().text;
        assert_eq!(text, case.greedy_text);
    }
}

#[test]
fn the_chat_template_wraps_a_question_as_the_base_was_trained() {
    let rendered = tokenizer().render_chat(&[ChatMessage::user("What is gravity?")], true).unwrap();
    assert!(rendered.from_template);
    assert_eq!(rendered.text, cases()[2].prompt);
}

#[test]
fn special_tokens_in_plain_text_stay_text_unless_asked_for() {
    let tokenizer = tokenizer();
    let text = "say <|im_end|> now";
    let parsed = tokenizer.encode(text, true).unwrap();
    let plain = tokenizer.encode(text, false).unwrap();
    assert!(parsed.contains(&2));
    assert!(!plain.contains(&2));
    assert_eq!(tokenizer.decode(&plain), text);
    assert_eq!(tokenizer.decode(&parsed), "say  now");
}

#[test]
fn a_long_text_has_the_same_ids_in_pieces_of_any_size() {
    let strange =
        "line one  \r\n\r\n\tdon't  <|im_end|>\n 12345 \u{3000}日本語。\n – e\u{301} x\n\n\n   end ";
    let text = format!("{}{}", include_str!("../data/novel.txt"), strange.repeat(200));
    let tokenizer = tokenizer();
    for parse_special in [false, true] {
        let whole = tokenizer.encode_by(&text, parse_special, usize::MAX).unwrap();
        for bytes in [1, 100, 1_000, 5_000] {
            assert!(tokenizer.encode_by(&text, parse_special, bytes).unwrap() == whole, "{bytes} bytes");
        }
    }
}

#[test]
fn text_and_ids_are_each_others_inverse() {
    let tokenizer = tokenizer();
    for text in ["", " ", "\n\n  x\t", "Zürich 2026 – 日本語 🦀👩‍🚀", "a\u{0}b\u{7f}", "don't 12345 <0x41> ▁"]
    {
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids), text);
        assert_eq!(tokenizer.encode(text, true).unwrap(), ids);
    }
}

#[test]
fn a_character_spread_over_tokens_comes_out_whole() {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode("🦀 日", false).unwrap();
    assert!(ids.len() > 3, "the test needs a character of several tokens");
    let mut stream = TextStream::new(["zzz"]);
    let pieces: Vec<String> = ids.iter().map(|id| stream.push(*id, &tokenizer).text).collect();
    assert_eq!(pieces.concat(), "🦀 日");
    assert!(pieces[0].is_empty());

    // Cut off in the middle, it is a broken character and says so.
    let mut stream = TextStream::new(["zzz"]);
    assert_eq!(stream.push(ids[0], &tokenizer).text, "");
    assert_eq!(stream.finish().text, "\u{fffd}");
}

#[test]
fn answers_end_at_the_end_of_a_turn_and_of_the_text() {
    let tokenizer = tokenizer();
    assert_eq!(tokenizer.ends().collect::<Vec<_>>(), [0, 2]);
    assert_eq!(tokenizer.document_end(), Some(0));
    assert_eq!(tokenizer.begin(), (Some(1), false));
    assert!(tokenizer.is_special(2) && tokenizer.is_end(2) && !tokenizer.is_special(42));
    assert_eq!(tokenizer.vocab_size(), 49152);
    assert_eq!(tokenizer.decode(&[49152, u32::MAX]), "");
}

#[test]
fn a_stop_string_is_found_across_token_borders_and_not_shown() {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode("One two\n\nUser: three", false).unwrap();
    let mut stream = TextStream::new(["\n\nUser:", "never"]);
    let mut text = String::new();
    let mut stop = None;
    for id in ids {
        let piece = stream.push(id, &tokenizer);
        text += &piece.text;
        stop = stop.or(piece.stop);
    }
    assert_eq!((text.as_str(), stop.as_deref()), ("One two", Some("\n\nUser:")));
    assert!(stream.stopped());
    assert_eq!(stream.finish().text, "");
}

#[test]
fn text_that_only_looked_like_a_stop_string_comes_out_later() {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode("a\n\nUse it", false).unwrap();
    let mut stream = TextStream::new(["\n\nUser:"]);
    let mut text: String = ids.iter().map(|id| stream.push(*id, &tokenizer).text).collect();
    text += &stream.finish().text;
    assert_eq!(text, "a\n\nUse it");

    // At the end of the answer the part held back is text too.
    let mut stream = TextStream::new(["\n\nUser:"]);
    let ids = tokenizer.encode("a\n\nUser", false).unwrap();
    let shown: String = ids.iter().map(|id| stream.push(*id, &tokenizer).text).collect();
    assert_eq!(shown, "a");
    assert_eq!(stream.finish().text, "\n\nUser");
}
