//! `route`: which packs a prompt would get, and why.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use router::{Posterior, Routing};

use crate::documents::Documents;
use crate::model::{self, explain};
use crate::prompt;
use crate::settings::Settings;
use crate::terminal::{print, print_json, print_line, table};

/// `modularbase route`.
#[derive(Debug, Args)]
pub(crate) struct RouteArguments {
    /// The prompt; `-` reads it from stdin, as does leaving it out when stdin is a pipe or file.
    #[arg(conflicts_with = "file")]
    prompt: Option<String>,
    /// A file with one JSON object a line whose `text` is a prompt (.zst and .gz are unpacked): prints one JSON object a
    /// line, with mixture, scores and out_of_domain.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Prints the router's choice.
pub(crate) fn route(arguments: &RouteArguments, settings: &Settings, started: Instant) -> anyhow::Result<()> {
    if let Some(file) = &arguments.file {
        let prompts = Documents::open(file)?;
        let model = model::load(settings, started)?;
        for text in prompts {
            let routing = model.host.route(&[&text?]).map_err(explain)?;
            print_line(&serde_json::to_string(&routing).context("the choice can't be written as JSON")?)?;
        }
        return Ok(());
    }
    let prompt = prompt::read(arguments.prompt.as_deref())?;
    let model = model::load(settings, started)?;
    let routing = model.host.route(&[&prompt]).map_err(explain)?;
    if settings.json { print_json(&routing) } else { print(&as_table(&routing)) }
}

/// Scores and choice, then the parts of a long message, what the packs themselves predicted, and the reason.
fn as_table(routing: &Routing) -> String {
    let mut rows = vec![["pack", "weight", "probability", "score", ""].map(str::to_owned).to_vec()];
    let general =
        routing.mixture.iter().filter(|share| !routing.scores.iter().any(|score| score.pack == share.pack));
    for share in general {
        rows.push(vec![share.pack.clone(), format!("{:.2}", share.weight), "-".into(), "-".into()]);
    }
    for score in &routing.scores {
        let share = routing.mixture.iter().find(|share| share.pack == score.pack);
        rows.push(vec![
            score.pack.clone(),
            share.map_or("-".into(), |share| format!("{:.2}", share.weight)),
            format!("{:.3}", score.probability),
            format!("{:+.2}", score.score),
            if routing.nearest.contains(&score.pack) { "nearly chosen".into() } else { String::new() },
        ]);
    }
    let segments = if routing.segments.is_empty() { String::new() } else { segments(routing) + "\n" };
    let posterior = routing.posterior.as_ref().map_or(String::new(), |said| posterior(said) + "\n");
    format!("{}\n{segments}{posterior}{}\n", table(&rows), routing.reason)
}

fn segments(routing: &Routing) -> String {
    let mut rows = vec![["tokens", "wants", "probability", "begins"].map(str::to_owned).to_vec()];
    for segment in &routing.segments {
        let best = segment.scores.first().map_or(0.0, |best| best.probability);
        rows.push(vec![
            format!("{} to {}", segment.first, segment.first + segment.tokens - 1),
            segment.pack.clone().unwrap_or_else(|| "none".to_owned()),
            format!("{best:.3}"),
            segment.begins.clone(),
        ]);
    }
    table(&rows)
}

fn posterior(said: &Posterior) -> String {
    match said {
        Posterior::Skipped { skipped } => format!("the packs' own predictions were not asked: {skipped}"),
        Posterior::Ran { ms, packs } => {
            let packs: Vec<String> = packs
                .iter()
                .map(|said| format!("{} {:+.3} (before: {:.3})", said.pack, said.gain, said.before))
                .collect();
            let packs = packs.join(", ");
            format!(
                "they predict the prompt better than the general pack by, in nats a token: {packs} ({ms:.0} ms)"
            )
        }
    }
}
