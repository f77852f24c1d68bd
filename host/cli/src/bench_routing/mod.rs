//! `bench routing`: what the router's choices are worth, as losses of how texts go on.

mod baselines;
mod figures;
mod texts;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use clap::Args;
use manifests::{HostConfig, MixtureChoice, RoutingConfig};
use modularbase_engine::{Again, Chosen, KnownText};
use router::Routing;
use serde_json::{Value, json};

use crate::eval::NamedFile;
use crate::failure::Failure;
use crate::model::{Model, explain};
use crate::settings::Settings;
use crate::terminal::{notice, step_bar};

use baselines::Baselines;
use figures::{Group, Kind, Measured};
use texts::{in_turn, windows};

/// Tokens that follow a prompt and are predicted.
const CONTINUATION: usize = 256;

/// How long packs are waited for.
const LOOKING: Duration = Duration::from_secs(60);

/// What `bench routing` measures.
#[derive(Debug, Args)]
pub(crate) struct RoutingBench {
    /// A domain's text, named as its pack; another name is general text.
    #[arg(long, value_name = "NAME=FILE", required = true)]
    text: Vec<NamedFile>,
    /// Two of these domains in turn in one text: their packs, alone and together. May be given several times.
    #[arg(long, value_name = "NAME+NAME")]
    mixed: Vec<String>,
    /// A text of the first domain that goes on with one of the second a quarter of the way. May be given several times.
    #[arg(long, value_name = "NAME+NAME")]
    changing: Vec<String>,
    /// Tokens of one domain in a mixed text before the other's turn comes.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    turn: u32,
    /// Tokens of the prompts that are routed.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "32,128",
          value_parser = clap::value_parser!(u32).range(1..=256))]
    prompt_tokens: Vec<u32>,
    /// Texts of each domain.
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..))]
    texts: u32,
    /// Another policy to route by, as in [routing] of the configuration, such as `top_k=1,sure=0.9`: a column of its own.
    /// May be given several times.
    #[arg(long, value_name = "KEY=VALUE,..")]
    policy: Vec<String>,
    /// Also fuse the packs of a choice token by token, by attention of this sharpness over their outputs, in place of their
    /// weighted sum: columns of their own. Below 0 packs that change more count more. May be given several times.
    #[arg(long, value_name = "SHARPNESS", allow_negative_numbers = true)]
    attention: Vec<f32>,
    /// Compare with a whole trained model: the file that `train baseline` wrote; may be given several times.
    #[arg(long, value_name = "NAME=FILE")]
    baseline: Vec<NamedFile>,
}

/// A way to choose packs.
struct Policy {
    name: String,
    config: RoutingConfig,
}

/// For each length of prompt and each domain the loss of the 256 tokens after a prompt: of the base, of the pack of the
/// domain's name (the oracle; the base where there is none), of all packs alike, of the baselines, and of what the router
/// chooses from the prompt alone, under each policy. Then the same for texts in which two domains take turns.
pub(crate) fn routing(model: &Model, bench: &RoutingBench, settings: &Settings) -> anyhow::Result<Value> {
    let policies = policies(bench, settings)?;
    let names: Vec<String> = bench.text.iter().map(|text| pack_name(&text.name)).collect();
    let pairs = pairs(bench, &names)?;
    let baselines = Baselines::read(&bench.baseline, settings)?;
    let host = &model.host;
    // A pack that is still being looked at would count as missing, and its domain as general text.
    host.manager().wait_until_looked(LOOKING);
    let packs: Vec<String> = host.manager().registered().into_iter().map(|pack| pack.name).collect();
    are_registered(&pairs, &names, &packs)?;
    let run = Run { model, bench, pairs, policies, baselines, packs };
    let lengths = bench.prompt_tokens.iter().map(|length| run.of_length(*length as usize));
    let lengths = lengths.collect::<anyhow::Result<Vec<Value>>>()?;
    Ok(json!({ "continuation_tokens": CONTINUATION, "turn": bench.turn, "lengths": lengths }))
}

/// The host's own policy, and those that were asked for.
fn policies(bench: &RoutingBench, settings: &Settings) -> anyhow::Result<Vec<Policy>> {
    let own = settings.host.routing.clone();
    let mut policies = vec![Policy { name: "routed".to_owned(), config: own.clone() }];
    for text in &bench.policy {
        let config = format!("schema_version = 1\nrouting = {{ {text} }}\n");
        let config = HostConfig::parse(&config).map_err(|error| {
            let failure = Failure::usage(format!("--policy {text}: no table of [routing]"));
            anyhow::Error::new(error)
                .context(failure.help("write it as KEY=VALUE,.. such as top_k=1,sure=0.9"))
        })?;
        policies.push(Policy { name: text.clone(), config: config.routing.or(own.clone()) });
    }
    Ok(policies)
}

/// Two domains in one text.
struct Pair {
    kind: Kind,
    one: String,
    other: String,
}

/// The pairs that were asked for.
fn pairs(bench: &RoutingBench, names: &[String]) -> anyhow::Result<Vec<Pair>> {
    let mixed = bench.mixed.iter().map(|pair| (Kind::Mixed, pair));
    let changing = bench.changing.iter().map(|pair| (Kind::Changing, pair));
    let of = |(kind, pair): (Kind, &String)| {
        let both = pair.split_once('+').map(|(one, other)| (pack_name(one), pack_name(other)));
        match both.filter(|(one, other)| names.contains(one) && names.contains(other)) {
            Some((one, other)) => Ok(Pair { kind, one, other }),
            None => {
                let message = format!("{pair}: expected NAME+NAME, both of them named by --text");
                Err(Failure::usage(message).into())
            }
        }
    };
    mixed.chain(changing).map(of).collect()
}

/// Refuses what would say nothing: pairs of packs that are not there, and texts none of which has a pack.
fn are_registered(pairs: &[Pair], names: &[String], packs: &[String]) -> anyhow::Result<()> {
    let missing = pairs.iter().flat_map(|pair| [&pair.one, &pair.other]).find(|name| !packs.contains(name));
    let message = match missing {
        Some(name) => format!("a pair names `{name}`, and no such pack is registered"),
        None if names.iter().any(|name| name != "general" && packs.contains(name)) => return Ok(()),
        None => "none of the texts is named as a registered pack".to_owned(),
    };
    let registered = if packs.is_empty() { "none".to_owned() } else { packs.join(", ") };
    let failure = Failure::usage(format!("{message} (registered: {registered})"));
    Err(failure
        .help("`modularbase packs list` shows what is there; --packs-dir chooses another folder")
        .into())
}

struct Run<'a> {
    model: &'a Model,
    bench: &'a RoutingBench,
    pairs: Vec<Pair>,
    policies: Vec<Policy>,
    baselines: Baselines,
    /// Names of the registered packs.
    packs: Vec<String>,
}

impl Run<'_> {
    fn of_length(&self, prompt_tokens: usize) -> anyhow::Result<Value> {
        let mut measured = Measured::default();
        let mut texts: BTreeMap<String, Vec<Vec<u32>>> = BTreeMap::new();
        for NamedFile { name, path } in &self.bench.text {
            let length = prompt_tokens + CONTINUATION;
            texts.insert(pack_name(name), windows(self.model, path, length, self.bench.texts as usize)?);
        }
        let uniform = self.uniform(&texts)?;
        for (name, texts) in &texts {
            let own = (self.has(name) && name != "general").then(|| name.parse()).transpose()?;
            let kind = if own.is_some() { Kind::Domain } else { Kind::General };
            let choices = [
                ("base", MixtureChoice::None),
                ("oracle", own.unwrap_or(MixtureChoice::None)),
                ("uniform", uniform.clone()),
            ];
            let wanted = if kind == Kind::Domain { vec![name.clone()] } else { Vec::new() };
            let mut group = Group::new(kind);
            self.measure(&mut group, texts, prompt_tokens, &choices, |routing| likeliest(routing) == wanted)?;
            self.tell(name, &group);
            measured.groups.insert(name.clone(), group);
        }
        for Pair { kind, one, other } in &self.pairs {
            let (kind, ones, others) = (*kind, &texts[one], &texts[other]);
            let joined = |(a, b): (&Vec<u32>, &Vec<u32>)| match kind {
                Kind::Changing => {
                    [&a[..prompt_tokens + CONTINUATION / 4], &b[..CONTINUATION * 3 / 4]].concat()
                }
                _ => in_turn(a, b, self.bench.turn as usize),
            };
            let mixed: Vec<Vec<u32>> = ones.iter().zip(others).map(joined).collect();
            let choices = [
                ("base", MixtureChoice::None),
                ("first", one.parse()?),
                ("second", other.parse()?),
                ("both", format!("{one}=1,{other}=1").parse()?),
            ];
            let both = |routing: &Routing| {
                [one, other].iter().all(|name| routing.mixture.iter().any(|share| share.pack == **name))
            };
            let name = match kind {
                Kind::Changing => format!("{one}, then {other}"),
                _ => format!("{one}+{other}"),
            };
            let mut group = Group::new(kind);
            self.measure(&mut group, &mixed, prompt_tokens, &choices, both)?;
            self.tell(&name, &group);
            measured.groups.insert(name, group);
        }
        Ok(measured.json(prompt_tokens))
    }

    /// All packs that have a text here and the general one, each with the same weight.
    fn uniform(&self, texts: &BTreeMap<String, Vec<Vec<u32>>>) -> anyhow::Result<MixtureChoice> {
        let alike: Vec<&str> = texts.keys().filter(|name| self.has(name)).map(String::as_str).collect();
        let general = Some("general").filter(|name| self.has(name) && !alike.contains(name));
        let alike: Vec<&str> = alike.into_iter().chain(general).collect();
        if alike.is_empty() { Ok(MixtureChoice::None) } else { Ok(alike.join(",").parse()?) }
    }

    fn has(&self, name: &str) -> bool {
        self.packs.iter().any(|pack| pack == name)
    }

    /// The losses of texts under fixed mixtures, the baselines and every policy; `right` says of a choice whether it is
    /// the one that the text wants.
    fn measure(
        &self,
        group: &mut Group,
        texts: &[Vec<u32>],
        prompt_tokens: usize,
        choices: &[(&str, MixtureChoice)],
        right: impl Fn(&Routing) -> bool,
    ) -> anyhow::Result<()> {
        let host = &self.model.host;
        let bar = step_bar("Measuring", texts.len() as u64);
        for ids in texts {
            let mut text = Predicted::read(self.model, ids, prompt_tokens)?;
            for (name, choice) in choices {
                group.add(name, text.loss(choice, None)?);
                if *name == "both" {
                    self.attend(group, name, &mut text, choice)?;
                }
            }
            for (name, loss) in self.baselines.losses(ids, prompt_tokens)? {
                group.add(name, loss);
            }
            let prompt = host.tokenizer().decode(&ids[..prompt_tokens]);
            for Policy { name, config } in &self.policies {
                let routing = host.route_under(&[&prompt], config).map_err(explain)?;
                group.add_right(name, right(&routing));
                let chosen = Chosen::by_router(routing).map_err(explain)?;
                self.attend(group, name, &mut text, &chosen.choice)?;
                match Again::of(config) {
                    None => group.add(name, text.loss(&chosen.choice, None)?),
                    Some(again) => {
                        let (loss, changes) = text.loss_again(chosen.choice, &again)?;
                        group.add(name, loss);
                        group.add_changes(name, changes);
                    }
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// The losses of a choice where its packs' outputs are fused by attention.
    fn attend(
        &self,
        group: &mut Group,
        name: &str,
        text: &mut Predicted<'_>,
        choice: &MixtureChoice,
    ) -> anyhow::Result<()> {
        for &sharpness in &self.bench.attention {
            group.add(&format!("{name}, attention {sharpness}"), text.loss(choice, Some(sharpness))?);
        }
        Ok(())
    }

    fn tell(&self, name: &str, group: &Group) {
        let means: Vec<String> = group.means().map(|(column, mean)| format!("{column} {mean:.4}")).collect();
        notice(&format!("{name}: {}", means.join(", ")));
    }
}

/// A text of which everything from a token on is to be predicted, with the losses that are known of it: policies often
/// choose the same.
struct Predicted<'a> {
    model: &'a Model,
    ids: &'a [u32],
    from: usize,
    text: KnownText<'a>,
    known: HashMap<String, Vec<f64>>,
}

impl<'a> Predicted<'a> {
    fn read(model: &'a Model, ids: &'a [u32], from: usize) -> anyhow::Result<Self> {
        let text = KnownText::read(&model.host, ids).map_err(explain)?;
        Ok(Self { model, ids, from, text, known: HashMap::new() })
    }

    /// Under a choice whose packs' outputs are added up by weight, or fused by attention of a sharpness.
    fn losses(&mut self, choice: &MixtureChoice, attention: Option<f32>) -> anyhow::Result<&[f64]> {
        let key = format!("{choice} {attention:?}");
        if !self.known.contains_key(&key) {
            let turn = self.model.turn_of(choice)?;
            let losses = match attention {
                None => self.text.losses(turn.mixture(), self.from),
                Some(sharpness) => self.text.losses_attended(turn.mixture(), self.from, sharpness),
            };
            self.known.insert(key.clone(), losses.map_err(explain)?);
        }
        Ok(&self.known[&key])
    }

    /// The mean loss, nats a token.
    fn loss(&mut self, choice: &MixtureChoice, attention: Option<f32>) -> anyhow::Result<f64> {
        let losses = self.losses(choice, attention)?;
        Ok(losses.iter().sum::<f64>() / losses.len() as f64)
    }

    /// The mean loss where the packs are looked at again on the way, and how often they change.
    fn loss_again(&mut self, first: MixtureChoice, again: &Again) -> anyhow::Result<(f64, usize)> {
        let (mut present, mut changes, mut sum) = (first, 0, 0.0);
        let predicted = self.ids.len() - self.from;
        for written in 0..predicted {
            if again.is_due(written) {
                // As in an answer, whose newest token is not computed yet.
                let window = Again::window(self.from + written - 1);
                let hidden = self.text.hidden_of(window.clone()).map_err(explain)?;
                let other = self.model.host.look_again(again, &self.ids[window], &hidden, &present);
                if let Some(other) = other.map_err(explain)? {
                    (present, changes) = (other.choice, changes + 1);
                }
            }
            sum += self.losses(&present, None)?[written];
        }
        Ok((sum / predicted as f64, changes))
    }
}

/// The pack that a choice is for, none where the general pack answers.
fn likeliest(routing: &Routing) -> Vec<String> {
    let first = routing.mixture.first().filter(|_| !routing.out_of_domain);
    first.into_iter().map(|share| share.pack.clone()).collect()
}

/// Corpora write names with an underscore, packs with a hyphen.
fn pack_name(name: &str) -> String {
    name.replace('_', "-")
}
