//! `data split`: a text file or folder in parts.

use modularbase_corpus::SplitOptions;
use modularbase_corpus::recipe::split_files;
use serde_json::json;

use super::fetch::explain;
use crate::arguments::DataSplitArguments;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::terminal::{bytes_text, print, print_json, table};

pub(super) fn split(arguments: &DataSplitArguments, settings: &Settings) -> anyhow::Result<()> {
    if !(0.5..=1.0).contains(&arguments.near) {
        return Err(
            Failure::usage(format!("--near must lie between 0.5 and 1, found {}", arguments.near)).into()
        );
    }
    let shares = [("train", arguments.train), ("val", arguments.val), ("test", arguments.test)];
    let parts = shares.into_iter().filter(|(_, share)| *share != 0.0);
    let options = SplitOptions {
        parts: parts.map(|(name, share)| (name.to_owned(), share)).collect(),
        seed: arguments.seed,
        near: (!arguments.keep_near).then_some(arguments.near),
    };
    let (files, plan) = split_files(&arguments.text, &arguments.out, &options).map_err(explain)?;
    let dropped = plan.dropped().count();
    if settings.json {
        return print_json(&json!({ "out": arguments.out, "files": files, "left_out": dropped }));
    }
    let mut rows = vec![["FILE", "DOCUMENTS", "TEXT"].map(str::to_owned).to_vec()];
    for file in &files {
        rows.push(vec![file.name.clone(), file.documents.to_string(), bytes_text(file.text_bytes)]);
    }
    let out = arguments.out.display();
    print(&format!(
        "{}\n{dropped} documents near to one of a later part were left out; written to {out}\n",
        table(&rows)
    ))
}
