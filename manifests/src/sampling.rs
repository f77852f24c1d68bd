//! How the next token is drawn, as far as a manifest or the host's configuration says it.

use crate::document::Problem;

/// Sampling settings; what is absent is left to the next level (command line, host config, base, built-in).
#[derive(
    Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Only the k most likely tokens; 0 keeps all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Only the most likely tokens that together reach this probability, in (0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Only tokens at least this fraction as likely as the most likely one, in [0, 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// Divides positive and multiplies negative logits of tokens already seen; 1 changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
    /// Seed of the random numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The most tokens of one answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
}

/// Sampling settings with nothing left open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingSettings {
    /// See [`Sampling::temperature`].
    pub temperature: f64,
    /// See [`Sampling::top_k`].
    pub top_k: u32,
    /// See [`Sampling::top_p`].
    pub top_p: f64,
    /// See [`Sampling::min_p`].
    pub min_p: f64,
    /// See [`Sampling::repetition_penalty`].
    pub repetition_penalty: f64,
    /// See [`Sampling::seed`]; `None`: another one for each answer.
    pub seed: Option<u64>,
    /// See [`Sampling::max_tokens`].
    pub max_tokens: u32,
}

impl Sampling {
    /// What this level says, else what `lower` says.
    #[must_use]
    pub fn or(self, lower: Self) -> Self {
        Self {
            temperature: self.temperature.or(lower.temperature),
            top_k: self.top_k.or(lower.top_k),
            top_p: self.top_p.or(lower.top_p),
            min_p: self.min_p.or(lower.min_p),
            repetition_penalty: self.repetition_penalty.or(lower.repetition_penalty),
            seed: self.seed.or(lower.seed),
            max_tokens: self.max_tokens.or(lower.max_tokens),
        }
    }

    /// With the built-in values where nothing was said: temperature 0.7, top-k 40, top-p 0.95, no min-p, no repetition
    /// penalty, a fresh seed, 512 tokens.
    pub fn settings(self) -> SamplingSettings {
        SamplingSettings {
            temperature: self.temperature.unwrap_or(0.7),
            top_k: self.top_k.unwrap_or(40),
            top_p: self.top_p.unwrap_or(0.95),
            min_p: self.min_p.unwrap_or(0.0),
            repetition_penalty: self.repetition_penalty.unwrap_or(1.0),
            seed: self.seed,
            max_tokens: self.max_tokens.unwrap_or(512),
        }
    }

    /// Faults of meaning, said of the table `table`.
    pub(crate) fn problems(&self, table: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |key: &str, value: Option<f64>, holds: fn(f64) -> bool, expected: &str| {
            if let Some(value) = value.filter(|value| !holds(*value)) {
                problems
                    .push(Problem::new(&[table, key], format!("{key} must be {expected}, found {value}")));
            }
        };
        check("temperature", self.temperature, |v| v.is_finite() && v >= 0.0, "finite and not negative");
        check("top_p", self.top_p, |v| v > 0.0 && v <= 1.0, "above 0 and at most 1");
        check("min_p", self.min_p, |v| (0.0..1.0).contains(&v), "at least 0 and below 1");
        check(
            "repetition_penalty",
            self.repetition_penalty,
            |v| v.is_finite() && v > 0.0,
            "finite and above 0",
        );
        if self.max_tokens == Some(0) {
            problems.push(Problem::new(&[table, "max_tokens"], "max_tokens must be at least 1, found 0"));
        }
        problems
    }
}
