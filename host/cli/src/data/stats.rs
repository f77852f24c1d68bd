//! `data stats`: what a text file or folder holds.

use std::collections::BTreeMap;
use std::path::Path;

use modularbase_core::{BaseFile, Tokenizer};
use modularbase_corpus::{
    Body, EncodeError, EncodedConversation, Encoder, Message, Progress, TokenizedCorpus, read_documents,
};
use serde_json::json;

use super::explain;
use crate::base::ChosenBase;
use crate::interrupt::{self, Meaning, Scope};
use crate::settings::Settings;
use crate::terminal::{bytes_text, notice, print, print_json, step_bar, table};

/// Documents of one source, or all of them.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
struct Counts {
    documents: u64,
    conversations: u64,
    text_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
}

impl Counts {
    fn add(&mut self, conversations: u64, text_bytes: u64, tokens: Option<u64>) {
        self.documents += 1;
        self.conversations += conversations;
        self.text_bytes += text_bytes;
        if let Some(tokens) = tokens {
            *self.tokens.get_or_insert(0) += tokens;
        }
    }
}

pub(super) fn stats(text: &Path, settings: &Settings) -> anyhow::Result<()> {
    let _scope = Scope::enter(Meaning::Cancel);
    let mut sources: BTreeMap<String, Counts> = BTreeMap::new();
    let mut all = Counts::default();
    let name = |source: Option<&str>| source.unwrap_or("(none)").to_owned();
    let documents = read_documents(text, None).map_err(explain)?;
    if let Some(encoder) = tokenizer(settings)? {
        let bar = Counted(step_bar("Counting tokens of", 0));
        let corpus = TokenizedCorpus::encode(documents, &encoder, &bar);
        bar.0.finish_and_clear();
        for document in corpus.map_err(explain)?.documents() {
            let tokens = Some(document.ids.len() as u64);
            let is_conversation = u64::from(document.is_conversation);
            all.add(is_conversation, document.text_bytes, tokens);
            sources.entry(name(document.source)).or_default().add(
                is_conversation,
                document.text_bytes,
                tokens,
            );
        }
    } else {
        for document in documents {
            interrupt::check()?;
            let document = document.map_err(explain)?;
            let is_conversation = u64::from(matches!(document.body, Body::Conversation(_)));
            let bytes = document.body.bytes();
            all.add(is_conversation, bytes, None);
            sources.entry(name(document.source.as_deref())).or_default().add(is_conversation, bytes, None);
        }
    }
    if settings.json {
        return print_json(&json!({ "text": text, "all": all, "sources": sources }));
    }
    let columns = ["SOURCE", "DOCUMENTS", "CONVERSATIONS", "TEXT", "TOKENS", "TOKENS/BYTE"];
    let mut rows = vec![columns.map(str::to_owned).to_vec()];
    let mut row = |name: &str, counts: &Counts| {
        let rate = |tokens: u64| tokens as f64 / counts.text_bytes.max(1) as f64;
        rows.push(vec![
            name.to_owned(),
            counts.documents.to_string(),
            counts.conversations.to_string(),
            bytes_text(counts.text_bytes),
            counts.tokens.map_or("-".to_owned(), |tokens| tokens.to_string()),
            counts.tokens.map_or("-".to_owned(), |tokens| format!("{:.3}", rate(tokens))),
        ]);
    };
    sources.iter().for_each(|(name, counts)| row(name, counts));
    row("all", &all);
    print(&table(&rows))
}

/// The base's tokenizer; `None`, said on stderr, where the base is not there.
fn tokenizer(settings: &Settings) -> anyhow::Result<Option<BaseTokens>> {
    let base = ChosenBase::find(&settings.host.base)?;
    if let Err(error) = base.require() {
        notice(&format!("note: tokens are not counted: {error}"));
        return Ok(None);
    }
    Ok(Some(BaseTokens(Tokenizer::of_base(&BaseFile::open(&base.path)?)?)))
}

/// Counts what the messages of a conversation say, without a template.
struct BaseTokens(Tokenizer);

impl Encoder for BaseTokens {
    fn text(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        Ok(self.0.encode(text, false)?)
    }

    fn conversation(&self, messages: &[Message]) -> Result<EncodedConversation, EncodeError> {
        let mut ids = Vec::new();
        for message in messages {
            ids.extend(self.text(&message.content)?);
        }
        let is_answer = vec![false; ids.len()];
        Ok(EncodedConversation { ids, is_answer })
    }

    /// Ids are only counted here.
    fn end_of_text(&self) -> u32 {
        0
    }

    fn fingerprint(&self) -> String {
        String::new()
    }
}

struct Counted(indicatif::ProgressBar);

impl Progress for Counted {
    fn encoded(&self, documents: u64, _: u64) {
        self.0.inc_length(documents);
        self.0.inc(documents);
    }

    fn is_cancelled(&self) -> bool {
        interrupt::is_cancelled()
    }
}
