//! A recipe made: every source fetched, read and cleaned, then split into files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use manifests::{DataRecipe, DataSource, RecipeSplit, Sha256};

use super::cleaning::{Cleaner, LeftOut};
use super::download_store::DownloadStore;
use super::error::{RecipeError, SourceFault};
use super::extraction::extract;
use super::package_clients::Hub;
use super::progress::RecipeProgress;
use super::report::{REPORT_FILE, RecipeReport, ReportedFile, ReportedSource, digest_of};
use crate::document_files::read_documents;
use crate::document_writer::DocumentWriter;
use crate::split::{Fate, SplitOptions, SplitPlan};

/// The file of all documents, where the recipe does not split them.
const ALL: &str = "all.jsonl.zst";
/// Extracted documents before they are split.
const UNSPLIT: &str = ".unsplit.jsonl.zst";

/// What is needed to make recipes.
pub struct RecipeMaker<'a> {
    /// The folder of fetched packages; packages stay there, each under its SHA-256.
    pub downloads: PathBuf,
    /// What local paths in the recipe are relative to.
    pub recipe_folder: PathBuf,
    /// Brings files of the Hugging Face hub.
    pub hub: &'a dyn Hub,
    /// Who watches.
    pub progress: &'a dyn RecipeProgress,
}

/// Makes `recipe` in the folder `out`: `train.jsonl.zst` and so on, or `all.jsonl.zst`, and [`REPORT_FILE`], which is
/// written last. Gives the report, and whether everything was there already.
///
/// # Errors
/// The first source that can't be had; nothing kept; a split that can't be; a disk that can't be written. What was
/// fetched before stays fetched.
pub fn make_recipe(
    recipe: &DataRecipe,
    out: &Path,
    maker: &RecipeMaker<'_>,
) -> Result<(RecipeReport, bool), RecipeError> {
    if let Some(report) = RecipeReport::still_true(out, recipe) {
        return Ok((report, true));
    }
    std::fs::create_dir_all(out).map_err(RecipeError::disk(out))?;
    let report_path = out.join(REPORT_FILE);
    match std::fs::remove_file(&report_path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(RecipeError::disk(&report_path)(error));
        }
        _ => {}
    }
    let unsplit = out.join(UNSPLIT);
    let made = gather(recipe, &unsplit, maker).and_then(|sources| {
        maker.progress.writing();
        let (files, taken_out_by_split) = write_parts(recipe.split.as_ref(), &unsplit, out)?;
        // A recipe that was parsed can be written down.
        let digest = digest_of(recipe).unwrap_or_else(|| Sha256::of_bytes(b""));
        let name = recipe.recipe.name.to_string();
        Ok(RecipeReport { recipe: name, digest, files, sources, taken_out_by_split })
    });
    // It is read to its end, or of no use.
    std::fs::remove_file(&unsplit).ok();
    let report = made?;
    let text = serde_json::to_string_pretty(&report).unwrap_or_default();
    manifests::write_atomically(&report_path, text.as_bytes()).map_err(RecipeError::disk(&report_path))?;
    Ok((report, false))
}

/// All sources' documents into one file.
fn gather(
    recipe: &DataRecipe,
    unsplit: &Path,
    maker: &RecipeMaker<'_>,
) -> Result<BTreeMap<String, ReportedSource>, RecipeError> {
    let mut writer = DocumentWriter::create(unsplit)?;
    let mut cleaner = Cleaner::new(&recipe.clean);
    let mut sources = BTreeMap::new();
    // Everything is fetched before anything is read: what can't be had is known first.
    let mut packages = Vec::new();
    for (name, source) in &recipe.source {
        let failed = |fault: SourceFault| RecipeError::Source {
            name: name.to_string(),
            origin: source.from.in_words(),
            fault: Box::new(fault),
        };
        let store = DownloadStore::open(&maker.downloads, maker.progress).map_err(failed)?;
        let package = store.package(source, &maker.recipe_folder, maker.hub, maker.progress);
        packages.push((name, source, package.map_err(failed)?));
    }
    for (name, source, package) in packages {
        let reported =
            read_source(name.as_str(), source, &package, &mut cleaner, &mut writer, maker.progress);
        let reported = reported.map_err(|fault| RecipeError::Source {
            name: name.to_string(),
            origin: source.from.in_words(),
            fault: Box::new(fault),
        })?;
        sources.insert(name.to_string(), reported);
    }
    if writer.count() == 0 {
        let seen = sources.values().map(|source| source.left_out.values().sum::<u64>()).sum();
        return Err(RecipeError::Nothing { seen });
    }
    writer.finish()?;
    Ok(sources)
}

fn read_source(
    name: &str,
    source: &DataSource,
    package: &super::package::Package,
    cleaner: &mut Cleaner<'_>,
    writer: &mut DocumentWriter,
    progress: &dyn RecipeProgress,
) -> Result<ReportedSource, SourceFault> {
    let mut left_out = LeftOut::new();
    let (mut documents, mut text_bytes) = (0, 0);
    let seen = extract(name, source, package, &mut |extracted| {
        if progress.is_cancelled() {
            return Err(SourceFault::Cancelled);
        }
        match cleaner.clean(extracted, source) {
            Ok(document) => {
                documents += 1;
                text_bytes += document.body.bytes();
                writer.push(&document)?;
                progress.extracted(name, documents, text_bytes);
            }
            Err(why) => *left_out.entry(why).or_default() += 1,
        }
        Ok(())
    })?;
    if documents == 0 && left_out.is_empty() {
        return Err(SourceFault::NoDocument { files: seen.files, matching: seen.matching });
    }
    Ok(ReportedSource {
        title: source.title.clone(),
        license: source.license.clone(),
        origin: source.from.in_words(),
        sha256: source.sha256,
        files: seen.files,
        matching: seen.matching,
        unreadable: seen.unreadable,
        documents,
        text_bytes,
        left_out: left_out.into_iter().map(|(why, count)| (why.to_owned(), count)).collect(),
    })
}

/// The documents of `unsplit` in their parts; gives the files and how many documents the split took out.
fn write_parts(
    split: Option<&RecipeSplit>,
    unsplit: &Path,
    out: &Path,
) -> Result<(Vec<ReportedFile>, u64), RecipeError> {
    let options = match split {
        Some(split) => SplitOptions {
            parts: [("train", split.train), ("val", split.val), ("test", split.test)]
                .into_iter()
                .filter(|(_, share)| *share > 0.0)
                .map(|(name, share)| (name.to_owned(), share))
                .collect(),
            seed: split.seed,
            near: Some(split.near_duplicates),
        },
        None => SplitOptions { parts: vec![("all".to_owned(), 1.0)], seed: 0, near: None },
    };
    let plan = SplitPlan::of(read_documents(unsplit, None)?, &options)?;
    write_split(&plan, unsplit, out).map(|files| (files, plan.dropped().count() as u64))
}

/// Splits the text at `from` into `PART.jsonl.zst` in the folder `out`, which is made; gives the files and the plan.
/// Memory holds hashes alone, however long the text is.
///
/// # Errors
/// Those of reading and splitting; a disk that can't be written.
pub fn split_files(
    from: &Path,
    out: &Path,
    options: &SplitOptions,
) -> Result<(Vec<ReportedFile>, SplitPlan), RecipeError> {
    let plan = SplitPlan::of(read_documents(from, None)?, options)?;
    std::fs::create_dir_all(out).map_err(RecipeError::disk(out))?;
    Ok((write_split(&plan, from, out)?, plan))
}

/// Writes each part of a split of the text at `from` to `PART.jsonl.zst` in `out`.
fn write_split(plan: &SplitPlan, from: &Path, out: &Path) -> Result<Vec<ReportedFile>, RecipeError> {
    let name = |part: &str| if part == "all" { ALL.to_owned() } else { format!("{part}.jsonl.zst") };
    let mut writers = Vec::new();
    for part in &plan.parts {
        writers.push((DocumentWriter::create(&out.join(name(part)))?, 0u64));
    }
    for (document, fate) in read_documents(from, None)?.zip(&plan.fates) {
        let document = document?;
        if let Fate::Part(part) = fate
            && let Some((writer, bytes)) = writers.get_mut(*part)
        {
            *bytes += document.body.bytes();
            writer.push(&document)?;
        }
    }
    let mut files = Vec::new();
    for (part, (writer, text_bytes)) in plan.parts.iter().zip(writers) {
        let documents = writer.finish()?;
        let path = out.join(name(part));
        let (sha256, size) = Sha256::of_file(&path).map_err(RecipeError::disk(&path))?;
        files.push(ReportedFile { name: name(part), documents, text_bytes, sha256, size });
    }
    Ok(files)
}
