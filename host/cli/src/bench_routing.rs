//! `bench routing`: what the router's choices are worth, as losses of how texts go on.

use std::path::Path;

use manifests::MixtureChoice;
use modularbase_engine::score;
use serde_json::{Value, json};

use crate::documents::Documents;
use crate::failure::Failure;
use crate::model::{Model, explain};
use crate::terminal::notice;

/// Tokens that follow a prompt and are predicted.
const CONTINUATION: usize = 256;

/// Characters of a document that are read.
const LONGEST: usize = 8192;

/// Mean losses over a domain's texts, nats a token.
#[derive(Default)]
struct Losses {
    texts: usize,
    base: f64,
    oracle: f64,
    routed: f64,
    /// Texts for which the domain's own pack was the likeliest.
    right: usize,
}

/// For each `NAME=FILE` the loss of the 256 tokens after a prompt: of the base, of the pack called NAME (the oracle; the
/// base where there is none), and of what the router chooses from the prompt alone.
pub(crate) fn routing(
    model: &Model,
    texts: &[String],
    prompt_tokens: usize,
    per_domain: usize,
) -> anyhow::Result<Value> {
    let host = &model.host;
    let names: Vec<String> = host.manager().registered().into_iter().map(|pack| pack.name).collect();
    let mut domains = serde_json::Map::new();
    let (mut oracle_gain, mut routed_gain) = (0.0, 0.0);
    for source in texts {
        let (name, file) = source
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("--text {source}: expected NAME=FILE")))?;
        let name = name.replace('_', "-");
        let own = names.contains(&name) && name != "general";
        let mut losses = Losses::default();
        for ids in windows(model, Path::new(file), prompt_tokens + CONTINUATION, per_domain)? {
            let prompt = host.tokenizer().decode(&ids[..prompt_tokens]);
            let (routed, routing) = host.choose(&MixtureChoice::Auto, &[&prompt]).map_err(explain)?;
            let loss = |choice: &MixtureChoice| -> anyhow::Result<f64> {
                let turn = host.turn(choice).map_err(explain)?;
                let sum = |ids: &[u32]| {
                    let score =
                        score(host, turn.mixture(), ids, ids.len(), &mut |_, _| {}).map_err(explain)?;
                    anyhow::Ok(score.mean_nll * score.tokens as f64)
                };
                Ok((sum(&ids)? - sum(&ids[..prompt_tokens])?) / CONTINUATION as f64)
            };
            let base = loss(&MixtureChoice::None)?;
            losses.texts += 1;
            losses.base += base;
            losses.oracle += if own { loss(&name.parse().map_err(anyhow::Error::new)?)? } else { base };
            losses.routed += loss(&routed)?;
            let likeliest = routing.filter(|routing| !routing.out_of_domain);
            let likeliest = likeliest.and_then(|routing| routing.scores.into_iter().next());
            losses.right += usize::from(likeliest.map(|score| score.pack) == own.then(|| name.clone()));
        }
        let mean = |sum: f64| sum / losses.texts.max(1) as f64;
        let (base, oracle, routed) = (mean(losses.base), mean(losses.oracle), mean(losses.routed));
        notice(&format!("{name}: base {base:.4}, oracle {oracle:.4}, routed {routed:.4}"));
        if own {
            oracle_gain += base - oracle;
            routed_gain += base - routed;
        }
        let right = losses.right as f64 / losses.texts.max(1) as f64;
        domains.insert(
            name,
            json!({ "texts": losses.texts, "base": base, "oracle": oracle, "routed": routed, "right": right }),
        );
    }
    Ok(json!({
        "prompt_tokens": prompt_tokens,
        "domains": domains,
        "share_of_the_oracles_gain": if oracle_gain > 0.0 { Some(routed_gain / oracle_gain) } else { None },
    }))
}

/// The first `count` windows of `length` tokens; documents that are shorter are joined with those that follow.
fn windows(model: &Model, file: &Path, length: usize, count: usize) -> anyhow::Result<Vec<Vec<u32>>> {
    let mut windows = Vec::new();
    let mut text = String::new();
    for document in Documents::open(file)? {
        // More than a window of any language.
        text.extend(document?.chars().take(LONGEST));
        text.push_str("\n\n");
        let ids =
            model.host.tokenizer().encode_prompt(&text, false).map_err(|error| explain(error.into()))?;
        if ids.len() >= length {
            windows.push(ids[..length].to_vec());
            text.clear();
        }
        if windows.len() == count {
            break;
        }
    }
    Ok(windows)
}
