//! A data recipe: which public text is fetched from where, what of it is kept, and how it is split.

use std::collections::BTreeMap;
use std::path::Path;

use crate::data_source::DataSource;
use crate::document::{self, Document, Problem};
use crate::error::ManifestError;
use crate::names::PackName;

/// A recipe.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// Version of this format.
    pub schema_version: u32,
    /// What the recipe makes.
    pub recipe: RecipeIdentity,
    /// What is left out of all sources together.
    #[serde(default, skip_serializing_if = "is_default")]
    pub clean: CleanRules,
    /// Into which parts the documents are split; absent: all of them are one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<RecipeSplit>,
    /// Where the text comes from, each source by a name of its own; they are taken in the order of these names.
    pub source: BTreeMap<PackName, DataSource>,
}

/// `[recipe]`: what the recipe makes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecipeIdentity {
    /// The name it is fetched by.
    pub name: PackName,
    /// One sentence for people.
    pub description: String,
}

/// `[clean]`: what is left out. Exact copies of an earlier document always are.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CleanRules {
    /// Shorter documents (bytes of UTF-8) are left out.
    pub min_bytes: u64,
    /// Longer documents (bytes of UTF-8) are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Documents at least this similar (0 to 1) to an earlier one are left out; absent: near copies stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near_duplicates: Option<f64>,
}

impl Default for CleanRules {
    fn default() -> Self {
        Self { min_bytes: 1, max_bytes: None, near_duplicates: None }
    }
}

/// `[split]`: shares of the documents, scaled to the sum 1; a group falls into one part whole.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecipeSplit {
    /// To train on.
    pub train: f64,
    /// To choose by: settings, checkpoints.
    #[serde(default)]
    pub val: f64,
    /// To measure on, once.
    #[serde(default)]
    pub test: f64,
    /// Another seed, another split.
    #[serde(default)]
    pub seed: u64,
    /// From which similarity (0 to 1) on a document is taken out of an earlier part when a later one (train, val, test)
    /// holds nearly the same.
    #[serde(default = "usual_similarity")]
    pub near_duplicates: f64,
}

fn usual_similarity() -> f64 {
    0.7
}

fn is_default(rules: &CleanRules) -> bool {
    *rules == CleanRules::default()
}

impl DataRecipe {
    /// Reads and checks a recipe file.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        document::read(path)
    }

    /// Parses and checks a recipe's text.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        document::parse(text)
    }

    /// Every fault of meaning; empty when the recipe holds.
    pub fn problems(&self) -> Vec<Problem> {
        Document::problems(self)
    }

    /// The recipe as TOML: what is parsed from it equals this recipe.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }
}

impl Document for DataRecipe {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.recipe.description.trim().is_empty() {
            problems.push(Problem::new(&["recipe", "description"], "description is empty"));
        }
        if self.source.is_empty() {
            let problem = Problem::new(&["source"], "the recipe names no source");
            problems.push(problem.help("add [source.NAME] with title, license, sha256, from and extract"));
        }
        problems.extend(self.clean.problems());
        problems.extend(self.split.iter().flat_map(RecipeSplit::problems));
        for (name, source) in &self.source {
            problems.extend(source.problems(&["source", name.as_str()]));
        }
        problems
    }
}

impl CleanRules {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(max) = self.max_bytes.filter(|max| *max < self.min_bytes.max(1)) {
            let message = format!("max_bytes must be at least min_bytes ({}), found {max}", self.min_bytes);
            problems.push(Problem::new(&["clean", "max_bytes"], message));
        }
        if let Some(similarity) = self.near_duplicates {
            problems.extend(similarity_problem("clean", similarity));
        }
        problems
    }
}

impl RecipeSplit {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, share) in [("train", self.train), ("val", self.val), ("test", self.test)] {
            if !(share.is_finite() && share >= 0.0) {
                let message = format!("a share must be a number from 0 up, found {share}");
                problems.push(Problem::new(&["split", key], message));
            }
        }
        if problems.is_empty() && self.train == 0.0 {
            problems.push(Problem::new(&["split", "train"], "train must be above 0, found 0"));
        }
        problems.extend(similarity_problem("split", self.near_duplicates));
        problems
    }
}

/// Below a half, near copies are no longer found reliably, and texts of one kind begin to count as such.
fn similarity_problem(table: &str, similarity: f64) -> Option<Problem> {
    let message = format!("near_duplicates must lie between 0.5 and 1, found {similarity}");
    (!(0.5..=1.0).contains(&similarity)).then(|| Problem::new(&[table, "near_duplicates"], message))
}
