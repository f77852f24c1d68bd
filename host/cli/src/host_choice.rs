//! Which host a command goes to: the one that serves the folder of packs, the chosen one of several, or none.

use std::path::Path;

use modularbase_control::{Client, ClientError, RunningHost, running_hosts};
use modularbase_manager::PackReport;

use crate::arguments::HostChoice;
use crate::failure::{Exit, Failure};
use crate::settings::Settings;

/// A running host that listens to this process.
pub(crate) struct Operated {
    /// Its process id.
    pub(crate) pid: u32,
    pub(crate) client: Client,
}

/// The host that a command goes to; `None`: the folder alone.
pub(crate) fn find(choice: &HostChoice, settings: &Settings) -> anyhow::Result<Option<Operated>> {
    if choice.offline {
        return Ok(None);
    }
    let folder = settings.packs_dir()?;
    let Some(host) = choose(running_hosts(folder), choice.host, folder)? else { return Ok(None) };
    let client = Client::connect(&host.socket).map_err(explain)?;
    Ok(Some(Operated { pid: host.pid, client }))
}

/// The host that a command goes to which has no sense without one.
pub(crate) fn require(choice: &HostChoice, settings: &Settings) -> anyhow::Result<Operated> {
    if let Some(host) = find(choice, settings)? {
        return Ok(host);
    }
    let folder = settings.packs_dir()?.display();
    let failure = if choice.offline {
        Failure::usage("only a running host can tell this: leave out --offline")
    } else {
        Failure::usage(format!("there is no running host on {folder}"))
            .help("start one with `modularbase chat`, or name its folder of packs with --packs-dir DIR")
    };
    Err(failure.into())
}

impl Operated {
    /// Every pack of the host, one of which has this name.
    pub(crate) fn packs_with(&mut self, name: &str) -> anyhow::Result<Vec<PackReport>> {
        let packs = self.client.packs().map_err(explain)?;
        if packs.iter().any(|pack| pack.name == name) {
            return Ok(packs);
        }
        let known = packs.iter().map(|pack| pack.name.as_str());
        Err(unknown_pack(name, &format!("on the host with process id {}", self.pid), known).into())
    }
}

/// The failure of a name that no pack has.
pub(crate) fn unknown_pack<'a>(name: &str, place: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let mut known: Vec<&str> = known.collect();
    known.dedup();
    let help = if known.is_empty() {
        "there are none".to_owned()
    } else {
        format!("there are: {}", known.join(", "))
    };
    Failure::usage(format!("there is no pack `{name}` {place}")).help(help)
}

/// A host's word or silence with the exit code that goes with it.
pub(crate) fn explain(error: ClientError) -> anyhow::Error {
    let message = error.to_string();
    anyhow::Error::new(error).context(Failure::new(Exit::Failed, message))
}

fn choose(hosts: Vec<RunningHost>, pid: Option<u32>, folder: &Path) -> anyhow::Result<Option<RunningHost>> {
    let listed =
        |hosts: &[RunningHost]| hosts.iter().map(|host| host.pid.to_string()).collect::<Vec<_>>().join(", ");
    let folder = folder.display();
    let Some(pid) = pid else {
        if hosts.len() > 1 {
            let message = format!("{} hosts run on {folder}: process ids {}", hosts.len(), listed(&hosts));
            return Err(Failure::usage(message).help("choose one with --host PID").into());
        }
        return Ok(hosts.into_iter().next());
    };
    if let Some(host) = hosts.iter().find(|host| host.pid == pid) {
        return Ok(Some(host.clone()));
    }
    let failure = Failure::usage(format!("no host with the process id {pid} runs on {folder}"));
    let help =
        if hosts.is_empty() { "none does".to_owned() } else { format!("there are: {}", listed(&hosts)) };
    Err(failure.help(help).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_is_taken_and_of_several_one_must_be_chosen() {
        let hosts = |pids: &[u32]| -> Vec<RunningHost> {
            pids.iter().map(|pid| RunningHost { pid: *pid, socket: "/s".into() }).collect()
        };
        let chosen = |pids: &[u32], pid| choose(hosts(pids), pid, Path::new("/packs"));
        assert!(chosen(&[], None).unwrap().is_none());
        assert_eq!(chosen(&[7], None).unwrap().unwrap().pid, 7);
        assert_eq!(chosen(&[7, 8], Some(8)).unwrap().unwrap().pid, 8);
        let message = |result: anyhow::Result<Option<RunningHost>>| result.unwrap_err().to_string();
        assert_eq!(message(chosen(&[7, 8], None)), "2 hosts run on /packs: process ids 7, 8");
        assert_eq!(message(chosen(&[7], Some(9))), "no host with the process id 9 runs on /packs");
    }
}
