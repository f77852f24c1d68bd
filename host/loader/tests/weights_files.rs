//! Weights files in plain and in block formats: what is read, and what is refused with which words.

use std::{collections::HashMap, path::Path};

use fixture_packs::random_weights;
use manifests::{Dtype, FileName, Sha256, WeightsRecord};
use modularbase_graph::{Graph, Init, Node, Op, WeightSpec};
use modularbase_loader::{BLOCKS_KEY, WeightsFile};
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
