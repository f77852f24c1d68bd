//! `DATA.md`: where a pack's training text comes from, and how the pack was made of it.

use std::collections::{BTreeMap, BTreeSet};

use modularbase_corpus::TokenizedCorpus;

/// What text was used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextRole {
    /// The pack learned from it.
    Trained,
    /// General text that was mixed in.
    MixedIn,
    /// It chose the weights that ship.
    Validation,
}

impl TextRole {
    fn heading(self) -> &'static str {
        match self {
            Self::Trained => "Trained on",
            Self::MixedIn => "General text mixed in",
            Self::Validation => "Chosen by (validation; never trained on)",
        }
    }
}

/// A data card before it is written.
#[derive(Debug, Clone, Default)]
pub struct DataCard {
    title: String,
    introduction: String,
    parts: Vec<Part>,
    command: String,
    settings: String,
    facts: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
struct Part {
    role: TextRole,
    /// Share of the rows that were trained on; `None` where it says nothing.
    share: Option<f64>,
    sources: BTreeMap<String, SourceFacts>,
}

/// What is known of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct SourceFacts {
    licenses: BTreeSet<String>,
    documents: u64,
    tokens: u64,
    bytes: u64,
}

impl DataCard {
    /// The card of what is called `title`; `introduction` is Markdown.
    pub fn new(title: &str, introduction: &str) -> Self {
        Self { title: title.to_owned(), introduction: introduction.to_owned(), ..Self::default() }
    }

    /// Adds text: what each source of it is, under which licences, and how much. `share` is its share of the rows that
    /// were trained on.
    pub fn add_text(&mut self, role: TextRole, share: Option<f64>, corpora: &[&TokenizedCorpus]) {
        let mut sources: BTreeMap<String, SourceFacts> = BTreeMap::new();
        for document in corpora.iter().flat_map(|corpus| corpus.documents()) {
            let facts = sources.entry(document.source.unwrap_or("not said").to_owned()).or_default();
            facts.licenses.insert(document.license.unwrap_or("not said").to_owned());
            facts.documents += 1;
            facts.tokens += document.ids.len() as u64;
            facts.bytes += document.text_bytes;
        }
        self.parts.push(Part { role, share, sources });
    }

    /// How it was made: the command line and the settings as TOML, the seed among them.
    pub fn set_recipe(&mut self, command: &str, settings: &str) {
        self.command = command.to_owned();
        self.settings = settings.to_owned();
    }

    /// Adds a figure, such as a loss.
    pub fn add_fact(&mut self, name: &str, value: impl Into<String>) {
        self.facts.push((name.to_owned(), value.into()));
    }

    /// The card as Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("# {}\n\n{}\n", self.title, self.introduction.trim_end());
        for part in &self.parts {
            text.push_str(&format!("\n## {}\n\n", part.role.heading()));
            if let Some(share) = part.share {
                text.push_str(&format!("{:.0} % of the rows.\n\n", share * 100.0));
            }
            text.push_str(
                "| source | licence | documents | tokens | MB |\n| --- | --- | ---: | ---: | ---: |\n",
            );
            let mut all = SourceFacts::default();
            for (name, facts) in &part.sources {
                let licenses =
                    facts.licenses.iter().map(|license| cell(license)).collect::<Vec<_>>().join("; ");
                text.push_str(&row(&cell(name), &licenses, facts));
                all.documents += facts.documents;
                all.tokens += facts.tokens;
                all.bytes += facts.bytes;
            }
            if part.sources.len() > 1 {
                text.push_str(&row("**all**", "", &all));
            }
        }
        if !self.facts.is_empty() {
            text.push_str("\n## Figures\n\n| what | value |\n| --- | --- |\n");
            for (name, value) in &self.facts {
                text.push_str(&format!("| {} | {} |\n", cell(name), cell(value)));
            }
        }
        text.push_str("\n## How it was made\n");
        for (language, content) in [("sh", &self.command), ("toml", &self.settings)] {
            if !content.trim().is_empty() {
                let fence = fence(content);
                text.push_str(&format!("\n{fence}{language}\n{}\n{fence}\n", content.trim_end()));
            }
        }
        text
    }
}

fn row(name: &str, licenses: &str, facts: &SourceFacts) -> String {
    let SourceFacts { documents, tokens, bytes, .. } = facts;
    format!("| {name} | {licenses} | {documents} | {tokens} | {:.2} |\n", *bytes as f64 / 1e6)
}

/// Text of a table's cell: names of sources come from outside.
fn cell(text: &str) -> String {
    let one_line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    one_line.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;")
}

/// A fence that the content does not hold.
fn fence(content: &str) -> String {
    let longest = content.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    "`".repeat((longest + 1).max(3))
}

#[cfg(test)]
mod tests {
    use modularbase_corpus::{Document, EncodeError, EncodedConversation, Encoder, Message};

    use super::*;

    /// A token a byte.
    struct Bytes;

    impl Encoder for Bytes {
        fn text(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
            Ok(text.bytes().map(u32::from).collect())
        }

        fn conversation(&self, _: &[Message]) -> Result<EncodedConversation, EncodeError> {
            Ok(EncodedConversation { ids: Vec::new(), is_answer: Vec::new() })
        }

        fn end_of_text(&self) -> u32 {
            256
        }

        fn fingerprint(&self) -> String {
            "bytes".into()
        }
    }

    fn corpus(documents: &[(&str, &str, &str)]) -> TokenizedCorpus {
        let documents = documents.iter().enumerate().map(|(index, (source, license, text))| {
            Ok(Document {
                source: Some(source.to_string()),
                license: Some(license.to_string()),
                ..Document::text(index.to_string(), *text)
            })
        });
        TokenizedCorpus::encode(documents, &Bytes, &()).unwrap()
    }

    #[test]
    fn every_source_has_its_licences_and_sizes() {
        let text = corpus(&[("a|b", "MIT", "12345"), ("a|b", "Apache-2.0", "123"), ("c", "CC0-1.0", "1")]);
        let mut card = DataCard::new("Pack x", "What it is.");
        card.add_text(TextRole::Trained, Some(0.8), &[&text]);
        card.set_recipe("modularbase train pack x", "seed = 7\n");
        card.add_fact("loss", "1.5");
        let markdown = card.to_markdown();
        assert!(markdown.contains("| a\\|b | Apache-2.0; MIT | 2 | 8 | 0.00 |"), "{markdown}");
        assert!(markdown.contains("| **all** |  | 3 | 9 | 0.00 |"), "{markdown}");
        assert!(markdown.contains("80 % of the rows.") && markdown.contains("| loss | 1.5 |"), "{markdown}");
        assert!(markdown.contains("```toml\nseed = 7\n```"), "{markdown}");
    }

    #[test]
    fn content_cannot_end_its_fence() {
        assert_eq!(fence("a ``` b"), "````");
        assert_eq!(fence("plain"), "```");
    }
}
