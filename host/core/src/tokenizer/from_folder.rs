//! A tokenizer from a Hugging Face folder.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Parts, TokenSpelling, TokenizerError};
use crate::base_files::{BaseFileError, read_json_bytes};
use crate::chat_template::ChatTemplate;

/// An id or a list of ids.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

#[derive(Deserialize, Default)]
struct EndIds {
    eos_token_id: Option<Ids>,
}

/// A token by its text, or by an object that holds it.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenText {
    Text(String),
    Object { content: String },
}

impl TokenText {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Object { content: text } => text,
        }
    }
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize, Default)]
struct TokenizerConfig {
    bos_token: Option<TokenText>,
    eos_token: Option<TokenText>,
    add_bos_token: Option<bool>,
    chat_template: Option<Templates>,
}

pub(super) fn read(folder: &Path) -> Result<Parts, TokenizerError> {
    let path = folder.join("tokenizer.json");
    let bytes = read_json_bytes(&path)?;
    check_merges(&path, &bytes)?;
    // A last line of defence: the crate is not written for damaged files. Nothing outlives the attempt.
    let inner = catch_unwind(AssertUnwindSafe(|| tokenizers::Tokenizer::from_bytes(&bytes)))
        .map_err(|_| TokenizerError::invalid(&path, "its parts contradict each other"))?
        .map_err(|error| TokenizerError::invalid(&path, error))?;
    drop(bytes);

    let config: TokenizerConfig = optional_json(&folder.join("tokenizer_config.json"))?;
    let model_config: EndIds = optional_json(&folder.join("config.json"))?;
    let generation: EndIds = optional_json(&folder.join("generation_config.json"))?;
    let mut eos = BTreeSet::new();
    for ids in [model_config.eos_token_id, generation.eos_token_id].into_iter().flatten() {
        match ids {
            Ids::One(id) => eos.extend([id]),
            Ids::Many(ids) => eos.extend(ids),
        }
    }
    let text = |token: &Option<TokenText>| token.as_ref().map_or("", TokenText::text).to_owned();
    let (bos_text, eos_text) = (text(&config.bos_token), text(&config.eos_token));
    eos.extend(inner.token_to_id(&eos_text));

    // What an empty text becomes shows whether the tokenizer itself begins sequences with a token.
    let prefix = inner.encode_fast("", true).map_err(|error| TokenizerError::invalid(&path, error))?;
    let implied = prefix.get_ids().first().copied();
    let bos = inner.token_to_id(&bos_text).or(implied);
    let add_bos = config.add_bos_token.unwrap_or(false) || (implied.is_some() && implied == bos);

    let template_path = folder.join("chat_template.jinja");
    let template = match std::fs::read_to_string(&template_path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match config.chat_template {
            None => None,
            Some(Templates::One(text)) => Some(text),
            Some(Templates::Named(list)) => {
                let position = list.iter().position(|entry| entry.name == "default").unwrap_or(0);
                list.into_iter().nth(position).map(|entry| entry.template)
            }
        },
        Err(error) => return Err(BaseFileError::io(&template_path, "read", error).into()),
    };
    let spelling = TokenSpelling::of_decoder(inner.get_decoder());
    let chat_template = template.map(|source| ChatTemplate::new(source, bos_text, eos_text));
    let largest_id = inner.get_vocab(true).into_values().max();
    Ok(Parts { inner, spelling, eos, bos, add_bos, chat_template, largest_id })
}

/// A file that may be absent; then every field is.
fn optional_json<T: DeserializeOwned + Default>(path: &Path) -> Result<T, TokenizerError> {
    if !path.try_exists().map_err(|source| BaseFileError::io(path, "look at", source))? {
        return Ok(T::default());
    }
    let bytes = read_json_bytes(path)?;
    serde_json::from_slice(&bytes)
        .map_err(|source| BaseFileError::Json { path: path.to_path_buf(), source }.into())
}

/// The longest key of a JSON object of numbers, in bytes.
#[derive(Default)]
struct LongestKey(usize);

impl<'de> Deserialize<'de> for LongestKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = LongestKey;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of token ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LongestKey, A::Error> {
                let mut longest = 0;
                while let Some((key, _)) = map.next_entry::<Cow<str>, u32>()? {
                    longest = longest.max(key.len());
                }
                Ok(LongestKey(longest))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

#[derive(Deserialize)]
struct ModelKindFile {
    model: Option<ModelKind>,
}

#[derive(Deserialize)]
struct ModelKind {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct BpeFile<'a> {
    #[serde(borrow)]
    model: BpeModel<'a>,
}

#[derive(Deserialize)]
struct BpeModel<'a> {
    #[serde(default)]
    vocab: LongestKey,
    #[serde(borrow, default)]
    merges: Vec<Merge<'a>>,
    continuing_subword_prefix: Option<String>,
}

/// A merge in the older form `"a b"` or the newer `["a", "b"]`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge<'a> {
    Line(#[serde(borrow)] Cow<'a, str>),
    Pair(#[serde(borrow)] Cow<'a, str>, #[serde(borrow)] Cow<'a, str>),
}

/// Refuses merges longer than every token: building the model would copy them past a buffer's end.
fn check_merges(path: &Path, bytes: &[u8]) -> Result<(), TokenizerError> {
    let wrong = |source| BaseFileError::Json { path: path.to_path_buf(), source };
    let file: ModelKindFile = serde_json::from_slice(bytes).map_err(wrong)?;
    if file.model.and_then(|model| model.kind).as_deref() != Some("BPE") {
        return Ok(());
    }
    let model = serde_json::from_slice::<BpeFile>(bytes).map_err(wrong)?.model;
    let prefix = model.continuing_subword_prefix.as_deref().unwrap_or("").len();
    for merge in model.merges {
        let (left, right) = match &merge {
            Merge::Line(line) => line.split_once(' ').unwrap_or((line, "")),
            Merge::Pair(left, right) => (left.as_ref(), right.as_ref()),
        };
        if right.len() < prefix || left.len() + right.len() - prefix > model.vocab.0 {
            let why = format!("the merge of '{left}' and '{right}' gives no token");
            return Err(TokenizerError::invalid(path, why));
        }
    }
    Ok(())
}
