//! The matrix of domains and columns for a terminal.

use modularbase_trainer::evaluation::{ColumnFigures, Estimate, Evaluation};

use crate::terminal::table;

/// Losses, then gains, then what packs gain on their own domains. Behind each figure half the width of its interval.
pub(super) fn matrix(evaluation: &Evaluation) -> String {
    let mut text = String::from("Loss, nats a token (95 % interval over documents)\n");
    text.push_str(&part(evaluation, false, &|figures| plain(figures.nats_per_token)));
    if evaluation.columns.len() > 1 {
        text.push_str("\nGain over the base, nats a token (paired)\n");
        text.push_str(&part(evaluation, true, &|figures| signed(figures.gain)));
    }
    if let Some(own) = &evaluation.mean.own {
        let domains: Vec<&str> = own.pairs.iter().map(|(domain, _)| domain.as_str()).collect();
        let of = match domains.len() {
            1 => format!("on {}", domains[0]),
            many => format!("on their own {many} domains, mean"),
        };
        text.push_str(&format!("\nPacks {of}: {}\n", signed(own.gain)));
    }
    text
}

fn part(evaluation: &Evaluation, without_base: bool, cell: &dyn Fn(&ColumnFigures) -> String) -> String {
    let skip = usize::from(without_base);
    let mut header = vec!["DOMAIN".to_owned(), "DOCUMENTS".to_owned(), "TOKENS".to_owned()];
    header.extend(evaluation.columns.iter().skip(skip).map(|column| column.name.clone()));
    let mut rows = vec![header];
    for domain in &evaluation.domains {
        let own = evaluation.own_column(&domain.name);
        let mut row =
            vec![domain.name.clone(), domain.all.documents.to_string(), domain.all.tokens.to_string()];
        row.extend(domain.all.columns.iter().enumerate().skip(skip).map(|(index, figures)| {
            // The pack that is meant for the domain.
            let mark = if own == Some(index) { "*" } else { "" };
            format!("{}{mark}", cell(figures))
        }));
        rows.push(row);
    }
    if evaluation.domains.len() > 1 {
        let mut row = vec!["mean".to_owned(), String::new(), String::new()];
        row.extend(evaluation.mean.columns.iter().skip(skip).map(cell));
        rows.push(row);
    }
    table(&rows)
}

fn plain(estimate: Estimate) -> String {
    format!("{:.3} ±{:.3}", estimate.value, half_width(estimate))
}

fn signed(estimate: Estimate) -> String {
    if estimate == Estimate::default() {
        return "0".to_owned();
    }
    format!("{:+.3} ±{:.3}", estimate.value, half_width(estimate))
}

fn half_width(estimate: Estimate) -> f64 {
    (estimate.high - estimate.low) / 2.0
}
