//! Cutting a long message where its parts end.

use std::ops::Range;

/// How plainly a part of a text ends behind a token, the plainest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Border {
    None,
    Sentence,
    Line,
    /// A blank line, or the fence of a block of code.
    Paragraph,
}

/// Cuts a text into parts of about `target` tokens, from half as many to twice as many: where a paragraph or a block of
/// code ends, else a line, else a sentence, else at `target`. A part may be half of `target` longer where a paragraph ends
/// there: cut before, what is left of the paragraph would be too short for a part and go to the next one.
/// `ends` are the byte offsets in `text` at which its tokens end.
pub fn cut(text: &[u8], ends: &[usize], target: usize) -> Vec<Range<usize>> {
    let target = target.max(2);
    let least = target / 2;
    let mut parts = Vec::new();
    let mut first = 0;
    while ends.len() - first > target + least {
        // What is left behind the last place is no shorter than the shortest part.
        let longest = first + 2 * target;
        let places = first + least..=(longest + least).min(ends.len() - least);
        let distance = |place: &usize| place.abs_diff(first + target);
        let best = places
            .map(|place| (border(text, ends[place - 1]), place))
            .filter(|(border, place)| *place <= longest || *border == Border::Paragraph)
            .max_by(|(a, at), (b, other)| a.cmp(b).then_with(|| distance(other).cmp(&distance(at))));
        let next = best.map_or(first + target, |(_, place)| place);
        parts.push(first..next);
        first = next;
    }
    if first < ends.len() {
        parts.push(first..ends.len());
    }
    parts
}

/// What ends at a byte of a text.
fn border(text: &[u8], end: usize) -> Border {
    let (before, behind) = (&text[..end.min(text.len())], &text[end.min(text.len())..]);
    let spaces = before.iter().rev().take_while(|byte| byte.is_ascii_whitespace());
    let lines = spaces.filter(|byte| **byte == b'\n').count();
    let said = before.trim_ascii_end();
    let line_ends = lines > 0 || behind.first() == Some(&b'\n');
    if lines > 1 || lines > 0 && behind.first() == Some(&b'\n') || line_ends && said.ends_with(b"```") {
        return Border::Paragraph;
    }
    if line_ends {
        return Border::Line;
    }
    let ends_sentence = [".", "!", "?", ";"].iter().any(|mark| said.ends_with(mark.as_bytes()))
        && (said.len() < before.len() || behind.first().is_some_and(u8::is_ascii_whitespace));
    // Chinese and Japanese put no space behind it.
    let ends_wide = ["。", "！", "？", "；"].iter().any(|mark| said.ends_with(mark.as_bytes()));
    if ends_sentence || ends_wide { Border::Sentence } else { Border::None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each word with the space before it is a token, as is each newline.
    fn tokens(text: &str) -> Vec<usize> {
        let mut ends = Vec::new();
        for (at, byte) in text.bytes().enumerate() {
            if at > 0 && (byte == b' ' || byte == b'\n') {
                ends.push(at);
            }
        }
        ends.push(text.len());
        ends
    }

    fn parts(text: &str, target: usize) -> Vec<&str> {
        let ends = tokens(text);
        let start = |token: usize| if token == 0 { 0 } else { ends[token - 1] };
        let cut = cut(text.as_bytes(), &ends, target);
        assert_eq!(cut.iter().map(Range::len).sum::<usize>(), ends.len(), "every token once");
        cut.into_iter().map(|part| text[start(part.start)..ends[part.end - 1]].trim()).collect()
    }

    #[test]
    fn a_text_is_cut_at_its_plainest_borders() {
        let text = "a b c. d e f\n\ng h i j. k l";
        assert_eq!(parts(text, 6), ["a b c. d e f", "g h i j. k l"]);
        assert_eq!(parts("a b c. d e f g h i j", 4), ["a b c.", "d e f g", "h i j"]);
        let code = "see how it goes\n```\nlet a = b\n```\nand then it ends there";
        assert!(parts(code, 6).iter().any(|part| part.ends_with("let a = b\n```")), "{:?}", parts(code, 6));
    }

    #[test]
    fn without_borders_parts_are_of_the_wanted_length_and_a_short_text_is_one() {
        let text = "w ".repeat(100).trim().to_owned();
        let lengths: Vec<usize> =
            parts(&text, 32).iter().map(|part| part.split_whitespace().count()).collect();
        assert_eq!(lengths, [32, 32, 36]);
        assert_eq!(parts("a b. c d", 32), ["a b. c d"]);
        assert_eq!(cut(b"", &[], 32), []);
    }

    #[test]
    fn no_part_is_shorter_than_half_or_longer_than_twice_the_wanted_length_but_to_end_with_a_paragraph() {
        let text = "one. two. three\n\nfour five six seven. ".repeat(40);
        let ends = tokens(&text);
        for target in [2, 5, 16, 48] {
            for part in cut(text.as_bytes(), &ends, target) {
                let ends_paragraph = border(text.as_bytes(), ends[part.end - 1]) == Border::Paragraph;
                let longest = 2 * target + if ends_paragraph { target / 2 } else { 0 };
                assert!((target / 2..=longest).contains(&part.len()), "{target}: {part:?}");
            }
        }
    }

    #[test]
    fn a_paragraph_just_too_long_is_not_cut_where_its_rest_would_go_to_the_next_one() {
        // 9 words where 8 are twice the wanted length; cut at the sentence, the last word was too short for a part.
        let text = "a b c d e f g h. i\n\nj k l m n o";
        assert_eq!(parts(text, 4), ["a b c d e f g h. i", "j k l m n o"]);
    }

    #[test]
    fn sentences_of_chinese_end_without_a_space() {
        assert_eq!(border("君不见。黄河".as_bytes(), "君不见。".len()), Border::Sentence);
        assert_eq!(border(b"3.14", 2), Border::None);
        assert_eq!(border(b"a b\n\nc", 5), Border::Paragraph);
        assert_eq!(border(b"a b\nc", 4), Border::Line);
    }
}
