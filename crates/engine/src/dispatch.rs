//! What goes out for the step under way: a command to the VM's host, or work
//! of the server's own.

use vimana_datastore::Item;
use vimana_driver::{
    DiskPlan, Fault, FaultKind, ImageRef, IncarnationSpec, SavedMachine, Seed, Sending, VolumeSpec,
};
use vimana_model::backup::DiskId;
use vimana_model::event::Actor;
use vimana_model::name::DatastoreName;
use vimana_model::operation::{Object, OperationKind, Piece, StepKind};
use vimana_model::{BackupId, Error, ImageId, Result, SnapshotId, VmId, VolumeId};
use vimana_protocol::agent::{Command, CommandRef, Outcome, Work};
use vimana_store::operation::{OperationRecord, StepRecord};
use vimana_store::vm::VmRecord;
use vimana_store::volume::VolumeRecord;
use vimana_store::{backup, image, migration, operation, snapshot, vm, volume};

use crate::Engine;
use crate::limits::{MAX_DOWNTIME_MS, patience};
use crate::migration::{disk_plan, goes_by_post_copy, host_of_step, snapshot_plan};
use crate::report::Answer;
use crate::saga::{Current, current};

impl Engine {
    /// Has done what is under way: by the VM's host, if that is connected, or
    /// by ourselves. Otherwise the command goes out when the host connects.
    pub(crate) async fn dispatch(&self, vm: &VmRecord, operation: Option<&OperationRecord>) {
        let Some(operation) = operation else {
            return;
        };
        let Some(current) = current(operation).filter(|current| !current.waits) else {
            return;
        };
        if current.kind == StepKind::Discard {
            self.spawn_discard(
                vm.id,
                command_ref(operation, current),
                operation.claim_epoch,
            );
            return;
        }
        let host = match host_of_step(&self.store().read(), vm, current.kind).await {
            Ok(host) => host,
            Err(error) => {
                // It goes out when a host connects.
                tracing::error!(vm = %vm.id, error = ?error, "nobody knows whose a step is");
                return;
            }
        };
        let Some(host) = host else {
            return;
        };
        if !self.inner.agents.is_connected(host) {
            return;
        }
        match self.command(vm, operation, current).await {
            Ok(Some(command)) => {
                if let Some(patience) = patience(current.kind) {
                    let deadlines = &self.inner.deadlines;
                    deadlines.set(vm.id, command.command, patience);
                }
                self.inner.agents.send(host, command);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(vm = %vm.id, error = ?error, "a step's command cannot be made");
                // As if the host had failed: tried again, and given up at last.
                let message = format!("the server could not ask its host: {}", error.public);
                let outcome = Outcome::Fault {
                    fault: Fault::new(FaultKind::Unavailable, message),
                };
                self.spawn_answer(Answer {
                    host: None,
                    command: command_ref(operation, current),
                    claim_epoch: operation.claim_epoch,
                    outcome,
                });
            }
        }
    }

    /// Work of the server's own that was under way when it ended goes on.
    pub(crate) async fn resume_own_work(&self) -> Result<()> {
        for found in operation::running(&self.store().read()).await? {
            let own = current(&found).is_some_and(|current| current.kind == StepKind::Discard);
            match found.object {
                Object::Image(id) => self.spawn_import(id),
                Object::Vm(id) if own => {
                    if let Some(vm) = vm::find(&self.store().read(), id).await? {
                        self.dispatch(&vm, Some(&found)).await;
                    }
                }
                Object::Vm(_) => {}
            }
        }
        Ok(())
    }

    async fn command(
        &self,
        vm: &VmRecord,
        operation: &OperationRecord,
        current: Current,
    ) -> Result<Option<Command>> {
        let step = usize::try_from(current.index)
            .ok()
            .and_then(|index| operation.steps.get(index));
        let target = step.and_then(|step| step.target.as_ref());
        let resources = target.map_or(vm.resources, |target| target.resources);
        let grace_ms = u64::try_from(self.inner.settings.shutdown_grace.as_millis());
        let grace_ms = grace_ms.unwrap_or(u64::MAX);
        let work = match current.kind {
            StepKind::Place
            | StepKind::GiveBack
            | StepKind::Discard
            | StepKind::Fetch
            | StepKind::Enter => return Ok(None),
            StepKind::Prepare => Work::Prepare {
                spec: Box::new(self.incarnation_spec(vm).await?),
            },
            StepKind::Boot => Work::Boot { resources },
            StepKind::Shutdown => Work::Shutdown { grace_ms },
            StepKind::Kill => Work::Kill,
            StepKind::Clean => Work::Clean,
            StepKind::Save => Work::Save,
            StepKind::Load => Work::Load,
            StepKind::Upload => Work::Upload {
                disks: if operation.kind == OperationKind::Migrate {
                    self.disk_plan(vm).await?
                } else {
                    DiskPlan::default()
                },
            },
            StepKind::Download | StepKind::Arrive => {
                let disks = if current.kind == StepKind::Arrive {
                    self.disk_plan(vm).await?
                } else {
                    DiskPlan::default()
                };
                let saved = match &vm.saved {
                    Some(saved) => saved.clone(),
                    None if disks.shares_root => SavedMachine {
                        run_epoch: vm.run_epoch.saturating_sub(1),
                        hypervisor: String::new(),
                        parts: Vec::new(),
                    },
                    None => {
                        let nothing = "a VM without its copy in the datastore";
                        return Err(Error::internal(nothing));
                    }
                };
                Work::Download {
                    spec: Box::new(self.incarnation_spec(vm).await?),
                    saved,
                    disks,
                }
            }
            StepKind::Reboot => Work::Reboot { grace_ms },
            StepKind::Reset => Work::Reset,
            StepKind::Resize => Work::Resize { resources },
            StepKind::Snapshot => {
                let snapshot_id = snapshot_of(step)?;
                let found = snapshot::find(&self.store().read(), snapshot_id).await?;
                let lost = || Error::internal("a snapshot without a record");
                let found = found.ok_or_else(lost)?;
                match found.only_volume() {
                    Some(volume_id) => Work::SnapshotVolume {
                        snapshot_id,
                        volume_id,
                    },
                    None => Work::Snapshot {
                        snapshot_id,
                        memory: found.memory,
                    },
                }
            }
            StepKind::Revert => Work::Revert {
                snapshot_id: snapshot_of(step)?,
            },
            StepKind::RemoveSnapshot => Work::RemoveSnapshot {
                snapshot_id: snapshot_of(step)?,
            },
            StepKind::Backup => {
                let backup_id = backup_of(step)?;
                let found = backup::find(&self.store().read(), backup_id).await?;
                let lost = || Error::internal("a backup without a record");
                Work::Backup {
                    backup_id,
                    since: found.ok_or_else(lost)?.since,
                }
            }
            StepKind::DropBackup => Work::DropBackup {
                backup_id: backup_of(step)?,
            },
            StepKind::Attach => Work::Attach {
                volume: self.volume_spec(volume_of(step)?).await?,
            },
            StepKind::Detach => Work::Detach {
                volume_id: volume_of(step)?,
            },
            StepKind::Grow => {
                let volume = self.volume_record(volume_of(step)?).await?;
                Work::Grow {
                    volume_id: volume.id,
                    size_mib: volume.size,
                }
            }
            StepKind::Move => {
                let (disk, _, to) = self.disk_between(vm, step).await?;
                let nowhere = || Error::internal("a disk moves, and nobody knows where to");
                let to = to.ok_or_else(nowhere)?;
                Work::Move { disk, to }
            }
            StepKind::Receive => {
                let here = vm.host.as_ref();
                let here = here.ok_or_else(|| Error::internal("a VM that moves has a host"))?;
                Work::Receive {
                    spec: Box::new(self.incarnation_spec(vm).await?),
                    from: here.id,
                    disks: self.disk_plan(vm).await?,
                    post_copy: goes_by_post_copy(operation),
                }
            }
            StepKind::Send => Work::Send {
                sending: sending(step, self.disk_plan(vm).await?)?,
            },
            StepKind::CallOff => Work::CallOff,
            StepKind::Switch => Work::Switch,
            StepKind::Run => Work::Run,
            StepKind::Complete => Work::Complete,
            StepKind::Dismiss | StepKind::Leave => Work::Leave {
                disks: self.disk_plan(vm).await?,
            },
            StepKind::MoveBack => {
                let (disk, to, _) = self.disk_between(vm, step).await?;
                Work::Move { disk, to }
            }
        };
        Ok(Some(Command {
            command: command_ref(operation, current),
            vm_id: vm.id,
            run_epoch: vm.run_epoch,
            claim_epoch: operation.claim_epoch,
            work,
        }))
    }

    /// The disk that a step moves: where it was, and where it is to be.
    async fn disk_between(
        &self,
        vm: &VmRecord,
        step: Option<&StepRecord>,
    ) -> Result<(DiskId, DatastoreName, Option<DatastoreName>)> {
        if step.is_some_and(|step| step.piece.is_none()) {
            let to = vm.moving.as_ref().map(|moving| moving.to.clone());
            return Ok((DiskId::Root, vm.datastore.clone(), to));
        }
        let volume = self.volume_record(volume_of(step)?).await?;
        let disk = DiskId::Volume(volume.id);
        Ok((disk, volume.datastore, volume.moving_to))
    }

    /// What becomes of the disks of a VM that goes from host to host. Never guessed: a
    /// host removes what it is not told that another one has.
    async fn disk_plan(&self, vm: &VmRecord) -> Result<DiskPlan> {
        let read = self.store().read();
        let found = migration::find(&read, vm.id).await?;
        let nowhere = || Error::internal("a VM goes nowhere, and a host is to be told where");
        let snapshots = snapshot::for_vm(&read, vm.id).await?;
        Ok(DiskPlan {
            snapshots: snapshots.iter().map(snapshot_plan).collect(),
            ..disk_plan(&found.ok_or_else(nowhere)?)
        })
    }

    async fn incarnation_spec(&self, vm: &VmRecord) -> Result<IncarnationSpec> {
        let on_its_way = migration::find(&self.store().read(), vm.id).await?;
        let on_its_way = on_its_way.filter(|migration| !migration.committed);
        let datastore = on_its_way.map_or_else(|| vm.datastore.clone(), |to| to.datastore);
        Ok(IncarnationSpec {
            vm_id: vm.id,
            run_epoch: vm.run_epoch,
            resources: vm.resources,
            datastore,
            image: self.image_ref(vm.image_id).await?,
            seed: Seed {
                host_name: vm.name.guest_host_name(),
                ssh_key: vm.ssh_key.clone(),
                user_data: vm.user_data.clone(),
            },
        })
    }

    async fn image_ref(&self, id: ImageId) -> Result<ImageRef> {
        let image = image::find(&self.store().read(), id).await?;
        let image = image.ok_or_else(|| Error::not_found(format!("image `{id}`")))?;
        let lost = || Error::internal("an image that is needed has no content");
        let content = image.content.ok_or_else(lost)?;
        Ok(ImageRef {
            id,
            format: content.format,
            size_bytes: content.size_bytes,
            sha256: content.sha256,
        })
    }

    async fn volume_record(&self, id: VolumeId) -> Result<VolumeRecord> {
        let found = volume::find(&self.store().read(), id).await?;
        found.ok_or_else(|| Error::not_found(format!("volume `{id}`")))
    }

    async fn volume_spec(&self, id: VolumeId) -> Result<VolumeSpec> {
        let VolumeRecord {
            size,
            image,
            made,
            datastore,
            ..
        } = self.volume_record(id).await?;
        Ok(VolumeSpec {
            volume_id: id,
            size_mib: size,
            image: match image {
                // Its content is needed once.
                Some(image) if !made => Some(self.image_ref(image.id).await?),
                Some(_) | None => None,
            },
            datastore,
            made,
        })
    }

    fn spawn_discard(&self, id: VmId, command: CommandRef, claim_epoch: u64) {
        let engine = self.clone();
        self.spawn(async move {
            let outcome = match engine
                .inner
                .datastores
                .main()
                .discard(Item::Saved(id))
                .await
            {
                Ok(()) => Outcome::DONE,
                Err(error) => {
                    tracing::error!(vm = %id, %error, "a copy in the datastore cannot be removed");
                    let message = "the copy in the datastore cannot be removed now";
                    Outcome::Fault {
                        fault: Fault::new(FaultKind::Unavailable, message),
                    }
                }
            };
            engine.spawn_answer(Answer {
                host: None,
                command,
                claim_epoch,
                outcome,
            });
        });
    }

    /// The server's own answer to what it asked.
    fn spawn_answer(&self, answer: Answer) {
        let engine = self.clone();
        self.spawn(async move {
            let done = || engine.command_done(&Actor::System, answer.clone());
            if let Err(error) = engine.persist("an answer", done).await {
                tracing::error!(command = ?answer.command, error = ?error, "an answer has no effect");
            }
        });
    }
}

fn sending(step: Option<&StepRecord>, disks: DiskPlan) -> Result<Sending> {
    let plan = step.and_then(|step| step.migration.as_ref());
    let plan = plan.ok_or_else(|| Error::internal("a step without its migration"))?;
    let nowhere = || Error::internal("nobody waits for the machine");
    Ok(Sending {
        to: plan.to.id,
        endpoint: plan.endpoint.ok_or_else(nowhere)?,
        max_downtime_ms: plan.limits.max_downtime_ms.unwrap_or(MAX_DOWNTIME_MS),
        max_bytes_per_s: plan
            .limits
            .max_mib_per_s
            .map(|mib| mib.saturating_mul(1 << 20)),
        disks,
    })
}

fn snapshot_of(step: Option<&StepRecord>) -> Result<SnapshotId> {
    match step.and_then(|step| step.piece.as_ref()) {
        Some(Piece::Snapshot { id, .. }) => Ok(*id),
        Some(Piece::Volume { .. } | Piece::Backup { .. }) | None => {
            Err(Error::internal("a step without its snapshot"))
        }
    }
}

fn volume_of(step: Option<&StepRecord>) -> Result<VolumeId> {
    match step.and_then(|step| step.piece.as_ref()) {
        Some(Piece::Volume { id, .. }) => Ok(*id),
        Some(Piece::Snapshot { .. } | Piece::Backup { .. }) | None => {
            Err(Error::internal("a step without its volume"))
        }
    }
}

fn backup_of(step: Option<&StepRecord>) -> Result<BackupId> {
    match step.and_then(|step| step.piece.as_ref()) {
        Some(Piece::Backup { id, .. }) => Ok(*id),
        Some(Piece::Snapshot { .. } | Piece::Volume { .. }) | None => {
            Err(Error::internal("a step without its backup"))
        }
    }
}

pub fn command_ref(operation: &OperationRecord, current: Current) -> CommandRef {
    CommandRef {
        operation_id: operation.id,
        step: current.index,
        undo: current.undo,
        attempt: current.attempt,
    }
}
