//! Escapes of troff (groff 1.22, groff(7)) to plain text.

use std::collections::HashMap;
use std::iter::Peekable;
use std::str::Chars;

/// Strings that a page defines with `.ds`.
pub(crate) type Strings = HashMap<String, String>;

/// Names of characters, those of groff_char(7) that manual pages use.
const CHARACTERS: [(&str, &str); 58] = [
    ("em", "—"),
    ("en", "–"),
    ("hy", "-"),
    ("bu", "•"),
    ("aq", "'"),
    ("dq", "\""),
    ("co", "©"),
    ("rg", "®"),
    ("tm", "™"),
    ("lq", "“"),
    ("rq", "”"),
    ("oq", "‘"),
    ("cq", "’"),
    ("Bq", "„"),
    ("bq", "‚"),
    ("Fo", "«"),
    ("Fc", "»"),
    ("fo", "‹"),
    ("fc", "›"),
    ("ga", "`"),
    ("aa", "´"),
    ("ha", "^"),
    ("ti", "~"),
    ("rs", "\\"),
    ("ba", "|"),
    ("br", "|"),
    ("or", "|"),
    ("ul", "_"),
    ("ru", "_"),
    ("sh", "#"),
    ("Do", "$"),
    ("at", "@"),
    ("sl", "/"),
    ("lB", "["),
    ("rB", "]"),
    ("lC", "{"),
    ("rC", "}"),
    ("la", "⟨"),
    ("ra", "⟩"),
    ("<-", "←"),
    ("->", "→"),
    ("<=", "≤"),
    (">=", "≥"),
    ("!=", "≠"),
    ("+-", "±"),
    ("mu", "×"),
    ("mi", "−"),
    ("pl", "+"),
    ("eq", "="),
    ("de", "°"),
    ("ss", "ß"),
    (":a", "ä"),
    (":o", "ö"),
    (":u", "ü"),
    (":A", "Ä"),
    (":O", "Ö"),
    (":U", "Ü"),
    ("'e", "é"),
];

/// The text of a line without its escapes.
pub(crate) fn plain(line: &str, strings: &Strings) -> String {
    let mut text = String::new();
    write_plain(line, strings, 0, &mut text);
    text
}

fn write_plain(line: &str, strings: &Strings, depth: usize, text: &mut String) {
    let mut rest = line.chars().peekable();
    while let Some(character) = rest.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        let Some(escape) = rest.next() else { return };
        match escape {
            '"' | '#' => return,
            '-' | '.' | ' ' | '\'' => text.push(escape),
            'e' | '\\' => text.push('\\'),
            '`' => text.push('`'),
            '~' | '0' | 't' => text.push(' '),
            '(' => push_character(&two(&mut rest), text),
            '[' => push_character(&bracketed(&mut rest), text),
            'C' => push_character(&quoted(&mut rest), text),
            'N' => text.extend(quoted(&mut rest).parse().ok().and_then(char::from_u32)),
            '*' => {
                let name = name(&mut rest);
                // A string may name others; one that names itself ends here.
                if let Some(value) = strings.get(&name).filter(|_| depth < 4) {
                    write_plain(value, strings, depth + 1, text);
                }
            }
            // Fonts, colours, registers: a name that shows nothing.
            'f' | 'F' | 'm' | 'M' | 'g' | 'k' | 'V' | 'Y' => drop(name(&mut rest)),
            'n' => {
                rest.next_if(|next| matches!(next, '+' | '-'));
                name(&mut rest);
            }
            's' => size(&mut rest),
            'h' | 'v' | 'w' | 'x' | 'b' | 'o' | 'D' | 'l' | 'L' | 'H' | 'S' | 'X' | 'Z' | 'A' | 'B' | 'R' => {
                quoted(&mut rest);
            }
            'z' => drop(rest.next()),
            // What joins, splits or moves, and what is unknown, shows nothing.
            _ => {}
        }
    }
}

fn push_character(name: &str, text: &mut String) {
    if let Some((_, shown)) = CHARACTERS.iter().find(|(known, _)| *known == name) {
        text.push_str(shown);
    } else if let Some(code) = name.strip_prefix('u') {
        let parts = code.split('_').map(|part| u32::from_str_radix(part, 16).ok().and_then(char::from_u32));
        text.extend(parts.flatten());
    }
}

type Rest<'a> = Peekable<Chars<'a>>;

/// `X`, `(XX` or `[X...]`.
fn name(rest: &mut Rest<'_>) -> String {
    match rest.next() {
        Some('(') => two(rest),
        Some('[') => bracketed(rest),
        Some(one) => one.to_string(),
        None => String::new(),
    }
}

fn two(rest: &mut Rest<'_>) -> String {
    rest.by_ref().take(2).collect()
}

fn bracketed(rest: &mut Rest<'_>) -> String {
    rest.by_ref().take_while(|next| *next != ']').collect()
}

fn quoted(rest: &mut Rest<'_>) -> String {
    let Some(quote) = rest.next() else { return String::new() };
    rest.by_ref().take_while(|next| *next != quote).collect()
}

/// `\s0`, `\s-1`, `\s+2`, `\s(12`, `\s[12]`, `\s'12'`.
fn size(rest: &mut Rest<'_>) {
    rest.next_if(|next| matches!(next, '+' | '-'));
    match rest.peek() {
        Some('(' | '[') => drop(name(rest)),
        Some('\'') => drop(quoted(rest)),
        _ => {
            let first = rest.next();
            // Only sizes of 10 to 39 have two digits without brackets.
            if matches!(first, Some('1'..='3')) {
                rest.next_if(char::is_ascii_digit);
            }
        }
    }
}

/// The words of a request: separated by spaces, in quotes where they hold some.
pub(crate) fn arguments(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|next| matches!(next, ' ' | '\t')).is_some() {}
        let is_quoted = rest.next_if_eq(&'"').is_some();
        if rest.peek().is_none() {
            return words;
        }
        let mut word = String::new();
        while let Some(next) = rest.next() {
            match next {
                '\\' if rest.peek() == Some(&'"') => return finish(words, word),
                '\\' => {
                    word.push(next);
                    word.extend(rest.next());
                }
                '"' if is_quoted && rest.next_if_eq(&'"').is_some() => word.push('"'),
                '"' if is_quoted => break,
                ' ' | '\t' if !is_quoted => break,
                _ => word.push(next),
            }
        }
        words.push(word);
    }
}

fn finish(mut words: Vec<String>, word: String) -> Vec<String> {
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_what_a_reader_sees() {
        let strings =
            Strings::from([("Aq".to_owned(), "\\(aq".to_owned()), ("loop".into(), "\\*[loop]".into())]);
        let plain = |line: &str| plain(line, &strings);
        assert_eq!(
            plain(r"\fB\-a\fR, \fI\,DATEI\/\fP \(em \(bu \[u00E4]\(:u \s-1KLEIN\s0"),
            "-a, DATEI — • äü KLEIN"
        );
        assert_eq!(plain(r"\f(CWx\fR\f[B]y\f[]\h'4'z\*(Aqs\*[loop] \e \&.text \c"), "xyz's \\ .text ");
        assert_eq!(plain("text \\\" comment"), "text ");
        assert_eq!(plain(r"ends with \"), "ends with ");
    }

    #[test]
    fn arguments_are_words_or_quoted_words() {
        assert_eq!(
            arguments(r#"LS 1 "September 2022" "say ""hi""" a\ b"#),
            ["LS", "1", "September 2022", "say \"hi\"", "a\\ b"]
        );
        assert_eq!(arguments(r#"x "" y \" comment"#), ["x", "", "y"]);
        assert!(arguments("  ").is_empty());
    }
}
