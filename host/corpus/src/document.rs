//! One document of a corpus, and the formats that records may have.

use std::fmt;
use std::str::FromStr;

/// A document: what is never cut apart between the parts of a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its name in the corpus; where the record gives none, file and line.
    pub id: String,
    /// What belongs together (a book's chapters, a person's messages): all of it falls into one part of a split.
    pub group: Option<String>,
    /// Where it comes from, as evaluations report it.
    pub source: Option<String>,
    /// Its licence, as the record says.
    pub license: Option<String>,
    /// Its text.
    pub body: Body,
}

/// The text of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Running text.
    Text(String),
    /// Messages that take turns; questions and answers, instructions and outputs are two of them.
    Conversation(Vec<Message>),
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

impl Document {
    /// A document of running text with no more known about it.
    pub fn text(id: impl Into<String>, text: impl Into<String>) -> Self {
        Self { id: id.into(), group: None, source: None, license: None, body: Body::Text(text.into()) }
    }

    /// What stays together in a split: the group, else the document itself.
    pub fn group_or_id(&self) -> &str {
        self.group.as_deref().unwrap_or(&self.id)
    }
}

impl Body {
    /// UTF-8 bytes of the text; of a conversation, of what its messages say, without roles and template.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Conversation(messages) => messages.iter().map(|message| message.content.len() as u64).sum(),
        }
    }

    /// The pieces of text in order: one, or one a message.
    pub fn pieces(&self) -> impl Iterator<Item = &str> {
        let (text, messages) = match self {
            Self::Text(text) => (Some(text.as_str()), &[][..]),
            Self::Conversation(messages) => (None, messages.as_slice()),
        };
        text.into_iter().chain(messages.iter().map(|message| message.content.as_str()))
    }
}

/// How a record of JSONL holds its document. Besides these fields, `id`, `group`, `source` and `license` are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `text`.
    Text,
    /// `messages` or `conversations`: objects with `role` and `content`, or `from` and `value`.
    Conversations,
    /// `instruction` and `output`, and perhaps `input` and `system`.
    InstructionOutput,
    /// `question` and `answer`, and perhaps `system`.
    QuestionAnswer,
}

impl Format {
    /// Every format, in the order in which they are looked for.
    pub const ALL: [Self; 4] =
        [Self::Text, Self::Conversations, Self::InstructionOutput, Self::QuestionAnswer];

    /// The name that it is asked for by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Conversations => "conversations",
            Self::InstructionOutput => "instruction-output",
            Self::QuestionAnswer => "question-answer",
        }
    }

    /// The fields that a record of it must have, in words.
    pub(crate) const fn fields(self) -> &'static str {
        match self {
            Self::Text => "`text`",
            Self::Conversations => "`messages` (a list of `role` and `content`)",
            Self::InstructionOutput => "`instruction` and `output`",
            Self::QuestionAnswer => "`question` and `answer`",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{}` is no format of records; expected one of {names}", text.escape_debug())
        })
    }
}
