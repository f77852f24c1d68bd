//! What a training run is asked for: TOML with every default visible (`config_template.rs`).

use std::path::{Path, PathBuf};

use modularbase_corpus::Format;
use modularbase_deltas::DeltaFormat;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// Settings of a run. [`TrainConfig::commented_defaults`] is the file with every setting, its default and what it means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Seed of first weights and of the order of the text.
    pub seed: u64,
    /// Optimizer steps in all, those with quantized weights included.
    pub steps: u64,
    /// The share of what was learned that ships, 0 to 1: matrices that start from the base's are `base + strength *
    /// (trained - base)` (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"). Below 1 the gain falls slower
    /// than the harm to other text.
    pub strength: f64,
    /// What is read.
    pub data: DataConfig,
    /// How much of it at once.
    pub batch: BatchConfig,
    /// How weights move.
    pub optimizer: OptimizerConfig,
    /// The form that the weights ship in.
    pub quantization: QuantizationConfig,
    /// Looking at the validation text on the way.
    pub evaluation: EvaluationConfig,
    /// Being able to go on.
    pub checkpoints: CheckpointConfig,
    /// What a pack's run ends with.
    pub finish: FinishConfig,
}

/// `[data]`: files of documents. Relative paths are relative to the configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Text of the domain.
    pub train: Vec<PathBuf>,
    /// Text that decides which checkpoint is best; never trained on.
    pub validation: Vec<PathBuf>,
    /// General text that is looked at beside it; never trained on.
    pub general_validation: Vec<PathBuf>,
    /// General text that is mixed in, so that the pack does little harm on other text.
    pub general: Vec<PathBuf>,
    /// Share of rows from `general`, 0 to 1.
    pub general_share: f64,
    /// What is asked of rows from `general`.
    pub general_loss: GeneralLoss,
    /// The loss of rows from `general` counts this many times.
    pub general_weight: f64,
    /// Documents of these sources are left out of `general`, such as those held back for evaluation.
    pub general_without: Vec<String>,
    /// How documents are written; found out from the first one where nothing is said.
    #[serde(with = "text_form", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub format: Option<Format>,
    /// Whether only answers of conversations count for the loss.
    pub answers_only: bool,
}

/// What is asked of general text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GeneralLoss {
    /// As of the domain's: its next token.
    #[default]
    Text,
    /// That the model says of the next token what the base says (distillation, Hinton et al. 2015): the divergence of
    /// its distribution from the base's. It learns nothing from general text, and forgets nothing on it.
    Distillation,
}

/// `[batch]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Rows of a step.
    pub rows: usize,
    /// Tokens of a row.
    pub length: usize,
    /// Rows that are computed at once; the step adds up the gradients of all of them. 0: all.
    pub rows_at_once: usize,
}

/// `[optimizer]`: AdamW (Loshchilov and Hutter 2019), decay on matrices only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// At its highest.
    pub learning_rate: f64,
    /// Steps from 0 to the highest rate.
    pub warmup: u64,
    /// How the rate falls afterwards.
    pub schedule: ScheduleKind,
    /// The last rate as a share of the highest.
    pub final_share: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Gradients whose global norm is above this are scaled down to it; 0: never.
    pub clip: f64,
}

/// How the learning rate goes after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Stays.
    Constant,
    /// Falls in a straight line.
    Linear,
    /// Falls along half a cosine (Loshchilov and Hutter 2017).
    Cosine,
}

/// `[quantization]`: training with the quantizer in the loop, straight-through (Bengio et al. 2013).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QuantizationConfig {
    /// What the weights ship as: `delta-q1`, `delta-q2` or `delta-q3`; without it, bf16.
    #[serde(with = "text_form", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub format: Option<DeltaFormat>,
    /// The last steps of the run that see the quantized weights; 0: quantized afterwards only.
    pub steps: u64,
}

/// `[evaluation]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Steps between two looks at the validation text; 0: only at the end.
    pub every: u64,
    /// Validation tokens of a look, at most.
    pub tokens: usize,
    /// Looks without a better loss after which training ends early, or goes on to its quantized steps where it has
    /// some; 0: never.
    pub patience: u64,
}

/// `[checkpoints]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Steps between two checkpoints; 0: only at the end and when stopped.
    pub every: u64,
}

/// `[finish]`: what `train pack` makes beside the weights once the last step is taken. Nothing of it changes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FinishConfig {
    /// `report.html`: curves, and the losses before and after quantization.
    pub report: bool,
    /// The routing key, from the training text; checked where there is general text to tell it from.
    pub routing_key: bool,
    /// Prompts of each form that the key is made from.
    pub routing_prompts: usize,
    /// `DATA.md`: sources, licences, command, settings.
    pub data_card: bool,
    /// `pack.toml` with hashes, sizes and figures, and the library: a folder that can be installed.
    pub manifest: bool,
}

impl Default for FinishConfig {
    fn default() -> Self {
        Self { report: true, routing_key: true, routing_prompts: 1024, data_card: true, manifest: true }
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            steps: 300,
            strength: 1.0,
            data: DataConfig::default(),
            batch: BatchConfig::default(),
            optimizer: OptimizerConfig::default(),
            quantization: QuantizationConfig::default(),
            evaluation: EvaluationConfig::default(),
            checkpoints: CheckpointConfig::default(),
            finish: FinishConfig::default(),
        }
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            train: Vec::new(),
            validation: Vec::new(),
            general_validation: Vec::new(),
            general: Vec::new(),
            general_share: 0.0,
            general_loss: GeneralLoss::default(),
            general_weight: 1.0,
            general_without: Vec::new(),
            format: None,
            answers_only: false,
        }
    }
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { rows: 32, length: 512, rows_at_once: 0 }
    }
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            warmup: 20,
            schedule: ScheduleKind::Cosine,
            final_share: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.01,
            clip: 1.0,
        }
    }
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { every: 100, tokens: 32_768, patience: 0 }
    }
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 100 }
    }
}

impl TrainConfig {
    /// Reads a file. Relative paths in it are below `data_folder`, or without one below the file's own folder.
    ///
    /// # Errors
    /// A file that can't be read, an unknown or meaningless setting; the message has line and column.
    pub fn read(path: &Path, data_folder: Option<&Path>) -> Result<Self, TrainError> {
        Self::read_with(path, data_folder, &[])
    }

    /// As [`TrainConfig::read`], with settings that stand above the file's: `("optimizer.learning_rate", "3e-4")`,
    /// values as TOML writes them.
    ///
    /// # Errors
    /// As [`TrainConfig::read`]; a setting that there is not.
    pub fn read_with(
        path: &Path,
        data_folder: Option<&Path>,
        above: &[(String, String)],
    ) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(TrainError::file("read", path))?;
        let wrong = |reason: String| TrainError::ConfigFile { path: path.to_path_buf(), reason };
        // Read as it is first: what is wrong in the file is said with its line.
        let mut config: Self = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if !above.is_empty() {
            let mut table: toml::Table = text.parse().map_err(|error| wrong(format!("{error}")))?;
            for (key, value) in above {
                set(&mut table, key, value).map_err(wrong)?;
            }
            config = table.try_into().map_err(|error| wrong(error.to_string()))?;
        }
        config.place_texts(data_folder.or(path.parent()).unwrap_or(Path::new("")));
        config.check()?;
        Ok(config)
    }

    /// Puts relative paths of texts below `folder`.
    pub(crate) fn place_texts(&mut self, folder: &Path) {
        self.texts().for_each(|file| *file = folder.join(&*file));
    }

    /// The same settings with paths of texts as `folder` has them; what lies elsewhere is named by its file's name alone.
    #[must_use]
    pub fn with_texts_below(&self, folder: &Path) -> Self {
        let mut config = self.clone();
        for file in config.texts() {
            let named = || file.file_name().map(PathBuf::from).unwrap_or_default();
            *file = file.strip_prefix(folder).map_or_else(|_| named(), Path::to_path_buf);
        }
        config
    }

    fn texts(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let data = &mut self.data;
        let files = data.train.iter_mut().chain(&mut data.validation);
        files.chain(&mut data.general).chain(&mut data.general_validation)
    }

    /// The settings as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_default()
    }

    /// Rows that are computed at once.
    pub fn rows_at_once(&self) -> usize {
        match self.batch.rows_at_once {
            0 => self.batch.rows,
            rows => rows.min(self.batch.rows),
        }
    }

    /// The first step whose weights are quantized.
    pub fn quantized_from(&self) -> u64 {
        match self.quantization.format {
            Some(_) => self.steps.saturating_sub(self.quantization.steps),
            None => self.steps,
        }
    }

    /// Whether the settings mean something.
    ///
    /// # Errors
    /// [`TrainError::Config`] with the setting.
    pub fn check(&self) -> Result<(), TrainError> {
        let (batch, optimizer) = (&self.batch, &self.optimizer);
        let share = |key, share: f64| match (0.0..=1.0).contains(&share) {
            true => Ok(()),
            false => Err(TrainError::config(key, format!("must be between 0 and 1, found {share}"))),
        };
        let positive = |key, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err(TrainError::config(key, format!("must be above 0, found {value}"))),
        };
        if self.steps == 0 {
            return Err(TrainError::config("steps", "must be at least 1, found 0"));
        }
        if batch.rows == 0 || batch.length < 2 {
            let found = format!("found {} rows of {}", batch.rows, batch.length);
            return Err(TrainError::config("batch", format!("needs rows of at least 2 tokens, {found}")));
        }
        if batch.rows_at_once > 0 && !batch.rows.is_multiple_of(batch.rows_at_once) {
            let (rows, at_once) = (batch.rows, batch.rows_at_once);
            let problem = format!("must divide batch.rows = {rows}, found {at_once}");
            return Err(TrainError::config("batch.rows_at_once", problem));
        }
        share("strength", self.strength)?;
        share("data.general_share", self.data.general_share)?;
        if self.data.general_share > 0.0 && self.data.general.is_empty() {
            return Err(TrainError::config("data.general_share", "is set, but data.general names no text"));
        }
        share("optimizer.final_share", optimizer.final_share)?;
        positive("optimizer.learning_rate", optimizer.learning_rate)?;
        positive("optimizer.epsilon", optimizer.epsilon)?;
        for (key, beta) in [("optimizer.beta1", optimizer.beta1), ("optimizer.beta2", optimizer.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(TrainError::config(key, format!("must be at least 0 and below 1, found {beta}")));
            }
        }
        for (key, value) in [
            ("data.general_weight", self.data.general_weight),
            ("optimizer.weight_decay", optimizer.weight_decay),
            ("optimizer.clip", optimizer.clip),
        ] {
            if !value.is_finite() || value < 0.0 {
                return Err(TrainError::config(key, format!("must be at least 0, found {value}")));
            }
        }
        if self.quantization.steps > self.steps {
            let problem =
                format!("must be at most steps = {}, found {}", self.steps, self.quantization.steps);
            return Err(TrainError::config("quantization.steps", problem));
        }
        if self.quantization.steps > 0 && self.quantization.format.is_none() {
            return Err(TrainError::config(
                "quantization.steps",
                "is set, but quantization.format says no format",
            ));
        }
        Ok(())
    }
}

/// Puts `value` where the dotted `key` leads.
fn set(table: &mut toml::Table, key: &str, value: &str) -> Result<(), String> {
    let parsed: toml::Table = format!("value = {value}")
        .parse()
        .or_else(|_| format!("value = {value:?}").parse())
        .map_err(|error: toml::de::Error| format!("`{key}` can't be {value}: {error}"))?;
    let mut folder = table;
    let mut words: Vec<&str> = key.split('.').collect();
    let last = words.pop().unwrap_or(key);
    for word in words {
        let entry = folder.entry(word).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        folder = entry.as_table_mut().ok_or_else(|| format!("`{word}` in `{key}` is no table"))?;
    }
    folder.extend(parsed.into_iter().map(|(_, value)| (last.to_owned(), value)));
    Ok(())
}

/// Optional values that are written as their `Display` and read by their `FromStr`.
mod text_form {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_written_out_and_read_back() {
        let text = TrainConfig::default().to_toml();
        assert!(text.contains("learning_rate = 0.001") && text.contains("schedule = \"cosine\""), "{text}");
        assert_eq!(toml::from_str::<TrainConfig>(&text).unwrap(), TrainConfig::default());
    }

    #[test]
    fn paths_are_relative_to_the_file_and_unknown_settings_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.toml");
        std::fs::write(&path, "[data]\ntrain = [\"a.jsonl\"]\n[quantization]\nformat = \"delta-q2\"\n")
            .unwrap();
        let config = TrainConfig::read(&path, None).unwrap();
        assert_eq!(config.data.train, [folder.path().join("a.jsonl")]);
        assert_eq!(config.quantization.format, Some(DeltaFormat::Q2));
        std::fs::write(&path, "stepps = 3\n").unwrap();
        let message = TrainConfig::read(&path, None).unwrap_err().to_string();
        assert!(message.contains("stepps") && message.contains("line 1"), "{message}");
    }

    #[test]
    fn settings_of_the_command_line_stand_above_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.toml");
        std::fs::write(&path, "steps = 3\n").unwrap();
        let above = |key: &str, value: &str| {
            TrainConfig::read_with(&path, Some(Path::new("/data")), &[(key.to_owned(), value.to_owned())])
        };
        assert_eq!(above("optimizer.learning_rate", "3e-4").unwrap().optimizer.learning_rate, 3e-4);
        assert_eq!(
            above("quantization.format", "delta-q1").unwrap().quantization.format,
            Some(DeltaFormat::Q1)
        );
        assert_eq!(above("data.train", "[\"a\"]").unwrap().data.train, [Path::new("/data/a")]);
        assert!(above("optimizer.rate", "1").unwrap_err().to_string().contains("rate"));
    }

    #[test]
    fn settings_without_meaning_are_refused_by_name() {
        let of = |change: fn(&mut TrainConfig)| {
            let mut config = TrainConfig::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(of(|c| c.steps = 0).contains("`steps`"));
        assert!(of(|c| c.batch.rows_at_once = 5).contains("must divide batch.rows = 32"));
        assert!(of(|c| c.optimizer.learning_rate = f64::NAN).contains("learning_rate"));
        assert!(of(|c| c.data.general_share = 0.2).contains("names no text"));
        assert!(of(|c| c.optimizer.beta2 = 1.0).contains("beta2"));
        assert!(of(|c| c.quantization.steps = 5).contains("says no format"));
    }
}
