//! Finding out, at the agent's start, what its predecessor left running.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use vimana_driver::{DiskPlan, Fault, Power};
use vimana_model::VmId;
use vimana_model::name::DatastoreName;

use crate::argv::SERIAL_SOCKET;
use crate::host::{Held, Host, Vm, blocking};
use crate::limits::{ADOPT_TIMEOUT, KILL_TIMEOUT, RESTART_AFTERMATH, START_POLL};
use crate::load::{self, Rest};
use crate::machine::{Machine, Parts};
use crate::migration::{Arriving, Journey, Leaving, receive, tls};
use crate::offline;
use crate::process::{self, Process};
use crate::qmp::{Migration, Qmp, RunState, connect_in};
use crate::record::{
    self, Ended, Entry, Layout, MEMORY, MEMORY_PART, Prepared, Record as _, Restarting, Saved,
    Started,
};
use crate::relocate::{self, Live};
use crate::snapshot::SnapshotRecord;
use crate::supervisor::{reconnect, record_end, record_no_process};
use crate::volume::{self, VolumeRecord};

/// What a VM's records say.
struct Found {
    held: Held,
    snapshots: SnapshotRecord,
    /// Its process may live.
    started: Option<Started>,
    /// It was being restarted.
    restarting: bool,
    /// A place for it was being made, and nobody was told of it.
    unborn: Option<DiskPlan>,
}

/// Takes in every VM of the state directory. One that cannot be made sense
/// of is left alone and logged.
pub async fn adopt(host: &Arc<Host>) -> Result<(), Fault> {
    let datastores = host.volumes.datastores().clone();
    let found = blocking(move || {
        let mut all = (Vec::new(), Vec::new());
        for (name, layout) in &datastores {
            let what = format!("reading datastore `{name}`");
            let (ids, volumes) = survey(name, layout).map_err(|error| Fault::io(&what, &error))?;
            all.0.extend(ids);
            all.1.extend(volumes);
        }
        Ok(all)
    });
    let (ids, volumes) = found.await?;
    let halves: Arc<[VolumeRecord]> = host.volumes.take_in(volumes, &ids).into();
    let mut adoptions = JoinSet::new();
    for id in ids {
        let (host, halves) = (Arc::clone(host), Arc::clone(&halves));
        adoptions.spawn(async move {
            if let Err(error) = adopt_vm(&host, id, &halves).await {
                tracing::error!(vm = %id, %error, "a VM on this host is left alone: its records make no sense");
            }
        });
    }
    adoptions.join_all().await;
    relocate::volume::settle_rest(host, &halves).await;
    Ok(())
}

/// VMs, which are in the host's own directory alone, and volumes; what is half
/// made or half removed goes. Blocks.
fn survey(
    datastore: &DatastoreName,
    layout: &Layout,
) -> io::Result<(Vec<VmId>, Vec<VolumeRecord>)> {
    let (mut ids, mut volumes) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(layout.state())? {
        let entry = entry?;
        match entry.file_name().to_str().map(|name| layout.entry(name)) {
            Some(Entry::Vm(id)) if datastore.is_local() => ids.push(id),
            Some(Entry::Volume(id)) => match record::read::<VolumeRecord>(&entry.path()) {
                Ok(Some(volume)) if volume.volume_id == id && volume.datastore == *datastore => {
                    volumes.push(volume);
                }
                other => {
                    let error = other.err();
                    tracing::error!(volume = %id, ?error, "a volume on this host is left alone: its record makes no sense");
                }
            },
            Some(Entry::Debris) => std::fs::remove_dir_all(entry.path())?,
            Some(Entry::Vm(_) | Entry::Other) | None => {}
        }
    }
    Ok((ids, volumes))
}

async fn adopt_vm(host: &Arc<Host>, id: VmId, halves: &[VolumeRecord]) -> Result<(), Fault> {
    let dir = host.layout.vm(id);
    let place = dir.clone();
    let found =
        blocking(move || look(&place).map_err(|error| Fault::io("reading the records", &error)));
    let vm = host.vm(id);
    let Some(found) = found.await? else {
        tracing::error!(vm = %id, "a VM on this host is left alone: it has no record");
        return Ok(());
    };
    if let Some(disks) = found.unborn {
        end_all(id, &dir).await;
        let home = found.held.record.spec.datastore.clone();
        return receive::forget(host, id, home, &disks).await;
    }
    free_disks(&dir).await?;
    let saved = found.held.saved;
    host.snapshots.put(id, found.snapshots);
    vm.hold(host, found.held);
    let Some(started) = found.started else {
        settle(host, &vm, None).await;
        return Ok(());
    };
    let adoption = Adoption {
        host,
        vm: &vm,
        dir: &dir,
        saved,
        restarting: found.restarting,
        halves,
    };
    adoption.adopt(started).await?;
    if vm.held().is_none_or(|held| held.machine.is_none()) {
        settle(host, &vm, None).await;
    }
    Ok(())
}

/// Ends a move of the machine's own disk that was interrupted.
async fn settle(host: &Arc<Host>, vm: &Vm, live: Option<&Live<'_>>) {
    if let Err(fault) = relocate::root::settle(host, vm, live).await {
        tracing::error!(vm = %vm.id, %fault, "a move of a disk that was interrupted is not ended");
    }
}

/// Whatever else had the disks open lets go of them.
async fn free_disks(dir: &Path) -> Result<(), Fault> {
    let freeing = |error| Fault::io("freeing the disks", &error);
    let place = dir.to_owned();
    let left = blocking(move || offline::end_left_behind(&place).map_err(freeing)).await?;
    if let Some(process) = left {
        process.ended().await;
    }
    let place = dir.to_owned();
    blocking(move || offline::forget(&place).map_err(freeing)).await
}

/// Whether what is written there is not a record, as opposed to unreadable now.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

/// Blocks.
fn look(dir: &Path) -> io::Result<Option<Found>> {
    let Some(mut record) = record::read::<Prepared>(dir)? else {
        return Ok(None);
    };
    // Its first writing was on the disk before anything came; damaged is only what
    // was to replace it when all had come, and then the host's own end took the
    // process along.
    let mut arriving = match record::read::<Arriving>(dir) {
        Err(error) if is_damage(&error) => None,
        arriving => arriving?,
    };
    if let Some(run) = arriving.as_ref().and_then(|arriving| arriving.runs_as) {
        // It was to run here, and may have done: it has arrived.
        record.spec.run_epoch = record.spec.run_epoch.max(run);
        receive::settle(dir, &record)?;
        arriving = None;
    }
    let epoch = record.spec.run_epoch;
    let ended = record::read::<Ended>(dir)?;
    let started = record::read::<Started>(dir)?
        // That of an earlier run counts, too: a run can be given a later
        // number. Unless that run's end is on record.
        .filter(|s| s.run_epoch <= epoch)
        .filter(|s| ended.as_ref().is_none_or(|e| e.run_epoch < s.run_epoch));
    let ended = ended.filter(|e| e.run_epoch == epoch);
    let saved = record::read::<Saved>(dir)?.filter(|_| ended.is_none());
    let restarting = record::read::<Restarting>(dir)?;
    let restarting =
        restarting.is_some_and(|r| started.as_ref().is_some_and(|s| s.run_epoch == r.run_epoch));
    // Damaged only where the host's own end took the process along, and all that
    // it says. What cannot be read may say that the machine is elsewhere.
    let leaving = match record::read::<Leaving>(dir) {
        Err(error) if is_damage(&error) => None,
        leaving => leaving?,
    };
    let leaving = leaving.filter(|leaving| leaving.run_epoch == epoch);
    tidy(dir, saved.is_some())?;
    let mut held = Held::prepared(Arc::new(record));
    if let Some(ended) = ended {
        held.power = ended.power;
        held.stopped = ended.stopped;
    } else if saved.is_some() {
        held.power = Power::Saved;
        held.saved = saved;
    }
    let unborn = arriving
        .as_ref()
        .filter(|arriving| arriving.endpoint.is_none());
    let unborn = unborn.map(|arriving| arriving.disks.clone());
    held.journey = match (arriving, leaving) {
        (Some(arriving), _) => Some(Journey::Arriving(arriving)),
        (None, Some(leaving)) if started.is_some() => Some(Journey::Leaving(leaving)),
        (None, _) => None,
    };
    if held.is_arriving() && started.is_some() {
        held.power = Power::Arriving;
    }
    Ok(Some(Found {
        unborn,
        held,
        snapshots: record::read::<SnapshotRecord>(dir)?.unwrap_or_default(),
        started,
        restarting,
    }))
}

/// Removes what interrupted calls left. Blocks.
fn tidy(dir: &Path, saved: bool) -> io::Result<()> {
    // A QEMU that still writes it keeps its file; only the name goes.
    let home = record::home(dir);
    record::remove_file(&home.join(MEMORY_PART))?;
    record::remove_file(&dir.join(Restarting::FILE))?;
    tls::tidy(dir)?;
    if !saved && (home.join(MEMORY).exists() || dir.join(Saved::FILE).exists()) {
        record::erase_saved(dir)?;
    }
    Ok(())
}

/// A VM whose start is on record and whose end is not.
struct Adoption<'a> {
    host: &'a Arc<Host>,
    vm: &'a Arc<Vm>,
    dir: &'a Path,
    saved: Option<Saved>,
    restarting: bool,
    /// See [`crate::volume::Volumes::take_in`].
    halves: &'a [VolumeRecord],
}

/// What is to be done with a process that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Guest code runs in it, or did.
    Keep,
    /// No guest code ran in it, or its memory is saved.
    Discard,
}

impl Adoption<'_> {
    async fn adopt(self, started: Started) -> Result<(), Fault> {
        let Some(identity) = &started.process else {
            // The start was interrupted before its process was recorded: no
            // guest code ran, and a process waits for nobody.
            end_all(self.vm.id, self.dir).await;
            return self.never_ran().await;
        };
        let Some(process) = Process::find(identity) else {
            return self.gone().await;
        };
        // A QEMU whose start was interrupted does not listen at once.
        let (qmp, events) = tokio::select! {
            connected = persistently(ADOPT_TIMEOUT, || reconnect(self.dir)) => {
                connected.unwrap_or_else(Qmp::closed)
            }
            () = process.ended() => return self.gone().await,
        };
        let state = qmp.query_status().await.ok();
        let journey = self.vm.held().and_then(|held| held.journey);
        let verdict = match journey {
            // Neither is anybody's here to end.
            Some(_) => Verdict::Keep,
            None => verdict(state, self.saved, self.restarting),
        };
        match verdict {
            Verdict::Discard => {
                discard(&process).await;
                self.never_ran().await
            }
            Verdict::Keep => {
                self.runs(started).await?;
                self.look_after_journey(&qmp, state).await;
                volume::copy::abandon(&qmp).await;
                if state.is_some() {
                    let live = Live {
                        qmp: qmp.clone(),
                        process: &process,
                    };
                    settle(self.host, self.vm, Some(&live)).await;
                    relocate::volume::settle_all(self.host, self.vm.id, self.halves, &live).await;
                }
                let parts = Parts {
                    qmp,
                    events,
                    process,
                    child: None,
                    serial: persistently(ADOPT_TIMEOUT / 5, || connect_in(self.dir, SERIAL_SOCKET))
                        .await,
                    restart_until: self.restarting.then(|| Instant::now() + RESTART_AFTERMATH),
                };
                Machine::supervise(self.host, self.vm, parts);
                Ok(())
            }
        }
    }

    /// What happened to a machine between two hosts while nobody listened.
    async fn look_after_journey(&self, qmp: &Qmp, state: Option<RunState>) {
        let moves = qmp.query_migrate().await;
        // That of an earlier sending says nothing.
        let gone =
            state == Some(RunState::Postmigrate) && matches!(moves, Ok(Migration::Completed));
        let stands = matches!(
            (state, moves),
            (
                Some(RunState::Paused | RunState::FinishMigrate | RunState::Postmigrate),
                Ok(Migration::Underway | Migration::Waiting | Migration::PostCopy)
            )
        );
        self.vm.change(self.host, |held| {
            if let Some(Journey::Leaving(leaving)) = &mut held.journey {
                leaving.gone = gone;
                // By post-copy a part of it is still to come.
                let waits = stands && leaving.endpoint.post_copy && leaving.sent.is_some();
                // It was just being taken back, and what it took counts no more.
                if state.is_some() && !gone && !waits {
                    leaving.sent = None;
                }
            }
        });
    }

    /// Back to what it was: prepared or saved.
    async fn never_ran(&self) -> Result<(), Fault> {
        let (dir, saved) = (self.dir.to_owned(), self.saved);
        blocking(move || {
            let recorded = match saved {
                Some(saved) => load::unmark(&dir, saved).map(drop),
                None => record_no_process(&dir),
            };
            recorded.map_err(|error| Fault::io("recording the interrupted start", &error))
        })
        .await
    }

    /// Nobody saw its end.
    async fn gone(&self) -> Result<(), Fault> {
        if self.saved.is_some_and(|saved| !saved.let_go) {
            return self.never_ran().await;
        }
        let reason = "the QEMU process ended while no agent watched it".to_owned();
        let power = Power::Crashed { reason };
        let run_epoch = self.run_epoch();
        let (dir, saved) = (self.dir.to_owned(), self.saved);
        let volumes = self.host.volumes.files(self.vm.id);
        let rest = blocking(move || {
            let rest = match saved {
                Some(saved) => load::after_end(&dir, &volumes, run_epoch, saved),
                None => {
                    let ended = Ended {
                        run_epoch,
                        power: power.clone(),
                        stopped: false,
                    };
                    record_end(&dir, &ended).map(|()| Rest::Crashed(power))
                }
            };
            rest.map_err(|error| Fault::io("recording the end", &error))
        });
        let rest = rest.await?;
        self.vm.change(self.host, |held| {
            rest.put(held);
            if !held.is_arriving() {
                held.journey = None;
            }
        });
        Ok(())
    }

    /// Brings the records of a machine that runs in line.
    async fn runs(&self, mut started: Started) -> Result<(), Fault> {
        let (dir, saved, run_epoch) = (self.dir.to_owned(), self.saved, self.run_epoch());
        blocking(move || {
            let mut recorded = Ok(());
            if saved.is_some() {
                recorded = record::erase_saved(&dir);
            }
            if started.run_epoch != run_epoch {
                started.run_epoch = run_epoch;
                recorded = recorded.and_then(|()| record::write(&dir, &started));
            }
            recorded.map_err(|error| Fault::io("recording that the machine runs", &error))
        })
        .await
    }

    fn run_epoch(&self) -> u64 {
        let held = self.vm.held();
        held.map_or(0, |held| held.record.spec.run_epoch)
    }
}

/// `state` is absent where QEMU does not answer.
fn verdict(state: Option<RunState>, saved: Option<Saved>, restarting: bool) -> Verdict {
    match (state, saved) {
        // Its memory has not arrived, or was saved.
        (Some(RunState::Inmigrate | RunState::FinishMigrate | RunState::Postmigrate), Some(_)) => {
            Verdict::Discard
        }
        (Some(RunState::Paused | RunState::Prelaunch) | None, Some(saved)) if !saved.let_go => {
            Verdict::Discard
        }
        // It waits for a memory that there is none of.
        (Some(RunState::Inmigrate), None) => Verdict::Discard,
        // It waits for its first start, or for the end of a restart.
        (Some(RunState::Prelaunch), None) if !restarting => Verdict::Discard,
        // Whatever stands still otherwise is let run on by its supervisor.
        (
            Some(
                RunState::Prelaunch
                | RunState::Paused
                | RunState::Postmigrate
                | RunState::Running
                | RunState::Shutdown
                | RunState::IoError
                | RunState::InternalError
                | RunState::FinishMigrate
                | RunState::Other,
            )
            | None,
            _,
        ) => Verdict::Keep,
    }
}

/// Tries until it works or the time is over.
async fn persistently<T, E, F: Future<Output = Result<T, E>>>(
    within: Duration,
    attempt: impl Fn() -> F,
) -> Option<T> {
    let trying = async {
        loop {
            if let Ok(done) = attempt().await {
                return done;
            }
            sleep(START_POLL).await;
        }
    };
    timeout(within, trying).await.ok()
}

/// Ends whatever has the VM's directory.
async fn end_all(vm: VmId, dir: &Path) {
    for identity in process::running(vm, dir) {
        if let Some(process) = Process::find(&identity) {
            discard(&process).await;
        }
    }
}

async fn discard(process: &Process) {
    process.kill();
    let _ = timeout(KILL_TIMEOUT, process.ended()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(let_go: bool) -> Option<Saved> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(crate::argv::DISK), "disk").unwrap();
        Some(Saved {
            ran_epoch: 1,
            let_go,
            disk: record::DiskMark::of(dir.path(), &[]).unwrap(),
        })
    }

    #[test]
    fn process_is_kept_exactly_where_guest_code_may_have_run() {
        use RunState as S;
        use Verdict::{Discard, Keep};
        let cases = [
            // An interrupted start, and one that was not.
            (Some(S::Prelaunch), None, false, Discard),
            (Some(S::Running), None, false, Keep),
            (None, None, false, Keep),
            // Stood still for a restart, or for a save that did not come to its end.
            (Some(S::Prelaunch), None, true, Keep),
            (Some(S::Shutdown), None, true, Keep),
            (Some(S::Paused), None, false, Keep),
            (Some(S::Postmigrate), None, false, Keep),
            // A save that did.
            (Some(S::Postmigrate), saved(false), false, Discard),
            (None, saved(false), false, Discard),
            // A load, before and after the guest was let go.
            (Some(S::Inmigrate), saved(false), false, Discard),
            (Some(S::Paused), saved(false), false, Discard),
            (Some(S::Paused), saved(true), false, Keep),
            (Some(S::Running), saved(true), false, Keep),
            (None, saved(true), false, Keep),
        ];
        for (state, saved, restarting, wanted) in cases {
            let found = verdict(state, saved, restarting);
            assert_eq!(found, wanted, "{state:?} {saved:?} {restarting}");
        }
    }
}
