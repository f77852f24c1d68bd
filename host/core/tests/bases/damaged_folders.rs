//! Damaged Hugging Face folders: refused in words that name the file; nothing panics.

use std::path::Path;

use crate::tiny_checkpoint::copy;
use modularbase_core::{BaseFile, BaseFileError, Tokenizer, TokenizerError};
use proptest::prelude::*;
use serde_json::{Value, json};

fn refusal(folder: &Path) -> String {
    BaseFile::open(folder).unwrap_err().to_string()
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    std::fs::write(path, serde_json::to_vec(&value).unwrap()).unwrap();
}

/// Rewrites the header of a safetensors file; the data stays.
fn edit_header(path: &Path, edit: impl FnOnce(&mut Value)) {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    edit(&mut header);
    let header = serde_json::to_vec(&header).unwrap();
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header);
    out.extend(&bytes[8 + length..]);
    std::fs::write(path, out).unwrap();
}

#[test]
fn tensors_that_overlap_or_leave_the_file_are_refused() {
    let key = "model.layers.1.mlp.up_proj.weight";
    let offsets = |header: &Value| {
        let pair = &header[key]["data_offsets"];
        (pair[0].as_u64().unwrap(), pair[1].as_u64().unwrap())
    };
    type Change = fn(u64, u64) -> Value;
    let changes: [(Change, &str); 5] = [
        (|start, end| json!([start - 64, end - 64]), "holds them up to"),
        (|start, end| json!([start + (1 << 30), end + (1 << 30)]), "bytes of data"),
        (|start, _| json!([start, u64::MAX]), "bytes of data"),
        (|start, end| json!([end, start]), "bytes of data"),
        (|start, end| json!([start, end - 2]), "take"),
    ];
    for (change, words) in changes {
        let copy = copy("tiny-qwen2");
        edit_header(&copy.path().join("model.safetensors"), |header| {
            let (start, end) = offsets(header);
            header[key]["data_offsets"] = change(start, end);
        });
        let error = refusal(copy.path());
        assert!(
            error.contains(words) && error.contains(key) && error.contains("model.safetensors"),
            "{error}"
        );
    }
}

#[test]
fn a_header_that_claims_too_much_or_is_no_json_is_refused() {
    for prefix in [u64::MAX, 1 << 40, 100_000_001, 7] {
        let copy = copy("tiny-qwen2");
        let path = copy.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[..8].copy_from_slice(&prefix.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        let error = BaseFile::open(copy.path()).unwrap_err();
        assert!(matches!(error, BaseFileError::Damaged { .. }), "{error}");
    }
}

#[test]
fn every_truncation_of_the_weights_is_refused() {
    let copy = copy("tiny-qwen2");
    let path = copy.path().join("model.safetensors");
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    for length in
        (0..length).rev().filter(|length| *length < 16 || length % 997 == 0 || *length == length - 1)
    {
        file.set_len(length).unwrap();
        assert!(refusal(copy.path()).contains("model.safetensors"));
    }
}

#[test]
fn types_and_shapes_that_do_not_fit_are_named() {
    let copy = copy("tiny-qwen2");
    let path = copy.path().join("model.safetensors");
    edit_header(&path, |header| header["model.norm.weight"]["dtype"] = json!("I8"));
    let error = refusal(copy.path());
    assert!(error.contains("I8") && error.contains("model.norm.weight"), "{error}");
    edit_header(&path, |header| {
        header["model.norm.weight"]["dtype"] = json!("BF16");
        header["model.norm.weight"]["shape"] = json!([32, 2]);
    });
    let error = refusal(copy.path());
    assert!(error.contains("[64]") && error.contains("[32, 2]"), "{error}");
    edit_header(&path, |header| {
        header.as_object_mut().unwrap().remove("model.norm.weight");
    });
    assert!(refusal(copy.path()).contains("'model.norm.weight' is missing"));
}

#[test]
fn a_missing_shard_and_an_index_that_leaves_the_folder_are_refused() {
    let copy = copy("tiny-llama3");
    let shard = "model-00002-of-00002.safetensors";
    std::fs::remove_file(copy.path().join(shard)).unwrap();
    assert!(refusal(copy.path()).contains(shard));

    for name in ["../outside.safetensors", "/etc/passwd", "..", "", "sub/file.safetensors"] {
        edit_json(&copy.path().join("model.safetensors.index.json"), |index| {
            index["weight_map"]["lm_head.weight"] = json!(name);
        });
        let error = refusal(copy.path());
        assert!(error.contains("names of files beside it"), "{error}");
    }
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let copy = copy("tiny-llama3");
    let first = copy.path().join("model-00001-of-00002.safetensors");
    std::fs::copy(first, copy.path().join("model-00002-of-00002.safetensors")).unwrap();
    assert!(refusal(copy.path()).contains("also in another shard"));
}

#[test]
fn a_config_with_a_missing_or_wrong_field_names_it() {
    let changes: [(&str, Value, &str); 10] = [
        ("hidden_size", Value::Null, "hidden_size"),
        ("num_hidden_layers", json!(-1), "config.json"),
        ("num_hidden_layers", json!(0), "number of layers"),
        ("num_hidden_layers", json!(5), "model.layers.4."),
        ("num_attention_heads", json!(0), "num_attention_heads"),
        ("num_key_value_heads", json!(3), "divisor"),
        ("rms_norm_eps", json!("small"), "config.json"),
        ("model_type", json!("gpt_neox"), "gpt_neox"),
        ("hidden_act", json!("gelu"), "gelu"),
        ("use_sliding_window", json!(true), "use_sliding_window"),
    ];
    for (key, value, words) in changes {
        let copy = copy("tiny-qwen2");
        edit_json(&copy.path().join("config.json"), |config| {
            if value.is_null() {
                config.as_object_mut().unwrap().remove(key);
            } else {
                config[key] = value;
            }
        });
        let error = refusal(copy.path());
        assert!(error.contains(words), "{key}: {error}");
    }
    for (key, value) in [
        ("rope_type", json!("yarn")),
        ("factor", json!(0)),
        ("low_freq_factor", json!(4.0)),
        ("factor", Value::Null),
    ] {
        let copy = copy("tiny-llama3");
        edit_json(&copy.path().join("config.json"), |config| config["rope_scaling"][key] = value);
        assert!(refusal(copy.path()).contains("config.json"));
    }
}

#[test]
fn a_tokenizer_larger_than_the_vocabulary_is_refused() {
    let copy = copy("tiny-qwen2");
    edit_json(&copy.path().join("tokenizer.json"), |tokenizer| {
        tokenizer["model"]["vocab"]["far"] = json!(288);
    });
    let error = Tokenizer::of_base(&BaseFile::open(copy.path()).unwrap()).unwrap_err();
    assert!(
        matches!(error, TokenizerError::LargerThanVocabulary { largest: 288, vocab_size: 288, .. }),
        "{error}"
    );
}

#[test]
fn invalid_utf8_in_json_is_an_error_that_names_the_file() {
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        let copy = copy("tiny-qwen2");
        let path = copy.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let quote = bytes.iter().position(|byte| *byte == b'"').unwrap();
        bytes[quote + 1] = 0xff;
        std::fs::write(&path, bytes).unwrap();
        let error = match BaseFile::open(copy.path()) {
            Err(error) => error.to_string(),
            Ok(base) => Tokenizer::of_base(&base).unwrap_err().to_string(),
        };
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn folders_that_are_empty_gone_or_hold_folders_for_files_are_refused() {
    let empty = tempfile::tempdir().unwrap();
    assert!(refusal(empty.path()).contains("no config.json"));
    assert!(refusal(&empty.path().join("gone")).contains("gone"));
    std::fs::create_dir(empty.path().join("config.json")).unwrap();
    assert!(refusal(empty.path()).contains("config.json"));

    let copy = copy("tiny-qwen2");
    std::fs::remove_file(copy.path().join("tokenizer.json")).unwrap();
    let error = Tokenizer::of_base(&BaseFile::open(copy.path()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    std::fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    assert!(refusal(copy.path()).contains("neither model.safetensors nor"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_flipped_bytes_in_any_file_panic(
        file in 0usize..6,
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4),
    ) {
        let copy = copy("tiny-llama3");
        let name = [
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
        ][file];
        let path = copy.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        // Headers come first; flips in plain weights are no damage that a reader could see.
        let range = bytes.len().min(8192);
        for (index, mask) in flips {
            bytes[index.index(range)] ^= mask;
        }
        std::fs::write(&path, bytes).unwrap();
        if let Ok(base) = BaseFile::open(copy.path()) {
            for tensor in base.tensors() {
                let _ = base.read_f32(&tensor.name);
            }
            if let Ok(tokenizer) = Tokenizer::of_base(&base) {
                let ids = tokenizer.encode("the 12 <|eot_id|>", true).unwrap_or_default();
                tokenizer.decode(&ids);
                let _ = tokenizer.render_chat(&[modularbase_core::ChatMessage::user("x")], true);
            }
        }
    }
}
