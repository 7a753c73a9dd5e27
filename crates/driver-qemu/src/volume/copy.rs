//! Copies of volumes, on their way to where images are kept.
//!
//! What no QEMU has open is copied by `qemu-img`; what a machine that runs has
//! is copied by its QEMU, by a job that keeps what the guest overwrites until it
//! is copied. Either way nothing else happens to the volume or its machine
//! meanwhile, and whatever else is to happen ends the copying: it can be begun
//! anew, and a person who presses a button does not wait for it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::timeout;
use vimana_driver::{Fault, FaultKind};
use vimana_model::VolumeId;

use super::{VolumeRecord, hypervisor, img, no_such_volume};
use crate::argv::VOLUME;
use crate::guest;
use crate::host::{Host, blocking, overtaken};
use crate::job::Job;
use crate::limits::{COPY_TIMEOUT, QMP_TIMEOUT};
use crate::machine::{Intent, Machine};
use crate::prepare::enough_room_in;
use crate::qcow2;
use crate::qmp::{Qmp, QmpError};
use crate::record::{self, Scratch};

/// The name of our job inside QEMU, and of what it writes to.
const COPY: &str = "copy";
const JOB: Job = Job {
    id: COPY,
    command: "blockdev-backup",
    within: COPY_TIMEOUT,
};

/// See [`vimana_driver::HostDriver::copy_volume`].
pub async fn copy(host: Arc<Host>, id: VolumeId) -> Result<PathBuf, Fault> {
    host.volumes.look_for(id).await?;
    loop {
        let owner = host.volumes.get(id).ok_or_else(no_such_volume)?.attached;
        let vm = owner.map(|owner| host.vm(owner.vm_id));
        let _vm_turn = match &vm {
            Some(vm) => Some(vm.line().wait_politely().await),
            None => None,
        };
        let line = host.volumes.line(id);
        let _turn = line.wait_politely().await;
        let record = host.volumes.get(id).ok_or_else(no_such_volume)?;
        if record.attached != owner {
            continue;
        }
        let wanted = async {
            match &vm {
                Some(vm) => tokio::select! {
                    () = vm.line().is_wanted() => {}
                    () = line.is_wanted() => {}
                },
                None => line.is_wanted().await,
            }
        };
        let machine = vm.as_ref().and_then(|vm| vm.held()?.machine);
        let part = begin(&host, id).await?;
        let copied = tokio::select! {
            biased;
            () = wanted => Err(overtaken()),
            () = host.closing.cancelled() => Err(overtaken()),
            copied = fill(&host, &record, machine.as_ref(), &part) => copied,
        };
        if let (Some(machine), Err(_)) = (&machine, &copied) {
            abandon(&machine.qmp()).await;
        }
        copied?;
        return keep(part).await;
    }
}

/// See [`vimana_driver::HostDriver::remove_copy`].
pub async fn remove(host: Arc<Host>, id: VolumeId) -> Result<(), Fault> {
    let _turn = host.volumes.line(id).wait_politely().await;
    blocking(move || {
        let removed = host.layout.copy(&id).remove();
        removed.map_err(|error| Fault::io("removing the volume's copy", &error))
    })
    .await
}

/// Ends what an agent that died began in a QEMU that lives.
pub async fn abandon(qmp: &Qmp) {
    let ended = async {
        JOB.cancel(qmp).await?;
        qmp.blockdev_let_go(COPY).await
    };
    match timeout(2 * QMP_TIMEOUT, ended).await {
        Ok(Ok(()) | Err(QmpError::Closed)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "a copy of a volume is left in a QEMU"),
        Err(_) => tracing::warn!("a copy of a volume is left in a QEMU that does not answer"),
    }
}

/// The place of the copy, empty.
async fn begin(host: &Arc<Host>, id: VolumeId) -> Result<Scratch, Fault> {
    let host = Arc::clone(host);
    blocking(move || {
        enough_room_in(&host, host.layout.state())?;
        let part = host.layout.copy(&id);
        part.remove()
            .and_then(|()| record::make_dir(&part.0))
            .map_err(uncopied)?;
        Ok(part)
    })
    .await
}

async fn fill(
    host: &Host,
    record: &VolumeRecord,
    machine: Option<&Arc<Machine>>,
    part: &Scratch,
) -> Result<(), Fault> {
    let file = host.volumes.dir(record.volume_id).join(VOLUME);
    let Some(machine) = machine else {
        return img::copy(&file, record.format, &part.0, COPY_TIMEOUT).await;
    };
    if machine.intent() != Intent::None {
        // Its process lets go of the volume any moment.
        let message = "the volume's machine is just ending";
        return Err(Fault::new(FaultKind::Cancelled, message));
    }
    let Some((owner, plug)) = host.volumes.plug(record) else {
        return Err(no_such_volume());
    };
    let place = part.0.join(VOLUME);
    blocking(move || {
        let bytes = qcow2::overlay_size(&file);
        let bytes = bytes.map_err(|_| Fault::new(FaultKind::Host, "the volume is damaged"))?;
        let file = record::new_file(&place).map_err(uncopied)?;
        qcow2::write_empty(&file, bytes, None).map_err(uncopied)
    })
    .await?;
    let qmp = machine.qmp();
    abandon(&qmp).await;
    let backed_up = async {
        qmp.blockdev_add(target_node(&part.0)?).await?;
        let arguments = json!({
            "device": plug.node_name(), "target": COPY, "sync": "full", "auto-dismiss": false,
        });
        let dir = host.layout.vm(owner);
        // An earlier one ends before the guest stands still.
        if let Err(error) = JOB.ended(&qmp).await {
            tracing::debug!(%error, "an earlier copy failed");
        }
        let begun = JOB.begin(&qmp, arguments);
        guest::still(machine, &dir, begun).await.0?;
        JOB.ended(&qmp).await?;
        qmp.blockdev_let_go(COPY).await
    };
    backed_up.await.map_err(|error| match &error {
        error if error.is_full() => {
            let message = "copying the volume: the host's disk is full";
            Fault::new(FaultKind::NoSpace, message)
        }
        QmpError::Closed => Fault::new(FaultKind::Cancelled, "the volume's machine has ended"),
        QmpError::Refused { .. } | QmpError::Timeout { .. } | QmpError::Unexpected => {
            hypervisor("the volume was not copied", &error)
        }
    })
}

/// As a machine's QEMU finds it from its own directory.
fn target_node(dir: &Path) -> Result<Value, QmpError> {
    let name = dir.file_name().and_then(|name| name.to_str());
    let path = format!("../{}/{VOLUME}", name.ok_or(QmpError::Unexpected)?);
    Ok(json!({
        "driver": "qcow2", "node-name": COPY, "discard": "unmap", "detect-zeroes": "unmap",
        "file": {"driver": "file", "filename": path, "discard": "unmap"},
    }))
}

/// The copy is whole, and stays until it is removed.
async fn keep(part: Scratch) -> Result<PathBuf, Fault> {
    blocking(move || {
        let file = part.0.join(VOLUME);
        File::open(&file)
            .and_then(|file| file.sync_all())
            .map_err(uncopied)?;
        part.keep();
        Ok(file)
    })
    .await
}

fn uncopied(error: std::io::Error) -> Fault {
    Fault::io("copying the volume", &error)
}
