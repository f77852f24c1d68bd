//! GGUF files, sound and damaged: what is sound is read, what is not is refused in words, and nothing panics.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::small_gguf::{HEAD_DIM, HEADS, Meta, SmallGguf};
use modularbase_core::{BaseFile, BaseFileError, ChatMessage, StoredDtype, Tokenizer, TokenizerError};
use proptest::prelude::*;

/// A file in a folder of its own.
struct Written {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn write(bytes: &[u8]) -> Written {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.gguf");
    File::create(&path).unwrap().write_all(bytes).unwrap();
    Written { _folder: folder, path }
}

fn open(gguf: &SmallGguf) -> Result<BaseFile, BaseFileError> {
    BaseFile::open(&write(&gguf.bytes().0).path)
}

/// Everything that a host does with a base's files. Errors are fine, panics are not.
fn use_everything(path: &Path) {
    let Ok(base) = BaseFile::open(path) else { return };
    for tensor in base.tensors() {
        if let Ok(values) = base.read_f32(&tensor.name) {
            assert_eq!(values.len(), tensor.shape.iter().product::<usize>());
        }
    }
    if let Ok(tokenizer) = Tokenizer::of_base(&base) {
        if let Ok(ids) = tokenizer.encode("the end <|endoftext|> 12", true) {
            tokenizer.decode(&ids);
        }
        let _ = tokenizer.encode("the end 12", false);
        let _ = tokenizer.render_chat(&[ChatMessage::user("x")], true);
    }
}

#[test]
fn a_sound_file_is_read() {
    let written = write(&SmallGguf::model("llama").bytes().0);
    let base = BaseFile::open(&written.path).unwrap();
    assert_eq!((base.shape().num_layers, base.shape().head_dim, base.shape().vocab_size), (2, 16, 260));
    assert!(base.tied_head());
    assert_eq!(base.tensor("token_embd").unwrap().kind, StoredDtype::F16);
    assert_eq!(base.read_f32("layers.1.attn_v").unwrap()[64 * 5..][..64], [5.0; 64]);
    let tokenizer = Tokenizer::of_base(&base).unwrap();
    assert_eq!(tokenizer.decode(&tokenizer.encode("the end", true).unwrap()), "the end");
    assert_eq!(tokenizer.encode(" the", true).unwrap(), [258]);
    assert_eq!(tokenizer.ends().collect::<Vec<_>>(), [259]);
    use_everything(&written.path);
}

#[test]
fn llama_files_have_their_interleaved_query_and_key_rows_sorted_into_halves() {
    let written = write(&SmallGguf::model("llama").bytes().0);
    let base = BaseFile::open(&written.path).unwrap();
    for (name, heads) in [("layers.0.attn_q", HEADS), ("layers.1.attn_k", 2)] {
        let values = base.read_f32(name).unwrap();
        let first_of_rows: Vec<usize> = values.iter().step_by(64).map(|value| *value as usize).collect();
        let expected: Vec<usize> = (0..heads)
            .flat_map(|head| (0..HEAD_DIM).map(move |r| head * HEAD_DIM + 2 * (r % 8) + r / 8))
            .collect();
        assert_eq!(first_of_rows, expected, "{name}");
        // The bytes in canonical order say the same.
        let row_bytes = base.tensor(name).unwrap().row_bytes();
        let (stored, ordered) = (base.read_bytes(name).unwrap(), base.read_ordered_bytes(name).unwrap());
        assert_eq!(ordered[row_bytes..2 * row_bytes], stored[2 * row_bytes..3 * row_bytes]);
    }
    assert!(base.tensor("layers.0.attn_v").unwrap().row_map.is_none());
}

#[test]
fn qwen2_files_have_their_rows_in_order_and_a_bias() {
    let mut gguf = SmallGguf::model("qwen2");
    for layer in 0..2 {
        gguf.tensor(&format!("blk.{layer}.attn_q.bias"), &[64], 0);
        gguf.tensor(&format!("blk.{layer}.attn_k.bias"), &[32], 0);
        gguf.tensor(&format!("blk.{layer}.attn_v.bias"), &[32], 0);
    }
    gguf.tensor("output.weight", &[260, 64], 8);
    let written = write(&gguf.bytes().0);
    let base = BaseFile::open(&written.path).unwrap();
    assert!(base.shape().qkv_bias && !base.tied_head());
    assert!(base.tensors().all(|tensor| tensor.row_map.is_none()));
    let bias = base.read_f32("layers.1.attn_q_bias").unwrap();
    assert_eq!(bias, (0..64).map(|i| i as f32).collect::<Vec<_>>());
}

#[test]
fn a_llama_bias_is_permuted_like_its_rows() {
    let mut gguf = SmallGguf::model("llama");
    for layer in 0..2 {
        gguf.tensor(&format!("blk.{layer}.attn_q.bias"), &[64], 0);
        gguf.tensor(&format!("blk.{layer}.attn_k.bias"), &[32], 0);
        gguf.tensor(&format!("blk.{layer}.attn_v.bias"), &[32], 0);
    }
    let written = write(&gguf.bytes().0);
    let base = BaseFile::open(&written.path).unwrap();
    assert_eq!(base.read_f32("layers.0.attn_q_bias").unwrap()[..4], [0.0, 2.0, 4.0, 6.0]);
    assert_eq!(base.read_f32("layers.0.attn_v_bias").unwrap()[..4], [0.0, 1.0, 2.0, 3.0]);
}

#[test]
fn rope_factors_in_the_file_divide_the_frequencies() {
    let mut gguf = SmallGguf::model("llama");
    gguf.tensor("rope_freqs.weight", &[8], 0);
    let values: Vec<u8> = (0..8).flat_map(|i| (1.0 + i as f32).to_le_bytes()).collect();
    gguf.tensors.last_mut().unwrap().bytes = values;
    let base = open(&gguf).unwrap();
    let expected: Vec<f32> = (0..8).map(|i| 1.0 / (1.0 + i as f32)).collect();
    assert_eq!(base.shape().rope_freq_scale.as_deref(), Some(expected.as_slice()));

    gguf.tensors.last_mut().unwrap().bytes[4..8].copy_from_slice(&0f32.to_le_bytes());
    assert!(open(&gguf).unwrap_err().to_string().contains("positive"));
}

#[test]
fn a_sentence_piece_vocabulary_merges_by_score_and_falls_back_to_bytes() {
    let mut gguf = SmallGguf::model("llama");
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(["▁", "a", "b", "ab", "▁a", "▁ab", "ba"].map(String::from));
    let mut types = vec![2, 3, 3];
    types.extend([6; 256]);
    types.extend([1; 7]);
    let mut scores = vec![0.0; 259];
    // "▁a" before "ab" before "▁ab".
    scores.extend([-10.0, -10.0, -10.0, -2.0, -1.0, -3.0, -9.0]);
    let vocab = tokens.len();
    gguf.meta("tokenizer.ggml.model", Meta::Text("llama".into()));
    gguf.meta("tokenizer.ggml.tokens", Meta::Texts(tokens));
    gguf.meta("tokenizer.ggml.token_type", Meta::I32s(types));
    gguf.meta("tokenizer.ggml.scores", Meta::F32s(scores));
    gguf.meta("tokenizer.ggml.bos_token_id", Meta::U32(1));
    gguf.meta("tokenizer.ggml.eos_token_id", Meta::U32(2));
    gguf.meta("tokenizer.ggml.unknown_token_id", Meta::U32(0));
    gguf.tensors.remove(0);
    gguf.tensor("token_embd.weight", &[vocab, 64], 1);
    let tokenizer = Tokenizer::of_base(&open(&gguf).unwrap()).unwrap();
    // "▁aba": "▁a" first (-1), then "▁ab" (-3) before "ba" (-9).
    assert_eq!(tokenizer.encode("aba", true).unwrap(), [264, 260]);
    assert_eq!(tokenizer.encode("ba", true).unwrap(), [259, 265]);
    assert_eq!(tokenizer.encode_prompt("ab", true).unwrap(), [1, 264]);
    let ids = tokenizer.encode("é", true).unwrap();
    assert_eq!(ids, [259, 3 + 0xc3, 3 + 0xa9]);
    assert_eq!(tokenizer.decode(&ids), " é");
    assert!(tokenizer.is_end(2));
    gguf.meta("tokenizer.ggml.add_space_prefix", Meta::Bool(false));
    gguf.meta("tokenizer.ggml.add_bos_token", Meta::Bool(false));
    let tokenizer = Tokenizer::of_base(&open(&gguf).unwrap()).unwrap();
    assert_eq!(tokenizer.encode_prompt("ab", true).unwrap(), [262]);
}

#[test]
fn every_truncation_is_refused() {
    let (bytes, header) = SmallGguf::model("llama").bytes();
    let written = write(&bytes);
    let file = File::options().write(true).open(&written.path).unwrap();
    // From the end, so that the one file only ever shrinks: every length in the header, then steps of 97.
    let lengths = (0..bytes.len()).rev().filter(|length| *length < header + 40 || length % 97 == 0);
    for length in lengths {
        file.set_len(length as u64).unwrap();
        let error = BaseFile::open(&written.path).unwrap_err();
        assert!(error.to_string().contains("small.gguf"), "{error}");
    }
}

#[test]
fn no_flipped_bit_in_the_header_panics() {
    let (bytes, header) = SmallGguf::model("llama").bytes();
    let written = write(&bytes);
    let file = File::options().write(true).open(&written.path).unwrap();
    for (at, byte) in bytes[..header].iter().enumerate() {
        for bit in 0..8 {
            file.write_all_at(&[byte ^ (1 << bit)], at as u64).unwrap();
            let _ = BaseFile::open(&written.path);
        }
        file.write_all_at(&[*byte], at as u64).unwrap();
    }
    BaseFile::open(&written.path).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_a_host_does_with_flipped_bytes_panics(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4),
        in_header in any::<bool>(),
    ) {
        let (mut bytes, header) = SmallGguf::model("llama").bytes();
        let range = if in_header { header } else { bytes.len() };
        for (index, mask) in flips {
            bytes[index.index(range)] ^= mask;
        }
        use_everything(&write(&bytes).path);
    }
}

#[test]
fn counts_and_sizes_that_overflow_are_refused_before_anything_is_allocated() {
    let (bytes, _) = SmallGguf::model("llama").bytes();
    for (at, what) in [(8, "tensors"), (16, "metadata entries"), (24, "bytes of text")] {
        for value in [u64::MAX, u64::MAX / 24 + 1, 1 << 62, 1 << 40] {
            let mut bytes = bytes.clone();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let error = BaseFile::open(&write(&bytes).path).unwrap_err();
            assert!(matches!(error, BaseFileError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains(what), "{error}");
        }
    }
    // Shapes that agree with a config of absurd sizes, in a file that holds no such bytes.
    for (key, value) in [
        ("embedding_length", 1 << 24),
        ("block_count", 1 << 24),
        ("attention.head_count", 1 << 24),
        ("attention.key_length", 1 << 24),
        ("context_length", u32::MAX),
    ] {
        let mut gguf = SmallGguf::model("llama");
        gguf.meta(&format!("llama.{key}"), Meta::U32(value));
        assert!(open(&gguf).is_err(), "{key}");
    }
    let mut gguf = SmallGguf::model("llama");
    gguf.tensors[0].shape = vec![1 << 40, 64];
    assert!(open(&gguf).is_err());
}

#[test]
fn a_zero_or_absurd_alignment_is_refused() {
    for alignment in [0, u32::MAX] {
        let mut gguf = SmallGguf::model("llama");
        gguf.meta("general.alignment", Meta::U32(alignment));
        assert!(open(&gguf).unwrap_err().to_string().contains("general.alignment"));
    }
}

#[test]
fn what_is_missing_or_contradicts_is_named_with_expected_and_found() {
    let refusal = |change: &dyn Fn(&mut SmallGguf)| {
        let mut gguf = SmallGguf::model("llama");
        change(&mut gguf);
        open(&gguf).unwrap_err().to_string()
    };
    let without = |key: &'static str| move |gguf: &mut SmallGguf| gguf.meta.retain(|(other, _)| other != key);

    let error = refusal(&without("llama.block_count"));
    assert!(error.contains("'llama.block_count'") && error.contains("found nothing"), "{error}");
    let error = refusal(&without("tokenizer.ggml.tokens"));
    assert!(error.contains("'tokenizer.ggml.tokens'"), "{error}");
    let error = refusal(&|gguf| gguf.meta("general.architecture", Meta::Text("mamba".into())));
    assert!(error.contains("mamba") && error.contains("llama, qwen2"), "{error}");
    let error = refusal(&|gguf| gguf.meta("llama.rope.scaling.type", Meta::Text("yarn".into())));
    assert!(error.contains("yarn"), "{error}");
    let error = refusal(&|gguf| gguf.meta("llama.expert_count", Meta::U32(8)));
    assert!(error.contains("8 experts"), "{error}");
    let error = refusal(&|gguf| gguf.meta("llama.attention.head_count_kv", Meta::U32(3)));
    assert!(error.contains("divisor of the 4 heads") && error.contains("found 3"), "{error}");
    let error = refusal(&|gguf| gguf.meta("llama.rope.dimension_count", Meta::U32(8)));
    assert!(error.contains("rope.dimension_count"), "{error}");
    let error = refusal(&|gguf| gguf.meta("llama.feed_forward_length", Meta::U32(128)));
    assert!(error.contains("[128, 64]") && error.contains("[96, 64]"), "{error}");
    let error = refusal(&|gguf| gguf.meta("llama.vocab_size", Meta::U32(200)));
    assert!(error.contains("at most 200 tokens") && error.contains("260"), "{error}");
    let error = refusal(&|gguf| gguf.tensors.retain(|tensor| tensor.name != "blk.1.ffn_up.weight"));
    assert!(error.contains("blk.1.ffn_up.weight") && error.contains("layers.1.ffn_up"), "{error}");
    let error = refusal(&|gguf| gguf.tensors[3].ggml_type = 19);
    assert!(error.contains("ggml type 19") && error.contains("Q4_1"), "{error}");
}

#[test]
fn tensors_that_overlap_are_refused() {
    let (bytes, header) = SmallGguf::model("llama").bytes();
    // The last table entry ends with its offset: let it point at the first tensor.
    let mut bytes = bytes;
    bytes[header - 8..header].copy_from_slice(&0u64.to_le_bytes());
    let error = BaseFile::open(&write(&bytes).path).unwrap_err();
    assert!(matches!(error, BaseFileError::TensorBounds { .. }), "{error}");
}

#[test]
fn merges_that_join_to_no_token_are_refused() {
    for merge in ["he", "he he", "zz top", "Ġ Ġ"] {
        let mut gguf = SmallGguf::model("llama");
        gguf.meta("tokenizer.ggml.merges", Meta::Texts(vec![merge.into()]));
        let error = Tokenizer::of_base(&open(&gguf).unwrap()).unwrap_err();
        assert!(matches!(error, TokenizerError::Invalid { .. }), "{error}");
        assert!(error.to_string().contains(merge), "{error}");
    }
}

#[test]
fn unknown_kinds_of_tokenizer_are_named() {
    for (key, value) in [("model", "rwkv"), ("pre", "no-such-rule")] {
        let mut gguf = SmallGguf::model("llama");
        gguf.meta(&format!("tokenizer.ggml.{key}"), Meta::Text(value.into()));
        let error = Tokenizer::of_base(&open(&gguf).unwrap()).unwrap_err();
        assert!(error.to_string().contains(value), "{error}");
    }
}

#[test]
fn a_file_of_another_kind_is_no_base() {
    for bytes in [&b""[..], b"GGU", b"PK\x03\x04 something else entirely", &[0; 4096]] {
        assert!(BaseFile::open(&write(bytes).path).is_err());
    }
    let error = BaseFile::open("/nowhere/at/all.gguf").unwrap_err();
    assert!(matches!(error, BaseFileError::Io { .. }), "{error}");
}
