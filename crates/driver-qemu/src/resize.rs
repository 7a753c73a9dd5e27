//! Changing the size of a machine that runs.

use vimana_driver::{Fault, FaultKind};
use vimana_model::unit::Resources;

use crate::host::Turn;

/// See [`vimana_driver::HostDriver::resize`].
pub async fn resize(turn: Turn, resources: Resources) -> Result<(), Fault> {
    turn.machine()?;
    let has = turn.held()?.record.spec.resources;
    if (has.vcpus, has.memory_mib) == (resources.vcpus, resources.memory_mib) {
        return Ok(());
    }
    let message = "a machine on this host cannot be resized while it runs";
    Err(Fault::new(FaultKind::Unsupported, message))
}
