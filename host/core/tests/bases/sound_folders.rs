//! Hugging Face folders: shape, tensors, tokenizer and identity.

use crate::tiny_checkpoint::{copy, expected, folder};
use modularbase_core::{BaseFile, ChatMessage, StoredDtype, Tokenizer};

#[test]
fn a_qwen2_folder_gives_its_shape() {
    let base = BaseFile::open(folder("tiny-qwen2")).unwrap();
    let shape = base.shape();
    assert_eq!((shape.architecture.as_str(), shape.qkv_bias, base.tied_head()), ("qwen2", true, true));
    assert_eq!((shape.hidden_size, shape.intermediate_size, shape.num_layers), (64, 160, 4));
    assert_eq!((shape.num_heads, shape.num_kv_heads, shape.head_dim), (4, 2, 16));
    assert_eq!((shape.vocab_size, shape.max_position), (288, 256));
    assert_eq!((shape.rms_norm_eps, shape.rope_theta), (1e-6, 1e6));
    assert_eq!(shape.rope_freq_scale, None);
    assert_eq!(base.tensors().count(), 2 + 4 * 12);
    assert_eq!(base.tensor("layers.0.attn_k_bias").unwrap().shape, [32]);
    assert_eq!(base.tensor("output").unwrap().name, "token_embd");
    assert!(base.tensors().all(|tensor| tensor.kind == StoredDtype::BF16 && tensor.row_map.is_none()));
}

#[test]
fn a_llama3_folder_of_two_shards_gives_its_shape_and_scaled_frequencies() {
    let base = BaseFile::open(folder("tiny-llama3")).unwrap();
    let shape = base.shape();
    assert_eq!((shape.architecture.as_str(), shape.qkv_bias, base.tied_head()), ("llama", false, false));
    assert_eq!((shape.num_heads, shape.num_kv_heads, shape.head_dim), (4, 1, 32));
    assert_eq!(base.tensors().count(), 3 + 4 * 9);
    assert_eq!(base.tensor("output").unwrap().shape, [288, 64]);
    assert_eq!(base.tensor("layers.1.attn_q").unwrap().shape, [128, 64]);
    assert!(base.tensors().all(|tensor| tensor.kind == StoredDtype::F16));

    let scale = shape.rope_freq_scale.as_ref().unwrap();
    for (i, (factor, wanted)) in scale.iter().zip(expected("tiny-llama3").inverse_frequencies).enumerate() {
        let found = f64::from(*factor) * shape.rope_theta.powf(-2.0 * i as f64 / 32.0);
        assert!((found - wanted).abs() <= 1e-6 * wanted, "frequency {i}: {found}, expected {wanted}");
    }
    assert!(scale.contains(&1.0) && scale.contains(&0.125));
}

#[test]
fn tensors_hold_the_values_that_were_written() {
    for name in ["tiny-qwen2", "tiny-llama3"] {
        let base = BaseFile::open(folder(name)).unwrap();
        let first_values = expected(name).first_values;
        for (hugging_face, canonical) in [
            ("model.embed_tokens.weight", "token_embd"),
            ("model.layers.2.self_attn.k_proj.weight", "layers.2.attn_k"),
            ("model.layers.3.mlp.down_proj.weight", "layers.3.ffn_down"),
        ] {
            let values = base.read_f32(canonical).unwrap();
            assert_eq!(values[..4], first_values[hugging_face], "{name} {canonical}");
            let info = base.tensor(canonical).unwrap();
            assert_eq!(values.len(), info.shape.iter().product::<usize>());
            assert_eq!(base.read_bytes(canonical).unwrap().len(), info.byte_len());
        }
    }
}

#[test]
fn single_rows_are_read_from_their_place() {
    let base = BaseFile::open(folder("tiny-llama3")).unwrap();
    let all = base.read_bytes("token_embd").unwrap();
    let row_bytes = base.tensor("token_embd").unwrap().row_bytes();
    assert_eq!(row_bytes, 128);
    let mut two = vec![0; 2 * row_bytes];
    base.read_rows("token_embd", 286, &mut two).unwrap();
    assert_eq!(two, all[286 * row_bytes..]);
    assert!(base.read_rows("token_embd", 287, &mut two).is_err());
    assert!(base.read_rows("token_embd", usize::MAX, &mut two).is_err());
    assert!(base.read_rows("layers.9.attn_q", 0, &mut two).is_err());
}

#[test]
fn prompts_give_the_token_ids_of_the_tokenizer_file() {
    for name in ["tiny-qwen2", "tiny-llama3"] {
        let tokenizer = Tokenizer::of_base(&BaseFile::open(folder(name)).unwrap()).unwrap();
        for case in expected(name).cases {
            assert_eq!(tokenizer.encode(&case.prompt, true).unwrap(), case.token_ids, "{name}");
            assert_eq!(tokenizer.decode(&case.token_ids), case.prompt, "{name}");
        }
    }
}

#[test]
fn templates_and_ends_come_from_the_folder() {
    let tokenizer = Tokenizer::of_base(&BaseFile::open(folder("tiny-llama3")).unwrap()).unwrap();
    let rendered = tokenizer.render_chat(&[ChatMessage::user(" Hi ")], true).unwrap();
    let expected = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n";
    assert_eq!(rendered.text, expected);
    let end_of_turn = tokenizer.id_of("<|eot_id|>").unwrap();
    assert!(tokenizer.is_end(end_of_turn));
    assert_eq!(tokenizer.document_end(), tokenizer.id_of("<|end_of_text|>"));
    assert_eq!(tokenizer.encode(&rendered.text, true).unwrap()[0], tokenizer.begin().0.unwrap());

    let tokenizer = Tokenizer::of_base(&BaseFile::open(folder("tiny-qwen2")).unwrap()).unwrap();
    let messages = [ChatMessage::system("S"), ChatMessage::user("U"), ChatMessage::assistant("A")];
    let rendered = tokenizer.render_chat(&messages, false).unwrap();
    let expected = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n";
    assert_eq!(rendered.text, expected);
}

#[test]
fn without_a_template_the_messages_are_joined_and_the_caller_is_told() {
    let copy = copy("tiny-qwen2");
    std::fs::remove_file(copy.path().join("chat_template.jinja")).unwrap();
    let tokenizer = Tokenizer::of_base(&BaseFile::open(copy.path()).unwrap()).unwrap();
    let messages = [ChatMessage::system("S"), ChatMessage::user("U")];
    let rendered = tokenizer.render_chat(&messages, true).unwrap();
    assert_eq!((rendered.text.as_str(), rendered.from_template), ("S\n\nU", false));
    assert!(!tokenizer.has_chat_template());
}

#[test]
fn the_fingerprint_follows_the_content_and_not_the_place() {
    let original = BaseFile::open(folder("tiny-llama3")).unwrap().fingerprint().unwrap();
    assert!(original.starts_with("sha256:") && original.len() == 71, "{original}");
    // expected.json and whatever else lies beside is no part of the base.
    let copy = copy("tiny-llama3");
    std::fs::remove_file(copy.path().join("expected.json")).unwrap();
    std::fs::write(copy.path().join("README.md"), "notes").unwrap();
    let moved = BaseFile::open(copy.path()).unwrap();
    assert_eq!(moved.fingerprint().unwrap(), original);

    for part in moved.parts() {
        let mut bytes = std::fs::read(part).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(part, &bytes).unwrap();
        assert_ne!(moved.fingerprint().unwrap(), original, "{}", part.display());
        bytes[last] ^= 1;
        std::fs::write(part, &bytes).unwrap();
    }
    assert_eq!(moved.fingerprint().unwrap(), original);
}

#[test]
fn a_remembered_fingerprint_is_used_until_a_file_changes() {
    let (copy, cache) = (copy("tiny-qwen2"), tempfile::tempdir().unwrap());
    let base = BaseFile::open(copy.path()).unwrap();
    let first = base.cached_fingerprint(cache.path()).unwrap();
    assert_eq!(first, base.fingerprint().unwrap());
    let entries = || std::fs::read_dir(cache.path().join("fingerprints")).unwrap().map(|e| e.unwrap().path());
    let entry = entries().next().unwrap();
    assert_eq!(entries().count(), 1, "nothing half-written is left");

    // A remembered answer is believed; one that is no fingerprint is not.
    let other = format!("sha256:{}", "0".repeat(64));
    std::fs::write(&entry, &other).unwrap();
    assert_eq!(base.cached_fingerprint(cache.path()).unwrap(), other);
    std::fs::write(&entry, "sha256:nonsense").unwrap();
    assert_eq!(base.cached_fingerprint(cache.path()).unwrap(), first);

    let config = copy.path().join("generation_config.json");
    std::fs::write(&config, "{\"eos_token_id\": 3}").unwrap();
    assert_ne!(base.cached_fingerprint(cache.path()).unwrap(), first);

    // A cache that can't be written costs nothing but time.
    let file = cache.path().join("fingerprints").join("not-a-folder");
    std::fs::write(&file, "").unwrap();
    assert_eq!(base.cached_fingerprint(&file).unwrap(), base.fingerprint().unwrap());
}
