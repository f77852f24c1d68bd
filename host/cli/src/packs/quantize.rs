//! `packs quantize`: a pack's weights stored in another format, and what that loses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use manifests::{
    Dtype, FileName, PACK_MANIFEST_FILE, PackManifest, PackSource, Sha256, WeightsRecord, write_atomically,
};
use modularbase_core::{BaseFile, StoredDtype, StoredTensor};
use modularbase_deltas::{GROUP, add_to, fit_levels};
use modularbase_graph::{Init, WeightSpec};
use modularbase_loader::{
    DeltaTo, NewWeight, WeightView, WeightsFile, delta_format, resident_bytes, weights_of, write_weights,
};
use serde_json::json;
use toml_edit::{DocumentMut, value};

use super::bad_pack;
use super::unfinished_pack::UnfinishedPack;
use crate::base::ChosenBase;
use crate::model::explain;
use crate::settings::Settings;
use crate::terminal::{bytes_text, notice, print, print_json, print_line, table};

/// Weights of one kind (`attn_q`, `ffn_up`, ...) of all layers together.
#[derive(Default)]
struct Kind {
    tensors: usize,
    dtypes: Vec<Dtype>,
    bytes: u64,
    losses: Losses,
}

/// Sums of squares.
#[derive(Debug, Default, Clone, Copy)]
struct Losses {
    values: f64,
    errors: f64,
    /// Of what was coded as deltas.
    deltas: f64,
    delta_errors: f64,
}

/// Re-encodes the weights of the pack in `dir` as `to`: in place, with the manifest made to agree, or into `out` alone.
pub(crate) fn quantize(dir: &Path, to: Dtype, out: Option<&Path>, settings: &Settings) -> anyhow::Result<()> {
    let context = super::base_context(settings)?;
    let pack = UnfinishedPack::read(dir, &context)?;
    let Some((file, from)) = &pack.weights else {
        let failure = bad_pack("the pack's manifest names no weights file: its weights are the base's own");
        return Err(failure.into());
    };
    let path = file.in_folder(dir);
    let base = BaseFile::open(&ChosenBase::find(&settings.host.base)?.path)
        .map_err(|error| explain(error.into()))?;
    let unusable = || bad_pack(format!("{} can't be used as weights", path.display()));
    let copy = tempfile::tempdir().context("can't make a temporary folder")?;
    let stored = open_copy(&path, copy.path(), *from)
        .and_then(|stored| Ok(stored.fits(pack.graph.graph()).map(|()| stored)?))
        .map_err(|error| error.context(unusable()))?;

    let specs: BTreeMap<&str, &WeightSpec> = weights_of(pack.graph.graph()).collect();
    let mut weights = Vec::new();
    let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
    for view in stored.weights() {
        let Some(spec) = specs.get(view.name) else { continue };
        let values = values_of(&view, &base)?;
        let (weight, losses) = encoded(&view, spec, &values, to, &base)?;
        let kind = kinds.entry(view.name.rsplit('.').next().unwrap_or(view.name).to_owned()).or_default();
        kind.count(&weight, losses);
        weights.push(weight);
    }
    drop(stored);
    let target = out.unwrap_or(&path);
    let bytes =
        write_weights(target, &weights).with_context(|| format!("can't write {}", target.display()))?;
    if out.is_none() {
        let (sha256, size) =
            Sha256::of_file(target).with_context(|| format!("can't read {}", target.display()))?;
        let record = WeightsRecord { file: file.clone(), sha256, size, dtype: to };
        let owned = weights.iter().map(|weight| weight.name().to_owned()).collect();
        let held = resident_bytes(pack.graph.graph(), &owned, to);
        let signed = update_manifest(dir, &record, held, context.fingerprint)?;
        if signed {
            notice("note: the pack's signature no longer holds: sign it again with `cargo xtask pack sign`");
        }
    }
    report(target, to, bytes, &kinds, settings)
}

impl Kind {
    fn count(&mut self, weight: &NewWeight, losses: Losses) {
        self.tensors += 1;
        self.bytes += weight.stored_bytes().len() as u64;
        if !self.dtypes.contains(&weight.dtype()) {
            self.dtypes.push(weight.dtype());
        }
        self.losses.add(losses);
    }
}

impl Losses {
    fn add(&mut self, other: Self) {
        self.values += other.values;
        self.errors += other.errors;
        self.deltas += other.deltas;
        self.delta_errors += other.delta_errors;
    }

    /// Root of the squared error over that of the squared values.
    fn relative_error(&self) -> f64 {
        if self.values > 0.0 { (self.errors / self.values).sqrt() } else { 0.0 }
    }

    /// The share of the deltas' squares that is lost; `None` where there are none.
    fn lost_delta(&self) -> Option<f64> {
        (self.deltas > 0.0).then(|| self.delta_errors / self.deltas)
    }
}

/// Opens a copy that nobody else writes to.
pub(crate) fn open_copy(path: &Path, folder: &Path, dtype: Dtype) -> anyhow::Result<WeightsFile> {
    let name: FileName = "weights.safetensors".parse()?;
    let copy = name.in_folder(folder);
    std::fs::copy(path, &copy)?;
    let size = std::fs::metadata(&copy)?.len();
    // Nothing here relies on the hash.
    let record = WeightsRecord { file: name, sha256: Sha256::from_bytes([0; 32]), size, dtype };
    Ok(WeightsFile::open(&copy, &record)?)
}

/// What the weight is: the values in the file, or base and delta added up.
fn values_of(view: &WeightView<'_>, base: &BaseFile) -> anyhow::Result<Vec<f32>> {
    read(view.name, view.shape, view.dtype, view.bytes, view.delta, base)
}

fn read(
    name: &str,
    shape: &[usize],
    dtype: Dtype,
    bytes: &[u8],
    delta: Option<DeltaTo<'_>>,
    base: &BaseFile,
) -> anyhow::Result<Vec<f32>> {
    if let Some(DeltaTo { base: source, levels }) = delta {
        let mut values = base.read_f32(source)?;
        add_to(bytes, levels, &mut values)?;
        return Ok(values);
    }
    let dtype = StoredDtype::try_from(dtype)?;
    let tensor = StoredTensor { name: name.to_owned(), shape: shape.to_vec(), dtype, bytes: bytes.into() };
    Ok(tensor.to_f32()?)
}

/// The weight in its new format, and what was lost.
fn encoded(
    view: &WeightView<'_>,
    spec: &WeightSpec,
    values: &[f32],
    to: Dtype,
    base: &BaseFile,
) -> anyhow::Result<(NewWeight, Losses)> {
    let (name, shape) = (view.name, view.shape);
    let mut losses = Losses::default();
    let weight = match (delta_format(to), &spec.init, shape) {
        (Some(format), Init::CopyFromBase(source), [_, columns]) if columns.is_multiple_of(GROUP) => {
            let origin = base.read_f32(source)?;
            let delta: Vec<f32> = values.iter().zip(&origin).map(|(value, base)| value - base).collect();
            let levels = fit_levels(&delta, format)?;
            let weight = NewWeight::of_delta(name, shape, source, &delta, &levels)?;
            let sum = read(
                name,
                shape,
                to,
                weight.stored_bytes(),
                Some(DeltaTo { base: source, levels: &levels }),
                base,
            )?;
            losses = compare(values, &sum);
            losses.deltas = square_sum(delta.iter().map(|delta| f64::from(*delta)));
            losses.delta_errors = losses.errors;
            return Ok((weight, losses));
        }
        _ => {
            let dtype = whole_dtype(to, view);
            if dtype == view.dtype {
                NewWeight::of_bytes(name, shape, view.bytes.to_vec(), dtype)?
            } else {
                NewWeight::of_values(name, shape, values, dtype)?
            }
        }
    };
    let new = read(name, shape, weight.dtype(), weight.stored_bytes(), None, base)?;
    losses.add(compare(values, &new));
    Ok((weight, losses))
}

/// How a weight that is no delta is stored in a file of that dtype: as it is, where that may be.
fn whole_dtype(to: Dtype, view: &WeightView<'_>) -> Dtype {
    let is_matrix = view.shape.len() == 2;
    let kept: &[Dtype] = match (to, is_matrix) {
        (Dtype::F32 | Dtype::F16 | Dtype::Bf16, _) => &[],
        (_, false) => &[Dtype::F32, Dtype::F16, Dtype::Bf16],
        (_, true) if to.is_delta() => &[Dtype::F16, Dtype::Bf16, Dtype::Q8_0],
        (_, true) => &[Dtype::F16, Dtype::Bf16],
    };
    match view.shape {
        [_, columns] if !to.is_delta() && columns.is_multiple_of(32) => to,
        _ if kept.contains(&view.dtype) => view.dtype,
        _ if kept.is_empty() => to,
        _ => Dtype::Bf16,
    }
}

fn compare(values: &[f32], new: &[f32]) -> Losses {
    Losses {
        values: square_sum(values.iter().map(|value| f64::from(*value))),
        errors: square_sum(values.iter().zip(new).map(|(a, b)| f64::from(*a) - f64::from(*b))),
        ..Losses::default()
    }
}

fn square_sum(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum()
}

/// Makes the pack's manifest, in the author's form or the finished one, say what its weights file holds now, and in the
/// finished one which bytes it takes when it is `held` so; all else in it stays. Tells whether it is signed.
fn update_manifest(dir: &Path, record: &WeightsRecord, held: u64, base: Sha256) -> anyhow::Result<bool> {
    let path: PathBuf = dir.join(PACK_MANIFEST_FILE);
    let text = std::fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
    let is_finished = PackManifest::parse(&text).is_ok();
    let mut document: DocumentMut = text.parse()?;
    document["weights"]["dtype"] = value(record.dtype.name());
    if is_finished {
        document["weights"]["sha256"] = value(record.sha256.to_string());
        document["weights"]["size"] = value(i64::try_from(record.size)?);
        document["memory"]["resident_bytes"][record.dtype.name()] = value(i64::try_from(held)?);
    }
    if record.dtype.is_delta() {
        document["base"]["fingerprint"] = value(base.prefixed());
    }
    let text = document.to_string();
    let signed = if is_finished {
        PackManifest::parse(&text)?.signer.is_some()
    } else {
        PackSource::parse(&text)?.signer.is_some()
    };
    write_atomically(&path, text.as_bytes()).with_context(|| format!("can't write {}", path.display()))?;
    Ok(signed && is_finished)
}

fn report(
    path: &Path,
    to: Dtype,
    bytes: u64,
    kinds: &BTreeMap<String, Kind>,
    settings: &Settings,
) -> anyhow::Result<()> {
    let mut total = Losses::default();
    kinds.values().for_each(|kind| total.add(kind.losses));
    if settings.json {
        let kinds: serde_json::Map<String, serde_json::Value> = kinds
            .iter()
            .map(|(name, kind)| {
                let value = json!({
                    "tensors": kind.tensors,
                    "dtypes": kind.dtypes,
                    "bytes": kind.bytes,
                    "relative_error": kind.losses.relative_error(),
                    "lost_delta": kind.losses.lost_delta(),
                });
                (name.clone(), value)
            })
            .collect();
        return print_json(&json!({
            "path": path,
            "dtype": to,
            "bytes": bytes,
            "relative_error": total.relative_error(),
            "lost_delta": total.lost_delta(),
            "kinds": kinds,
        }));
    }
    let head = ["KIND", "TENSORS", "STORED AS", "BYTES", "RELATIVE ERROR", "OF THE DELTA LOST"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (name, kind) in kinds {
        let dtypes: Vec<&str> = kind.dtypes.iter().map(|dtype| dtype.name()).collect();
        rows.push(row(name, &kind.tensors.to_string(), &dtypes.join(", "), kind.bytes, &kind.losses));
    }
    let tensors: usize = kinds.values().map(|kind| kind.tensors).sum();
    rows.push(row("all", &tensors.to_string(), to.name(), bytes, &total));
    print(&table(&rows))?;
    print_line(&format!("{}: {}", path.display(), bytes_text(bytes)))
}

fn row(name: &str, tensors: &str, dtypes: &str, bytes: u64, losses: &Losses) -> Vec<String> {
    let percent = |share: f64| format!("{:.3} %", 100.0 * share);
    vec![
        name.to_owned(),
        tensors.to_owned(),
        dtypes.to_owned(),
        bytes_text(bytes),
        percent(losses.relative_error()),
        losses.lost_delta().map_or("-".to_owned(), percent),
    ]
}
