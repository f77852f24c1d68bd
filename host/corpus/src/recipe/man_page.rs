//! The text of manual pages, as man(7) and mdoc(7) write them.

use super::mdoc;
use super::troff_text::{Strings, arguments, plain};

/// The text of a page; `None` for one that only points to another, or holds no request at all.
pub(crate) fn text(source: &str) -> Option<String> {
    if !source.lines().any(|line| line.starts_with(".SH") || line.starts_with(".Sh")) {
        return None;
    }
    let mut page = Page { fills: true, ..Page::default() };
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        page.line(line, &mut lines);
    }
    page.break_line(1);
    page.out.truncate(page.out.trim_end().len());
    Some(page.out + "\n")
}

/// A page in the making.
#[derive(Default)]
pub(crate) struct Page {
    out: String,
    /// The line that is being filled.
    current: String,
    fills: bool,
    /// The next line is the tag of a paragraph and stands alone.
    tag_follows: bool,
    /// The last `.ie`, for the `.el` that follows it.
    was_true: bool,
    /// Nothing stands below the last heading yet.
    is_below_heading: bool,
    strings: Strings,
    /// The command's name as an mdoc page gives it once.
    pub(crate) name: String,
}

impl Page {
    fn line<'a>(&mut self, line: &str, rest: &mut impl Iterator<Item = &'a str>) {
        let line = line.trim_end_matches('\r');
        let Some(request) = line.strip_prefix(['.', '\'']).filter(|_| !line.starts_with("'\\\"")) else {
            let text = plain(line.trim_end_matches("\\}"), &self.strings);
            return self.text_line(&text);
        };
        let request = request.trim_start();
        let end = request.find(|c: char| c.is_whitespace() || c == '\\').unwrap_or(request.len());
        let (name, after) = request.split_at(end);
        match name {
            // The body of a definition or of an ignored part.
            "de" | "de1" | "am" | "ig" => {
                let end =
                    if name == "ig" { after.trim() } else { after.split_whitespace().nth(1).unwrap_or("") };
                let end = format!(".{}", if end.is_empty() { "." } else { end });
                rest.by_ref().find(|line| line.trim_end() == end);
            }
            "ds" => {
                let after = after.trim_start();
                let (name, value) = after.split_once(' ').unwrap_or((after, ""));
                let value = value.trim_start();
                let value = value.strip_prefix('"').unwrap_or(value);
                self.strings.insert(name.to_owned(), value.to_owned());
            }
            "if" | "ie" => {
                let (holds, body) = condition(after.trim_start(), &self.strings);
                self.was_true = holds;
                self.body(holds, body, rest);
            }
            "el" => self.body(!self.was_true, after.trim_start(), rest),
            "TS" => self.table(rest),
            // A page that goes on in another one.
            "so" => {}
            _ => {
                let words: Vec<String> =
                    arguments(after).iter().map(|word| plain(word, &self.strings)).collect();
                self.request(name, &words);
            }
        }
    }

    /// What an `.if` guards: the rest of its line, or the lines up to the brace that closes.
    fn body<'a>(&mut self, holds: bool, body: &str, rest: &mut impl Iterator<Item = &'a str>) {
        let Some(first) = body.strip_prefix("\\{") else {
            if holds && !body.is_empty() {
                self.line(body, rest);
            }
            return;
        };
        let mut line = first.trim_start_matches('\\');
        let mut depth = 1usize;
        loop {
            depth = (depth + line.matches("\\{").count()).saturating_sub(line.matches("\\}").count());
            if holds {
                // Its own lines are ordinary ones, and the closing brace shows nothing.
                if !line.trim().is_empty() {
                    self.line(line, rest);
                }
                return;
            }
            if depth == 0 {
                return;
            }
            match rest.next() {
                Some(next) => line = next,
                None => return,
            }
        }
    }

    /// A table of tbl(1): cells by their separator, without the lines that format them.
    fn table<'a>(&mut self, rest: &mut impl Iterator<Item = &'a str>) {
        self.break_line(2);
        let mut separator = '\t';
        let mut is_format = true;
        for line in rest.by_ref().take_while(|line| !line.starts_with(".TE")) {
            if is_format {
                if let Some((_, after)) = line.split_once("tab").filter(|_| line.trim_end().ends_with(';')) {
                    separator = after.trim_start().chars().nth(1).unwrap_or('\t');
                }
                is_format = !line.trim_end().ends_with('.');
                continue;
            }
            if line.starts_with(".T&") {
                is_format = true;
            } else if !line.starts_with(['.', '\'', '_', '=']) {
                let cells: Vec<String> = line
                    .split(separator)
                    .map(|cell| plain(cell.trim_start_matches("T{").trim_start_matches("T}"), &self.strings))
                    .filter(|cell| !cell.trim().is_empty())
                    .collect();
                self.current.push_str(&cells.join("  "));
                self.break_line(1);
            }
        }
        self.break_line(2);
    }

    fn request(&mut self, name: &str, words: &[String]) {
        match name {
            "TH" => {
                let title = words.first().cloned().unwrap_or_default();
                self.current = words.get(1).map_or(title.clone(), |section| format!("{title}({section})"));
                self.break_line(2);
            }
            "SH" | "SS" => {
                self.break_line(2);
                self.fills = true;
                self.current = words.join(" ");
                // A heading without words is the next line.
                if words.is_empty() {
                    self.tag_follows = true
                } else {
                    self.break_line(1)
                }
                self.is_below_heading = true;
            }
            "PP" | "P" | "LP" | "HP" | "sp" | "RS" | "RE" => {
                self.break_line(if matches!(name, "RS" | "RE") { 1 } else { 2 });
            }
            "br" => self.break_line(1),
            "TP" | "TQ" => {
                self.break_line(if name == "TP" { 2 } else { 1 });
                self.tag_follows = true;
            }
            "IP" => {
                self.break_line(2);
                if let Some(tag) = words.first().filter(|tag| !tag.trim().is_empty()) {
                    self.current = tag.clone();
                    // A bullet or number stands before its text, a longer tag above it.
                    if tag.chars().count() > 3 { self.break_line(1) } else { self.current.push(' ') }
                }
            }
            "nf" | "EX" => {
                self.break_line(1);
                self.fills = false;
            }
            "fi" | "EE" => {
                self.break_line(1);
                self.fills = true;
            }
            "B" | "I" | "SM" | "SB" | "R" | "CW" => self.text_line(&words.join(" ")),
            "BR" | "RB" | "BI" | "IB" | "IR" | "RI" => self.text_line(&words.concat()),
            "OP" => self.text_line(&format!("[{}]", words.join(" "))),
            "SY" => {
                self.break_line(1);
                self.text_line(&words.join(" "));
            }
            "UR" | "MT" => self.text_line(&words.join(" ")),
            "UE" | "ME" => {
                if let Some(after) = words.first() {
                    self.current.push_str(after);
                }
            }
            _ => mdoc::request(self, name, words),
        }
    }

    /// A line of text, filled or alone.
    pub(crate) fn text_line(&mut self, text: &str) {
        if text.trim().is_empty() {
            if self.current.is_empty() && self.fills {
                return self.break_line(2);
            }
            return if self.fills { self.break_line(2) } else { self.out.push('\n') };
        }
        if !self.fills {
            self.current.push_str(text.trim_end());
            return self.break_line(1);
        }
        if text.starts_with(' ') {
            // A line that begins with a space begins a new one.
            self.break_line(1);
        }
        if !self.current.is_empty() && !self.current.ends_with(' ') {
            self.current.push(' ');
        }
        self.current.push_str(text.trim());
        if std::mem::take(&mut self.tag_follows) {
            self.break_line(1);
        }
    }

    /// Ends the line; `lines` 2 leaves one empty below it.
    pub(crate) fn break_line(&mut self, lines: usize) {
        let line = std::mem::take(&mut self.current);
        self.out.push_str(line.trim_end());
        if self.out.is_empty() {
            return;
        }
        if line.trim().is_empty() && self.is_below_heading {
            return;
        }
        self.is_below_heading = false;
        let ends = self.out.bytes().rev().take_while(|byte| *byte == b'\n').count();
        self.out.extend(std::iter::repeat_n('\n', lines.saturating_sub(ends)));
    }

    /// A heading of its own.
    pub(crate) fn heading(&mut self, text: &str) {
        self.break_line(2);
        self.current = text.to_owned();
        self.break_line(1);
        self.is_below_heading = true;
    }

    pub(crate) fn set_fills(&mut self, fills: bool) {
        self.fills = fills;
    }
}

/// Whether a condition holds for a reader at a terminal, and what it guards.
fn condition<'t>(text: &'t str, strings: &Strings) -> (bool, &'t str) {
    let (is_negated, text) = match text.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let quote = text.chars().next().filter(|first| matches!(first, '\'' | '"'));
    let (holds, rest) = if let Some(quote) = quote {
        let parts: Vec<&str> = text.splitn(4, quote).collect();
        match parts[..] {
            [_, left, right, rest] => (plain(left, strings) == plain(right, strings), rest),
            _ => (false, ""),
        }
    } else {
        let end = text.find([' ', '\t']).unwrap_or(text.len());
        // A brace may follow without a space.
        let end = text.find("\\{").map_or(end, |brace| end.min(brace));
        let (word, rest) = text.split_at(end);
        // nroff, and a troff with GNU's extensions; other numbers and registers count as 0.
        (word == "n" || word.starts_with("\\n(.g") || word == "1", rest)
    };
    (holds != is_negated, rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn a_man_page_reads_as_a_terminal_shows_it() {
        let page = ".\\\" comment\n.ie n .ds Q ja\n.el .ds Q nein\n.TH LS 1 \"2022\"\n.SH NAME\nls \\- list\n.SH OPTIONS\n.PP\n\
                    Some text\nthat flows \\*Q.\n.TP\n\\fB\\-a\\fR\nShows\n.B all\nof them.\n.IP \\(bu 2\nA point.\n.nf\n  a   b\n.fi\n\
                    .BR ls (1),\n.RI [ x ]\n.if t not shown\n.if n \\{\\\nshown\n.\\}\n.if t \\{\\\nnot\n.\\}\n.de XX\nno\n..\nend\n";
        assert_eq!(
            text(page).unwrap(),
            "LS(1)\n\nNAME\nls - list\n\nOPTIONS\nSome text that flows ja.\n\n-a\nShows all of them.\n\n• A point.\n  a   b\n\
             ls(1), [x] shown end\n"
        );
    }

    #[test]
    fn tables_keep_their_cells() {
        let page = ".SH A\ntext\n.TS\ntab(|);\nl l.\na|b\n_\nc|d\n.TE\nmore\n";
        assert_eq!(text(page).unwrap(), "A\ntext\n\na  b\nc  d\n\nmore\n");
    }

    #[test]
    fn an_mdoc_page_reads_so_too() {
        let page = ".Dd May 1, 2020\n.Dt CAT 1\n.Os\n.Sh NAME\n.Nm cat\n.Nd concatenate files\n.Sh SYNOPSIS\n.Nm\n.Op Fl benu\n\
                    .Op Ar\n.Sh OPTIONS\nThe options:\n.Bl -tag -width x\n.It Fl b , Fl -blank\nNumber\n.Em all\nlines, see\n.Xr nl 1 .\n.El\n";
        assert_eq!(
            text(page).unwrap(),
            "CAT(1)\n\nNAME\ncat – concatenate files\n\nSYNOPSIS\ncat [-benu] [file ...]\n\nOPTIONS\nThe options:\n\n-b, --blank\n\
             Number all lines, see nl(1).\n"
        );
    }

    #[test]
    fn a_page_that_points_elsewhere_has_no_text() {
        assert_eq!(text(".so man1/ls.1\n"), None);
        assert_eq!(text("plain text\n"), None);
    }
}
