//! Requests of mdoc(7), as far as text needs them.

use super::man_page::Page;

/// Requests that only say how their words look.
const LOOKS: [&str; 23] = [
    "Em", "Sy", "Li", "Ic", "Cm", "Va", "Vt", "Fa", "Ft", "Fn", "Pa", "Ev", "Er", "Dv", "Ad", "An", "Tn",
    "No", "Cd", "Ms", "Sx", "Mt", "Lk",
];

/// What a request puts around its words.
fn around(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "Op" | "Bq" | "Oo" => ("[", "]"),
        "Pq" => ("(", ")"),
        "Aq" => ("<", ">"),
        "Brq" => ("{", "}"),
        "Dq" => ("“", "”"),
        "Sq" | "Ql" => ("‘", "’"),
        "Qq" => ("\"", "\""),
        _ => return None,
    })
}

/// Does what a request asks; one that is unknown shows nothing.
pub(crate) fn request(page: &mut Page, name: &str, words: &[String]) {
    match name {
        "Dt" => {
            let title = words.first().cloned().unwrap_or_default();
            let section = words.get(1).map(|section| format!("({section})")).unwrap_or_default();
            page.text_line(&format!("{title}{section}"));
            page.break_line(2);
        }
        "Sh" | "Ss" => page.heading(&inline(page, words)),
        "Pp" | "Lp" => page.break_line(2),
        "Bl" | "El" => page.break_line(2),
        "Bd" => {
            page.break_line(2);
            page.set_fills(!words.iter().any(|word| matches!(word.as_str(), "-literal" | "-unfilled")));
        }
        "Ed" => {
            page.break_line(2);
            page.set_fills(true);
        }
        "D1" | "Dl" => {
            page.break_line(1);
            page.text_line(&inline(page, words));
            page.break_line(1);
        }
        "It" => {
            page.break_line(2);
            let tag = inline(page, words);
            if !tag.is_empty() {
                page.text_line(&tag);
                page.break_line(1);
            }
        }
        "Nm" if !words.is_empty() && page.name.is_empty() => {
            page.name = words[0].clone();
            page.text_line(&inline(page, words));
        }
        "Nd" => page.text_line(&format!("– {}", words.join(" "))),
        "Nm" | "Fl" | "Ar" | "Xr" | "Nx" | "Fx" | "Ox" | "Bx" => {
            let all: Vec<String> = std::iter::once(name.to_owned()).chain(words.iter().cloned()).collect();
            let text = inline(page, &all);
            page.text_line(&text);
        }
        _ if around(name).is_some() || LOOKS.contains(&name) => {
            let all: Vec<String> = std::iter::once(name.to_owned()).chain(words.iter().cloned()).collect();
            let text = inline(page, &all);
            page.text_line(&text);
        }
        _ => {}
    }
}

/// The words of a line, requests among them done.
fn inline(page: &Page, words: &[String]) -> String {
    let mut text = String::new();
    let mut joins = true;
    let mut closing = Vec::new();
    let mut words = words.iter().map(String::as_str).peekable();
    let is_request = |word: &str| {
        around(word).is_some()
            || LOOKS.contains(&word)
            || matches!(word, "Fl" | "Ar" | "Nm" | "Xr" | "Ns" | "Ap")
    };
    let is_punctuation = |word: &str| matches!(word, "." | "," | ";" | ":" | ")" | "]" | "?" | "!");
    while let Some(word) = words.next() {
        let mut put = |piece: &str| {
            if !joins && !is_punctuation(piece) {
                text.push(' ');
            }
            text.push_str(piece);
            joins = matches!(piece, "(" | "[");
        };
        let has_words = words.peek().is_some_and(|next| !is_request(next) && !is_punctuation(next));
        match word {
            "Fl" if !has_words => put("-"),
            "Fl" => {
                while let Some(flag) = words.next_if(|next| !is_request(next) && !is_punctuation(next)) {
                    put(&format!("-{flag}"));
                }
            }
            "Ar" if !has_words => put("file ..."),
            "Nm" if !has_words => put(&page.name),
            "Xr" => {
                let name = words.next().unwrap_or_default();
                let is_section = |next: &&str| next.starts_with(|c: char| c.is_ascii_digit());
                match words.next_if(is_section) {
                    Some(section) => put(&format!("{name}({section})")),
                    None => put(name),
                }
            }
            "Ns" => joins = true,
            "Ap" => {
                text.push('\'');
                joins = true;
            }
            _ => match around(word) {
                Some((open, close)) => {
                    put(open);
                    joins = true;
                    closing.push(close);
                }
                None if is_request(word) => {}
                None => put(word),
            },
        }
    }
    // Punctuation at the end stands behind what is closed.
    let ends = text.trim_end_matches(['.', ',', ';', ':']).len();
    let punctuation =
        if closing.is_empty() || text.ends_with("...") { String::new() } else { text.split_off(ends) };
    closing.into_iter().rev().for_each(|close| text.push_str(close));
    text + &punctuation
}
