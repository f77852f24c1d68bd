//! What a pack's run ends with: report, routing key, data card, a manifest with figures. Each file is written whole, and
//! all of them follow from the run: the same command makes again what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use manifests::{
    BaseFingerprint, FileName, FileRecord, PACK_MANIFEST_FILE, PackManifest, Sha256, WeightsRecord,
    write_atomically,
};
use modularbase_corpus::TokenizedCorpus;
use modularbase_loader::{BaseContext, WeightsFile};
use modularbase_trainer::evaluation::{DeltaRounding, pack_weights};
use modularbase_trainer::report::{FormLoss, RunFacts, WeightFacts, write_report};
use modularbase_trainer::routing::{
    DetectorOptions, KeyOptions, PromptOptions, held_out_check, intent_features, joining_detector,
    make_routing_key, prompts,
};
use modularbase_trainer::{
    BaseEncoder, Checkpoint, DataCard, PackModel, TextRole, TextSource, TrainConfig, TrainedModel,
    TrainingText, base_text_loss, text_loss,
};
use router::{Detector, RoutingKey};

use super::pack::explain;
use crate::eval::command_line;
use crate::interrupt;
use crate::packs::{InstalledRouter, UnfinishedPack, declaration, open_copy};
use crate::terminal::notice;

const ROUTING_KEY: &str = "routing-key.safetensors";
const DATA_CARD: &str = "DATA.md";

/// A run that took its last step, and what its files follow from.
pub(super) struct Finish<'a> {
    pub(super) config: &'a TrainConfig,
    pub(super) pack: &'a UnfinishedPack,
    /// Where the settings' relative paths of texts begin.
    pub(super) data_folder: &'a Path,
    /// Settings that stood above the file's.
    pub(super) above: &'a [(String, String)],
    /// The pack's own folder, with the library.
    pub(super) pack_folder: &'a Path,
    /// The folder of the run; the finished pack is in `pack` in it.
    pub(super) out: &'a Path,
    pub(super) model: &'a PackModel,
    pub(super) context: &'a BaseContext,
    pub(super) encoder: &'a BaseEncoder,
    pub(super) source: &'a TextSource<'a>,
    pub(super) text: &'a TrainingText,
    /// What the shipped weights were made from.
    pub(super) checkpoint: &'a Checkpoint,
    /// What a detector can be trained with; `None`: the pack answers only where it is asked for.
    pub(super) router: Option<InstalledRouter>,
    /// The weights as they ship: file and record.
    pub(super) weights: WeightsRecord,
}

/// Losses in nats a token.
struct Loss {
    own: f64,
    general: Option<f64>,
}

impl Finish<'_> {
    /// Writes what the settings ask for.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let wanted = &self.config.finish;
        let folder = self.out.join("pack");
        let copy = tempfile::tempdir().context("can't make a temporary folder")?;
        let stored = open_copy(&self.weights.file.in_folder(&folder), copy.path(), self.weights.dtype)?;
        let losses = if wanted.report || wanted.data_card || wanted.manifest {
            self.losses(&stored)?
        } else {
            Vec::new()
        };
        if wanted.report {
            self.report(&losses, &stored)?;
        }
        interrupt::check()?;
        if wanted.routing_key {
            let bytes = self.routing_key()?.to_bytes().context("the routing key can't be written")?;
            put(&folder.join(ROUTING_KEY), &bytes)?;
        }
        interrupt::check()?;
        if wanted.data_card {
            put(&folder.join(DATA_CARD), self.data_card(&losses)?.to_markdown().as_bytes())?;
        }
        if wanted.manifest {
            self.manifest(&folder, &losses, &stored)?;
        }
        Ok(())
    }

    /// Of the base, of the trained weights in full precision, and of those that ship, in this order; none without
    /// validation text.
    fn losses(&self, stored: &WeightsFile) -> anyhow::Result<Vec<(String, Loss)>> {
        if self.text.validation.is_empty() {
            return Ok(Vec::new());
        }
        let (model, rows) = (self.model, self.config.rows_at_once());
        let of = |loss: &dyn Fn(&_) -> Result<f64, _>| -> anyhow::Result<Loss> {
            interrupt::check()?;
            let general = match self.text.general.is_empty() {
                true => None,
                false => Some(loss(&self.text.general).map_err(explain)?),
            };
            Ok(Loss { own: loss(&self.text.validation).map_err(explain)?, general })
        };
        let masters = model.frozen_weights(&self.checkpoint.weights).map_err(explain)?;
        let shipped = pack_weights(stored, model.base(), DeltaRounding::Q8_0).map_err(explain)?;
        let shipped = model.frozen_weights(&shipped).map_err(explain)?;
        let base = of(&|text| base_text_loss(model.base(), text, rows))?;
        Ok(vec![
            ("base".to_owned(), base),
            ("trained, f32".to_owned(), of(&|text| text_loss(model, text, &masters, rows))?),
            (format!("shipped, {}", self.weights.dtype), of(&|text| text_loss(model, text, &shipped, rows))?),
        ])
    }

    fn report(&self, losses: &[(String, Loss)], stored: &WeightsFile) -> anyhow::Result<()> {
        let form = |(form, loss): &(String, Loss)| FormLoss {
            form: form.clone(),
            loss: loss.own,
            general: loss.general,
            bytes: form.starts_with("shipped").then_some(self.weights.size),
        };
        let weights = stored.weights().map(|weight| WeightFacts {
            name: weight.name.to_owned(),
            shape: weight.shape.to_vec(),
            format: weight.dtype.to_string(),
            bytes: weight.bytes.len() as u64,
            error: None,
        });
        let facts = RunFacts {
            title: format!("Pack {}", self.pack.name),
            command: command_line(),
            losses: losses.iter().map(form).collect(),
            weights: weights.collect(),
            facts: self.facts(),
        };
        let path = write_report(self.out, &facts).map_err(explain)?;
        notice(&format!("wrote {}", path.display()));
        Ok(())
    }

    fn facts(&self) -> Vec<(String, String)> {
        let slot = self.context.slot;
        vec![
            ("base".to_owned(), self.context.fingerprint.prefixed()),
            ("slot".to_owned(), format!("[{}, {})", slot.start, slot.end)),
            ("strength".to_owned(), self.config.strength.to_string()),
        ]
    }

    fn tokens(&self, files: &[std::path::PathBuf]) -> anyhow::Result<Vec<TokenizedCorpus>> {
        let tokens = |file: &std::path::PathBuf| self.source.tokens(file, self.config).map_err(explain);
        files.iter().map(tokens).collect()
    }

    /// The key of the training text; checked where there is general text and held-out text of both kinds.
    fn routing_key(&self) -> anyhow::Result<RoutingKey> {
        let data = &self.config.data;
        let (base, tokenizer) = (self.model.base(), self.encoder.tokenizer());
        let each_form = self.config.finish.routing_prompts;
        let options = KeyOptions { each_form, seed: self.config.seed, ..KeyOptions::default() };
        let make = |files: &[std::path::PathBuf]| -> anyhow::Result<RoutingKey> {
            let text = self.tokens(files)?;
            let text: Vec<&TokenizedCorpus> = text.iter().collect();
            let fingerprint = self.context.fingerprint;
            make_routing_key(base, fingerprint, tokenizer, &text, options, &mut |_, _| {})
                .map_err(explain)
                .context("no routing key can be made; with finish.routing_key = false none is")
        };
        notice("making the routing key");
        let mut key = make(&data.train)?;
        if !data.general.is_empty() && !data.validation.is_empty() && !data.general_validation.is_empty() {
            let general = make(&data.general)?;
            let (held, general_held) =
                (self.tokens(&data.validation)?, self.tokens(&data.general_validation)?);
            let (held, general_held): (Vec<_>, Vec<_>) =
                (held.iter().collect(), general_held.iter().collect());
            let checked = KeyOptions { each_form: each_form.div_ceil(4), ..options };
            let texts = [held.as_slice(), general_held.as_slice()];
            let check = held_out_check(base, tokenizer, &key, &general, texts, checked).map_err(explain)?;
            for (length, share) in &check.right {
                notice(&format!(
                    "the key is right about {:.1} % of prompts of {length} tokens",
                    share * 100.0
                ));
            }
            key.facts.check = Some(check);
        }
        self.add_detector(&mut key)?;
        Ok(key)
    }

    /// The detector of a pack that joins those of the packs folder, where there is a router and general text to tell its
    /// own from.
    fn add_detector(&self, key: &mut RoutingKey) -> anyhow::Result<()> {
        let data = &self.config.data;
        let Some(InstalledRouter { weights, detectors }) = &self.router else {
            notice(
                "no router pack is installed: the pack gets no detector and answers where it is asked for",
            );
            return Ok(());
        };
        if weights.facts.base != self.context.fingerprint || data.general.is_empty() {
            notice("no detector is made: that needs a router of this base, and general text");
            return Ok(());
        }
        notice("training the detector");
        let features = |files: &[std::path::PathBuf]| -> anyhow::Result<_> {
            let text = self.tokens(files)?;
            let each_form = self.config.finish.routing_prompts;
            let cut = PromptOptions { each_form, lengths: (8, 128), seed: self.config.seed };
            let text: Vec<&TokenizedCorpus> = text.iter().collect();
            let prompts = prompts(&text, self.encoder.tokenizer(), cut).map_err(explain)?;
            let base = self.model.base();
            intent_features(base, weights, &prompts, &mut |_, _| {}).map_err(explain)
        };
        let others = detectors.iter().filter(|(name, _)| *name != self.pack.name);
        let others: Vec<(String, &Detector)> =
            others.map(|(name, detector)| (name.clone(), detector)).collect();
        let options = DetectorOptions { seed: self.config.seed, ..DetectorOptions::default() };
        let (own, general) = (features(&data.train)?, features(&data.general)?);
        let detector = joining_detector(&self.pack.name, weights, own, general, &others, options);
        let detector = detector.map_err(explain)?;
        if let Err(refusal) = detector.check(detector.inputs()) {
            notice(&format!("the pack gets no detector: {refusal}"));
            return Ok(());
        }
        key.detector = Some(detector);
        key.facts.router = Some(weights.projection());
        Ok(())
    }

    fn data_card(&self, losses: &[(String, Loss)]) -> anyhow::Result<DataCard> {
        let (data, description) = (&self.config.data, &self.pack.manifest.pack.description);
        let mut card =
            DataCard::new(&format!("What the pack `{}` was made from", self.pack.name), description);
        let parts = [
            (TextRole::Trained, &data.train, Some(1.0 - data.general_share)),
            (TextRole::MixedIn, &data.general, Some(data.general_share)),
            (TextRole::Validation, &data.validation, None),
        ];
        for (role, files, share) in parts {
            if !files.is_empty() && share != Some(0.0) {
                let text = self.tokens(files)?;
                // What is held back from training is no part of the pack.
                let without: &[String] = if role == TextRole::MixedIn { &data.general_without } else { &[] };
                let text: Vec<TokenizedCorpus> = text
                    .into_iter()
                    .map(|text| match without.is_empty() {
                        true => text,
                        false => text.filtered(|document| {
                            !document.source.is_some_and(|source| without.iter().any(|held| held == source))
                        }),
                    })
                    .collect();
                card.add_text(role, share, &text.iter().collect::<Vec<_>>());
            }
        }
        for (name, value) in self.facts() {
            card.add_fact(&name, value);
        }
        card.add_fact("weights", format!("{}, {} bytes", self.weights.dtype, self.weights.size));
        for (form, loss) in losses {
            card.add_fact(
                &format!("loss on validation text, {form}"),
                format!("{:.4} nats a token", loss.own),
            );
            if let Some(general) = loss.general {
                card.add_fact(&format!("loss on general text, {form}"), format!("{general:.4} nats a token"));
            }
        }
        // A card goes out with the pack: it names no folder of this machine.
        let mut command =
            format!("modularbase train pack {} --train-config train.toml --data DIR", self.pack.name);
        for (key, value) in self.above {
            let setting = format!("{key}={value}");
            command += &format!(" --set {}", shlex::try_quote(&setting)?);
        }
        card.set_recipe(&command, &self.config.with_texts_below(self.data_folder).to_toml());
        Ok(card)
    }

    /// The library and, last, the manifest: from then on the folder is a pack.
    fn manifest(&self, folder: &Path, losses: &[(String, Loss)], stored: &WeightsFile) -> anyhow::Result<()> {
        let mut manifest = PackManifest { weights: Some(self.weights.clone()), ..self.pack.manifest.clone() };
        if let Some(library) = manifest.library.take() {
            let file = library.file;
            let missing = || format!("there is no library {}", file.in_folder(self.pack_folder).display());
            manifest.library = Some(self.file(folder, file.clone())?.with_context(missing)?);
        }
        let known = |record: Option<FileRecord>, usual: &str| -> anyhow::Result<Option<FileRecord>> {
            // What was made now has its usual name; else what the pack had stays.
            let made: FileName = usual.parse()?;
            match (made.in_folder(folder).is_file(), record) {
                (true, _) => self.file(folder, made),
                (false, Some(record)) => self.file(folder, record.file),
                (false, None) => Ok(None),
            }
        };
        manifest.routing_key = known(manifest.routing_key.take(), ROUTING_KEY)?;
        manifest.data_card = known(manifest.data_card.take(), DATA_CARD)?;
        let owned: BTreeSet<String> = stored.weights().map(|weight| weight.name.to_owned()).collect();
        manifest.memory = declaration(self.pack.graph.graph(), &owned, Some(self.weights.dtype));
        if self.weights.dtype.is_delta() {
            manifest.base.fingerprint = BaseFingerprint::Exact(self.context.fingerprint);
        }
        // Whoever signed it signed other weights.
        manifest.signer = None;
        if let (Some((_, base)), Some((_, shipped))) = (losses.first(), losses.last()) {
            let figures = |base: f64, shipped: f64| {
                BTreeMap::from([("base_nll".to_owned(), rounded(base)), ("nll".to_owned(), rounded(shipped))])
            };
            manifest.evaluation.insert(self.pack.name.clone(), figures(base.own, shipped.own));
            if let (Some(base), Some(shipped)) = (base.general, shipped.general) {
                manifest.evaluation.insert("general".to_owned(), figures(base, shipped));
            }
        }
        let text = manifest.to_toml().context("the manifest can't be written as TOML")?;
        PackManifest::parse(&text).context("the trained pack's manifest does not hold")?;
        put(&folder.join(PACK_MANIFEST_FILE), text.as_bytes())
    }

    /// A file of the finished pack, taken over from the pack's own folder where it is not there; `None` where it is in
    /// neither.
    fn file(&self, folder: &Path, file: FileName) -> anyhow::Result<Option<FileRecord>> {
        let (from, to) = (file.in_folder(self.pack_folder), file.in_folder(folder));
        if !to.is_file() || self.pack.manifest.library.as_ref().is_some_and(|library| library.file == file) {
            match std::fs::read(&from) {
                Ok(bytes) => put(&to, &bytes)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error).with_context(|| format!("can't read {}", from.display())),
            }
        }
        let (sha256, size) = Sha256::of_file(&to).with_context(|| format!("can't read {}", to.display()))?;
        Ok(Some(FileRecord { file, sha256, size }))
    }
}

/// Four places behind the point: more are noise.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn put(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_atomically(path, bytes).with_context(|| format!("can't write {}", path.display()))
}
