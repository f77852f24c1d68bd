//! Text to token ids and back, as the base's own files say.

mod error;
mod from_folder;
mod from_gguf;
mod pieces;
mod token_bytes;

use std::collections::BTreeSet;

use tokenizers::{Model, Normalizer, OffsetType, PreTokenizedString, PreTokenizer};

pub use error::TokenizerError;

use crate::base_files::{BaseFile, TokenizerSource};
use crate::chat_template::{ChatMessage, ChatTemplate};
use token_bytes::TokenSpelling;

/// Special tokens that end an answer in the bases known here, whichever of them a file names as its one end.
const ENDS: [&str; 9] = [
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
    "<eos>",
];
/// Special tokens that end a document, in order of preference.
const DOCUMENT_ENDS: [&str; 4] = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"];

/// A prompt made from chat messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedChat {
    pub text: String,
    /// False where the base has no chat template and the messages were only joined by blank lines; the caller
    /// should say so.
    pub from_template: bool,
}

/// A base's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    spelling: TokenSpelling,
    /// Ids that stand for no text.
    special: BTreeSet<u32>,
    /// Ids whose text is literal although the vocabulary is spelled otherwise.
    literal: BTreeSet<u32>,
    eos: BTreeSet<u32>,
    bos: Option<u32>,
    add_bos: bool,
    document_end: Option<u32>,
    chat_template: Option<ChatTemplate>,
}

/// What each source of a tokenizer provides; the rest follows from it.
struct Parts {
    inner: tokenizers::Tokenizer,
    spelling: TokenSpelling,
    /// The ends that the files name; well-known ones are added.
    eos: BTreeSet<u32>,
    bos: Option<u32>,
    add_bos: bool,
    chat_template: Option<ChatTemplate>,
    largest_id: Option<u32>,
}

impl Tokenizer {
    /// The tokenizer of a base, from its GGUF metadata or its `tokenizer.json`.
    ///
    /// Errors: a tokenizer that is missing, unsound, of an unknown kind, or larger than the base's vocabulary.
    pub fn of_base(base: &BaseFile) -> Result<Self, TokenizerError> {
        let parts = match base.tokenizer_source() {
            TokenizerSource::Gguf(header) => from_gguf::read(base.path(), header)?,
            TokenizerSource::Folder(folder) => from_folder::read(folder)?,
        };
        let vocab_size = base.shape().vocab_size;
        if let Some(largest) = parts.largest_id.filter(|id| *id as usize >= vocab_size) {
            let path = base.path().to_path_buf();
            return Err(TokenizerError::LargerThanVocabulary { path, largest, vocab_size });
        }
        Ok(Self::from_parts(parts))
    }

    fn from_parts(parts: Parts) -> Self {
        let Parts { inner, spelling, mut eos, bos, add_bos, chat_template, largest_id: _ } = parts;
        let (mut special, mut literal) = (BTreeSet::new(), BTreeSet::new());
        for (id, token) in inner.get_added_vocabulary().get_added_tokens_decoder() {
            if token.special {
                special.insert(*id)
            } else {
                literal.insert(*id)
            };
        }
        let special_id = |name: &&str| inner.token_to_id(name).filter(|id| special.contains(id));
        eos.extend(ENDS.iter().filter_map(special_id));
        let document_end = DOCUMENT_ENDS.iter().find_map(special_id).or_else(|| eos.iter().next().copied());
        Self { inner, spelling, special, literal, eos, bos, add_bos, document_end, chat_template }
    }

    /// The ids of a text in one piece.
    fn encode_piece(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let wrong = |error: tokenizers::Error| TokenizerError::Encode { why: error.to_string() };
        if parse_special {
            return Ok(self.inner.encode_fast(text, false).map_err(wrong)?.get_ids().to_vec());
        }
        // The same steps, less the one that looks for added tokens.
        let mut pieces = PreTokenizedString::from(text);
        if let Some(normalizer) = self.inner.get_normalizer() {
            pieces.normalize(|piece| normalizer.normalize(piece)).map_err(wrong)?;
        }
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces).map_err(wrong)?;
        }
        let model = self.inner.get_model();
        pieces.tokenize(|piece| model.tokenize(piece.get())).map_err(wrong)?;
        let encoding = pieces.into_encoding(None, 0, OffsetType::None).map_err(wrong)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// [`Tokenizer::encode`] for the start of a sequence: begins with the begin-of-text token where the base
    /// wants one and the text does not already spell it.
    pub fn encode_prompt(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.encode(text, parse_special)?;
        if let Some(bos) = self.bos.filter(|bos| self.add_bos && ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// The text of `ids`, special tokens left out. Bytes that are not UTF-8 become U+FFFD, ids outside the
    /// vocabulary nothing. A leading space that SentencePiece puts before the first word is kept.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for id in ids {
            self.append_token_bytes(*id, &mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Appends the bytes of one token; none for a special token or an id outside the vocabulary.
    pub fn append_token_bytes(&self, id: u32, out: &mut Vec<u8>) {
        if self.is_special(id) {
            return;
        }
        if let Some(text) = self.inner.id_to_token(id) {
            let spelling = if self.literal.contains(&id) { TokenSpelling::Plain } else { self.spelling };
            spelling.append(&text, out);
        }
    }

    /// The token's own spelling in the vocabulary, special or not, for people to read.
    pub fn spelling(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token spelled exactly so in the vocabulary.
    pub fn id_of(&self, spelling: &str) -> Option<u32> {
        self.inner.token_to_id(spelling)
    }

    /// Whether the token stands for no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// Whether the token ends an answer: the end of the text or of a turn.
    pub fn is_end(&self, id: u32) -> bool {
        self.eos.contains(&id)
    }

    /// All tokens that end an answer, ascending.
    pub fn ends(&self) -> impl Iterator<Item = u32> + '_ {
        self.eos.iter().copied()
    }

    /// The token between two documents of training text.
    pub fn document_end(&self) -> Option<u32> {
        self.document_end
    }

    /// The begin-of-text token, and whether a prompt starts with it.
    pub fn begin(&self) -> (Option<u32>, bool) {
        (self.bos, self.add_bos)
    }

    /// Tokens known to the tokenizer; the base's embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    pub fn has_chat_template(&self) -> bool {
        self.chat_template.is_some()
    }

    /// The prompt for a conversation; with `add_generation_prompt` it ends where the assistant's answer
    /// begins. Encode it with `parse_special`.
    ///
    /// Errors: a template that does not compile, or that refuses the messages.
    pub fn render_chat(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<RenderedChat, TokenizerError> {
        match &self.chat_template {
            Some(template) => {
                let text = template.render(messages, add_generation_prompt)?;
                Ok(RenderedChat { text, from_template: true })
            }
            None => {
                let contents: Vec<_> = messages.iter().map(|message| message.content.as_str()).collect();
                Ok(RenderedChat { text: contents.join("\n\n"), from_template: false })
            }
        }
    }
}
