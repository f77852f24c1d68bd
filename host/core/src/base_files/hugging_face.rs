//! A base from a Hugging Face folder: `config.json`, safetensors, `tokenizer.json`.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use pack_sdk::BaseShape;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::BaseFileError;
use super::rope_scaling::{Llama3Scaling, linear_factors};
use super::safetensors_header::read_tensors;
use super::shape_checks::check_shape;
use super::stored_tensors::{WeightFile, match_tensors};
use super::tensor_names::expected_tensors;
use super::{BaseFile, TokenizerSource};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Beside config and weights, what the fingerprint covers where it exists.
const OPTIONAL_PARTS: [&str; 4] =
    ["generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];
/// Far above any JSON file of a base (a tokenizer of 256 k tokens takes about 35 MB).
const MAX_JSON_BYTES: u64 = 256 << 20;

/// The fields of `config.json` that matter here.
#[derive(Deserialize)]
struct Config {
    model_type: String,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    /// Older files.
    rope_scaling: Option<RopeScaling>,
    /// Newer files: the base frequency and the scaling in one place.
    rope_parameters: Option<RopeScaling>,
    max_position_embeddings: usize,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    use_sliding_window: bool,
    hidden_act: Option<String>,
}

#[derive(Deserialize)]
struct RopeScaling {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: HashMap<String, String>,
}

pub(super) fn open(folder: &Path) -> Result<BaseFile, BaseFileError> {
    let config_path = folder.join(CONFIG);
    if !exists(&config_path)? {
        return Err(BaseFileError::NotABase {
            path: folder.to_path_buf(),
            why: "the folder has no config.json".to_owned(),
        });
    }
    let config: Config = read_json(&config_path)?;
    let tied_wanted = config.tie_word_embeddings;
    let mut shape = read_shape(&config_path, &config)?;
    check_shape(&config_path, &shape)?;
    if let Some(scaling) = config.rope_scaling.as_ref().or(config.rope_parameters.as_ref()) {
        shape.rope_freq_scale = read_rope_scaling(&config_path, scaling, &shape)?;
        check_shape(&config_path, &shape)?;
    }

    let (weight_paths, index) = weight_files(folder)?;
    let mut files = Vec::with_capacity(weight_paths.len());
    let mut stored = HashMap::new();
    for path in weight_paths {
        let file = File::open(&path).map_err(|source| BaseFileError::io(&path, "open", source))?;
        let length = file.metadata().map_err(|source| BaseFileError::io(&path, "look at", source))?.len();
        files.push(WeightFile { path, file, length });
        read_tensors(&files[files.len() - 1], files.len() - 1, &mut stored)?;
    }
    let tensors = match_tensors(
        folder,
        &files,
        &stored,
        expected_tensors(&shape, tied_wanted),
        |spec| &spec.hugging_face_name,
        |_| None,
    )?;

    let mut parts = vec![config_path];
    parts.extend(index);
    parts.extend(files.iter().map(|file| file.path.clone()));
    for name in OPTIONAL_PARTS {
        let path = folder.join(name);
        if exists(&path)? {
            parts.push(path);
        }
    }
    Ok(BaseFile {
        path: folder.to_path_buf(),
        shape,
        tied_head: tied_wanted,
        tensors,
        files,
        parts,
        tokenizer: TokenizerSource::Folder(folder.to_path_buf()),
    })
}

/// The weight files, and the index that names them if there is one.
fn weight_files(folder: &Path) -> Result<(Vec<PathBuf>, Option<PathBuf>), BaseFileError> {
    let single = folder.join(WEIGHTS);
    if exists(&single)? {
        return Ok((vec![single], None));
    }
    let index_path = folder.join(INDEX);
    if !exists(&index_path)? {
        return Err(BaseFileError::NotABase {
            path: folder.to_path_buf(),
            why: format!("the folder has neither {WEIGHTS} nor {INDEX}"),
        });
    }
    let index: ShardIndex = read_json(&index_path)?;
    let mut shards = BTreeSet::new();
    for name in index.weight_map.into_values() {
        // A name, not a path: an index must not reach outside its folder.
        if Path::new(&name).file_name() != Some(name.as_ref()) {
            return Err(BaseFileError::field(&index_path, "weight_map", "names of files beside it", name));
        }
        shards.insert(folder.join(name));
    }
    Ok((shards.into_iter().collect(), Some(index_path)))
}

fn read_shape(path: &Path, config: &Config) -> Result<BaseShape, BaseFileError> {
    let architecture = config.model_type.as_str();
    if !matches!(architecture, "llama" | "qwen2") {
        return Err(BaseFileError::unsupported(path, "the model_type", architecture, "llama, qwen2"));
    }
    // Llama's attention_bias also gives the output projection a bias, which no canonical tensor holds.
    for (what, set) in [
        ("attention_bias", config.attention_bias && architecture == "llama"),
        ("mlp_bias", config.mlp_bias),
        ("use_sliding_window", config.use_sliding_window),
    ] {
        if set {
            return Err(BaseFileError::unsupported(path, what, "true", "false"));
        }
    }
    let activation = config.hidden_act.as_deref().unwrap_or("silu");
    if !matches!(activation, "silu" | "swish") {
        return Err(BaseFileError::unsupported(path, "the hidden_act", activation, "silu"));
    }
    let head_dim = match config.head_dim {
        Some(size) => size,
        None if config.num_attention_heads > 0
            && config.hidden_size.is_multiple_of(config.num_attention_heads) =>
        {
            config.hidden_size / config.num_attention_heads
        }
        None => {
            return Err(BaseFileError::field(
                path,
                "num_attention_heads",
                format!("a divisor of hidden_size {}", config.hidden_size),
                config.num_attention_heads,
            ));
        }
    };
    let newer_theta = config.rope_parameters.as_ref().and_then(|rope| rope.rope_theta);
    Ok(BaseShape {
        architecture: architecture.to_owned(),
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        num_layers: config.num_hidden_layers,
        num_heads: config.num_attention_heads,
        num_kv_heads: config.num_key_value_heads.unwrap_or(config.num_attention_heads),
        head_dim,
        vocab_size: config.vocab_size,
        rms_norm_eps: config.rms_norm_eps,
        rope_theta: config.rope_theta.or(newer_theta).unwrap_or(10_000.0),
        rope_freq_scale: None,
        qkv_bias: architecture == "qwen2",
        max_position: config.max_position_embeddings,
    })
}

fn read_rope_scaling(
    path: &Path,
    scaling: &RopeScaling,
    shape: &BaseShape,
) -> Result<Option<Vec<f32>>, BaseFileError> {
    let number = |name: &str, value: Option<f64>| match value {
        Some(value) if value > 0.0 && value.is_finite() => Ok(value),
        Some(value) => Err(BaseFileError::field(path, format!("rope_scaling.{name}"), "positive", value)),
        None => Err(BaseFileError::field(path, format!("rope_scaling.{name}"), "a number", "nothing")),
    };
    match scaling.rope_type.as_deref().unwrap_or("default") {
        "default" => Ok(None),
        "linear" => Ok(Some(linear_factors(number("factor", scaling.factor)?, shape.head_dim))),
        "llama3" => {
            let llama3 = Llama3Scaling {
                factor: number("factor", scaling.factor)?,
                low_freq_factor: number("low_freq_factor", scaling.low_freq_factor)?,
                high_freq_factor: number("high_freq_factor", scaling.high_freq_factor)?,
                original_max_position: number(
                    "original_max_position_embeddings",
                    scaling.original_max_position_embeddings,
                )?,
            };
            if llama3.low_freq_factor >= llama3.high_freq_factor {
                return Err(BaseFileError::field(
                    path,
                    "rope_scaling.high_freq_factor",
                    format!("more than low_freq_factor {}", llama3.low_freq_factor),
                    llama3.high_freq_factor,
                ));
            }
            Ok(Some(llama3.factors(shape.rope_theta, shape.head_dim)))
        }
        other => Err(BaseFileError::unsupported(path, "RoPE scaling", other, "default, linear, llama3")),
    }
}

fn exists(path: &Path) -> Result<bool, BaseFileError> {
    path.try_exists().map_err(|source| BaseFileError::io(path, "look at", source))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, BaseFileError> {
    let bytes = read_json_bytes(path)?;
    serde_json::from_slice(&bytes).map_err(|source| BaseFileError::Json { path: path.to_path_buf(), source })
}

/// The bytes of a JSON file; refuses one that is too large to be one of a base.
pub(crate) fn read_json_bytes(path: &Path) -> Result<Vec<u8>, BaseFileError> {
    let file = File::open(path).map_err(|source| BaseFileError::io(path, "open", source))?;
    let mut bytes = Vec::new();
    file.take(MAX_JSON_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| BaseFileError::io(path, "read", source))?;
    if bytes.len() as u64 > MAX_JSON_BYTES {
        let expected = format!("at most {MAX_JSON_BYTES} bytes");
        return Err(BaseFileError::field(path, "the file's size", expected, "more"));
    }
    Ok(bytes)
}
