//! Changing the size of a machine that runs: its disk can grow.
//!
//! Processors and memory stay as they were at the start. QEMU can plug
//! processors into a running machine, but where guests are translated it
//! aborts when its code buffer happens to be in full use (seen with 10.0.2),
//! and takes the guest with it. The next run has any size.

use std::sync::Arc;

use vimana_driver::{Fault, FaultKind};
use vimana_model::unit::Resources;

use crate::argv::ROOT_DEVICE;
use crate::host::{Turn, blocking};
use crate::prepare;
use crate::qmp::QmpError;
use crate::record::{self, Prepared};

/// See [`vimana_driver::HostDriver::resize`].
pub async fn resize(turn: Turn, to: Resources) -> Result<(), Fault> {
    let machine = turn.machine()?;
    let held = turn.held()?;
    let has = held.record.spec.resources;
    if (has.vcpus, has.memory_mib) != (to.vcpus, to.memory_mib) {
        let message = "vCPUs and memory of a machine on this host cannot change while it runs";
        return Err(Fault::new(FaultKind::Unsupported, message));
    }
    if to.disk_mib <= has.disk_mib {
        return Ok(());
    }
    prepare::allowed(&turn.host.config, &to)?;
    let bytes = prepare::disk_bytes(&to)?;
    let qmp = machine.qmp();
    let grown = async {
        let node = qmp.node_of(ROOT_DEVICE).await?;
        qmp.block_resize(&node, bytes).await
    };
    grown.await.map_err(|error: QmpError| {
        let message = format!("the disk does not grow: {error}");
        Fault::new(FaultKind::Hypervisor, message)
    })?;
    // Should this not get to be recorded, the next run finds the disk larger
    // than it has to be, and leaves it so.
    let mut record = Prepared::clone(&held.record);
    record.spec.resources = to;
    let record = Arc::new(record);
    let (dir, now) = (turn.dir(), Arc::clone(&record));
    let recorded = blocking(move || {
        let written = record::write(&dir, &*now);
        written.map_err(|error| Fault::io("recording the disk's size", &error))
    });
    recorded.await?;
    turn.vm.change(&turn.host, |held| held.record = record);
    Ok(())
}
