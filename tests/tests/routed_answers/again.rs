//! The packs of an answer are looked at again while it is written.

use std::sync::atomic::AtomicBool;

use manifests::{MixtureChoice, RoutingConfig};
use modularbase_core::SamplingOptions;
use modularbase_engine::{Answer, AnswerLimits, Host, Session};
use system_tests::Folders;

use crate::place::host;

const PACKS: [&str; 4] = ["general", "medical", "router", "shell"];
const MEDICAL: &str = "What are the early signs of type 2 diabetes?";
/// Goes on as a script does, though its packs were chosen for another question.
const SCRIPT: &str = "#!/bin/bash\nset -euo pipefail\n\n# Delete log files that are older than thirty days.\n\
    for file in /var/log/*.log; do\n  if [ -f \"$file\" ]; then\n    rm -- \"$file\"\n  fi\ndone\n\n\
    # Count the lines of all scripts.\nfind . -name '*.sh' -print0 | xargs -0 wc -l | sort -n\n";
const TOKENS: usize = 24;

fn every(again_every: u32, again_margin: f64) -> RoutingConfig {
    RoutingConfig {
        again_every: Some(again_every),
        again_margin: Some(again_margin),
        ..RoutingConfig::default()
    }
}

/// The session's answer to a text, with the packs that it has.
fn go_on(session: &mut Session<'_>, text: &[u32], tokens: usize) -> Answer {
    let limits = AnswerLimits { max_tokens: tokens, stop: Vec::new() };
    session.answer(text, &SamplingOptions::greedy(), &limits, &AtomicBool::new(false), &mut |_| {}).unwrap()
}

/// A script that goes on with the packs that a question of medicine gets.
fn misled(host: &Host) -> (Vec<u32>, Answer) {
    let mut session = Session::new(host, MixtureChoice::None).unwrap();
    session.choose(host.choose(&MixtureChoice::Auto, &[MEDICAL]).unwrap());
    let script = host.tokenizer().encode_prompt(SCRIPT, false).unwrap();
    let answer = go_on(&mut session, &script, TOKENS);
    (script, answer)
}

#[test]
fn an_answer_whose_packs_change_goes_on_as_if_it_had_had_the_new_ones_from_the_start() {
    let folders = Folders::with_shipped(&PACKS);
    let host = host(&folders, &PACKS, every(8, 0.3));
    let (script, answer) = misled(&host);
    assert_eq!(answer.mixture[0].pack, "medical");
    let [change] = &answer.changes[..] else { panic!("{:?}", answer.changes) };
    assert_eq!((change.token, change.mixture[0].pack.as_str()), (8, "shell"));
    assert!(change.reason.contains("shell"), "{}", change.reason);

    let parts: Vec<String> =
        change.mixture.iter().map(|part| format!("{}={}", part.pack, part.weight)).collect();
    let mut alone = Session::new(&host, parts.join(",").parse::<MixtureChoice>().unwrap()).unwrap();
    let written = [&script[..], &answer.token_ids[..change.token]].concat();
    let rest = go_on(&mut alone, &written, TOKENS - change.token);
    assert_eq!(rest.token_ids, answer.token_ids[change.token..]);
}

#[test]
fn a_change_needs_its_margin_and_packs_that_were_asked_for_stay() {
    let folders = Folders::with_shipped(&PACKS);
    let host = host(&folders, &PACKS, every(8, 1.0));
    assert!(misled(&host).1.changes.is_empty(), "no choice is likelier by 1");

    let host = self::host(&folders, &PACKS, every(8, 0.0));
    let mut asked = Session::new(&host, "medical".parse::<MixtureChoice>().unwrap()).unwrap();
    let script = host.tokenizer().encode_prompt(SCRIPT, false).unwrap();
    assert!(go_on(&mut asked, &script, TOKENS).changes.is_empty());
}

#[test]
fn without_being_asked_no_answer_changes_its_packs() {
    let folders = Folders::with_shipped(&PACKS);
    let host = host(&folders, &PACKS, RoutingConfig::default());
    assert!(misled(&host).1.changes.is_empty());
}
