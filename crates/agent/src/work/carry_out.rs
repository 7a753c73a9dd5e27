//! What each kind of work comes down to.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;
use vimana_driver::{
    Arrival, CopyWatcher, DiskPlan, Endpoint, Fault, FaultKind, GuestEnd, IncarnationSpec, Keep,
    Observed, Power, SavedMachine, VolumeSource, VolumeSpec, unwatched,
};
use vimana_model::backup::{DiskId, MadeBackup};
use vimana_model::migration::{CopyPhase, CopyProgress, Sent};
use vimana_model::operation::Progress;
use vimana_model::{BackupId, VmId, VolumeId};
use vimana_protocol::agent::{Command, CommandRef, Outcome, Work};

use super::{Task, Workshop, name};
use crate::Meter;

/// What a command has to say beside that it is done.
#[derive(Default)]
struct Done {
    note: Option<String>,
    saved: Option<SavedMachine>,
    backup: Option<MadeBackup>,
    endpoint: Option<Endpoint>,
    sent: Option<Sent>,
    place: Option<u8>,
}

impl From<()> for Done {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl Done {
    fn note(note: &str) -> Self {
        Self {
            note: Some(note.to_owned()),
            ..Self::default()
        }
    }
}

impl Workshop {
    /// Carries a job out and tells the ledger how it ended. Dropped half way,
    /// it has told nothing.
    pub(super) async fn carry_out(&self, vm_id: VmId, task: &Task, run_epoch: u64) {
        match task {
            Task::Command(command) => {
                let outcome = self.perform(command).await;
                let cleaned = matches!(
                    (&command.work, &outcome),
                    (Work::Clean | Work::Leave { .. }, Outcome::Ok { .. })
                );
                self.ledger.end(vm_id, command.command, outcome, cleaned);
            }
            Task::Discard { known, elsewhere } => match caught(self.remove(
                vm_id,
                run_epoch.max(*known),
                run_epoch,
                elsewhere.as_ref(),
            ))
            .await
            {
                Ok(()) => {
                    tracing::info!(%vm_id, run_epoch, "a machine that was not recorded is gone");
                    self.ledger.discarded(vm_id);
                }
                Err(fault) => {
                    tracing::error!(%vm_id, run_epoch, %fault, "a machine is not discarded");
                }
            },
        }
    }

    async fn perform(&self, command: &Command) -> Outcome {
        let started = Instant::now();
        let done = caught(self.execute(command)).await;
        let (vm_id, epoch, work) = (command.vm_id, command.run_epoch, name(&command.work));
        let ms = started.elapsed().as_millis();
        match done {
            Ok(Done {
                note,
                saved,
                backup,
                endpoint,
                sent,
                place,
            }) => {
                tracing::info!(%vm_id, epoch, work, ms, note, "a command is done");
                Outcome::Ok {
                    note,
                    saved,
                    backup,
                    endpoint,
                    sent,
                    place,
                }
            }
            Err(fault) => {
                tracing::warn!(%vm_id, epoch, work, ms, kind = ?fault.kind, %fault, "a command failed");
                Outcome::Fault { fault }
            }
        }
    }

    async fn execute(&self, command: &Command) -> Result<Done, Fault> {
        let (vm, epoch, driver) = (command.vm_id, command.run_epoch, &self.driver);
        let meter = || Meter::of(command.command, self.ledger.clone());
        match &command.work {
            Work::Prepare { spec } => {
                fits(command, spec)?;
                let image = self.images.get(&spec.image, &meter()).await?;
                Ok(driver.prepare(spec, image.path()).await?.into())
            }
            Work::Boot { resources } => Ok(driver.boot(vm, epoch, resources).await?.into()),
            Work::Shutdown { grace_ms } => {
                let grace = Duration::from_millis(*grace_ms);
                Ok(match driver.shutdown(vm, epoch, grace).await? {
                    GuestEnd::ByGuest => Done::default(),
                    GuestEnd::Forced => Done::note("the guest did not react; it was switched off"),
                })
            }
            Work::Kill => Ok(driver.kill(vm, epoch).await?.into()),
            Work::Clean => {
                driver.clean(vm, epoch).await?;
                self.datastore.forget(vm).await;
                Ok(Done::default())
            }
            Work::Save => Ok(driver.save(vm, epoch).await?.into()),
            Work::Load => Ok(driver.load(vm, epoch).await?.into()),
            Work::Upload { disks } => self.upload((vm, epoch), disks, &meter()).await,
            Work::Download { spec, saved, disks } => {
                fits(command, spec)?;
                self.download(spec, saved, disks, &meter()).await
            }
            Work::Reboot { grace_ms } => {
                let grace = Duration::from_millis(*grace_ms);
                Ok(match driver.reboot(vm, epoch, grace).await? {
                    GuestEnd::ByGuest => Done::default(),
                    GuestEnd::Forced => Done::note("the guest did not react; it was reset"),
                })
            }
            Work::Reset => Ok(driver.reset(vm, epoch).await?.into()),
            Work::Resize { resources } => Ok(driver.resize(vm, epoch, resources).await?.into()),
            Work::Snapshot {
                snapshot_id,
                memory,
            } => {
                let keep = if *memory { Keep::Memory } else { Keep::Disks };
                Ok(driver.snapshot(vm, epoch, *snapshot_id, keep).await?.into())
            }
            Work::SnapshotVolume {
                snapshot_id,
                volume_id,
            } => {
                let keep = Keep::Volume(*volume_id);
                Ok(driver.snapshot(vm, epoch, *snapshot_id, keep).await?.into())
            }
            Work::Revert { snapshot_id } => {
                Ok(driver.revert(vm, epoch, *snapshot_id).await?.into())
            }
            Work::RemoveSnapshot { snapshot_id } => {
                let removed = driver.remove_snapshot(vm, epoch, *snapshot_id);
                Ok(removed.await?.into())
            }
            Work::Backup { backup_id, since } => {
                let (machine, meter) = ((vm, epoch), meter());
                self.back_up(machine, *backup_id, *since, &meter).await
            }
            Work::DropBackup { backup_id } => {
                let dropped = driver.end_backup(vm, epoch, *backup_id, false);
                Ok(dropped.await?.into())
            }
            Work::Attach { volume } => {
                self.make_volume(volume, &meter()).await?;
                let place = driver.attach(vm, epoch, volume.volume_id).await?;
                // It may have been on its way when its last machine ended.
                let (id, to) = (volume.volume_id, &volume.datastore);
                let moved = driver.move_disk(vm, epoch, DiskId::Volume(id), to, unwatched());
                moved.await?;
                Ok(Done {
                    place: Some(place),
                    ..Done::default()
                })
            }
            Work::Detach { volume_id } => Ok(driver.detach(vm, epoch, *volume_id).await?.into()),
            Work::Grow {
                volume_id,
                size_mib,
            } => Ok(driver.grow_volume(*volume_id, *size_mib).await?.into()),
            Work::Move { disk, to } => {
                let watcher = self.copy_watcher(command.command);
                let moved = driver.move_disk(vm, epoch, *disk, to, watcher);
                Ok(Done {
                    sent: Some(moved.await?),
                    ..Done::default()
                })
            }
            Work::Receive {
                spec,
                from,
                disks,
                post_copy,
            } => {
                fits(command, spec)?;
                let image = self.images.get(&spec.image, &meter()).await?;
                let arrival = Arrival {
                    from: *from,
                    disks: disks.clone(),
                    post_copy: *post_copy,
                };
                let endpoint = driver.receive(spec, image.path(), &arrival);
                Ok(Done {
                    endpoint: Some(endpoint.await?),
                    ..Done::default()
                })
            }
            Work::Send { sending } => {
                let watcher = self.copy_watcher(command.command);
                Ok(Done {
                    sent: Some(driver.send(vm, epoch, sending, watcher).await?),
                    ..Done::default()
                })
            }
            Work::CallOff => Ok(driver.call_off(vm, epoch).await?.into()),
            Work::Switch => Ok(Done {
                sent: Some(driver.switch(vm, epoch).await?),
                ..Done::default()
            }),
            Work::Run => Ok(driver.run(vm, epoch).await?.into()),
            Work::Complete => Ok(driver.complete(vm, epoch).await?.into()),
            Work::Leave { disks } => {
                driver.kill(vm, epoch).await?;
                driver.leave(vm, epoch, disks).await?;
                self.datastore.forget(vm).await;
                Ok(Done::default())
            }
            Work::Unknown => {
                let message = "this agent does not know this work";
                Err(Fault::new(FaultKind::Unsupported, message))
            }
        }
    }

    /// Tells the server how far a copy is. What is shown as done only grows.
    fn copy_watcher(&self, command: CommandRef) -> CopyWatcher {
        let ledger = Arc::clone(&self.ledger);
        let seen: Mutex<Option<(CopyPhase, u64, u64)>> = Mutex::default();
        Arc::new(move |copy: CopyProgress| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let (total, before) = match *seen {
                Some((phase, total, done)) if phase == copy.phase => (total, done),
                Some(_) | None => (copy.remaining_bytes, 0),
            };
            let total = total.max(copy.remaining_bytes);
            let done = total.saturating_sub(copy.remaining_bytes).max(before);
            *seen = Some((copy.phase, total, done));
            let progress = Progress {
                done_bytes: done,
                total_bytes: total,
                copy: Some(copy),
            };
            ledger.progress(command, progress);
        })
    }

    /// There is such a volume afterwards, at least as large.
    async fn make_volume(&self, volume: &VolumeSpec, meter: &Meter) -> Result<(), Fault> {
        let VolumeSpec {
            volume_id,
            size_mib,
            image,
            datastore,
            made,
        } = volume;
        let held = self.driver.volumes().await?;
        if held.iter().any(|held| held.volume_id == *volume_id) {
            return self.driver.grow_volume(*volume_id, *size_mib).await;
        }
        if *made {
            let message = "the host no longer holds the volume";
            return Err(Fault::new(FaultKind::NoSuchVolume, message));
        }
        // Held until the volume is made.
        let local = match image {
            Some(image) => Some((self.images.get(image, meter).await?, image.format)),
            None => None,
        };
        let from = match &local {
            Some((local, format)) => VolumeSource::Image {
                path: local.path().to_owned(),
                format: *format,
            },
            None => VolumeSource::Empty,
        };
        self.driver
            .create_volume(*volume_id, *size_mib, &from, datastore)
            .await
    }

    /// Removes a volume that is deleted; whether nothing of it is left.
    pub(super) async fn remove_deleted(&self, volume_id: VolumeId) -> bool {
        match caught(self.driver.remove_volume(volume_id)).await {
            Ok(()) => {
                tracing::info!(%volume_id, "a volume is removed");
                true
            }
            Err(fault) => {
                tracing::error!(%volume_id, %fault, "a volume is not removed");
                false
            }
        }
    }

    async fn upload(
        &self,
        (vm, epoch): (VmId, u64),
        disks: &DiskPlan,
        meter: &Meter,
    ) -> Result<Done, Fault> {
        let files = self.driver.export(vm, epoch, disks).await?;
        let parts = self.datastore.upload(vm, epoch, &files, meter).await?;
        let saved = SavedMachine {
            run_epoch: epoch,
            hypervisor: self.driver.capabilities().hypervisor.clone(),
            parts,
        };
        Ok(Done {
            saved: Some(saved),
            ..Done::default()
        })
    }

    /// The files go once they are in the datastore; that they are, whoever
    /// repeats the command finds by making them once more.
    async fn back_up(
        &self,
        (vm, epoch): (VmId, u64),
        backup: BackupId,
        since: Option<BackupId>,
        meter: &Meter,
    ) -> Result<Done, Fault> {
        let made = self.driver.back_up(vm, epoch, backup, since).await?;
        let disks = self.datastore.keep(backup, &made.files, meter).await?;
        self.driver.end_backup(vm, epoch, backup, true).await?;
        let note = (since.is_some() && made.since.is_none()).then(|| {
            "all of the disks were copied: what has changed since the last backup is not known"
                .to_owned()
        });
        Ok(Done {
            note,
            backup: Some(MadeBackup {
                since: made.since,
                frozen: made.frozen,
                disks,
            }),
            ..Done::default()
        })
    }

    async fn download(
        &self,
        spec: &IncarnationSpec,
        saved: &SavedMachine,
        disks: &DiskPlan,
        meter: &Meter,
    ) -> Result<Done, Fault> {
        // What an earlier try took over need not come once more.
        let held = self.held(spec.vm_id).await?;
        let here = |held: &Observed| {
            held.run_epoch == spec.run_epoch && matches!(held.power, Power::Saved | Power::Off)
        };
        if !held.as_ref().is_some_and(here) {
            let image = self.images.get(&spec.image, meter).await?;
            let fetched = self.datastore.download(spec.vm_id, saved, meter).await?;
            let taken = self
                .driver
                .import(spec, image.path(), &fetched.files, disks);
            taken.await?;
        }
        self.datastore.forget(spec.vm_id).await;
        Ok(Done::default())
    }

    /// Under an `epoch` that the driver does not take for out of date. `run_epoch` is
    /// of the machine that is meant; a later one stays.
    async fn remove(
        &self,
        vm_id: VmId,
        epoch: u64,
        run_epoch: u64,
        elsewhere: Option<&DiskPlan>,
    ) -> Result<(), Fault> {
        let held = self.held(vm_id).await?;
        if held.is_some_and(|held| held.run_epoch > run_epoch) {
            let message = "a later run of the machine is known";
            return Err(Fault::new(FaultKind::Superseded, message));
        }
        self.driver.kill(vm_id, epoch).await?;
        match elsewhere {
            Some(disks) => self.driver.leave(vm_id, epoch, disks).await?,
            None => self.driver.clean(vm_id, epoch).await?,
        }
        self.datastore.forget(vm_id).await;
        Ok(())
    }

    async fn held(&self, vm_id: VmId) -> Result<Option<Observed>, Fault> {
        let inventory = self.driver.inventory().await?;
        Ok(inventory.into_iter().find(|held| held.vm_id == vm_id))
    }
}

/// A driver that panics must not take its VM's lane with it.
pub(super) async fn caught<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.unwrap_or_else(|_| {
        let message = "the agent stumbled over a fault of its own";
        Err(Fault::new(FaultKind::Host, message))
    })
}

/// Whether command and specification mean the same machine.
fn fits(command: &Command, spec: &IncarnationSpec) -> Result<(), Fault> {
    if (spec.vm_id, spec.run_epoch) == (command.vm_id, command.run_epoch) {
        return Ok(());
    }
    let message = "the command and its specification name different machines";
    Err(Fault::new(FaultKind::Host, message))
}
