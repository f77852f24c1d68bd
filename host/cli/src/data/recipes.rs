//! Which recipe is meant, and what recipes say.

use std::path::{Path, PathBuf};

use manifests::{BUILTIN_RECIPES, DataRecipe, builtin_recipe};
use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::settings::{Settings, cache_folder};
use crate::terminal::{print, print_json, table};

/// A recipe that the user means.
pub(super) struct ChosenRecipe {
    pub(super) recipe: DataRecipe,
    /// What its local paths are relative to.
    pub(super) folder: PathBuf,
}

impl ChosenRecipe {
    /// The built-in recipe of this name, else the one at this path.
    pub(super) fn find(wanted: &str) -> anyhow::Result<Self> {
        if let Some(recipe) = builtin_recipe(wanted) {
            return Ok(Self { recipe: recipe?, folder: PathBuf::from(".") });
        }
        let path = Path::new(wanted);
        if !path.exists() && path.extension().is_none() {
            let known: Vec<&str> = BUILTIN_RECIPES.iter().map(|(name, _)| *name).collect();
            let failure = Failure::usage(format!("there is no recipe `{wanted}`"));
            return Err(failure.help(format!("known by name: {}; or say a path", known.join(", "))).into());
        }
        let recipe = DataRecipe::read(path).map_err(|error| {
            anyhow::Error::new(error).context(Failure::new(Exit::Usage, "the recipe can't be used"))
        })?;
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Ok(Self { recipe, folder: folder.unwrap_or(Path::new(".")).to_path_buf() })
    }

    /// Where its files go when nothing else is said.
    pub(super) fn usual_out(&self) -> anyhow::Result<PathBuf> {
        Ok(cache_folder()?.join("data").join(self.recipe.recipe.name.as_str()))
    }
}

pub(super) fn list(settings: &Settings) -> anyhow::Result<()> {
    let mut rows = vec![["NAME", "SOURCES", "DESCRIPTION"].map(str::to_owned).to_vec()];
    let mut values = Vec::new();
    for (name, _) in BUILTIN_RECIPES {
        let ChosenRecipe { recipe, .. } = ChosenRecipe::find(name)?;
        let description = recipe.recipe.description;
        values.push(json!({ "name": name, "sources": recipe.source.len(), "description": description }));
        rows.push(vec![(*name).to_owned(), recipe.source.len().to_string(), description]);
    }
    if settings.json { print_json(&values) } else { print(&table(&rows)) }
}

pub(super) fn show(wanted: &str, settings: &Settings) -> anyhow::Result<()> {
    let chosen = ChosenRecipe::find(wanted)?;
    let recipe = &chosen.recipe;
    if settings.json {
        return print_json(recipe);
    }
    let mut text = format!("{}: {}\n", recipe.recipe.name, recipe.recipe.description);
    text += &format!("files: {}\n", chosen.usual_out()?.display());
    if let Some(split) = &recipe.split {
        text += &format!("split: train {}, val {}, test {}\n", split.train, split.val, split.test);
    }
    let mut rows = vec![["SOURCE", "FROM", "LICENCE", "SHA-256"].map(str::to_owned).to_vec()];
    for (name, source) in &recipe.source {
        let digest =
            source.sha256.map_or("any".to_owned(), |digest| format!("{:.16}...", digest.to_string()));
        rows.push(vec![name.to_string(), source.from.in_words(), source.license.clone(), digest]);
    }
    print(&format!("{text}\n{}", table(&rows)))
}
