//! An evaluation as a page.

use super::interval_chart::{IntervalRow, interval_chart};
use super::page::{escaped, grouped, page, push, table};
use crate::evaluation::{ColumnFigures, ColumnType, DomainResult, Estimate, Evaluation, TextResult};

/// The page: the matrix, then each domain with its sources, samples, and how all of it was made.
pub fn evaluation_page(evaluation: &Evaluation) -> String {
    let mut body = String::new();
    let settings = &evaluation.settings;
    let tokens: u64 = evaluation.domains.iter().map(|domain| domain.all.tokens).sum();
    push(
        &mut body,
        format_args!(
            "<p class=\"soft\">{} columns on {} domains, {} tokens; {} in {}. Intervals hold 95 % of {} corpora that \
             are drawn from the documents with replacement; gains are paired.</p>\n",
            evaluation.columns.len(),
            evaluation.domains.len(),
            grouped(tokens),
            escaped(&settings.device),
            escaped(&settings.dtype),
            evaluation.bootstrap.resamples
        ),
    );
    if let Some(own) = &evaluation.mean.own {
        push(
            &mut body,
            format_args!(
                "<p><span class=\"big\">{}</span> nats a token gained by packs on their own {} domains, mean {}</p>\n",
                signed(own.gain.value),
                own.pairs.len(),
                interval(own.gain)
            ),
        );
    }
    body.push_str("<h2>Domains and columns</h2>\n");
    body.push_str(&matrix(evaluation));
    body.push_str(
        "<p class=\"soft\">Loss in nats a token; below it the gain over the base with its interval. The pack that is \
         meant for a domain stands out.</p>\n",
    );
    for domain in &evaluation.domains {
        body.push_str(&domain_part(evaluation, domain));
    }
    body.push_str(&samples(evaluation));
    body.push_str(&how(evaluation));
    page(&format!("Evaluation of {}", evaluation.base.name), &body)
}

fn matrix(evaluation: &Evaluation) -> String {
    let mut head = vec!["domain", "documents", "tokens"];
    head.extend(evaluation.columns.iter().map(|column| column.name.as_str()));
    let largest = evaluation
        .domains
        .iter()
        .flat_map(|domain| &domain.all.columns)
        .map(|figures| figures.gain.value.abs())
        .fold(1e-9, f64::max);
    let mut rows = Vec::new();
    for domain in &evaluation.domains {
        let own = evaluation.own_column(&domain.name);
        let mut row =
            vec![escaped(&domain.name), grouped(domain.all.documents as u64), grouped(domain.all.tokens)];
        let cells = domain.all.columns.iter().enumerate();
        row.extend(cells.map(|(column, figures)| cell(figures, column, own == Some(column), largest)));
        rows.push(row);
    }
    if evaluation.domains.len() > 1 {
        let mut row = vec!["mean".to_owned(), String::new(), String::new()];
        let cells = evaluation.mean.columns.iter().enumerate();
        row.extend(cells.map(|(column, figures)| cell(figures, column, false, largest)));
        rows.push(row);
    }
    table(&head, &rows)
}

fn cell(figures: &ColumnFigures, column: usize, own: bool, largest: f64) -> String {
    let loss = figures.nats_per_token;
    if column == 0 {
        return format!("<td>{:.3}<small>{}</small></td>", loss.value, interval(loss));
    }
    let gain = figures.gain;
    let colour = if gain.value >= 0.0 { "good" } else { "bad" };
    let share = (gain.value.abs() / largest * 45.0).clamp(0.0, 45.0);
    let class = if own { "heat own" } else { "heat" };
    format!(
        "<td class=\"{class}\" style=\"background:color-mix(in srgb,var(--{colour}) {share:.0}%,transparent)\" \
         title=\"{:.2} bits a byte\">{:.3}<small>{} {}</small></td>",
        figures.bits_per_byte.value,
        loss.value,
        signed(gain.value),
        interval(gain)
    )
}

fn domain_part(evaluation: &Evaluation, domain: &DomainResult) -> String {
    let mut html = String::new();
    push(&mut html, format_args!("<h2>{}</h2>\n", escaped(&domain.name)));
    let base = domain.all.columns.first();
    push(
        &mut html,
        format_args!(
            "<p class=\"soft\">{} documents, {} tokens, {} bytes; the base: {:.3} nats a token, {:.3} bits a \
             byte.</p>\n",
            grouped(domain.all.documents as u64),
            grouped(domain.all.tokens),
            grouped(domain.all.bytes),
            base.map_or(0.0, |base| base.nats_per_token.value),
            base.map_or(0.0, |base| base.bits_per_byte.value)
        ),
    );
    if evaluation.columns.len() > 1 {
        let own = evaluation.own_column(&domain.name);
        let rows: Vec<IntervalRow> = evaluation
            .columns
            .iter()
            .zip(&domain.all.columns)
            .enumerate()
            .skip(1)
            .map(|(index, (column, figures))| IntervalRow {
                label: column.name.clone(),
                estimate: figures.gain,
                strong: own == Some(index),
            })
            .collect();
        let label = format!("Gain over the base on {}, nats a token", domain.name);
        push(
            &mut html,
            format_args!(
                "<figure>{}<figcaption>{}</figcaption></figure>\n",
                interval_chart(&label, &rows),
                escaped(&label)
            ),
        );
    }
    if !domain.sources.is_empty() {
        html.push_str("<details><summary>By source</summary>\n");
        html.push_str(&sources(evaluation, domain));
        html.push_str("</details>\n");
    }
    html
}

fn sources(evaluation: &Evaluation, domain: &DomainResult) -> String {
    let mut head = vec!["source", "documents", "tokens"];
    head.extend(evaluation.columns.iter().map(|column| column.name.as_str()));
    let row = |(name, result): (&String, &TextResult)| {
        let name = if name.is_empty() { "not said" } else { name };
        let mut row = vec![escaped(name), grouped(result.documents as u64), grouped(result.tokens)];
        row.extend(result.columns.iter().enumerate().map(|(column, figures)| match column {
            0 => format!(
                "{:.3}<small>{}</small>",
                figures.nats_per_token.value,
                interval(figures.nats_per_token)
            ),
            _ => format!("{}<small>{}</small>", signed(figures.gain.value), interval(figures.gain)),
        }));
        row
    };
    table(&head, &domain.sources.iter().map(row).collect::<Vec<_>>())
}

fn samples(evaluation: &Evaluation) -> String {
    let mut html = String::new();
    for (domain, samples) in evaluation.samples.iter().filter(|(_, samples)| !samples.is_empty()) {
        push(&mut html, format_args!("<h2>Continuations: {}</h2>\n", escaped(domain)));
        for sample in samples {
            push(
                &mut html,
                format_args!(
                    "<h3>{}</h3>\n<pre>{}</pre>\n<table><tbody><tr><td class=\"text soft\">the document</td>\
                     <td class=\"text\">{}</td></tr>\n",
                    escaped(&sample.document),
                    escaped(&sample.prompt),
                    escaped(&sample.original)
                ),
            );
            for continuation in &sample.continuations {
                push(
                    &mut html,
                    format_args!(
                        "<tr><td class=\"text soft\">{}</td><td class=\"text\">{}</td></tr>\n",
                        escaped(&continuation.column),
                        escaped(&continuation.text)
                    ),
                );
            }
            html.push_str("</tbody></table>\n");
        }
    }
    html
}

fn how(evaluation: &Evaluation) -> String {
    let settings = &evaluation.settings;
    let mut html = String::from("<h2>How it was made</h2>\n");
    push(&mut html, format_args!("<pre>{}</pre>\n", escaped(&settings.command)));
    let [start, end] = evaluation.base.slot;
    let window = match settings.max_tokens {
        Some(most) => format!("{} tokens; about {} tokens of a domain", settings.length, grouped(most)),
        None => format!("{} tokens; all of each domain", settings.length),
    };
    let speed = format!("{:.0} s, {:.0} tokens a second", settings.seconds, settings.tokens_per_second);
    let facts = [
        ("base", format!("{}, {}", evaluation.base.name, evaluation.base.fingerprint)),
        ("slot", format!("layers {start} to {end}, the last one left out")),
        ("windows", window),
        ("deltas are held as", settings.deltas.clone()),
        (
            "bootstrap",
            format!("{} resamples, seed {}", evaluation.bootstrap.resamples, evaluation.bootstrap.seed),
        ),
        ("time", speed),
        ("version", settings.version.clone()),
    ];
    let rows: Vec<Vec<String>> = facts
        .into_iter()
        .map(|(key, value)| vec![key.to_owned(), format!("<td class=\"text\">{}</td>", escaped(&value))])
        .collect();
    html.push_str(&table(&["", ""], &rows));
    if !evaluation.packs.is_empty() {
        html.push_str("<h3>Packs</h3>\n");
        let text = |value: &Option<String>| value.as_deref().map_or("-".to_owned(), escaped);
        let rows: Vec<Vec<String>> = evaluation
            .packs
            .iter()
            .map(|pack| {
                vec![
                    escaped(&pack.name),
                    escaped(&pack.version),
                    text(&pack.dtype),
                    grouped(pack.bytes),
                    text(&pack.generation.as_ref().map(|generation| generation.chars().take(12).collect())),
                ]
            })
            .collect();
        html.push_str(&table(&["pack", "version", "weights", "bytes", "generation"], &rows));
    }
    let mixtures: Vec<Vec<String>> = evaluation
        .columns
        .iter()
        .filter(|column| column.kind == ColumnType::Mixture)
        .map(|column| {
            let parts = column.parts.iter().map(|(pack, weight)| format!("{pack} {weight:.3}"));
            vec![escaped(&column.name), escaped(&parts.collect::<Vec<_>>().join(", "))]
        })
        .collect();
    if !mixtures.is_empty() {
        html.push_str("<h3>Mixtures</h3>\n");
        html.push_str(&table(&["column", "parts"], &mixtures));
    }
    html
}

fn signed(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { format!("{value:+.3}") }
}

fn interval(estimate: Estimate) -> String {
    if estimate == Estimate::default() {
        return String::new();
    }
    format!("[{:.3}, {:.3}]", estimate.low, estimate.high)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::page::tests::check;
    use super::*;
    use crate::evaluation::{
        BaseFacts, BootstrapOptions, ColumnFacts, Continuation, DocumentScore, MeanResult, PackFacts, Sample,
        SettingsFacts,
    };

    fn evaluation() -> Evaluation {
        let column = |name: &str, kind, parts: &[(&str, f64)]| ColumnFacts {
            name: name.to_owned(),
            kind,
            parts: parts.iter().map(|(name, weight)| (name.to_string(), *weight)).collect(),
        };
        let columns = vec![
            column("base", ColumnType::Base, &[]),
            column("medical", ColumnType::Pack, &[("medical", 1.0)]),
            column("medical=0.5,general=0.5", ColumnType::Mixture, &[("medical", 0.5), ("general", 0.5)]),
        ];
        let bootstrap = BootstrapOptions { resamples: 50, seed: 1 };
        let domain = |name: &str, gain: f64| {
            let scores = (1..8_u64).map(|index| DocumentScore {
                id: index.to_string(),
                source: if index % 2 == 0 { "<a>" } else { "b" }.to_owned(),
                tokens: 100 * index,
                bytes: 400.0 * index as f64,
                nats: [3.0, 3.0 - gain, 3.0 - gain / 2.0]
                    .map(|loss| loss * 100.0 * index as f64 + index as f64)
                    .to_vec(),
            });
            DomainResult::new(name, scores.collect(), bootstrap)
        };
        let domains = vec![domain("medical", 0.8), domain("general", -0.03)];
        let mean = MeanResult::new(&domains, |domain| (domain == "medical").then_some(1));
        let continuation = Continuation { column: "base".into(), text: "</td> & more".into() };
        let sample = Sample {
            document: "1".into(),
            prompt: "<b>".into(),
            original: "text".into(),
            continuations: vec![continuation],
        };
        Evaluation {
            base: BaseFacts { name: "tiny & co".into(), fingerprint: "sha256:0".into(), slot: [1, 3] },
            settings: SettingsFacts {
                version: "0.1.0".into(),
                command: "modularbase eval --domain 'a=<b>'".into(),
                device: "cpu".into(),
                dtype: "f32".into(),
                deltas: "q8_0".into(),
                length: 512,
                max_tokens: None,
                seconds: 1.5,
                tokens_per_second: 1000.0,
            },
            packs: vec![PackFacts {
                name: "medical".into(),
                version: "0.1.0".into(),
                generation: Some("ab".repeat(32)),
                weights: Some("weights.safetensors".into()),
                dtype: Some("delta-q2".into()),
                bytes: 6_000_000,
            }],
            columns,
            bootstrap,
            domains,
            mean,
            samples: BTreeMap::from([("medical".to_owned(), vec![sample])]),
        }
    }

    #[test]
    fn the_page_of_an_evaluation_is_sound_and_shows_every_figure() {
        let evaluation = evaluation();
        let html = evaluation_page(&evaluation);
        check(&html);
        for text in ["+0.800", "-0.030", "class=\"heat own\"", "&lt;a&gt;", "medical 0.500, general 0.500"] {
            assert!(html.contains(text), "{text}");
        }
        assert_eq!(html.matches("<svg").count(), 2);
        assert!(html.contains("Evaluation of tiny &amp; co"));
    }

    #[test]
    fn the_record_of_an_evaluation_has_every_document() {
        let json = serde_json::to_value(evaluation()).unwrap();
        assert_eq!(json["domains"][0]["scores"].as_array().unwrap().len(), 7);
        assert_eq!(json["domains"][0]["sources"]["b"]["documents"], 4);
        let gain = json["mean"]["own"]["gain"]["value"].as_f64().unwrap();
        assert!((gain - 0.8).abs() < 1e-9, "{gain}");
        assert_eq!(json["columns"][2]["kind"], "mixture");
    }
}
