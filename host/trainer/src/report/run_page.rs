//! A training run as a page: `report.html` in its folder.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::line_chart::{Series, Stroke, line_chart, smoothed};
use super::page::{escaped, grouped, page, push, table};
use crate::{LookMetric, Metric, StepMetric, TrainError, read_metrics};

const REPORT: &str = "report.html";
const SUMMARY: &str = "summary.json";
const CONFIG: &str = "config.toml";

/// What a run's metrics don't tell.
#[derive(Debug, Clone, Default)]
pub struct RunFacts {
    /// The heading, such as `Pack medical`.
    pub title: String,
    /// The command that made it; empty where nobody knows.
    pub command: String,
    /// Losses of the weights in several forms, such as before and after they were quantized.
    pub losses: Vec<FormLoss>,
    /// The weights that ship.
    pub weights: Vec<WeightFacts>,
    /// Anything else, by name.
    pub facts: Vec<(String, String)>,
}

/// The loss of the weights in one form.
#[derive(Debug, Clone, PartialEq)]
pub struct FormLoss {
    /// Which form, such as `bf16` or `delta-q2`.
    pub form: String,
    /// Nats a token on the validation text.
    pub loss: f64,
    /// The same on general text.
    pub general: Option<f64>,
    /// Bytes of the weights in this form.
    pub bytes: Option<u64>,
}

/// One weight as it ships.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightFacts {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// How it is stored.
    pub format: String,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Squared error of a delta as a share of the delta's squares.
    pub error: Option<f64>,
}

/// Writes `report.html` into a run's folder from its metrics, its settings, its summary where there is one, and
/// `facts`.
///
/// # Errors
/// Metrics that can't be read, a folder that can't be written.
pub fn write_report(run_folder: &Path, facts: &RunFacts) -> Result<PathBuf, TrainError> {
    let metrics = read_metrics(run_folder)?;
    let text = |name: &str| {
        let path = run_folder.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(TrainError::file("read", path)(error)),
        }
    };
    let summary = serde_json::from_str(&text(SUMMARY)?).unwrap_or(Value::Null);
    let html = run_page(&metrics, &text(CONFIG)?, &summary, facts);
    let path = run_folder.join(REPORT);
    manifests::write_atomically(&path, html.as_bytes()).map_err(TrainError::file("write", &path))?;
    Ok(path)
}

/// The page; `settings` is TOML, `summary` any JSON.
fn run_page(metrics: &[Metric], settings: &str, summary: &Value, facts: &RunFacts) -> String {
    let steps: Vec<&StepMetric> = metrics
        .iter()
        .filter_map(|metric| match metric {
            Metric::Step(step) => Some(step),
            Metric::Look(_) => None,
        })
        .collect();
    let looks: Vec<&LookMetric> = metrics
        .iter()
        .filter_map(|metric| match metric {
            Metric::Look(look) => Some(look),
            Metric::Step(_) => None,
        })
        .collect();
    let mut body = headline(&steps, &looks);
    body.push_str(&loss_figure(&steps, &looks));
    body.push_str(&looks_table(&looks));
    body.push_str(&forms(&facts.losses));
    if !steps.is_empty() {
        let apart: Vec<&StepMetric> =
            steps.iter().copied().filter(|step| step.divergence.is_some()).collect();
        if !apart.is_empty() {
            let title = "Divergence from the base on general rows, nats a token";
            body.push_str(&step_figure(title, &apart, 3, None, |step| step.divergence.unwrap_or_default()));
        }
        body.push_str("<h2>Optimizer</h2>\n");
        body.push_str(&step_figure("Learning rate", &steps, 3, None, |step| step.learning_rate));
        body.push_str(&step_figure("Global gradient norm before clipping", &steps, 4, Some(10.0), |step| {
            step.gradient_norm
        }));
        body.push_str(&step_figure("Tokens a second", &steps, 1, Some(10.0), |step| step.tokens_per_second));
    }
    body.push_str(&weights(&facts.weights));
    body.push_str("<h2>How it was made</h2>\n");
    if !facts.command.is_empty() {
        push(&mut body, format_args!("<pre>{}</pre>\n", escaped(&facts.command)));
    }
    let mut rows: Vec<Vec<String>> =
        facts.facts.iter().map(|(name, value)| vec![escaped(name), text_cell(value)]).collect();
    flatten("", summary, &mut rows);
    if !rows.is_empty() {
        body.push_str(&table(&["", ""], &rows));
    }
    if !settings.trim().is_empty() {
        push(
            &mut body,
            format_args!(
                "<details open><summary>Settings</summary><pre>{}</pre></details>\n",
                escaped(settings)
            ),
        );
    }
    let title = if facts.title.is_empty() { "Training run" } else { &facts.title };
    page(title, &body)
}

fn headline(steps: &[&StepMetric], looks: &[&LookMetric]) -> String {
    let mut html = String::new();
    if let (Some(first), Some(best)) = (looks.first(), best_look(looks))
        && first.step == 0
    {
        push(
            &mut html,
            format_args!(
                "<p><span class=\"big\">{:+.3}</span> nats a token on the validation text: {:.4} before, {:.4} after \
                 step {}</p>\n",
                first.loss - best.loss,
                first.loss,
                best.loss,
                best.step
            ),
        );
    }
    if let Some(last) = steps.last() {
        let mean = steps.iter().map(|step| step.tokens_per_second).sum::<f64>() / steps.len() as f64;
        push(
            &mut html,
            format_args!(
                "<p class=\"soft\">{} steps in {:.0} s; {} tokens a second on average.</p>\n",
                grouped(last.step),
                last.seconds,
                grouped(mean.max(0.0).round() as u64)
            ),
        );
    } else {
        html.push_str("<p class=\"soft\">No step was taken.</p>\n");
    }
    html
}

/// The look with the lowest loss among those of the form that ships: where some were quantized, among these.
fn best_look<'a>(looks: &[&'a LookMetric]) -> Option<&'a LookMetric> {
    let quantized = looks.iter().any(|look| look.quantized);
    let of_form = looks.iter().copied().filter(|look| look.step > 0 && look.quantized == quantized);
    of_form.min_by(|a, b| a.loss.total_cmp(&b.loss))
}

fn loss_figure(steps: &[&StepMetric], looks: &[&LookMetric]) -> String {
    if steps.is_empty() && looks.is_empty() {
        return String::new();
    }
    let raw: Vec<(f64, f64)> = steps.iter().map(|step| (step.step as f64, step.loss)).collect();
    let mut series = vec![
        Series { name: "training, each step".into(), colour: 1, stroke: Stroke::Faint, points: raw.clone() },
        Series {
            name: "training, smoothed".into(),
            colour: 1,
            stroke: Stroke::Strong,
            points: smoothed(&raw, (raw.len() as f64 / 60.0).clamp(1.0, 50.0)),
        },
    ];
    let of = |value: &dyn Fn(&LookMetric) -> Option<f64>| -> Vec<(f64, f64)> {
        looks.iter().filter_map(|look| Some((look.step as f64, value(look)?))).collect()
    };
    let mut add = |name: &str, colour, points: Vec<(f64, f64)>| {
        if !points.is_empty() {
            series.push(Series { name: name.into(), colour, stroke: Stroke::Dots, points });
        }
    };
    add("validation", 2, of(&|look| Some(look.loss)));
    add("general text", 3, of(&|look| look.general_loss));
    let first_quantized = looks.iter().find(|look| look.quantized).map(|look| look.step);
    let quantized = first_quantized
        .map_or(String::new(), |step| format!(" From the look at step {step} on the weights are quantized."));
    format!(
        "<h2>Loss</h2>\n<figure>{}<figcaption>Loss in nats a token by step.{quantized}</figcaption></figure>\n",
        line_chart("Loss in nats a token by step", "step", &series)
    )
}

fn looks_table(looks: &[&LookMetric]) -> String {
    if looks.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = looks
        .iter()
        .map(|look| {
            vec![
                grouped(look.step),
                format!("{:.4}", look.loss),
                look.general_loss.map_or("-".to_owned(), |loss| format!("{loss:.4}")),
                if look.quantized { "quantized" } else { "full" }.to_owned(),
            ]
        })
        .collect();
    let table = table(&["step", "validation loss", "general loss", "weights"], &rows);
    format!("<details><summary>Looks at the validation text</summary>\n{table}</details>\n")
}

fn forms(losses: &[FormLoss]) -> String {
    if losses.is_empty() {
        return String::new();
    }
    let optional = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    let rows: Vec<Vec<String>> = losses
        .iter()
        .map(|form| {
            vec![
                escaped(&form.form),
                format!("{:.4}", form.loss),
                optional(form.general),
                form.bytes.map_or("-".to_owned(), grouped),
            ]
        })
        .collect();
    let table = table(&["weights", "validation loss", "general loss", "bytes"], &rows);
    format!("<h2>Before and after quantization</h2>\n{table}")
}

fn step_figure(
    label: &str,
    steps: &[&StepMetric],
    colour: usize,
    half_life: Option<f64>,
    value: impl Fn(&StepMetric) -> f64,
) -> String {
    let raw: Vec<(f64, f64)> = steps.iter().map(|step| (step.step as f64, value(step))).collect();
    let curve = |stroke, points| Series { name: String::new(), colour, stroke, points };
    let series = match half_life {
        Some(half_life) => {
            vec![curve(Stroke::Faint, raw.clone()), curve(Stroke::Strong, smoothed(&raw, half_life))]
        }
        None => vec![curve(Stroke::Strong, raw)],
    };
    format!(
        "<figure>{}<figcaption>{}</figcaption></figure>\n",
        line_chart(label, "step", &series),
        escaped(label)
    )
}

fn weights(weights: &[WeightFacts]) -> String {
    if weights.is_empty() {
        return String::new();
    }
    let mut rows: Vec<Vec<String>> = weights
        .iter()
        .map(|weight| {
            let shape: Vec<String> = weight.shape.iter().map(usize::to_string).collect();
            vec![
                escaped(&weight.name),
                shape.join(" × "),
                escaped(&weight.format),
                grouped(weight.bytes),
                weight.error.map_or("-".to_owned(), |error| format!("{error:.4}")),
            ]
        })
        .collect();
    let bytes: u64 = weights.iter().map(|weight| weight.bytes).sum();
    rows.push(vec!["all".into(), String::new(), String::new(), grouped(bytes), String::new()]);
    let table = table(&["weight", "shape", "format", "bytes", "squared error of the delta"], &rows);
    format!(
        "<h2>Weights</h2>\n<details><summary>{} weights, {} bytes</summary>\n{table}</details>\n",
        weights.len(),
        grouped(bytes)
    )
}

/// The values of any JSON by their paths.
fn flatten(path: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    let text = match value {
        Value::Null => return,
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, rows);
            }
            return;
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    rows.push(vec![escaped(path), text_cell(&text)]);
}

fn text_cell(text: &str) -> String {
    format!("<td class=\"text\">{}</td>", escaped(text))
}

#[cfg(test)]
mod tests {
    use super::super::page::tests::check;
    use super::*;

    fn run(folder: &Path, steps: u64) {
        let mut lines = String::new();
        for step in 0..=steps {
            if step > 0 {
                let metric = Metric::Step(StepMetric {
                    step,
                    divergence: None,
                    loss: 3.0 - 1.2 * (step as f64 / steps as f64) + 0.1 * (step as f64 * 1.7).sin(),
                    gradient_norm: 1.0 + (step as f64 * 0.9).cos().abs(),
                    learning_rate: 1e-3 * (1.0 - step as f64 / steps as f64),
                    tokens_per_second: 200_000.0 + 3000.0 * (step as f64).sin(),
                    seconds: step as f64 * 0.08,
                });
                lines.push_str(&(serde_json::to_string(&metric).unwrap() + "\n"));
            }
            if step % 50 == 0 {
                let metric = Metric::Look(LookMetric {
                    step,
                    loss: 2.9 - 0.9 * step as f64 / steps as f64,
                    general_loss: Some(3.1 + 0.0001 * step as f64),
                    quantized: step > 250,
                });
                lines.push_str(&(serde_json::to_string(&metric).unwrap() + "\n"));
            }
        }
        std::fs::write(folder.join("metrics.jsonl"), lines).unwrap();
    }

    fn facts() -> RunFacts {
        RunFacts {
            title: "Pack <medical>".into(),
            command: "modularbase train pack medical --set 'a=\"b\"'".into(),
            losses: vec![FormLoss { form: "bf16".into(), loss: 1.5, general: None, bytes: Some(42) }],
            weights: vec![WeightFacts {
                name: "layers.18.attn_q".into(),
                shape: vec![576, 576],
                format: "delta-q2".into(),
                bytes: 93_312,
                error: Some(0.118),
            }],
            facts: vec![("device".into(), "cuda & co".into())],
        }
    }

    #[test]
    fn the_report_of_a_run_is_one_sound_page() {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), 300);
        std::fs::write(folder.path().join("config.toml"), "seed = 1\n[batch]\nrows = 32\n").unwrap();
        std::fs::write(folder.path().join("summary.json"), r#"{"best": {"loss": 2.0}, "x": "<i>"}"#).unwrap();
        let path = write_report(folder.path(), &facts()).unwrap();
        let html = std::fs::read_to_string(path).unwrap();
        check(&html);
        for text in ["Pack &lt;medical&gt;", "+0.900", "rows = 32", "best.loss", "0.1180", "quantized"] {
            assert!(html.contains(text), "{text}");
        }
        assert_eq!(html.matches("<svg").count(), 4);
    }

    #[test]
    fn a_run_that_never_took_a_step_has_a_report_too() {
        let folder = tempfile::tempdir().unwrap();
        let html =
            std::fs::read_to_string(write_report(folder.path(), &RunFacts::default()).unwrap()).unwrap();
        check(&html);
        assert!(html.contains("No step was taken"));
    }

    #[test]
    fn losses_that_are_no_numbers_leave_gaps() {
        let step = StepMetric {
            step: 1,
            divergence: None,
            loss: f64::NAN,
            gradient_norm: f64::INFINITY,
            learning_rate: 1e-3,
            tokens_per_second: 1.0,
            seconds: 1.0,
        };
        check(&run_page(&[Metric::Step(step)], "", &Value::Null, &RunFacts::default()));
    }
}
