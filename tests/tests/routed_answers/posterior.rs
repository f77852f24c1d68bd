//! What packs themselves predict of an ambiguous prompt.

use manifests::RoutingConfig;
use modularbase_engine::Host;
use router::{Posterior, Routing};
use system_tests::Folders;

use crate::place::host;

const PACKS: [&str; 5] = ["general", "legal", "medical", "router", "shell"];
const PROMPT: &str =
    "The patient was given 40 mg of furosemide intravenously and her dyspnea improved within the hour.";

/// Every prompt counts as ambiguous.
fn asked(posterior_ms: u64) -> RoutingConfig {
    RoutingConfig {
        posterior_ms: Some(posterior_ms),
        ambiguous: Some([0.0, 1.0]),
        ..RoutingConfig::default()
    }
}

fn skipped(host: &Host) -> String {
    match host.route(&[PROMPT]).unwrap().posterior {
        Some(Posterior::Skipped { skipped }) => skipped,
        other => panic!("{other:?}"),
    }
}

#[test]
fn packs_on_the_device_are_asked_for_their_predictions_and_none_is_loaded_for_it() {
    let folders = Folders::with_shipped(&PACKS);
    let host = host(&folders, &PACKS, asked(60_000));
    assert!(skipped(&host).contains("is not on the device"));
    assert_eq!(host.manager().totals().loads, 0);

    drop(host.turn(&"legal,medical,shell".parse().unwrap()).unwrap());
    let Routing { posterior: Some(Posterior::Ran { packs, ms }), .. } = host.route(&[PROMPT]).unwrap() else {
        panic!("they are there by now");
    };
    assert_eq!((packs.len(), packs[0].pack.as_str()), (3, "medical"));
    assert!(packs[0].gain > 0.2, "medical predicts its own text better than the base does: {packs:?}");
    assert!(packs[1..].iter().all(|other| other.gain < packs[0].gain), "{packs:?}");
    assert!(ms > 0.0);
    let report = host.manager().reports().into_iter().find(|report| report.name == "medical").unwrap();
    assert_eq!(report.leases, 0, "they are let go");
}

#[test]
fn the_time_limit_is_kept_and_a_plain_prompt_is_not_asked_about() {
    let folders = Folders::with_shipped(&PACKS);
    // The general layers alone take longer than a millisecond.
    let host = self::host(&folders, &PACKS, asked(1));
    drop(host.turn(&"legal,medical,shell".parse().unwrap()).unwrap());
    let reason = skipped(&host);
    assert!(reason.contains("longer than 1 ms"), "{reason}");

    let plain = RoutingConfig { ambiguous: Some([0.45, 0.55]), ..asked(60_000) };
    assert_eq!(host.route_under(&[PROMPT], &plain).unwrap().posterior, None);
    let off = RoutingConfig::default();
    assert_eq!(host.route_under(&[PROMPT], &off).unwrap().posterior, None, "off where nothing is said");
}
