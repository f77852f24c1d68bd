//! A tokenizer made from text.

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::models::unigram::{Unigram, UnigramTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::{AddedToken, PreTokenizerWrapper, Tokenizer, TokenizerImpl};

use super::recipe::{TokenizerKind, TokenizerRecipe};
use crate::TrainError;

/// The token that ends documents.
pub(super) const END_OF_TEXT: &str = "<|endoftext|>";
/// The tokens that stand around messages.
pub(super) const MESSAGE_MARKS: [&str; 2] = ["<|im_start|>", "<|im_end|>"];
/// What SentencePiece calls a piece that it does not know.
const UNKNOWN: &str = "<unk>";

/// A tokenizer of the recipe's kind and size, made from `texts`.
pub(super) fn train_tokenizer(recipe: &TokenizerRecipe, texts: &[String]) -> Result<Tokenizer, TrainError> {
    let special: Vec<AddedToken> = std::iter::once(END_OF_TEXT)
        .chain(MESSAGE_MARKS)
        .map(|text| AddedToken::from(text.to_owned(), true))
        .collect();
    let tokenizer = match recipe.kind {
        TokenizerKind::Bpe => byte_level_bpe(recipe, &special, texts),
        TokenizerKind::Unigram => unigram(recipe, &special, texts),
    };
    tokenizer
        .map_err(|error| TrainError::config("tokenizer", format!("can't be made from this text: {error}")))
}

fn byte_level_bpe(
    recipe: &TokenizerRecipe,
    special: &[AddedToken],
    texts: &[String],
) -> tokenizers::Result<Tokenizer> {
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(recipe.vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(special.to_vec())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut tokenizer: TokenizerImpl<
        BPE,
        tokenizers::NormalizerWrapper,
        PreTokenizerWrapper,
        ByteLevel,
        ByteLevel,
    > = TokenizerImpl::new(BPE::default());
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(match recipe.single_digits {
        true => PreTokenizers::new(vec![Digits::new(true).into(), bytes.into()]).into(),
        false => PreTokenizerWrapper::from(bytes),
    }));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    tokenizer.train(&mut trainer, texts.iter())?;
    tokenizer.to_string(false)?.parse()
}

fn unigram(
    recipe: &TokenizerRecipe,
    special: &[AddedToken],
    texts: &[String],
) -> tokenizers::Result<Tokenizer> {
    // Bytes come before the pieces that are learned, so that they stand in for whatever has no piece.
    let bytes = (0..=255u8).map(|byte| AddedToken::from(format!("<0x{byte:02X}>"), false));
    let unknown = AddedToken::from(UNKNOWN.to_owned(), true);
    let mut trainer = UnigramTrainerBuilder::default()
        .vocab_size(recipe.vocab_size as u32)
        .show_progress(false)
        .special_tokens(std::iter::once(unknown).chain(special.iter().cloned()).chain(bytes).collect())
        .unk_token(Some(UNKNOWN.to_owned()))
        .build()
        .map_err(|error| error.to_string())?;
    let mut tokenizer: TokenizerImpl<
        Unigram,
        tokenizers::NormalizerWrapper,
        Metaspace,
        tokenizers::PostProcessorWrapper,
        Sequence,
    > = TokenizerImpl::new(Unigram::default());
    let metaspace = Metaspace::new('▁', PrependScheme::First, true);
    tokenizer.with_pre_tokenizer(Some(metaspace.clone()));
    tokenizer.train(&mut trainer, texts.iter())?;
    let learned = tokenizer.get_model();
    let vocabulary: Vec<(String, f64)> = learned.iter().cloned().collect();
    let unknown_id = vocabulary.iter().position(|(piece, _)| piece == UNKNOWN);
    let model = Unigram::from(vocabulary, unknown_id, true)?;
    let mut whole: TokenizerImpl<
        Unigram,
        tokenizers::NormalizerWrapper,
        Metaspace,
        tokenizers::PostProcessorWrapper,
        Sequence,
    > = TokenizerImpl::new(model);
    whole.with_pre_tokenizer(Some(metaspace.clone()));
    whole.with_decoder(Some(Sequence::new(vec![
        ByteFallback::default().into(),
        metaspace.into(),
        Fuse::default().into(),
    ])));
    whole.add_special_tokens(special.to_vec())?;
    whole.to_string(false)?.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<String> {
        (0..400)
            .map(|n| {
                format!("The {n} quick brown foxes jump over {} lazy dogs, and none of them minds.", n * 7)
            })
            .collect()
    }

    #[test]
    fn single_digits_are_tokens_of_their_own_wherever_a_number_stands() {
        let recipe = TokenizerRecipe { vocab_size: 600, single_digits: true, ..TokenizerRecipe::default() };
        let tokenizer = train_tokenizer(&recipe, &texts()).unwrap();
        let tokens = |text: &str| tokenizer.encode(text, false).unwrap().get_tokens().to_vec();
        assert!(tokens("over 3999 lazy").ends_with(&["3", "9", "9", "9", "Ġlazy"].map(String::from)));
        assert_eq!(tokens("3999"), ["3", "9", "9", "9"]);
        let ids = tokenizer.encode("key 10482, 7", false).unwrap();
        assert_eq!(tokenizer.decode(ids.get_ids(), false).unwrap(), "key 10482, 7");
    }

    #[test]
    fn both_kinds_give_back_every_text_also_what_they_never_saw() {
        for kind in [TokenizerKind::Bpe, TokenizerKind::Unigram] {
            let recipe = TokenizerRecipe { kind, vocab_size: 600, ..TokenizerRecipe::default() };
            let tokenizer = train_tokenizer(&recipe, &texts()).unwrap();
            assert!(tokenizer.get_vocab_size(true) <= 600, "{kind:?}: {}", tokenizer.get_vocab_size(true));
            for text in ["The quick brown fox", "Grüße, 春眠不覺曉 \u{1F98A}", "a  b\n\tc"] {
                let ids = tokenizer.encode(text, false).unwrap();
                let back = tokenizer.decode(ids.get_ids(), false).unwrap();
                assert_eq!(back, text, "{kind:?}");
            }
            assert!(tokenizer.token_to_id(END_OF_TEXT).is_some());
        }
    }
}
