//! A conversation that may be kept under a name, and may begin with a document.

use std::path::Path;
use std::time::Instant;

use manifests::{MixtureChoice, Sha256};
use modularbase_context::{ContextError, Sessions};
use modularbase_core::ChatMessage;
use modularbase_engine::{EngineError, Session};
use serde::{Deserialize, Serialize};

use crate::arguments::KeepArguments;
use crate::failure::Failure;
use crate::interrupt;
use crate::model::{Model, explain};
use crate::settings::{Settings, sessions_folder};
use crate::terminal::notice;

/// What a session notes beside its text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Note {
    /// The session that noted it: another one may begin with its text.
    session: String,
    /// The conversation, the system message first where there is one.
    pub(crate) messages: Vec<ChatMessage>,
    /// Instructions that were given, without the document.
    system: Option<String>,
    /// The document that it begins with.
    pub(crate) document: Option<KeptDocument>,
}

/// A document that a conversation begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptDocument {
    /// The file's name when it was read.
    pub(crate) file: String,
    /// Bytes of its text.
    pub(crate) bytes: usize,
    sha256: String,
}

/// A conversation and the session that its answers come from.
pub(crate) struct Conversation<'a> {
    pub(crate) session: Session<'a>,
    pub(crate) messages: Vec<ChatMessage>,
    /// Whether there were messages when it was opened.
    pub(crate) goes_on: bool,
    /// `None`: it isn't kept.
    name: Option<String>,
    system: Option<String>,
    document: Option<KeptDocument>,
    /// Messages that it begins with: instructions and document.
    first: usize,
}

/// The settings with a window where a conversation is to be kept or may be long.
pub(crate) fn settings_for(arguments: &KeepArguments, settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.host.context.enabled |= arguments.session.is_some() || arguments.context_file.is_some();
    settings
}

impl<'a> Conversation<'a> {
    /// Opens or begins what the arguments say: reads the document where no session has read it yet.
    pub(crate) fn open(
        model: &'a Model,
        choice: MixtureChoice,
        arguments: &KeepArguments,
        system: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut begin = system.map(str::to_owned);
        let mut document = None;
        if let Some(path) = &arguments.context_file {
            let (text, kept) = read_document(path)?;
            begin = Some(match begin {
                Some(system) => format!("{system}\n\n{text}"),
                None => text,
            });
            document = Some(kept);
        }
        let first: Vec<ChatMessage> = begin.map(ChatMessage::system).into_iter().collect();
        let prefix = match document {
            Some(_) => beginning(model, &first)?,
            None => Vec::new(),
        };
        let instructions = match system {
            Some(system) => beginning(model, &[ChatMessage::system(system)])?.len(),
            None => 0,
        };
        let begun = Instant::now();
        let mut session = open_session(model, choice, arguments, &prefix, instructions)?;
        tell(&mut session);
        if let Some(first) = session.first_tokens().filter(|first| *first < instructions) {
            notice(&format!(
                "note: of a long conversation the first {first} of the {instructions} tokens of --system always stay; more \
                 have no room in the window"
            ));
        }
        let mut conversation = Self {
            first: first.len(),
            messages: first,
            goes_on: false,
            name: arguments.session.clone(),
            system: system.map(str::to_owned),
            document,
            session,
        };
        conversation.take_up_note(begun)?;
        conversation.read_document(&prefix)?;
        Ok(conversation)
    }

    /// Goes on with the messages that the session noted.
    fn take_up_note(&mut self, begun: Instant) -> anyhow::Result<()> {
        let Some(name) = &self.name else { return Ok(()) };
        let Some(text) = self.session.take_note() else { return Ok(()) };
        let note: Note = serde_json::from_str(&text).map_err(|error| {
            Failure::usage(format!("session `{name}` was not noted by `chat` or `run`: {error}"))
        })?;
        if note.session != *name {
            return Ok(());
        }
        let refused = |what: &str| {
            let failure = Failure::usage(format!("session `{name}` began with {what}"));
            Err(failure.help("leave it out to go on, or take another name for the session").into())
        };
        if self.system.is_some() && self.system != note.system {
            return refused("other instructions than --system says");
        }
        let digest = |document: &Option<KeptDocument>| document.as_ref().map(|kept| kept.sha256.clone());
        if self.document.is_some() && digest(&self.document) != digest(&note.document) {
            return refused("another text than --context-file has, or none");
        }
        let said = note.messages.iter().filter(|message| message.role != "system").count();
        notice(&format!(
            "session `{name}` goes on: {said} messages, {} tokens, opened in {:.0} ms",
            self.session.tokens(),
            begun.elapsed().as_secs_f64() * 1e3
        ));
        self.first = note.messages.iter().take_while(|message| message.role == "system").count();
        self.goes_on = said > 0;
        (self.messages, self.system, self.document) = (note.messages, note.system, note.document);
        Ok(())
    }

    /// Reads the document, where its caches are not there yet, and has them kept for other sessions.
    fn read_document(&mut self, prefix: &[u32]) -> anyhow::Result<()> {
        let Some(document) = self.document.as_ref().filter(|_| !prefix.is_empty()) else { return Ok(()) };
        let known = self.session.known_tokens(prefix);
        if known == prefix.len() {
            if !self.goes_on {
                notice(&format!("{}: {known} tokens that were read before", document.file));
            }
            return Ok(());
        }
        let (begun, file) = (Instant::now(), document.file.clone());
        let read = self.session.read(prefix, interrupt::flag()).map_err(explain)?;
        let seconds = begun.elapsed().as_secs_f64();
        tell(&mut self.session);
        notice(&format!("{file}: {} tokens, {read} of them read in {seconds:.1} s", prefix.len()));
        if self.session.known_tokens(prefix) == prefix.len() {
            self.keep(true);
        }
        Ok(())
    }

    /// Saves the conversation where it is kept. One that can't be saved goes on; it is said why.
    pub(crate) fn save(&mut self) {
        tell(&mut self.session);
        if self.name.is_some() {
            self.keep(false);
        }
    }

    /// Begins anew, behind instructions and document.
    pub(crate) fn start_over(&mut self) {
        self.messages.truncate(self.first);
    }

    fn keep(&mut self, as_prefix: bool) {
        // Lent to the note for the time being: a document is long.
        let mut note = Note {
            session: self.name.clone().unwrap_or_default(),
            messages: std::mem::take(&mut self.messages),
            system: self.system.clone(),
            document: self.document.clone(),
        };
        let text = serde_json::to_string(&note).unwrap_or_default();
        self.messages = std::mem::take(&mut note.messages);
        if let Err(error) = self.session.save(&text, as_prefix) {
            notice(&format!("note: the conversation is not kept: {error}"));
        }
    }

    /// The messages that were said, for people: without instructions and document.
    pub(crate) fn said(&self) -> impl Iterator<Item = &ChatMessage> {
        self.messages.iter().filter(|message| message.role != "system")
    }
}

/// The session of the arguments. A document without a session has one of its own, which others begin with; while
/// another process is at that one, its text is read for this conversation alone. Of a text beyond its window the first
/// `instructions` tokens stay.
fn open_session<'a>(
    model: &'a Model,
    choice: MixtureChoice,
    arguments: &KeepArguments,
    prefix: &[u32],
    instructions: usize,
) -> anyhow::Result<Session<'a>> {
    let name = match (&arguments.session, prefix.is_empty()) {
        (Some(name), _) => name.clone(),
        (None, true) => return Session::keeping(&model.host, choice, instructions).map_err(explain),
        (None, false) => {
            let options = model.host.context_options().map(ToString::to_string).unwrap_or_default();
            let mut bytes = format!("{} {options}", model.host.kv_identity()).into_bytes();
            bytes.extend(prefix.iter().flat_map(|token| token.to_le_bytes()));
            format!("document-{:.16}", Sha256::of_bytes(&bytes).to_string())
        }
    };
    let sessions = Sessions::new(&sessions_folder()?);
    match Session::open(&model.host, choice.clone(), &sessions, &name, prefix, instructions) {
        Err(EngineError::Kept(error))
            if arguments.session.is_none() && matches!(*error, ContextError::InUse { .. }) =>
        {
            notice(&format!("note: {error}; the document is read for this conversation alone"));
            Session::keeping(&model.host, choice, instructions).map_err(explain)
        }
        opened => opened.map_err(explain),
    }
}

/// The tokens that every conversation with these first messages begins with.
fn beginning(model: &Model, first: &[ChatMessage]) -> anyhow::Result<Vec<u32>> {
    let with = |question: &str| model.chat_tokens(&[first, &[ChatMessage::user(question)]].concat(), false);
    let (mut one, other) = (with("a")?, with("1")?);
    one.truncate(one.iter().zip(&other).take_while(|(a, b)| a == b).count());
    Ok(one)
}

fn read_document(path: &Path) -> anyhow::Result<(String, KeptDocument)> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::usage(format!("--context-file: can't read {}: {error}", path.display())))?;
    let sha256 = Sha256::of_bytes(&bytes).to_string();
    let text = crate::prompt::utf8(bytes, &path.display().to_string())?;
    if text.trim().is_empty() {
        return Err(Failure::usage(format!("--context-file: {} is empty", path.display())).into());
    }
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let document = KeptDocument { file, bytes: text.len(), sha256 };
    Ok((text, document))
}

/// Says what the session had to give up.
fn tell(session: &mut Session<'_>) {
    for given_up in session.take_notices() {
        notice(&format!("note: {given_up}"));
    }
}
