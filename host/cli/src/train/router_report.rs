//! What was measured of detectors, as a table or as JSON.

use serde_json::{Value, json};

use super::router_crowd::Crowded;
use super::router_measured::{Measured, Share};
use crate::settings::Settings;
use crate::terminal::{print, print_json, table};

/// Everything that `train router` can measure.
pub(super) struct Report {
    /// Prompts that were trained on.
    pub(super) trained_on: usize,
    /// The detectors as they are written.
    pub(super) full: Measured,
    /// The same beside many more keys.
    pub(super) crowd: Option<Crowded>,
    /// For each pack: everything fitted without it, and the pack added by its key alone.
    pub(super) left_out: Vec<(String, Measured)>,
}

impl Report {
    /// Prints it.
    pub(super) fn tell(&self, settings: &Settings) -> anyhow::Result<()> {
        if settings.json {
            return print_json(&self.json());
        }
        print(&table(&self.choices()))?;
        if let Some(crowd) = &self.crowd {
            print("\n")?;
            print(&table(&crowd.lines()))?;
        }
        if self.left_out.is_empty() {
            return Ok(());
        }
        print("\n")?;
        print(&table(&self.left_out_lines()))
    }

    fn json(&self) -> Value {
        let full = &self.full;
        let by_pack: serde_json::Map<String, Value> =
            full.by_pack.iter().map(|(name, share)| (name.clone(), share_json(*share))).collect();
        let left_out: Vec<Value> = self
            .left_out
            .iter()
            .map(|(name, measured)| {
                let ((own, others), (own_full, others_full)) =
                    (measured.own_and_others(name), full.own_and_others(name));
                json!({
                    "pack": name, "own": own.percent(), "own_full": own_full.percent(),
                    "others": others.percent(), "others_full": others_full.percent(),
                })
            })
            .collect();
        json!({
            "trained_on": self.trained_on,
            "all": share_json(full.all()),
            "packs": by_pack,
            "under_12_words": share_json(full.by_length[0]),
            "from_12_words": share_json(full.by_length[1]),
            "calibration_error": { "pairs": full.pairs_error, "likeliest": full.likeliest_error },
            "crowd": self.crowd.as_ref().map(Crowded::json),
            "left_out": left_out,
        })
    }

    fn choices(&self) -> Vec<Vec<String>> {
        let full = &self.full;
        let mut lines = vec![["wanted", "prompts", "right", "95 % interval"].map(str::to_owned).to_vec()];
        let mut row = |name: &str, share: Share| {
            let (low, high) = share.interval();
            let (right, interval) = match share.prompts {
                0 => ("-".to_owned(), "-".to_owned()),
                _ => (format!("{:.1} %", share.percent()), format!("{low:.1} to {high:.1}")),
            };
            lines.push(vec![name.to_owned(), share.prompts.to_string(), right, interval]);
        };
        full.by_pack.iter().for_each(|(name, share)| row(name, *share));
        row("all", full.all());
        row("under 12 words", full.by_length[0]);
        row("from 12 words", full.by_length[1]);
        let error = |name: &str, error: f64| {
            vec![name.to_owned(), String::new(), format!("{error:.3}"), String::new()]
        };
        lines.push(error("calibration error, pairs", full.pairs_error));
        lines.push(error("calibration error, likeliest", full.likeliest_error));
        lines
    }

    fn left_out_lines(&self) -> Vec<Vec<String>> {
        let head = [
            "added by its key alone",
            "its prompts, %",
            "of the full fit",
            "all others, %",
            "of the full fit",
        ];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        for (name, measured) in &self.left_out {
            let ((own, others), (own_full, others_full)) =
                (measured.own_and_others(name), self.full.own_and_others(name));
            let figures = [own, own_full, others, others_full].map(|share| format!("{:.1}", share.percent()));
            lines.push([name.clone()].into_iter().chain(figures).collect());
        }
        lines
    }
}

fn share_json(share: Share) -> Value {
    let (low, high) = share.interval();
    json!({ "prompts": share.prompts, "right": share.right, "percent": share.percent(), "interval": [low, high] })
}
