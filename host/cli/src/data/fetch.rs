//! `data fetch`: a recipe made, with a picture of how far it is.

use std::path::{Path, PathBuf};

use hf_hub::RepoType;
use indicatif::ProgressBar;
use modularbase_corpus::CorpusError;
use modularbase_corpus::recipe::{Hub, RecipeError, RecipeMaker, RecipeProgress, RecipeReport, make_recipe};
use serde_json::json;

use super::recipes::ChosenRecipe;
use crate::base::hub;
use crate::failure::{Exit, Failure};
use crate::interrupt::{self, Meaning, Scope};
use crate::settings::{Settings, cache_folder};
use crate::terminal::{byte_spinner, bytes_text, print, print_json, table};

pub(super) fn fetch(wanted: &str, out: Option<PathBuf>, settings: &Settings) -> anyhow::Result<()> {
    let chosen = ChosenRecipe::find(wanted)?;
    let out = out.map_or_else(|| chosen.usual_out(), Ok)?;
    let _scope = Scope::enter(Meaning::Cancel);
    let progress = Spinner(byte_spinner("Looking what is there"));
    let maker = RecipeMaker {
        downloads: cache_folder()?.join("downloads"),
        recipe_folder: chosen.folder.clone(),
        hub: &TheHub,
        progress: &progress,
    };
    let made = make_recipe(&chosen.recipe, &out, &maker);
    progress.0.finish_and_clear();
    let (report, was_there) = made.map_err(explain)?;
    if settings.json {
        return print_json(&json!({ "out": out, "was_there": was_there, "report": report }));
    }
    print(&picture(&report, &out, was_there))
}

/// What was made, as people read it.
fn picture(report: &RecipeReport, out: &Path, was_there: bool) -> String {
    let how = if was_there { "is there already and whole" } else { "was made" };
    let mut text = format!("{} {how}: {}\n\n", report.recipe, out.display());
    let mut rows = vec![["SOURCE", "DOCUMENTS", "TEXT", "LICENCE", "LEFT OUT"].map(str::to_owned).to_vec()];
    for (name, source) in &report.sources {
        let mut left_out: Vec<String> =
            source.left_out.iter().map(|(why, count)| format!("{count} {why}")).collect();
        if source.unreadable > 0 {
            left_out.push(format!("{} files unreadable", source.unreadable));
        }
        rows.push(vec![
            name.clone(),
            source.documents.to_string(),
            bytes_text(source.text_bytes),
            source.license.clone(),
            left_out.join(", "),
        ]);
    }
    text += &table(&rows);
    text.push('\n');
    let mut rows = vec![["FILE", "DOCUMENTS", "TEXT", "SIZE"].map(str::to_owned).to_vec()];
    for file in &report.files {
        let (text, size) = (bytes_text(file.text_bytes), bytes_text(file.size));
        rows.push(vec![file.name.clone(), file.documents.to_string(), text, size]);
    }
    text += &table(&rows);
    if report.taken_out_by_split > 0 {
        text +=
            &format!("\n{} documents near to one of a later part were left out\n", report.taken_out_by_split);
    }
    text
}

pub(super) fn explain(error: RecipeError) -> anyhow::Error {
    if error.is_cancelled() {
        return Failure::interrupted().into();
    }
    let exit = match &error {
        RecipeError::Nothing { .. } => Exit::Usage,
        RecipeError::Corpus(error) if !matches!(error, CorpusError::Write { .. }) => Exit::Usage,
        _ => Exit::Failed,
    };
    let failure = Failure::new(exit, error.to_string());
    match error.help() {
        Some(help) => failure.help(help).into(),
        None => failure.into(),
    }
}

struct Spinner(ProgressBar);

impl RecipeProgress for Spinner {
    fn downloading(&self, what: &str, bytes: u64) {
        self.0.set_message(format!("Fetching {what}"));
        self.0.set_position(bytes);
    }

    fn extracted(&self, source: &str, documents: u64, bytes: u64) {
        // A terminal shows no more than a few pictures a second.
        if documents % 64 == 1 {
            self.0.set_message(format!("Reading {source}: {documents} documents"));
            self.0.set_position(bytes);
        }
    }

    fn writing(&self) {
        self.0.set_message("Splitting and writing");
    }

    fn is_cancelled(&self) -> bool {
        interrupt::is_cancelled()
    }
}

struct TheHub;

impl Hub for TheHub {
    fn download(&self, repo: &str, revision: &str, file: &str, folder: &Path) -> Result<PathBuf, String> {
        hub::download(RepoType::Dataset, repo, revision, file, folder).map_err(|error| format!("{error:#}"))
    }
}
