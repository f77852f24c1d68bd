//! `base show`: what a base is, without loading its weights.

use std::collections::BTreeMap;

use modularbase_core::{BaseFile, StoredDtype, Tokenizer};
use modularbase_engine::derived_slot;
use serde_json::json;

use crate::base::ChosenBase;
use crate::model::{explain, slot};
use crate::settings::{Settings, cache_folder};
use crate::terminal::{bytes_text, print, print_json, table};

/// Prints a base's shape, slot, formats, identity and size.
pub(crate) fn show(base: &ChosenBase, settings: &Settings) -> anyhow::Result<()> {
    base.require()?;
    let file = BaseFile::open(&base.path).map_err(|error| explain(error.into()))?;
    let tokenizer = Tokenizer::of_base(&file).map_err(|error| explain(error.into()))?;
    let fingerprint = file.cached_fingerprint(&cache_folder()?).map_err(|error| explain(error.into()))?;
    let shape = file.shape();
    let given = slot(base, settings);
    let slot_range = given.unwrap_or_else(|| derived_slot(shape.num_layers));
    let slot_from = match (settings.slot, given) {
        (Some(_), _) => "--slot",
        (None, Some(_)) => "manifest",
        (None, None) => "derived",
    };
    let mut dtypes: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for tensor in file.tensors() {
        let (tensors, bytes) = dtypes.entry(dtype_name(tensor.kind)).or_default();
        *tensors += 1;
        *bytes += tensor.byte_len();
    }
    let weight_bytes: usize = dtypes.values().map(|(_, bytes)| bytes).sum();
    let manifest = base.manifest.as_ref().map(|manifest| &manifest.base);
    let context = manifest.and_then(|base| base.context).map_or(shape.max_position, |tokens| tokens as usize);
    if settings.json {
        let dtypes: BTreeMap<_, _> = dtypes
            .iter()
            .map(|(name, (tensors, bytes))| (name, json!({ "tensors": tensors, "bytes": bytes })))
            .collect();
        return print_json(&json!({
            "name": base.name,
            "path": base.path,
            "description": manifest.map(|base| &base.description),
            "license": manifest.map(|base| &base.license),
            "fingerprint": fingerprint,
            "shape": shape,
            "slot": slot_range,
            "slot_from": slot_from,
            "context": context,
            "tied_head": file.tied_head(),
            "chat_template": tokenizer.has_chat_template(),
            "tokens": tokenizer.vocab_size(),
            "dtypes": dtypes,
            "weight_bytes": weight_bytes,
        }));
    }
    let formats: Vec<String> = dtypes
        .iter()
        .map(|(name, (tensors, bytes))| format!("{name} ({tensors} tensors, {})", bytes_text(*bytes as u64)))
        .collect();
    let mut rows = vec![("name", base.name.clone()), ("path", base.path.display().to_string())];
    if let Some(manifest) = manifest {
        rows.push(("description", manifest.description.clone()));
        rows.push(("licence", manifest.license.clone()));
    }
    let heads = format!(
        "{} of width {}, {} for keys and values",
        shape.num_heads, shape.head_dim, shape.num_kv_heads
    );
    let head = if file.tied_head() { "the embedding (tied)" } else { "its own" };
    rows.extend([
        ("architecture", shape.architecture.clone()),
        ("layers", shape.num_layers.to_string()),
        ("slot", format!("layers [{}, {}), {}", slot_range.start, slot_range.end, slot_words(slot_from))),
        ("hidden size", shape.hidden_size.to_string()),
        ("feed-forward", shape.intermediate_size.to_string()),
        ("heads", heads),
        ("vocabulary", format!("{} rows, {} tokens known", shape.vocab_size, tokenizer.vocab_size())),
        ("LM head", head.to_owned()),
        ("context", format!("{context} tokens")),
        ("chat template", if tokenizer.has_chat_template() { "yes" } else { "no" }.to_owned()),
        ("weights", format!("{}: {}", bytes_text(weight_bytes as u64), formats.join(", "))),
        ("fingerprint", fingerprint),
    ]);
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(key, value)| vec![key.to_owned(), value]).collect();
    print(&table(&rows))
}

fn slot_words(from: &str) -> &'static str {
    match from {
        "manifest" => "from its manifest",
        "--slot" => "from --slot",
        _ => "derived, since no manifest gives one",
    }
}

fn dtype_name(kind: StoredDtype) -> String {
    match kind {
        StoredDtype::F32 => "f32".to_owned(),
        StoredDtype::F16 => "f16".to_owned(),
        StoredDtype::BF16 => "bf16".to_owned(),
        StoredDtype::Ggml(dtype) => {
            // Rust's name `Q4_1` or `Q4K`, as manifests spell it.
            let name = format!("{dtype:?}").to_lowercase();
            name.strip_suffix('k').map_or(name.clone(), |stem| format!("{stem}_k"))
        }
    }
}
