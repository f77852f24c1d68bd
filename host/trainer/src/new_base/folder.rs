//! A base as a folder: `config.json`, `tokenizer.json`, `tokenizer_config.json`, `model.safetensors`.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use modularbase_core::base_files::hugging_face_weights;
use modularbase_graph::Init;
use pack_sdk::BaseShape;
use serde_json::json;

use super::recipe::{BaseRecipe, BaseSizes};
use super::tokenizer::{END_OF_TEXT, MESSAGE_MARKS, train_tokenizer};
use crate::{TrainError, initial_values};

/// Deviation of first weights (Radford et al. 2019, section 2.3); what writes to the residual stream gets less.
const DEVIATION: f64 = 0.02;

/// Messages between their marks, as the default base has them.
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + \
    message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ \
    '<|im_start|>assistant\\n' }}{% endif %}";

/// Makes a base that knows nothing yet: its tokenizer from `texts`, its weights drawn by the training seed.
///
/// # Errors
/// Text that no tokenizer can be made from, a folder that can't be written.
pub fn create_base(folder: &Path, recipe: &BaseRecipe, texts: &[String]) -> Result<(), TrainError> {
    let mut used = 0;
    let enough = texts.iter().take_while(|text| {
        used += text.len();
        used <= recipe.tokenizer.bytes.max(text.len())
    });
    let tokenizer = train_tokenizer(&recipe.tokenizer, &enough.cloned().collect::<Vec<_>>())?;
    // Rows of whole blocks of 64, so that the embedding can be stored in any format.
    let vocab_size = tokenizer.get_vocab_size(true).next_multiple_of(64);
    let shape = shape_of(&recipe.base, vocab_size);
    std::fs::create_dir_all(folder).map_err(TrainError::file("create", folder))?;
    let end = tokenizer.token_to_id(END_OF_TEXT);
    let config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_position,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": recipe.base.tied_head,
        "bos_token_id": end,
        "eos_token_id": end,
        "torch_dtype": "bfloat16",
    });
    write_json(&folder.join("config.json"), &config)?;
    let settings = json!({
        "eos_token": MESSAGE_MARKS[1],
        "bos_token": END_OF_TEXT,
        "add_bos_token": false,
        "chat_template": CHAT_TEMPLATE,
        "model_max_length": shape.max_position,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    write_json(&folder.join("tokenizer_config.json"), &settings)?;
    let text = tokenizer
        .to_string(false)
        .map_err(|error| TrainError::config("tokenizer", format!("can't be written: {error}")))?;
    write(&folder.join("tokenizer.json"), text.as_bytes())?;
    let residual = DEVIATION / (2.0 * shape.num_layers as f64).sqrt();
    let mut values = BTreeMap::new();
    for (name, _, dims) in hugging_face_weights(&shape, recipe.base.tied_head) {
        let to_residual = name.ends_with("attn_output") || name.ends_with("ffn_down");
        let std = if to_residual { residual } else { DEVIATION } as f32;
        let init = if dims.len() == 1 { Init::Ones } else { Init::Normal { std } };
        let drawn = initial_values(&init, dims.iter().product(), recipe.training.seed, &name);
        values.insert(name, Tensor::from_vec(drawn, dims, &Device::Cpu)?);
    }
    write_weights(folder, &shape, recipe.base.tied_head, &values, DType::F32)
}

/// Writes trained values over those of the base in `folder`, bf16; `values` go by canonical names.
///
/// # Errors
/// A value that is missing, a folder that can't be written: the old weights then stay.
pub fn write_base(
    folder: &Path,
    shape: &BaseShape,
    tied_head: bool,
    values: &BTreeMap<String, Tensor>,
) -> Result<(), TrainError> {
    write_weights(folder, shape, tied_head, values, DType::BF16)
}

fn write_weights(
    folder: &Path,
    shape: &BaseShape,
    tied_head: bool,
    values: &BTreeMap<String, Tensor>,
    dtype: DType,
) -> Result<(), TrainError> {
    let mut tensors = Vec::new();
    for (name, stored_name, _) in hugging_face_weights(shape, tied_head) {
        let value =
            values.get(&name).ok_or_else(|| TrainError::checkpoint(format!("`{name}` is missing")))?;
        tensors.push((stored_name, value.to_device(&Device::Cpu)?.to_dtype(dtype)?.contiguous()?));
    }
    let path = folder.join("model.safetensors");
    let format = [("format".to_owned(), "pt".to_owned())].into();
    let bytes = safetensors::serialize(tensors, Some(format))
        .map_err(|error| TrainError::file("write", &path)(std::io::Error::other(error.to_string())))?;
    write(&path, &bytes)
}

fn shape_of(sizes: &BaseSizes, vocab_size: usize) -> BaseShape {
    BaseShape {
        architecture: "llama".to_owned(),
        hidden_size: sizes.hidden_size,
        intermediate_size: sizes.intermediate_size,
        num_layers: sizes.num_layers,
        num_heads: sizes.num_heads,
        num_kv_heads: sizes.num_kv_heads,
        head_dim: sizes.hidden_size / sizes.num_heads,
        vocab_size,
        rms_norm_eps: sizes.rms_norm_eps,
        rope_theta: sizes.rope_theta,
        rope_freq_scale: None,
        qkv_bias: false,
        max_position: sizes.max_position,
    }
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), TrainError> {
    write(path, format!("{value:#}\n").as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    manifests::write_atomically(path, bytes).map_err(TrainError::file("write", path))
}
