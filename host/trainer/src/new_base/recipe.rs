//! What a new base is to be.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{TrainConfig, TrainError};

/// Settings of a base and of its training; TOML.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BaseRecipe {
    /// Its layers.
    pub base: BaseSizes,
    /// Its vocabulary.
    pub tokenizer: TokenizerRecipe,
    /// How it is trained; `quantization` has no meaning here.
    pub training: TrainConfig,
}

/// `[base]`: a Llama-family transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BaseSizes {
    /// Width of the hidden state.
    pub hidden_size: usize,
    /// Width between gate and down projection.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Longest context, tokens.
    pub max_position: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f64,
    /// Whether the head is the embedding.
    pub tied_head: bool,
}

/// `[tokenizer]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenizerRecipe {
    /// How pieces are found.
    pub kind: TokenizerKind,
    /// Tokens, special ones included.
    pub vocab_size: usize,
    /// Bytes of training text that it is made from, at most.
    pub bytes: usize,
    /// Whether each digit is a token of its own, so that a number is read and written the same way wherever it stands;
    /// of `bpe` only.
    pub single_digits: bool,
}

/// How a tokenizer finds its pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenizerKind {
    /// Byte-level byte pair encoding (Radford et al. 2019): every byte is a token, so that nothing is unknown.
    Bpe,
    /// Unigram language model (Kudo 2018) as SentencePiece has it, bytes standing in for what has no piece.
    Unigram,
}

impl Default for BaseSizes {
    fn default() -> Self {
        Self {
            hidden_size: 192,
            intermediate_size: 576,
            num_layers: 6,
            num_heads: 3,
            num_kv_heads: 3,
            max_position: 1024,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
            tied_head: true,
        }
    }
}

impl Default for TokenizerRecipe {
    fn default() -> Self {
        Self { kind: TokenizerKind::Bpe, vocab_size: 8192, bytes: 64 << 20, single_digits: false }
    }
}

impl BaseRecipe {
    /// Reads a recipe; relative paths of texts are below `data_folder`, or without one below the file's own folder.
    ///
    /// # Errors
    /// A file that can't be read, an unknown or meaningless setting.
    pub fn read(path: &Path, data_folder: Option<&Path>) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(TrainError::file("read", path))?;
        let mut recipe: Self = toml::from_str(&text).map_err(|error| TrainError::ConfigFile {
            path: PathBuf::from(path),
            reason: error.to_string(),
        })?;
        recipe.training.place_texts(data_folder.or(path.parent()).unwrap_or(Path::new("")));
        recipe.training.check()?;
        recipe.check()?;
        Ok(recipe)
    }

    /// The settings as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_default()
    }

    fn check(&self) -> Result<(), TrainError> {
        let BaseSizes { hidden_size, num_layers, num_heads, num_kv_heads, intermediate_size, .. } = self.base;
        let whole = |key, of: usize, part: usize, what: &str| match part > 0 && of.is_multiple_of(part) {
            true => Ok(()),
            false => Err(TrainError::config(key, format!("= {part} must divide {what} = {of}"))),
        };
        whole("base.num_heads", hidden_size, num_heads, "base.hidden_size")?;
        whole("base.num_kv_heads", num_heads, num_kv_heads, "base.num_heads")?;
        if !(hidden_size / num_heads).is_multiple_of(2) {
            let problem =
                format!("gives heads of {}, and rotation needs an even width", hidden_size / num_heads);
            return Err(TrainError::config("base.num_heads", problem));
        }
        if num_layers < 3 || intermediate_size == 0 {
            let problem = format!("needs at least 3 layers, so that a slot lies inside, found {num_layers}");
            return Err(TrainError::config("base.num_layers", problem));
        }
        if self.training.batch.length > self.base.max_position {
            let limit = self.base.max_position;
            return Err(TrainError::config("training.batch.length", format!("must be at most {limit}")));
        }
        if self.tokenizer.vocab_size < 512 {
            let found = self.tokenizer.vocab_size;
            return Err(TrainError::config(
                "tokenizer.vocab_size",
                format!("must be at least 512, found {found}"),
            ));
        }
        if self.tokenizer.single_digits && self.tokenizer.kind != TokenizerKind::Bpe {
            let problem = "needs tokenizer.kind = \"bpe\"";
            return Err(TrainError::config("tokenizer.single_digits", problem));
        }
        if self.training.quantization.format.is_some() {
            let problem = "is for packs: a base is written as bf16";
            return Err(TrainError::config("training.quantization.format", problem));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense_and_are_read_back() {
        let recipe = BaseRecipe::default();
        recipe.check().unwrap();
        assert_eq!(toml::from_str::<BaseRecipe>(&recipe.to_toml()).unwrap(), recipe);
    }

    #[test]
    fn sizes_that_do_not_fit_each_other_are_refused_by_name() {
        let of = |change: fn(&mut BaseRecipe)| {
            let mut recipe = BaseRecipe::default();
            change(&mut recipe);
            recipe.check().unwrap_err().to_string()
        };
        assert!(of(|r| r.base.num_heads = 5).contains("base.num_heads"));
        assert!(of(|r| r.base.num_kv_heads = 2).contains("base.num_kv_heads"));
        assert!(of(|r| r.base.num_layers = 2).contains("at least 3"));
        assert!(of(|r| r.tokenizer.vocab_size = 100).contains("512"));
        let digits = |r: &mut BaseRecipe| {
            (r.tokenizer.kind, r.tokenizer.single_digits) = (TokenizerKind::Unigram, true)
        };
        assert!(of(digits).contains("tokenizer.single_digits"));
        assert!(of(|r| r.base.max_position = 100).contains("training.batch.length"));
    }
}
