//! A host of this process that operators reach through its control socket.

use std::sync::Arc;
use std::time::Duration;

use manifests::{ManifestError, OperatorWishes, PackName};
use modularbase_control::{ControlError, ControlServer, Operate, socket_path};
use modularbase_engine::Host;
use modularbase_manager::{EvictOutcome, HostStatus, PackEvent};

use crate::terminal::notice;

/// Serves the host's control socket until the value is dropped. A host that can't be operated still answers, so that is
/// said and no failure. `None` also where there is no folder of packs: nobody could find the host.
pub(crate) fn serve_control(host: &Arc<Host>) -> Option<ControlServer> {
    match start(host)? {
        Ok(server) => Some(server),
        Err(error) => {
            notice(&format!(
                "note: `modularbase packs` and `modularbase top` do not reach this host: {error}"
            ));
            None
        }
    }
}

fn start(host: &Arc<Host>) -> Option<Result<ControlServer, ControlError>> {
    let path = socket_path(host.manager().packs_dir()?);
    Some(path.and_then(|path| ControlServer::start(&path, Arc::new(ServedHost(Arc::clone(host))))))
}

struct ServedHost(Arc<Host>);

impl ServedHost {
    /// Writes a wish down before it is fulfilled: what an operator was told holds after a restart too.
    fn wish(
        &self,
        pack: &str,
        write: impl FnOnce(&std::path::Path, &PackName) -> Result<OperatorWishes, ManifestError>,
    ) -> Result<(), String> {
        let Some(folder) = self.0.manager().packs_dir() else {
            return Err("the host has no folder of packs".to_owned());
        };
        let name = pack.parse().map_err(|error: manifests::ValueError| error.to_string())?;
        write(folder, &name).map(|_| ()).map_err(|error| error.to_string())
    }

    fn known(&self, pack: &str) -> Result<(), String> {
        let reports = self.0.manager().reports();
        let known = reports.iter().any(|report| report.name == pack);
        if known { Ok(()) } else { Err(format!("there is no pack `{pack}`")) }
    }
}

impl Operate for ServedHost {
    fn status(&self) -> HostStatus {
        self.0.status()
    }

    fn events_after(&self, sequence: u64, wait: Duration) -> Vec<PackEvent> {
        self.0.manager().events_after(sequence, wait)
    }

    fn keep(&self, pack: &str, keep: bool) -> Result<(), String> {
        // A wish for a pack that has gone may still be taken back.
        if keep {
            self.known(pack)?;
        }
        self.wish(pack, |folder, name| OperatorWishes::set_keep(folder, name, keep))?;
        self.0.manager().keep(pack, keep);
        Ok(())
    }

    fn set_priority(&self, pack: &str, priority: i32) -> Result<(), String> {
        self.known(pack)?;
        self.wish(pack, |folder, name| OperatorWishes::set_priority(folder, name, priority))?;
        self.0.manager().set_priority(pack, priority);
        Ok(())
    }

    fn evict(&self, pack: &str) -> Result<EvictOutcome, String> {
        self.0.manager().evict(pack)
    }

    fn clear_quarantine(&self, pack: &str) -> Result<(), String> {
        self.0.manager().clear_quarantine(pack)
    }

    fn rescan(&self) {
        self.0.manager().rescan();
    }
}
