//! The target's side: a process that waits, and the guest that came.

use std::io;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::{sleep, timeout};
use vimana_driver::{Arrival, DiskPlan, Endpoint, Fault, FaultKind, IncarnationSpec, Power};
use vimana_model::name::DatastoreName;
use vimana_model::{HostId, VmId};

use super::mirror::{Mirror, mirrors};
use super::tls::{self, End};
use super::{Arriving, Journey, able, hypervisor, on_disk};
use crate::argv::{self, DISK_NODE, Launch};
use crate::boot::{self, Beginning, has_run, launch};
use crate::host::{Held, Host, Turn, blocking, no_such_vm, overtaken};
use crate::limits::{
    ARRIVAL_TIMEOUT, CHANNELS, CHANNELS_FROM, FINALIZE_POLL, LISTEN_ATTEMPTS, MIGRATION_POLL,
    SWITCHOVER_TIMEOUT,
};
use crate::machine::{self, Machine, Parts};
use crate::prepare::{self, enough_room};
use crate::qmp::{Migration, Passage, Port, Qmp, QmpError, RunState, Terms};
use crate::record::{self, Prepared};
use crate::snapshot::{self, SnapshotRecord};
use crate::volume;

/// See [`vimana_driver::HostDriver::receive`].
pub async fn receive(
    turn: Turn,
    spec: IncarnationSpec,
    image: PathBuf,
    arrival: Arrival,
) -> Result<Endpoint, Fault> {
    let Arrival {
        from,
        disks,
        post_copy,
    } = arrival;
    let how = Terms {
        channels: channels(&spec, post_copy),
        post_copy,
    };
    if let Some(held) = turn.vm.held() {
        let message = "the host still holds another disk of this machine";
        let other = || Fault::new(FaultKind::Host, message);
        let awaited = awaited(&held, turn.epoch, from);
        return awaited
            .filter(|endpoint| endpoint.post_copy == post_copy)
            .ok_or_else(other);
    }
    able(&turn.host)?;
    turn.still_wanted()?;
    let mut arriving = Arriving {
        run_epoch: turn.epoch,
        from,
        endpoint: None,
        runs_as: None,
        disks,
    };
    let home = spec.datastore.clone();
    match make_place(&turn, spec, &image, &mut arriving, how).await {
        Ok((record, parts, endpoint)) => {
            let mut held = Held::prepared(Arc::new(record));
            held.power = Power::Arriving;
            let snapshots = SnapshotRecord::coming(&arriving.disks.snapshots);
            held.journey = Some(Journey::Arriving(arriving));
            turn.host.snapshots.put(turn.vm.id, snapshots);
            turn.vm.hold(&turn.host, held);
            Machine::supervise(&turn.host, &turn.vm, parts);
            Ok(endpoint)
        }
        Err(fault) => {
            forget(&turn.host, turn.vm.id, home, &arriving.disks).await?;
            Err(fault)
        }
    }
}

/// Makes the machine's files, looks at those that are here already, and starts a
/// process that waits for it.
async fn make_place(
    turn: &Turn,
    spec: IncarnationSpec,
    image: &Path,
    arriving: &mut Arriving,
    how: Terms,
) -> Result<(Prepared, Parts, Endpoint), Fault> {
    let (host, image, now) = (Arc::clone(&turn.host), image.to_owned(), arriving.clone());
    let record = blocking(move || {
        enough_room(&host, &spec)?;
        let record = prepare::promised(&host.config, spec, &image)?;
        let beside = |dir: &Path| {
            snapshot::come(dir, &now.disks)?;
            record::write(dir, &now)
        };
        if now.disks.shares_root {
            return prepare::join(&host, record, beside);
        }
        prepare::create(&host, record, beside)
    });
    let record = record.await?;
    volume::expect(&turn.host, turn.vm.id, &arriving.disks.volumes).await?;
    let (parts, endpoint) = wait(turn, &record, arriving, how).await?;
    Ok((record, parts, endpoint))
}

/// Nothing is left of a machine that never came but what its own host reaches; no
/// process has it. Its disk was to be in the datastore `home`.
pub async fn forget(
    host: &Arc<Host>,
    vm: VmId,
    home: DatastoreName,
    disks: &DiskPlan,
) -> Result<(), Fault> {
    volume::leave(host, vm, disks).await?;
    let (host, with_disk) = (Arc::clone(host), !disks.shares_root);
    on_disk("removing the machine's files", move || {
        if with_disk {
            prepare::remove_home(&host, vm, &home)?;
        }
        host.layout.remove(&vm)
    })
    .await
}

/// Where a machine is awaited already.
fn awaited(held: &Held, epoch: u64, from: HostId) -> Option<Endpoint> {
    match &held.journey {
        Some(Journey::Arriving(arriving))
            if held.power == Power::Arriving
                && (arriving.run_epoch, arriving.from) == (epoch, from) =>
        {
            arriving.endpoint
        }
        Some(Journey::Arriving(_) | Journey::Leaving(_)) | None => None,
    }
}

/// Starts a process that waits for the machine; none is left on failure.
async fn wait(
    turn: &Turn,
    record: &Prepared,
    arriving: &mut Arriving,
    how: Terms,
) -> Result<(Parts, Endpoint), Fault> {
    let (dir, now) = (turn.dir(), record.clone());
    blocking(move || boot::make_ready(&dir, &now)).await?;
    let accelerator = turn.host.capabilities.accelerator;
    let volumes = turn.host.volumes.of(turn.vm.id);
    let args = argv::machine(&Launch {
        incoming: true,
        ..launch(&record.spec, &record.image, accelerator, volumes.clone())
    });
    let exports = mirrors(turn.vm.id, DISK_NODE, &volumes, &arriving.disks);
    for _ in 0..LISTEN_ATTEMPTS {
        let mut parts = boot::start(turn, &turn.dir(), &args, Beginning::FromElsewhere).await?;
        let listening = async {
            let listening = listen(turn, &parts.qmp, arriving.from, &exports, how);
            let Some(endpoint) = listening.await? else {
                return Ok(None);
            };
            arriving.endpoint = Some(endpoint);
            let (dir, now) = (turn.dir(), arriving.clone());
            let what = "recording where the machine is awaited";
            on_disk(what, move || record::write(&dir, &now)).await?;
            Ok(Some(endpoint))
        };
        let listening = turn.cancelled.run_until_cancelled(listening).await;
        let listening = listening.unwrap_or_else(|| Err(overtaken()));
        if let Ok(Some(endpoint)) = listening {
            return Ok((parts, endpoint));
        }
        parts.process.kill();
        if let Some(child) = &mut parts.child
            && let Err(error) = child.wait().await
        {
            tracing::warn!(vm = %turn.vm.id, %error, "a failed QEMU cannot be ended");
        }
        listening?;
    }
    let message = "no port is free for a machine that comes from another host";
    Err(Fault::new(FaultKind::Hypervisor, message))
}

/// Has QEMU wait for the memory, and serve the disks that are copied. `None` where
/// it lost a port to somebody else: it does not wait for a memory a second time.
async fn listen(
    turn: &Turn,
    qmp: &Qmp,
    from: HostId,
    exports: &[Mirror],
    how: Terms,
) -> Result<Option<Endpoint>, Fault> {
    let host = &turn.host;
    let tls = tls::provide(host, &turn.dir(), qmp, End::Server { from }).await?;
    let tls = tls.then_some((tls::CREDENTIALS, tls::PEER));
    let address = host.config.migration.address.ok_or_else(|| {
        let message = "the host does not know its own address; give its agent --migration-address";
        Fault::new(FaultKind::Unsupported, message)
    })?;
    let listening = async {
        qmp.prepare_migration(Passage::In { tls, how }).await?;
        let Some(memory) = free_ports(host, address).next() else {
            return Ok(None);
        };
        if is_lost(qmp.migrate_incoming_at(memory).await)? {
            return Ok(None);
        }
        let at = |disk_port| Endpoint {
            address,
            memory_port: memory.port,
            disk_port,
            channels: how.channels,
            post_copy: how.post_copy,
            plain: tls.is_none(),
        };
        if exports.is_empty() {
            return Ok(Some(at(0)));
        }
        for disk in free_ports(host, address) {
            if is_lost(qmp.nbd_server_start(disk, tls).await)? {
                continue;
            }
            for Mirror { node, export, .. } in exports {
                qmp.nbd_export(node, export).await?;
            }
            return Ok(Some(at(disk.port)));
        }
        Ok(None)
    };
    let listening: Result<_, QmpError> = listening.await;
    listening.map_err(|error| match error {
        // It asks the kernel whether pages can be waited for.
        QmpError::Refused {
            command: "migrate-set-capabilities",
            ref description,
        } if how.post_copy => {
            let message = format!("this host takes no machine by post-copy: {description}");
            Fault::new(FaultKind::Unsupported, message)
        }
        QmpError::Refused { .. }
        | QmpError::Closed
        | QmpError::Timeout { .. }
        | QmpError::Unexpected => hypervisor("the machine cannot be awaited", &error),
    })
}

/// How many connections its memory is to come by, besides the first.
fn channels(spec: &IncarnationSpec, post_copy: bool) -> u8 {
    if post_copy || spec.resources.memory_mib < CHANNELS_FROM {
        return 0;
    }
    CHANNELS
}

/// The ports on which nobody listens right now.
fn free_ports(host: &Host, address: IpAddr) -> impl Iterator<Item = Port> {
    let ports = host.config.migration.ports.clone();
    let all = ports.clone().count();
    // Not those first that have been given back just now.
    let first = host.next_port.fetch_add(1, Ordering::Relaxed);
    let first = first.checked_rem(all).unwrap_or_default();
    let ports = ports.cycle().skip(first).take(all);
    let ports = ports.map(move |port| Port { address, port });
    ports.filter(|at| {
        let bound = TcpListener::bind((at.address, at.port));
        // Whatever else is wrong is for QEMU to say.
        !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    })
}

/// Whether somebody else was quicker to listen on a port.
fn is_lost(listens: Result<(), QmpError>) -> Result<bool, QmpError> {
    match listens {
        Ok(()) => Ok(false),
        Err(QmpError::Refused { description, .. }) if description.contains("in use") => Ok(true),
        Err(error) => Err(error),
    }
}

/// See [`vimana_driver::HostDriver::run`].
pub async fn run(turn: Turn) -> Result<(), Fault> {
    let held = turn.vm.held().ok_or_else(no_such_vm)?;
    let run = held.record.spec.run_epoch;
    let Some(Journey::Arriving(arriving)) = held.journey else {
        return match held.power {
            Power::Running | Power::Off | Power::Crashed { .. } if run == turn.epoch => {
                has_run(&held)
            }
            Power::Prepared
            | Power::Running
            | Power::Arriving
            | Power::Left
            | Power::Saved
            | Power::Off
            | Power::Crashed { .. }
            | Power::Unknown => Err(not_arrived()),
        };
    };
    let machine = match (held.power, held.machine) {
        (Power::Arriving, Some(machine)) if turn.epoch > run => machine,
        (Power::Crashed { reason }, _) => {
            let message = format!("the machine has ended before it ran here: {reason}");
            return Err(Fault::new(FaultKind::Hypervisor, message));
        }
        _ => return Err(not_arrived()),
    };
    turn.still_wanted()?;
    let _motion = machine.motion().await;
    let qmp = machine.qmp();
    let come = turn
        .cancelled
        .run_until_cancelled(arrived(&qmp, &arriving))
        .await;
    if !come.ok_or_else(overtaken)?.map_err(unrun)? {
        return Err(not_arrived());
    }
    // No end is recorded meanwhile, under whichever epoch. Not to be cancelled
    // from here on.
    let _ending = machine.ending.lock().await;
    if machine.is_gone() {
        return Err(unrun(QmpError::Closed));
    }
    let mut marked = arriving;
    marked.runs_as = Some(turn.epoch);
    let dir = turn.dir();
    let what = "recording that the machine runs";
    // The guest waits for it. It is for an agent that finds the process: where the
    // host ends, and that with it, what is recorded elsewhere is that it was to run
    // here. Its disks are its own from now on.
    let recorded = on_disk(what, move || record::write_for_now(&dir, &marked));
    let (recorded, unserved) = tokio::join!(recorded, qmp.nbd_server_stop());
    recorded.and(unserved.map_err(unrun))?;
    let mut record = Prepared::clone(&held.record);
    record.spec.run_epoch = turn.epoch;
    let record = Arc::new(record);
    let now = Arc::clone(&record);
    let runs = qmp.cont().await;
    turn.vm.change(&turn.host, |held| {
        held.record = record;
        held.journey = None;
        held.power = Power::Running;
    });
    let dir = turn.dir();
    let settled = on_disk(what, move || settle(&dir, &now)).await;
    if let Err(error) = settled {
        // The agent's next start does it.
        tracing::error!(vm = %turn.vm.id, %error, "a machine that has arrived is not recorded as such");
    }
    // Where it does not run the supervisor tries again.
    runs.map_err(unrun)
}

/// The records of a machine that has arrived and runs. That of its process stays,
/// with the number of the run that it came from: an agent that finds it brings it
/// in line. Blocks.
pub fn settle(dir: &Path, record: &Prepared) -> io::Result<()> {
    record::write(dir, record)?;
    record::erase::<Arriving>(dir)
}

/// Whether all of the machine is here that its guest begins with. Waits for the last
/// of it, which the source may be the first to know of.
async fn arrived(qmp: &Qmp, arriving: &Arriving) -> Result<bool, QmpError> {
    let mut events = qmp.events().ok_or(QmpError::Closed)?;
    let coming = async {
        loop {
            match qmp.query_migrate().await? {
                Migration::Completed => break,
                Migration::Underway | Migration::Waiting => {}
                // What is no memory is read before it stands still.
                Migration::PostCopy if qmp.query_status().await? != RunState::Inmigrate => break,
                Migration::PostCopy => {
                    sleep(FINALIZE_POLL).await;
                    continue;
                }
                Migration::None
                | Migration::Setup
                | Migration::Cancelled
                | Migration::Failed { .. } => return Ok(false),
            }
            let _ = timeout(MIGRATION_POLL, machine::heard(&mut events, "MIGRATION")).await;
        }
        Ok(true)
    };
    let post_copy = arriving.endpoint.is_some_and(|endpoint| endpoint.post_copy);
    let within = if post_copy {
        SWITCHOVER_TIMEOUT
    } else {
        ARRIVAL_TIMEOUT
    };
    timeout(within, coming).await.unwrap_or(Ok(false))
}

/// The supervisor's part: nobody has anything to write here any more once the
/// machine has arrived.
pub async fn look(qmp: &Qmp, state: RunState) {
    if state != RunState::Inmigrate
        && matches!(qmp.query_migrate().await, Ok(Migration::Completed))
        && let Err(error) = qmp.nbd_server_stop().await
    {
        tracing::debug!(%error, "a disk that has arrived is still served");
    }
}

fn not_arrived() -> Fault {
    let message = "the machine has not arrived here";
    Fault::new(FaultKind::Hypervisor, message)
}

fn unrun(error: QmpError) -> Fault {
    hypervisor("the machine that arrived does not run", &error)
}
