//! A tokenizer from GGUF metadata.
//!
//! GGUF names the kind (`tokenizer.ggml.model`) and the splitting rule (`tokenizer.ggml.pre`) by words whose
//! meaning llama.cpp fixes; here each is spelled out for the `tokenizers` crate.

use std::collections::BTreeSet;
use std::path::Path;

use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{NFC, NormalizerWrapper, Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::{Parts, TokenSpelling, TokenizerError};
use crate::base_files::{BaseFileError, GgufHeader, StringArray};
use crate::chat_template::ChatTemplate;

const QWEN2_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// `tokenizer.ggml.token_type`.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

pub(super) fn read(path: &Path, header: &GgufHeader) -> Result<Parts, TokenizerError> {
    let tokens = header.texts("tokenizer.ggml.tokens")?;
    let types = header.optional_integers("tokenizer.ggml.token_type")?.unwrap_or(&[]);
    if !types.is_empty() && types.len() != tokens.len() {
        let expected = format!("one for each of the {} tokens", tokens.len());
        let error = BaseFileError::field(path, "tokenizer.ggml.token_type", expected, types.len());
        return Err(error.into());
    }
    let token_id = |key: &str| -> Result<Option<u32>, TokenizerError> {
        let id = header.optional_integer(key, 0, u64::from(u32::MAX))?;
        match id {
            Some(id) if id as usize >= tokens.len() => {
                let expected = format!("below {}, the number of tokens", tokens.len());
                Err(BaseFileError::field(path, key, expected, id).into())
            }
            id => Ok(id.map(|id| id as u32)),
        }
    };
    let bos = token_id("tokenizer.ggml.bos_token_id")?;
    let eos = token_id("tokenizer.ggml.eos_token_id")?;
    let end_of_turn = token_id("tokenizer.ggml.eot_token_id")?;
    let unknown = token_id("tokenizer.ggml.unknown_token_id")?;

    let kind = header.text("tokenizer.ggml.model")?;
    let (mut inner, spelling) = match kind {
        "gpt2" => (byte_level_bpe(path, header, tokens)?, TokenSpelling::ByteLevel),
        "llama" => (sentence_piece(path, header, tokens, unknown)?, TokenSpelling::SentencePiece),
        other => {
            return Err(TokenizerError::Unsupported {
                path: path.to_path_buf(),
                what: "model",
                found: other.to_owned(),
                supported: "gpt2, llama",
            });
        }
    };

    let mut added = Vec::new();
    for (text, kind) in tokens.iter().zip(types) {
        let special = match *kind {
            CONTROL => true,
            UNKNOWN => true,
            USER_DEFINED => false,
            _ => continue,
        };
        if !text.is_empty() {
            added.push(AddedToken::from(text.to_owned(), special).normalized(false));
        }
    }
    inner.add_tokens(added).map_err(|error| TokenizerError::invalid(path, error))?;

    let spelled = |id: Option<u32>| id.and_then(|id| tokens.get(id as usize)).unwrap_or("").to_owned();
    let chat_template = header
        .optional_text("tokenizer.chat_template")?
        .map(|source| ChatTemplate::new(source.to_owned(), spelled(bos), spelled(eos)));
    // SentencePiece models begin with <s> unless the file says otherwise.
    let add_bos = header.optional_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(kind == "llama");
    Ok(Parts {
        inner,
        spelling,
        eos: [eos, end_of_turn].into_iter().flatten().collect::<BTreeSet<_>>(),
        bos,
        add_bos,
        chat_template,
        largest_id: (tokens.len() as u32).checked_sub(1),
    })
}

fn vocabulary(tokens: &StringArray) -> Vocab {
    tokens.iter().enumerate().map(|(id, text)| (text.to_owned(), id as u32)).collect()
}

fn byte_level_bpe(
    path: &Path,
    header: &GgufHeader,
    tokens: &StringArray,
) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let vocab = vocabulary(tokens);
    let lines = header.texts("tokenizer.ggml.merges")?;
    let mut merges = Vec::with_capacity(lines.len());
    let mut joined = String::new();
    for line in lines.iter() {
        let pair = line.split_once(' ').filter(|(left, right)| {
            // The model's builder copies a pair into a buffer of the longest token's size, so that a pair
            // which is no token must not reach it.
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            vocab.contains_key(&joined)
        });
        let (left, right) = pair.ok_or_else(|| {
            TokenizerError::invalid(path, format!("the merge '{line}' does not join two tokens to a third"))
        })?;
        merges.push((left.to_owned(), right.to_owned()));
    }
    let pre = header.optional_text("tokenizer.ggml.pre")?.unwrap_or("default");
    let (normalizer, pre_tokenizer) = splitting_rule(path, pre)?;
    let ignore_merges = matches!(pre, "llama-bpe" | "llama3" | "llama-v3");
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(ignore_merges)
        .build()
        .map_err(|error| TokenizerError::invalid(path, error))?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_normalizer(normalizer).map_err(|error| TokenizerError::invalid(path, error))?;
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer));
    tokenizer.with_decoder(Some(ByteLevelDecoder::default()));
    Ok(tokenizer)
}

/// How text is cut into words before merging.
fn splitting_rule(
    path: &Path,
    pre: &str,
) -> Result<(Option<NormalizerWrapper>, PreTokenizerWrapper), TokenizerError> {
    let words = |pattern: &str| {
        let split =
            Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Isolated, false)
                .map_err(|error| TokenizerError::invalid(path, error))?;
        Ok::<_, TokenizerError>(
            Sequence::new(vec![split.into(), ByteLevel::new(false, true, false).into()]).into(),
        )
    };
    let gpt2 = ByteLevel::new(false, true, true);
    Ok(match pre {
        "smollm" | "starcoder" | "refact" | "command-r" => {
            // Each digit is a word of its own.
            (None, Sequence::new(vec![Digits::new(true).into(), gpt2.into()]).into())
        }
        "qwen2" | "deepseek-r1-qwen" => (Some(NFC.into()), words(QWEN2_WORDS)?),
        "llama-bpe" | "llama3" | "llama-v3" => (None, words(LLAMA3_WORDS)?),
        "default" | "gpt-2" | "gpt2" => (None, gpt2.into()),
        other => {
            return Err(TokenizerError::Unsupported {
                path: path.to_path_buf(),
                what: "splitting rule",
                found: other.to_owned(),
                supported: "smollm, qwen2, llama-bpe, gpt-2, default",
            });
        }
    })
}

/// SentencePiece's BPE: any two neighbours whose joined text is a token may merge, the one with the highest
/// score first. The same as ranked merges, which are derived here.
fn sentence_piece(
    path: &Path,
    header: &GgufHeader,
    tokens: &StringArray,
    unknown: Option<u32>,
) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let vocab = vocabulary(tokens);
    let scores = header.optional_floats("tokenizer.ggml.scores")?.unwrap_or(&[]);
    if scores.len() != tokens.len() {
        let expected = format!("one for each of the {} tokens", tokens.len());
        return Err(BaseFileError::field(path, "tokenizer.ggml.scores", expected, scores.len()).into());
    }
    let mut pairs = Vec::new();
    for (whole, score) in tokens.iter().zip(scores) {
        for (at, _) in whole.char_indices().skip(1) {
            let (left, right) = whole.split_at(at);
            if let (Some(left_id), Some(right_id)) = (vocab.get(left), vocab.get(right)) {
                pairs.push((*score, *left_id, *right_id, left, right));
            }
        }
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (a.1, a.2).cmp(&(b.1, b.2))));
    let merges =
        pairs.into_iter().map(|(_, _, _, left, right)| (left.to_owned(), right.to_owned())).collect();

    let mut builder = BPE::builder().vocab_and_merges(vocab, merges).byte_fallback(true).fuse_unk(true);
    if let Some(text) = unknown.and_then(|id| tokens.get(id as usize)) {
        builder = builder.unk_token(text.to_owned());
    }
    let model = builder.build().map_err(|error| TokenizerError::invalid(path, error))?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let spaces = Replace::new(" ", "▁").map_err(|error| TokenizerError::invalid(path, error))?;
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if header.optional_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true) {
        steps.push(Prepend::new("▁".to_owned()).into());
    }
    steps.push(spaces.into());
    tokenizer
        .with_normalizer(Some(Normalizers::new(steps)))
        .map_err(|error| TokenizerError::invalid(path, error))?;
    Ok(tokenizer)
}
