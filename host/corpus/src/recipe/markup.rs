//! The text of XML and HTML.

use quick_xml::escape::resolve_html5_entity;
use quick_xml::events::Event;

/// Elements that say nothing to a reader.
const SILENT: [&str; 4] = ["script", "style", "head", "teiHeader"];
/// Elements within a line; every other one begins and ends a paragraph or line.
const INLINE: [&str; 34] = [
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font",
    "i", "ins", "kbd", "mark", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time",
    "tt", "u", "var", "hi", "wbr", "emph",
];
/// Elements that lines only, not paragraphs, stand for.
const LINES: [&str; 12] = ["br", "lb", "li", "tr", "dt", "dd", "td", "th", "option", "l", "item", "row"];
/// Elements of HTML that are never closed.
const VOID: [&str; 13] =
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"];

/// What elements mean, besides what those of HTML do.
#[derive(Default)]
pub(crate) struct Elements<'a> {
    /// Each outermost one is a document; `None`: the file is one.
    pub(crate) document: Option<&'a str>,
    /// Left out with all that they hold.
    pub(crate) skip: &'a [String],
    /// Within a line.
    pub(crate) inline: &'a [String],
    /// A line each.
    pub(crate) lines: &'a [String],
}

/// The texts of a file. `None` where it is no markup. HTML with unclosed or misplaced elements is read as far as it
/// goes.
pub(crate) fn texts(markup: &str, elements: &Elements<'_>) -> Option<Vec<String>> {
    let element = elements.document;
    let without_scripts = without_scripts(markup);
    let markup = without_scripts.as_str();
    let mut reader = quick_xml::Reader::from_str(markup);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    config.allow_dangling_amp = true;
    let is_silent =
        |name: &str| SILENT.contains(&name) || elements.skip.iter().any(|skipped| skipped == name);
    let mut texts = Vec::new();
    let mut text = Flow::default();
    // The element that is being skipped or taken, and how deep it is nested in itself.
    let mut skipping: Option<(String, usize)> = None;
    let mut taking: Option<usize> = element.is_none().then_some(0);
    let mut pre = 0usize;
    loop {
        let event = reader.read_event().ok()?;
        let (name, is_start, is_end) = match &event {
            Event::Start(start) => {
                let name = start.local_name().as_ref().to_owned();
                let is_void = VOID.contains(&name.to_ascii_lowercase().as_str());
                (name, true, is_void)
            }
            Event::Empty(start) => (start.local_name().as_ref().to_owned(), true, true),
            Event::End(end) => (end.local_name().as_ref().to_owned(), false, true),
            Event::Eof => break,
            _ => (String::new(), false, false),
        };
        if let Some((skipped, depth)) = &mut skipping {
            if name == *skipped && is_start != is_end {
                *depth = if is_start { *depth + 1 } else { *depth - 1 };
                if *depth == 0 {
                    skipping = None;
                }
            }
            continue;
        }
        if is_start && is_silent(&name) {
            if !is_end {
                skipping = Some((name, 1));
            }
            continue;
        }
        if element == Some(name.as_str()) && is_start != is_end {
            let depth = taking.unwrap_or(0);
            taking = if is_start { Some(depth + 1) } else { depth.checked_sub(1).filter(|depth| *depth > 0) };
            if taking.is_none() && depth > 0 {
                texts.push(std::mem::take(&mut text).done());
            }
        }
        if taking.is_none() {
            continue;
        }
        match &event {
            Event::Text(content) => text.push(&content.html_content(), pre > 0),
            Event::CData(content) => text.push(&content.html_content(), pre > 0),
            Event::GeneralRef(reference) => match reference.resolve_char_ref() {
                Ok(Some(character)) => text.push(character.encode_utf8(&mut [0; 4]), pre > 0),
                _ => text.push(resolve_html5_entity(reference).unwrap_or_default(), pre > 0),
            },
            _ if is_start || is_end => {
                let of_recipe = |names: &[String]| names.contains(&name);
                let (is_line, is_inline) = (of_recipe(elements.lines), of_recipe(elements.inline));
                let name = name.to_ascii_lowercase();
                if name == "pre" && is_start != is_end {
                    pre = if is_start { pre + 1 } else { pre.saturating_sub(1) };
                }
                if is_line || LINES.contains(&name.as_str()) {
                    text.break_line(1);
                } else if !is_inline && !INLINE.contains(&name.as_str()) {
                    text.break_line(2);
                }
            }
            _ => {}
        }
    }
    if element.is_none() {
        texts.push(text.done());
    }
    Some(texts)
}

/// The markup without what stands in `script` and `style`: it is no markup, and may look like some.
fn without_scripts(markup: &str) -> String {
    let mut kept = String::with_capacity(markup.len());
    let lower = markup.to_ascii_lowercase();
    let mut at = 0;
    let next = |from: usize| {
        let of_name = |name: &'static str| {
            let tag = format!("<{name}");
            let mut found = lower[from..].match_indices(tag.as_str()).map(|(start, _)| from + start);
            let is_tag = |start: &usize| {
                lower[start + 1 + name.len()..]
                    .starts_with(|c: char| c == '>' || c == '/' || c.is_whitespace())
            };
            found.find(is_tag).map(|start| (start, name))
        };
        ["script", "style"].into_iter().filter_map(of_name).min()
    };
    while let Some((start, name)) = next(at) {
        let Some(open) = lower[start..].find('>').map(|open| start + open + 1) else { break };
        // The tags themselves stay, so that elements around them close where they should.
        kept.push_str(&markup[at..open]);
        at = open;
        if !markup[..open].ends_with("/>") {
            let Some(end) = lower[open..].find(&format!("</{name}")) else { break };
            at = open + end;
        }
    }
    kept.push_str(&markup[at..]);
    kept
}

/// Text that flows: white space is one space, breaks are as large as the largest that was asked for.
#[derive(Default)]
struct Flow {
    text: String,
    breaks: usize,
    space: bool,
}

impl Flow {
    fn push(&mut self, piece: &str, as_it_is: bool) {
        if as_it_is && !piece.is_empty() {
            self.settle();
            self.text.push_str(piece);
            return;
        }
        for (index, word) in piece.split(char::is_whitespace).enumerate() {
            self.space |= index > 0;
            if !word.is_empty() {
                self.settle();
                self.text.push_str(word);
            }
        }
    }

    /// What stands before the next word.
    fn settle(&mut self) {
        if !self.text.is_empty() {
            let ends = self.text.bytes().rev().take_while(|byte| *byte == b'\n').count();
            if self.breaks > 0 {
                self.text.extend(std::iter::repeat_n('\n', self.breaks.saturating_sub(ends)));
            } else if self.space && ends == 0 && !self.text.ends_with(' ') {
                self.text.push(' ');
            }
        }
        (self.breaks, self.space) = (0, false);
    }

    fn break_line(&mut self, lines: usize) {
        self.breaks = self.breaks.max(lines);
    }

    fn done(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(markup: &str) -> String {
        texts(markup, &Elements::default()).unwrap().remove(0)
    }

    #[test]
    fn paragraphs_lines_and_words_flow_as_a_reader_sees_them() {
        let page = "<!DOCTYPE html><html><head><title>x</title></head><body><h1>Titel</h1>\n<p>Ein <b>fetter</b>\n \
                    Satz.<br>Neue Zeile &amp; mehr&nbsp;&uuml;ber &#228;.</p><ul><li>eins<li>zwei</ul></body></html>";
        assert_eq!(whole(page), "Titel\n\nEin fetter Satz.\nNeue Zeile & mehr über ä.\n\neins\nzwei");
    }

    #[test]
    fn preformatted_text_keeps_its_lines_and_scripts_say_nothing() {
        let page =
            "<p>So:</p><script src=\"x\"/><pre>a  b\n  c</pre><script>if (a < b) {}</script><p>fertig</p>";
        assert_eq!(whole(page), "So:\n\na  b\n  c\n\nfertig");
    }

    #[test]
    fn an_element_can_be_a_document_and_others_be_left_out() {
        let play = "<TEI><teiHeader>kein Text</teiHeader><sp><l>Wer?</l><l>Ich.</l><stage>ab</stage></sp>\
                    <x>draussen</x><sp>Halt <sp>innen</sp> Ende</sp></TEI>";
        let skip = ["stage".to_owned()];
        let speeches = Elements { document: Some("sp"), skip: &skip, ..Elements::default() };
        assert_eq!(texts(play, &speeches).unwrap(), ["Wer?\nIch.", "Halt\n\ninnen\n\nEnde"]);
        let (inline, lines) = (["name".to_owned()], ["desc".to_owned()]);
        let codes = Elements { inline: &inline, lines: &lines, ..Elements::default() };
        let list = "<c> <name>A0</name> <desc>x</desc> <desc>y</desc> </c>";
        assert_eq!(texts(list, &codes).unwrap(), ["A0\nx\ny"]);
    }

    #[test]
    fn broken_markup_is_read_as_far_as_it_is_markup() {
        assert_eq!(whole("</p>Text &unknown; & mehr</b>").replace('\n', ""), "Text & mehr");
        assert!(texts("Text <", &Elements::default()).is_none());
    }
}
