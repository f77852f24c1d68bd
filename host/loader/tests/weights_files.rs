//! Weights files in plain and in block formats: what is read, and what is refused with which words.

use std::{collections::HashMap, path::Path};

use fixture_packs::random_weights;
use manifests::{Dtype, FileName, Sha256, WeightsRecord};
use modularbase_deltas::{DeltaFormat, Levels, decode_into, encode, fit_levels};
use modularbase_graph::{Graph, Init, Node, Op, WeightSpec};
use modularbase_loader::{
    BLOCKS_KEY, NewWeight, WeightsError, WeightsFile, WriteWeightsError, delta_dtype, write_weights,
};
use safetensors::tensor::{Dtype as StoredDtype, TensorView, serialize_to_file};

/// A matrix of whole blocks, one of none, and a vector.
fn graph() -> Graph {
    let node = |name: &str, shape: &[usize]| Node {
        name: name.to_owned(),
        op: Op::Weight(WeightSpec { shape: shape.to_vec(), init: Init::Normal { std: 0.02 } }),
        inputs: Vec::new(),
    };
    let nodes = vec![node("matrix", &[5, 64]), node("narrow", &[3, 20]), node("norm", &[64])];
    Graph { nodes, outputs: Vec::new() }
}

fn record(path: &Path, dtype: Dtype) -> WeightsRecord {
    let size = std::fs::metadata(path).unwrap().len();
    let file: FileName = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    WeightsRecord { file, sha256: Sha256::of_bytes(b""), size, dtype }
}

#[test]
fn blocks_are_read_with_the_shapes_of_their_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    for (dtype, row) in [(Dtype::Q8_0, 68), (Dtype::Q4_0, 36), (Dtype::Q4_1, 40)] {
        random_weights(&graph(), dtype, &path);
        let file = WeightsFile::open(&path, &record(&path, dtype)).unwrap();
        file.fits(&graph()).unwrap();
        let found = |name: &str| {
            let weight = file.weights().find(|weight| weight.name == name).unwrap();
            (weight.dtype, weight.shape.to_vec(), weight.bytes.len())
        };
        assert_eq!(found("matrix"), (dtype, vec![5, 64], 5 * row));
        assert_eq!(found("narrow"), (Dtype::F16, vec![3, 20], 3 * 20 * 2));
        assert_eq!(found("norm"), (Dtype::F32, vec![64], 64 * 4));
        assert_eq!(file.names().len(), 3);
    }
}

struct Stored<'a> {
    name: &'a str,
    dtype: StoredDtype,
    shape: &'a [usize],
    blocks: Option<&'a str>,
}

/// Why a file with one tensor is refused where the manifest states q8_0.
fn refusal(stored: &Stored<'_>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let bytes = vec![0; stored.shape.iter().product::<usize>() * stored.dtype.bitsize() / 8];
    let view = TensorView::new(stored.dtype, stored.shape.to_vec(), &bytes).unwrap();
    let texts = stored.blocks.map(|text| HashMap::from([(BLOCKS_KEY.to_owned(), text.to_owned())]));
    serialize_to_file([(stored.name, view)], texts, &path).unwrap();
    let fits = WeightsFile::open(&path, &record(&path, Dtype::Q8_0)).and_then(|file| file.fits(&graph()));
    fits.unwrap_err().to_string()
}

#[test]
fn a_file_that_contradicts_itself_its_manifest_or_its_graph_is_refused() {
    use StoredDtype::{BF16, F32, I32, U8};
    let sound = r#"{"matrix": {"dtype": "q8_0", "shape": [5, 64]}}"#;
    let cases = [
        (
            "matrix",
            U8,
            &[5, 68][..],
            None,
            "expected an entry for the tensor `matrix` of type U8, found none",
        ),
        ("matrix", U8, &[5, 67], Some(sound), "to be [5, 68] bytes, found [5, 67]"),
        ("matrix", BF16, &[5, 68], Some(sound), "expected `matrix` to be of type U8, found BF16"),
        ("matrix", BF16, &[5, 64], None, "with q8_0 in the manifest it should be stored as q8_0, found bf16"),
        ("narrow", F32, &[3, 20], None, "should be stored as f16 or bf16, found f32"),
        ("norm", I32, &[64], None, "tensor `norm` is of type I32: store it as"),
        ("other", F32, &[64], None, "holds `other`, which the graph has no weight for"),
        ("norm", F32, &[64], Some(sound), "names `matrix`, which the file does not hold: remove the entry"),
        ("matrix", U8, &[5, 68], Some("[]"), "expected JSON like"),
        ("matrix", U8, &[5, 68], Some(r#"{"matrix": {"dtype": "q6_k", "shape": [5, 64]}}"#), "found q6_k"),
        (
            "matrix",
            U8,
            &[5, 36],
            Some(r#"{"matrix": {"dtype": "q4_0", "shape": [5, 64]}}"#),
            "with q8_0 in the manifest it should be stored as q8_0, found q4_0",
        ),
        (
            "matrix",
            U8,
            &[5, 68],
            Some(r#"{"matrix": {"dtype": "q8_0", "shape": [5, 65]}}"#),
            "expected rows of whole blocks of 32 values for `matrix`, found 65 columns",
        ),
        (
            "matrix",
            U8,
            &[4, 68],
            Some(r#"{"matrix": {"dtype": "q8_0", "shape": [4, 64]}}"#),
            "the graph has shape [5, 64], the file [4, 64]",
        ),
        (
            "matrix",
            U8,
            &[5, 68],
            Some(r#"{"matrix": {"dtype": "q8_0", "shape": [5, 18446744073709551584]}}"#),
            "expected `matrix`",
        ),
    ];
    for (name, dtype, shape, blocks, reason) in cases {
        let error = refusal(&Stored { name, dtype, shape, blocks });
        assert!(error.contains(reason), "expected `{reason}`, found `{error}`");
    }
}

/// A matrix of whole groups and one of none that start as the base's, one that does not, and a vector.
fn graph_of_copies() -> Graph {
    let node = |name: &str, shape: &[usize], init: Init| Node {
        name: name.to_owned(),
        op: Op::Weight(WeightSpec { shape: shape.to_vec(), init }),
        inputs: Vec::new(),
    };
    let copy = |name: &str| Init::CopyFromBase(name.to_owned());
    let nodes = vec![
        node("matrix", &[5, 128], copy("layers.3.attn_q")),
        node("narrow", &[3, 96], copy("layers.3.attn_k")),
        node("fresh", &[2, 128], Init::Normal { std: 0.02 }),
        node("norm", &[128], copy("layers.3.attn_norm")),
    ];
    Graph { nodes, outputs: Vec::new() }
}

fn deltas() -> Vec<f32> {
    (0..640).map(|i| 0.01 * (i as f32 * 0.7).sin() * (1.0 + (i / 64) as f32)).collect()
}

#[test]
fn deltas_and_other_formats_in_one_file_come_back_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    for format in DeltaFormat::ALL {
        let levels = fit_levels(&deltas(), format).unwrap();
        let weights = [
            NewWeight::of_values("norm", &[128], &[1.0; 128], Dtype::F32).unwrap(),
            NewWeight::of_values("fresh", &[2, 128], &[0.5; 256], Dtype::Q8_0).unwrap(),
            NewWeight::of_values("narrow", &[3, 96], &[-0.5; 288], Dtype::Bf16).unwrap(),
            NewWeight::of_delta("matrix", &[5, 128], "layers.3.attn_q", &deltas(), &levels).unwrap(),
        ];
        let bytes = write_weights(&path, &weights).unwrap();
        assert_eq!(bytes, std::fs::metadata(&path).unwrap().len());
        let dtype = delta_dtype(format);
        let file = WeightsFile::open(&path, &record(&path, dtype)).unwrap();
        file.fits(&graph_of_copies()).unwrap();
        let found = |name: &str| file.weights().find(|weight| weight.name == name).unwrap();
        assert_eq!(found("norm").dtype, Dtype::F32);
        assert_eq!((found("fresh").dtype, found("fresh").bytes.len()), (Dtype::Q8_0, 2 * 4 * 34));
        assert_eq!(found("narrow").dtype, Dtype::Bf16);
        let matrix = found("matrix");
        assert_eq!((matrix.dtype, matrix.shape), (dtype, &[5, 128][..]));
        assert_eq!(matrix.bytes, encode(&deltas(), &levels).unwrap());
        let delta = matrix.delta.unwrap();
        assert_eq!((delta.base, delta.levels), ("layers.3.attn_q", &levels));
        assert!(found("norm").delta.is_none());
        let mut decoded = vec![0.0; 640];
        decode_into(matrix.bytes, delta.levels, &mut decoded).unwrap();
        assert!(decoded.iter().any(|value| *value != 0.0));
    }
}

#[test]
fn what_no_file_may_hold_is_not_written() {
    let levels = Levels::gaussian(DeltaFormat::Q2, 1.0);
    let message = |result: Result<NewWeight, WriteWeightsError>| result.unwrap_err().to_string();
    let values =
        |shape: &[usize], dtype| NewWeight::of_values("w", shape, &vec![0.0; shape.iter().product()], dtype);
    assert!(message(values(&[2, 40], Dtype::Q8_0)).contains("no whole blocks; use f16 or bf16"));
    assert!(message(values(&[64], Dtype::Q4_0)).contains("only matrices are stored in blocks"));
    assert!(message(values(&[2, 64], Dtype::DeltaQ2)).contains("use f32, f16, bf16, q8_0, q4_0 or q4_1"));
    assert!(message(values(&[1, 256], Dtype::Q4K)).contains("can't be stored as q4_k"));
    let few = NewWeight::of_values("w", &[2, 64], &[0.0; 64], Dtype::F32);
    assert!(message(few).contains("has 128 values, found 64"));
    let part = NewWeight::of_delta("w", &[2, 96], "layers.0.attn_q", &[0.0; 192], &levels);
    assert!(message(part).contains("no whole blocks"));
    let diverged = NewWeight::of_delta("w", &[1, 64], "layers.0.attn_q", &[f32::NAN; 64], &levels);
    assert!(message(diverged).contains("did the training diverge"));
    let damaged = NewWeight::of_delta_blocks("w", &[1, 64], "layers.0.attn_q", vec![0xff; 18], &levels);
    assert!(message(damaged).contains("block 0 has scale NaN"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let twice = [values(&[2, 64], Dtype::F32).unwrap(), values(&[2, 64], Dtype::F32).unwrap()];
    let error = write_weights(&path, &twice).unwrap_err().to_string();
    assert!(error.contains("`w` is there twice") && !path.exists(), "{error}");
}

/// Why a file with one tensor of deltas is refused.
fn refused_deltas(name: &str, shape: [usize; 2], entry: &str, bytes: &[u8]) -> WeightsError {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let view = TensorView::new(StoredDtype::U8, shape.to_vec(), bytes).unwrap();
    let texts = HashMap::from([(BLOCKS_KEY.to_owned(), format!("{{\"{name}\": {entry}}}"))]);
    serialize_to_file([(name, view)], Some(texts), &path).unwrap();
    let file = WeightsFile::open(&path, &record(&path, Dtype::DeltaQ2));
    file.and_then(|file| file.fits(&graph_of_copies())).unwrap_err()
}

#[test]
fn damaged_deltas_and_deltas_to_something_else_are_refused() {
    let shape = r#""dtype": "delta-q2", "shape": [5, 128]"#;
    let base = r#""base": "layers.3.attn_q""#;
    let levels = r#""levels": [-2, -1, 1, 2]"#;
    let sound = format!("{{{shape}, {base}, {levels}}}");
    let zeros = vec![0; 5 * 36];
    let damaged = |at: usize, bytes: [u8; 2]| {
        let mut damaged = zeros.clone();
        damaged[at..at + 2].copy_from_slice(&bytes);
        damaged
    };
    let cases = [
        ("matrix", [5, 35], sound.clone(), vec![0; 5 * 35], "to be [5, 36] bytes, found [5, 35]"),
        ("matrix", [5, 36], format!("{{{shape}, {base}}}"), zeros.clone(), "expected `base` and `levels`"),
        ("matrix", [5, 36], format!("{{{shape}, {levels}}}"), zeros.clone(), "expected `base` and `levels`"),
        (
            "matrix",
            [5, 36],
            format!("{{{shape}, {base}, \"levels\": [-1, 1]}}"),
            zeros.clone(),
            "delta-q2 has 4 levels, found 2",
        ),
        (
            "matrix",
            [5, 36],
            format!("{{{shape}, {base}, \"levels\": [-2, 1, -1, 2]}}"),
            zeros.clone(),
            "level 2 is -1: expected finite levels in ascending order",
        ),
        (
            "matrix",
            [5, 36],
            format!("{{{shape}, {base}, \"levels\": [-2, -1, 1, 1e300]}}"),
            zeros.clone(),
            "modularbase.blocks",
        ),
        ("matrix", [5, 36], sound.clone(), damaged(18, [0, 0x7c]), "block 1 has scale inf"),
        ("matrix", [5, 36], sound.clone(), damaged(5 * 36 - 18, [1, 0xfe]), "block 9 has scale NaN"),
        (
            "matrix",
            [5, 36],
            format!("{{{shape}, \"base\": \"layers.4.attn_q\", {levels}}}"),
            zeros.clone(),
            "is stored as a delta to the base's `layers.4.attn_q`, but the graph has it start as `copy_from_base:layers.3.attn_q`",
        ),
        (
            "fresh",
            [2, 36],
            format!("{{\"dtype\": \"delta-q2\", \"shape\": [2, 128], {base}, {levels}}}"),
            vec![0; 72],
            "but the graph has it start as `normal:0.02`",
        ),
        (
            "narrow",
            [3, 27],
            format!("{{\"dtype\": \"delta-q2\", \"shape\": [3, 96], {base}, {levels}}}"),
            vec![0; 81],
            "expected rows of whole blocks of 64 values for `narrow`, found 96 columns",
        ),
        (
            "matrix",
            [5, 50],
            format!("{{\"dtype\": \"delta-q3\", \"shape\": [5, 128], {base}, {levels}}}"),
            vec![0; 250],
            "to be [5, 52] bytes",
        ),
        (
            "matrix",
            [5, 20],
            format!("{{\"dtype\": \"delta-q1\", \"shape\": [5, 128], {base}, \"levels\": [-1, 1]}}"),
            vec![0; 100],
            "with delta-q2 in the manifest it should be stored as that, q8_0, bf16 or f16, found delta-q1",
        ),
        (
            "matrix",
            [5, 136],
            format!("{{\"dtype\": \"q8_0\", \"shape\": [5, 128], {base}, {levels}}}"),
            vec![0; 5 * 136],
            "expected no `base` and no `levels` for `matrix`",
        ),
        (
            "matrix",
            [5, 72],
            r#"{"dtype": "q4_0", "shape": [5, 128]}"#.to_owned(),
            vec![0; 5 * 72],
            "with delta-q2 in the manifest it should be stored as",
        ),
        ("other", [5, 36], sound.clone(), zeros.clone(), "holds `other`, which the graph has no weight for"),
        (
            "matrix",
            [4, 36],
            format!("{{\"dtype\": \"delta-q2\", \"shape\": [4, 128], {base}, {levels}}}"),
            vec![0; 4 * 36],
            "the graph has shape [5, 128], the file [4, 128]",
        ),
    ];
    for (name, shape, entry, bytes, reason) in cases {
        let error = refused_deltas(name, shape, &entry, &bytes);
        if reason.starts_with("block ") {
            assert!(matches!(&error, WeightsError::Delta { name: found, .. } if found == name), "{error:?}");
        }
        let error = error.to_string();
        assert!(error.contains(reason), "expected `{reason}`, found `{error}`");
    }
}
