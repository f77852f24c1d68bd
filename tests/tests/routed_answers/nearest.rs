//! Packs that were nearly chosen come to the device before they are asked for.

use manifests::{MixtureChoice, RoutingConfig};
use modularbase_engine::Session;
use modularbase_manager::PackState;
use modularbase_residency::Owner;
use system_tests::{Folders, wait_for, wait_for_state};

use crate::place::{answer, held, host};

const PACKS: [&str; 5] = ["general", "legal", "medical", "router", "shell"];
const PROMPT: &str = "What are the early signs of type 2 diabetes?";

/// Every pack that is not chosen counts as nearly chosen.
fn all_near() -> RoutingConfig {
    RoutingConfig { prefetch: Some(1.0), threshold: Some(0.6), ..RoutingConfig::default() }
}

#[test]
fn packs_that_were_nearly_chosen_come_to_the_device_beside_an_answer() {
    let folders = Folders::with_shipped(&PACKS);
    let host = host(&folders, &PACKS, all_near());
    let mut session = Session::new(&host, MixtureChoice::None).unwrap();
    let said = answer(&mut session, &host, PROMPT, 2);
    assert_eq!(said.mixture[0].pack, "medical");
    for pack in ["legal", "shell"] {
        let resident = wait_for_state(&host, pack, &[PackState::Resident]);
        assert_eq!((resident.leases, resident.loads), (0, 1), "{pack}");
    }
    // One that is asked for now is there already.
    let loads = host.manager().totals().loads;
    answer(&mut session, &host, "How do I recursively change file permissions with chmod?", 2);
    assert_eq!(host.manager().totals().loads, loads);
}

#[test]
fn nothing_is_fetched_before_it_is_wanted_where_the_margin_is_none() {
    let folders = Folders::with_shipped(&PACKS);
    let none = RoutingConfig { prefetch: Some(0.0), ..all_near() };
    let host = host(&folders, &PACKS, none);
    let mut session = Session::new(&host, MixtureChoice::None).unwrap();
    answer(&mut session, &host, PROMPT, 2);
    // A second answer: by its end the first one's wishes would have been seen to.
    answer(&mut session, &host, PROMPT, 2);
    assert_eq!(host.manager().totals().loads, 1, "medical alone");
}

/// With room for two packs and an answer, one of them leased and one idle, a third finds no place, and takes none.
#[test]
fn a_prefetch_evicts_nothing_and_stays_within_the_budget() {
    let folders = Folders::with_shipped(&PACKS);
    let host = host(&folders, &PACKS, all_near());
    let leased = host.turn(&"medical".parse().unwrap()).unwrap();
    drop(host.turn(&"shell".parse().unwrap()).unwrap());
    let mut session = Session::new(&host, MixtureChoice::None).unwrap();
    // What an answer takes is known once one was given; `legal` came beside it, and is sent away again.
    answer(&mut session, &host, PROMPT, 2);
    wait_for_state(&host, "legal", &[PackState::Resident]);
    host.manager().evict("legal").unwrap();
    let bytes_of = |pack: &str| {
        let report = host.manager().reports().into_iter().find(|report| report.name == pack);
        report.map_or(0, |report| report.resident_bytes)
    };
    let pack_bytes = bytes_of("shell");
    assert!(pack_bytes > 1 << 20);
    // Room for the answer beside what is there, and for half a pack.
    host.set_budget(held(&host) + pack_bytes / 2);
    let evictions = host.manager().totals().evictions;
    answer(&mut session, &host, PROMPT, 2);
    // The worker that is to fetch `legal` tries once: it is over when the pack is no longer on its way.
    wait_for("the end of the prefetch", || {
        let legal = host.manager().reports().into_iter().find(|report| report.name == "legal")?;
        (legal.state != PackState::Loading).then_some(())
    });
    answer(&mut session, &host, PROMPT, 2);
    assert_eq!(host.manager().totals().evictions, evictions);
    wait_for_state(&host, "legal", &[PackState::Registered, PackState::Evicted]);
    wait_for_state(&host, "shell", &[PackState::Resident]);
    assert!(held(&host) <= host.ledger().budget());
    let medical = leased.mixture().parts()[0].0.generation().to_owned();
    assert!(host.ledger().held_by(&Owner::Pack(medical)) > 0, "it is leased");
}
