//! From the losses of single texts to figures with intervals over texts.

use std::collections::BTreeMap;

use modularbase_trainer::evaluation::{DocumentScore, Estimate, Resamples};
use serde_json::{Value, json};

/// Resamples behind each interval, and their seed.
const RESAMPLES: (usize, u64) = (1000, 1);

/// What texts are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One that a pack is for.
    Domain,
    /// None that a pack is for.
    General,
    /// Two domains in turn.
    Mixed,
    /// One domain, then another.
    Changing,
}

/// The losses of texts of one kind, nats a token: a column for each way to choose packs.
pub(super) struct Group {
    kind: Kind,
    /// In the order in which they came.
    columns: Vec<(String, Vec<f64>)>,
    /// For each policy, on how many texts the choice was right.
    right: BTreeMap<String, usize>,
    /// For each policy that looks again, how often it changed the packs of all texts together.
    changes: BTreeMap<String, usize>,
}

impl Group {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, columns: Vec::new(), right: BTreeMap::new(), changes: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, column: &str, loss: f64) {
        match self.columns.iter_mut().find(|(name, _)| name == column) {
            Some((_, losses)) => losses.push(loss),
            None => self.columns.push((column.to_owned(), vec![loss])),
        }
    }

    pub(super) fn add_right(&mut self, policy: &str, right: bool) {
        *self.right.entry(policy.to_owned()).or_default() += usize::from(right);
    }

    pub(super) fn add_changes(&mut self, policy: &str, changes: usize) {
        *self.changes.entry(policy.to_owned()).or_default() += changes;
    }

    pub(super) fn means(&self) -> impl Iterator<Item = (&str, f64)> {
        self.columns.iter().map(|(name, losses)| (name.as_str(), mean(losses)))
    }

    fn texts(&self) -> usize {
        self.columns.first().map_or(0, |(_, losses)| losses.len())
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|(column, _)| column == name)
    }

    /// Each column's mean loss over texts drawn with replacement, the same texts for all of them.
    fn resampled(&self) -> Vec<Vec<f64>> {
        let texts: Vec<DocumentScore> = (0..self.texts())
            .map(|text| DocumentScore {
                id: String::new(),
                source: String::new(),
                tokens: 1,
                bytes: 0.0,
                nats: self.columns.iter().map(|(_, losses)| losses[text]).collect(),
            })
            .collect();
        let texts: Vec<&DocumentScore> = texts.iter().collect();
        Resamples::draw(&texts, self.columns.len(), RESAMPLES.0, RESAMPLES.1).nats_per_token
    }

    fn json(&self, resampled: &[Vec<f64>]) -> Value {
        let texts = self.texts();
        let columns = self.means().zip(resampled);
        let losses: serde_json::Map<String, Value> = columns
            .map(|((name, mean), drawn)| (name.to_owned(), json!(Estimate::new(mean, drawn.clone()))))
            .collect();
        let right: BTreeMap<&str, f64> =
            self.right.iter().map(|(name, right)| (name.as_str(), *right as f64 / texts as f64)).collect();
        let what = match self.kind {
            Kind::Domain => "domain",
            Kind::General => "general",
            Kind::Mixed => "mixed",
            Kind::Changing => "changing",
        };
        json!({ "kind": what, "texts": texts, "loss": losses, "right": right, "changes": self.changes })
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Everything that was measured with prompts of one length.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) groups: BTreeMap<String, Group>,
}

impl Measured {
    /// The losses of every group, and for each column but base and oracle what it keeps of the oracle's gain over all
    /// domains, what it costs general text, and how far it is from the better single pack in mixed texts (below 0: better).
    pub(super) fn json(&self, prompt_tokens: usize) -> Value {
        let resampled: BTreeMap<&str, Vec<Vec<f64>>> =
            self.groups.iter().map(|(name, group)| (name.as_str(), group.resampled())).collect();
        let of = |kind: Kind| self.groups.iter().filter(move |(_, group)| group.kind == kind);
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.groups.values().flat_map(|group| &group.columns) {
            if !["base", "oracle", "first", "second"].contains(&name.as_str())
                && !names.contains(&name.as_str())
            {
                names.push(name);
            }
        }
        // A figure over the texts themselves, and over each resample: `None` stands for the former.
        let estimate = |figure: &dyn Fn(Option<usize>) -> Option<f64>| {
            let value = figure(None)?;
            Some(Estimate::new(value, (0..RESAMPLES.0).filter_map(|draw| figure(Some(draw))).collect()))
        };
        let loss = |name: &str, column: &str, draw: Option<usize>| -> Option<f64> {
            let group = &self.groups[name];
            let index = group.column(column)?;
            Some(match draw {
                None => mean(&group.columns[index].1),
                Some(draw) => resampled[name][index][draw],
            })
        };
        let kept = |column: &str, draw: Option<usize>| {
            let (mut gain, mut best) = (0.0, 0.0);
            for (name, _) in of(Kind::Domain) {
                let base = loss(name, "base", draw)?;
                gain += base - loss(name, column, draw)?;
                best += base - loss(name, "oracle", draw)?;
            }
            (best > 0.0).then_some(gain / best)
        };
        let cost = |column: &str, draw: Option<usize>| {
            let costs = of(Kind::General)
                .map(|(name, _)| Some(loss(name, column, draw)? - loss(name, "base", draw)?));
            let costs = costs.collect::<Option<Vec<f64>>>()?;
            (!costs.is_empty()).then(|| mean(&costs))
        };
        let beside_better = |name: &str, column: &str, draw: Option<usize>| {
            let better = loss(name, "first", None)?.min(loss(name, "second", None)?);
            let which = if loss(name, "first", None)? == better { "first" } else { "second" };
            Some(loss(name, column, draw)? - loss(name, which, draw)?)
        };
        let summary: serde_json::Map<String, Value> = names
            .into_iter()
            .map(|column| {
                let mixed: BTreeMap<&str, Option<Estimate>> = of(Kind::Mixed)
                    .chain(of(Kind::Changing))
                    .map(|(name, _)| (name.as_str(), estimate(&|draw| beside_better(name, column, draw))))
                    .collect();
                let figures = json!({
                    "share_of_the_oracles_gain": estimate(&|draw| kept(column, draw)),
                    "cost_on_general_text": estimate(&|draw| cost(column, draw)),
                    "beside_the_better_single_pack": mixed,
                });
                (column.to_owned(), figures)
            })
            .collect();
        let groups: serde_json::Map<String, Value> = self
            .groups
            .iter()
            .map(|(name, group)| (name.clone(), group.json(&resampled[name.as_str()])))
            .collect();
        json!({ "prompt_tokens": prompt_tokens, "texts": groups, "summary": summary })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(kind: Kind, columns: &[(&str, &[f64])]) -> Group {
        let mut group = Group::new(kind);
        for (name, losses) in columns {
            losses.iter().for_each(|loss| group.add(name, *loss));
        }
        group
    }

    #[test]
    fn what_is_kept_of_the_oracles_gain_is_a_ratio_of_sums_over_domains() {
        let mut measured = Measured::default();
        let law = [("base", [4.0, 3.0]), ("oracle", [2.0, 1.0]), ("routed", [2.0, 2.0])];
        let code = [("base", [2.0, 2.0]), ("oracle", [1.0, 1.0]), ("routed", [1.0, 1.0])];
        let general = [("base", [3.0, 3.0]), ("oracle", [3.0, 3.0]), ("routed", [3.0, 3.1])];
        let mixed = [("base", [5.0]), ("first", [4.0]), ("second", [3.0]), ("routed", [2.5])];
        let columns = |columns: &[(&'static str, [f64; 2])], kind| {
            let columns: Vec<(&str, &[f64])> =
                columns.iter().map(|(name, losses)| (*name, losses.as_slice())).collect();
            group(kind, &columns)
        };
        measured.groups.insert("law".into(), columns(&law, Kind::Domain));
        measured.groups.insert("code".into(), columns(&code, Kind::Domain));
        measured.groups.insert("general".into(), columns(&general, Kind::General));
        let mixed: Vec<(&str, &[f64])> =
            mixed.iter().map(|(name, losses)| (*name, losses.as_slice())).collect();
        measured.groups.insert("law+code".into(), group(Kind::Mixed, &mixed));
        let json = measured.json(32);
        let routed = &json["summary"]["routed"];
        let value = |figure: &Value| figure["value"].as_f64().unwrap();
        // Gains of 1.5 and 1 where 2 and 1 could be had.
        assert!((value(&routed["share_of_the_oracles_gain"]) - 2.5 / 3.0).abs() < 1e-12, "{json}");
        assert!(routed["share_of_the_oracles_gain"]["low"].as_f64().unwrap() < 0.7, "{json}");
        assert!((value(&routed["cost_on_general_text"]) - 0.05).abs() < 1e-12);
        assert!((value(&routed["beside_the_better_single_pack"]["law+code"]) + 0.5).abs() < 1e-12);
        assert_eq!(json["texts"]["law"]["texts"], 2);
    }
}
