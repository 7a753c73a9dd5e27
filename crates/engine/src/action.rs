//! What people do with a VM: judged by the table, changed and dispatched.

use vimana_authz::Permission;
use vimana_model::action::VmAction;
use vimana_model::backup::TakeBackup;
use vimana_model::event::{Actor, EventKind};
use vimana_model::migration::{Destination, MigrateVm};
use vimana_model::name::{DatastoreName, FlavorName};
use vimana_model::operation::{OperationKind, OperationState, Piece, Situation, StepKind};
use vimana_model::snapshot::TakeSnapshot;
use vimana_model::state::VmState;
use vimana_model::unit::{MiB, Resources};
use vimana_model::vm::{AcceptedView, PowerOffVm, Resize, ResizeVm, VmView};
use vimana_model::{Error, FieldError, Result, SnapshotId, VmId, VolumeId};
use vimana_store::operation::{OperationRecord, Size};
use vimana_store::vm::VmRecord;
use vimana_store::{TxError, flavor, host, operation, write_tx};

use crate::Engine;
use crate::authorize::{authorized, current};
use crate::backup::BackupPlan;
use crate::change::{Change, Holding};
use crate::context::OpContext;
use crate::datastore::Datastores;
use crate::idempotency::{recall, remember};
use crate::migration::is_between;
use crate::saga::is_stuck;

/// What may come with an action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ActionArgs {
    #[default]
    None,
    PowerOff(PowerOffVm),
    Resize(ResizeVm),
    TakeSnapshot(TakeSnapshot),
    /// Of a revert, or a removal.
    Snapshot(SnapshotId),
    /// To attach or to detach.
    Volume(VolumeId),
    Grow {
        volume: VolumeId,
        size: MiB,
    },
    Move {
        volume: VolumeId,
        to: DatastoreName,
    },
    Backup(TakeBackup),
    Migrate(MigrateVm),
}

/// What an action led to.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acted {
    /// It is done: hold and release.
    Vm(Box<VmView>),
    /// An operation was accepted for it.
    Accepted(Box<AcceptedView>),
}

/// The arguments, checked before any transaction.
enum Checked {
    None,
    PowerOff { force: bool },
    Resize(Resize),
    TakeSnapshot(TakeSnapshot),
    Snapshot(SnapshotId),
    Volume(VolumeId),
    Grow { volume: VolumeId, size: MiB },
    Move { volume: VolumeId, to: DatastoreName },
    Backup(BackupPlan),
    Migrate(Destination),
}

impl Checked {
    fn new(datastores: &Datastores, action: VmAction, args: ActionArgs) -> Result<Self> {
        match (action, args) {
            (VmAction::PowerOff, ActionArgs::PowerOff(PowerOffVm { force })) => {
                Ok(Self::PowerOff { force })
            }
            (VmAction::PowerOff, ActionArgs::None) => Ok(Self::PowerOff { force: false }),
            (VmAction::Resize, ActionArgs::Resize(form)) => form.check().map(Self::Resize),
            (VmAction::Resize, ActionArgs::None) => ResizeVm::default().check().map(Self::Resize),
            (VmAction::Snapshot, ActionArgs::TakeSnapshot(form)) => {
                form.check()?;
                Ok(Self::TakeSnapshot(form))
            }
            (VmAction::Revert | VmAction::RemoveSnapshot, ActionArgs::Snapshot(id)) => {
                Ok(Self::Snapshot(id))
            }
            (VmAction::Attach | VmAction::Detach, ActionArgs::Volume(id)) => Ok(Self::Volume(id)),
            (VmAction::Grow, ActionArgs::Grow { volume, size }) => Ok(Self::Grow { volume, size }),
            (VmAction::Move, ActionArgs::Move { volume, to }) => Ok(Self::Move { volume, to }),
            (VmAction::Migrate, ActionArgs::Migrate(form)) => form.check().map(Self::Migrate),
            (VmAction::Backup, ActionArgs::Backup(form)) => Self::backup(datastores, &form),
            (VmAction::Backup, ActionArgs::None) => {
                Self::backup(datastores, &TakeBackup::default())
            }
            (
                VmAction::Hold
                | VmAction::Release
                | VmAction::Suspend
                | VmAction::Stop
                | VmAction::Resume
                | VmAction::Start
                | VmAction::Reboot
                | VmAction::Reset
                | VmAction::Retry
                | VmAction::Shutdown
                | VmAction::Delete
                | VmAction::Console,
                ActionArgs::None,
            ) => Ok(Self::None),
            (_, _) => Err(Error::internal(format!(
                "{action} does not take these arguments"
            ))),
        }
    }

    fn backup(datastores: &Datastores, form: &TakeBackup) -> Result<Self> {
        let request = form.check()?;
        let datastore = datastores.for_backups(request.datastore.as_ref())?;
        Ok(Self::Backup(BackupPlan::asked(request, datastore)))
    }
}

impl Engine {
    /// Does `action` with a VM; every action but the console, which is asked
    /// for with [`Engine::open_console`].
    ///
    /// # Errors
    /// `Conflict` with the table's sentence, `Invalid` naming each field at
    /// fault, `NotFound`, `Forbidden`.
    pub async fn act_on_vm(
        &self,
        cx: &OpContext,
        id: VmId,
        action: VmAction,
        args: ActionArgs,
    ) -> Result<Acted> {
        let args = Checked::new(&self.inner.datastores, action, args)?;
        let world = self.world();
        let actor = Actor::User(cx.subject.user_name.clone());
        let (answer, changed) = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok((answer, None));
            }
            let found = Change::lock(tx, world, actor.clone(), id).await?;
            let permission = Permission::ActOnVm(action);
            let mut change = authorized(cx, permission, format!("vm `{id}`"), found)?.into_inner();
            let in_flight = change.operation.as_ref().map(|operation| operation.kind);
            action
                .accept(change.vm.state, in_flight)
                .map_err(|refusal| Error::conflict(format!("`{}` {refusal}", change.vm.name)))?;
            crate::request::refuse_release(cx, &change, action)?;
            change.accepts = true;
            act(&mut change, cx.subject.user_name.as_str(), action, &args).await?;
            let (vm, in_flight) = change.save().await?;
            let latest = match (&in_flight, vm.operation_id) {
                (None, Some(id)) => operation::find(tx, id).await?,
                (found, _) => found.clone(),
            };
            let answer = self.acted(action, vm.clone(), latest)?;
            remember(tx, cx, world.now(), &answer).await?;
            Ok((answer, Some((vm, in_flight))))
        })?;
        self.inner.hub.wake();
        if let Some((vm, operation)) = changed {
            self.dispatch(&vm, operation.as_ref()).await;
        }
        Ok(answer)
    }

    fn acted(
        &self,
        action: VmAction,
        vm: VmRecord,
        operation: Option<OperationRecord>,
    ) -> Result<Acted> {
        match action {
            VmAction::Hold | VmAction::Release | VmAction::Console => {
                Ok(Acted::Vm(Box::new(self.join_view(vm, operation))))
            }
            VmAction::Suspend
            | VmAction::Stop
            | VmAction::Resume
            | VmAction::PowerOff
            | VmAction::Start
            | VmAction::Reboot
            | VmAction::Reset
            | VmAction::Resize
            | VmAction::Snapshot
            | VmAction::Revert
            | VmAction::RemoveSnapshot
            | VmAction::Backup
            | VmAction::Attach
            | VmAction::Detach
            | VmAction::Grow
            | VmAction::Move
            | VmAction::Migrate
            | VmAction::Retry
            | VmAction::Shutdown
            | VmAction::Delete => {
                let operation = operation
                    .ok_or_else(|| Error::internal("an accepted operation is not recorded"))?;
                Ok(Acted::Accepted(Box::new(self.accepted(vm, operation))))
            }
        }
    }
}

async fn act(
    change: &mut Change<'_>,
    by: &str,
    action: VmAction,
    args: &Checked,
) -> Result<(), TxError> {
    let force = matches!(args, Checked::PowerOff { force: true });
    let at = change.situation(force);
    let plan = |kind: OperationKind| kind.steps(at);
    match action {
        VmAction::Hold => change.turn(VmState::Hold),
        VmAction::Release => release(change, by).await,
        VmAction::Suspend => {
            change.hold(Holding::FullAndSaved).await?;
            let kind = OperationKind::Suspend;
            change.begin(kind, plan(kind), by).await
        }
        VmAction::Stop => {
            change.refuse_to_leave(", or suspend it instead").await?;
            if at.runs {
                change.hold(Holding::FullAndSaved).await?;
            }
            let kind = OperationKind::Stop;
            change.begin(kind, plan(kind), by).await
        }
        VmAction::Resume => {
            if at.on_host {
                change.hold(Holding::FullAndSaved).await?;
            }
            let kind = OperationKind::Resume;
            change.begin(kind, plan(kind), by).await
        }
        VmAction::PowerOff => {
            let kind = OperationKind::PowerOff;
            change.begin(kind, plan(kind), by).await
        }
        VmAction::Start => {
            change.hold(Holding::Full).await?;
            let kind = OperationKind::Start;
            change.begin(kind, plan(kind), by).await
        }
        VmAction::Reboot => {
            let kind = OperationKind::Reboot;
            change.begin(kind, plan(kind), by).await
        }
        VmAction::Reset => {
            let kind = OperationKind::Reset;
            change.begin(kind, plan(kind), by).await
        }
        VmAction::Resize
        | VmAction::Snapshot
        | VmAction::Revert
        | VmAction::RemoveSnapshot
        | VmAction::Backup
        | VmAction::Attach
        | VmAction::Detach
        | VmAction::Grow
        | VmAction::Move
        | VmAction::Migrate => with_arguments(change, by, action, args).await,
        VmAction::Retry => retry(change, by).await,
        VmAction::Shutdown => {
            let kind = OperationKind::Shutdown;
            let steps = change.with_peer(plan(kind)).await?;
            change.begin(kind, &steps, by).await
        }
        VmAction::Delete => remove(change, by).await,
        // A console changes nothing of the VM; see `console.rs`.
        VmAction::Console => Ok(()),
    }
}

/// What cannot be done without them.
async fn with_arguments(
    change: &mut Change<'_>,
    by: &str,
    action: VmAction,
    args: &Checked,
) -> Result<(), TxError> {
    match (action, args) {
        (VmAction::Resize, Checked::Resize(wanted)) => resize(change, by, wanted).await,
        (VmAction::Snapshot, Checked::TakeSnapshot(form)) => {
            change.begin_snapshot(by, form, false).await
        }
        (VmAction::Revert, Checked::Snapshot(id)) => change.begin_revert(by, *id).await,
        (VmAction::RemoveSnapshot, Checked::Snapshot(id)) => {
            change.begin_remove_snapshot(by, *id).await
        }
        (VmAction::Backup, Checked::Backup(plan)) => change.begin_backup(by, plan).await,
        (VmAction::Attach, Checked::Volume(id)) => change.begin_attach(by, *id).await,
        (VmAction::Detach, Checked::Volume(id)) => change.begin_detach(by, *id).await,
        (VmAction::Grow, Checked::Grow { volume, size }) => {
            change.begin_grow(by, *volume, *size).await
        }
        (VmAction::Move, Checked::Move { volume, to }) => change.begin_move(by, *volume, to).await,
        (VmAction::Migrate, Checked::Migrate(destination)) => {
            change.begin_migrate(by, destination).await
        }
        _ => Err(Error::internal("an action with the arguments of another").into()),
    }
}

/// A held VM whose creation was cancelled begins anew.
async fn release(change: &mut Change<'_>, by: &str) -> Result<(), TxError> {
    change.vm.explanation = None;
    change.vm.explained_at = None;
    if change.operation.is_none() {
        let steps = OperationKind::Create.steps(change.situation(false));
        change.begin(OperationKind::Create, steps, by).await?;
    }
    change.turn(VmState::Pending)
}

/// Stops and removes whatever there is, wherever it is.
pub async fn remove(change: &mut Change<'_>, by: &str) -> Result<(), TxError> {
    let kind = OperationKind::Delete;
    let steps = kind.steps(change.situation(false));
    let steps = change.with_peer(steps).await?;
    change.begin(kind, &steps, by).await
}

/// Goes on from where it broke.
async fn retry(change: &mut Change<'_>, by: &str) -> Result<(), TxError> {
    let history = operation::for_vm(change.tx, change.vm.id).await?;
    let at = change.situation(false);
    let latest = history.first();
    let kind = latest.map(|operation| operation.kind);
    let failed = latest.is_some_and(|operation| operation.state != OperationState::Succeeded);
    match kind {
        Some(OperationKind::Delete | OperationKind::Shutdown) => remove(change, by).await,
        // Everything is in the datastore; the host was being cleaned.
        Some(kind @ OperationKind::Stop) if at.on_host && at.in_datastore => {
            change.begin(kind, &[StepKind::Clean], by).await
        }
        // Half of its disks may be the snapshot's: no start before all are.
        Some(_) if at.on_host && failed && reverting(latest).is_some() => {
            revert_anew(change, reverting(latest), by).await
        }
        // What it was to be made from is elsewhere, whole.
        Some(kind @ OperationKind::Create) if at.on_host && failed => {
            make_anew(change, kind, by).await
        }
        Some(kind @ OperationKind::Resume) if at.on_host && at.in_datastore => {
            make_anew(change, kind, by).await
        }
        Some(
            OperationKind::Create
            | OperationKind::Start
            | OperationKind::Suspend
            | OperationKind::Stop
            | OperationKind::Resume
            | OperationKind::PowerOff
            | OperationKind::Reboot
            | OperationKind::Reset
            | OperationKind::Resize
            | OperationKind::Snapshot
            | OperationKind::Revert
            | OperationKind::RemoveSnapshot
            | OperationKind::Backup
            | OperationKind::Attach
            | OperationKind::Detach
            | OperationKind::Grow
            | OperationKind::Move
            | OperationKind::Migrate
            | OperationKind::Import
            | OperationKind::Refresh,
        )
        | None => {
            if at.on_host {
                return switch_on(change, &history, by).await;
            }
            let kind = if at.in_datastore {
                OperationKind::Resume
            } else {
                OperationKind::Create
            };
            change.vm.explanation = None;
            change.vm.explained_at = None;
            change.begin(kind, kind.steps(at), by).await
        }
    }
}

/// The snapshot that an operation was to go back to.
fn reverting(operation: Option<&OperationRecord>) -> Option<Piece> {
    let mut steps = operation?.steps.iter();
    let step = steps.find(|step| step.kind == StepKind::Revert)?;
    step.piece.clone()
}

/// Goes back to the snapshot once more, and starts from its disks.
async fn revert_anew(
    change: &mut Change<'_>,
    piece: Option<Piece>,
    by: &str,
) -> Result<(), TxError> {
    change.hold(Holding::Full).await?;
    let steps = &[StepKind::Kill, StepKind::Revert, StepKind::Boot];
    change.begin(OperationKind::Start, steps, by).await?;
    if let Some(piece) = piece {
        change.set_piece_of(StepKind::Revert, piece);
    }
    Ok(())
}

/// Half made, and could not be taken back: that first, then from the beginning.
async fn make_anew(change: &mut Change<'_>, kind: OperationKind, by: &str) -> Result<(), TxError> {
    let elsewhere = Situation {
        on_host: false,
        ..change.situation(false)
    };
    let clean = [StepKind::Kill, StepKind::Clean];
    let steps = [&clean, kind.steps(elsewhere)].concat();
    change.vm.explanation = None;
    change.vm.explained_at = None;
    change.begin(kind, &steps, by).await
}

/// On its host. Where a save broke and could not be taken back, the machine
/// may still run, or its memory be saved, or neither: a load serves the first
/// two, and no start ever throws a saved memory away, so they take turns.
async fn switch_on(
    change: &mut Change<'_>,
    history: &[OperationRecord],
    by: &str,
) -> Result<(), TxError> {
    let in_vain = |operation: &&OperationRecord| {
        let first = operation.steps.first().map(|step| step.kind);
        operation.kind == OperationKind::Start
            && matches!(first, Some(StepKind::Kill | StepKind::Load))
            && operation.state == OperationState::Failed
    };
    let tries = history.iter().take_while(in_vain).count();
    let saves = history.get(tries).is_some_and(|operation| {
        matches!(operation.kind, OperationKind::Suspend | OperationKind::Stop)
            && is_stuck(operation)
    });
    let kind = OperationKind::Start;
    if saves && tries % 2 == 0 {
        change.hold(Holding::FullAndSaved).await?;
        return change.begin(kind, &[StepKind::Load], by).await;
    }
    change.hold(Holding::Full).await?;
    let steps = &[StepKind::Kill, StepKind::Boot];
    change.begin(kind, steps, by).await
}

async fn resize(change: &mut Change<'_>, by: &str, wanted: &Resize) -> Result<(), TxError> {
    let from = change.vm.resources;
    let target = target(change, wanted).await?;
    let to = target.resources;
    if to.disk_mib < from.disk_mib {
        let message = format!("a disk never shrinks; it has {}", from.disk_mib);
        return Err(Error::from(FieldError::new("disk_mib", message)).into());
    }
    if to == from {
        let message = format!("`{}` has this size already", change.vm.name);
        return Err(Error::conflict(message).into());
    }
    if let Some(moving) = change
        .vm
        .moving
        .as_ref()
        .filter(|_| to.disk_mib > from.disk_mib)
    {
        let what = format!("the disk of `{}`", change.vm.name);
        let message = is_between(&what, &change.vm.datastore, &moving.to);
        return Err(Error::conflict(message).into());
    }
    if change.vm.state == VmState::Running {
        hot(change, to).await?;
        let kind = OperationKind::Resize;
        let steps = kind.steps(change.situation(false));
        change.begin(kind, steps, by).await?;
        change.set_target(target);
        return Ok(());
    }
    change.vm.resources = to;
    change.vm.flavor_name = target.flavor_name;
    change.hold(Holding::Disk).await?;
    change.begin_and_end(OperationKind::Resize, by);
    change.add_event(EventKind::Resized { from, to });
    Ok(())
}

async fn target(change: &Change<'_>, wanted: &Resize) -> Result<Size, TxError> {
    match wanted {
        Resize::ToFlavor(name) => {
            let found = flavor::find_by_name(change.tx, name).await?;
            let absent = || FieldError::new("flavor", format!("there is no flavor `{name}`"));
            let found = found.ok_or_else(|| Error::from(absent()))?;
            // A larger disk stays as it is: it cannot shrink.
            let disk_mib = found.resources.disk_mib.max(change.vm.resources.disk_mib);
            Ok(Size {
                flavor_name: found.name,
                resources: Resources {
                    disk_mib,
                    ..found.resources
                },
            })
        }
        Resize::To {
            vcpus,
            memory_mib,
            disk_mib,
        } => {
            let is = change.vm.resources;
            let to = Resources {
                vcpus: vcpus.unwrap_or(is.vcpus),
                memory_mib: memory_mib.unwrap_or(is.memory_mib),
                disk_mib: disk_mib.unwrap_or(is.disk_mib),
            };
            Ok(Size {
                flavor_name: FlavorName::new("custom").map_err(Error::internal)?,
                resources: to,
            })
        }
    }
}

/// Whether the running machine can get this size, and its room. Its disk can
/// grow on any host.
async fn hot(change: &mut Change<'_>, to: Resources) -> Result<(), TxError> {
    let (name, from) = (change.vm.name.clone(), change.vm.resources);
    let refuse = |why: &str| -> Result<(), TxError> {
        let message = format!("`{name}` runs, and {why}; power it off first");
        Err(Error::conflict(message).into())
    };
    let host = match &change.vm.host {
        Some(on) => host::find(change.tx, on.id).await?,
        None => None,
    };
    let only_its_disk = (to.vcpus, to.memory_mib) == (from.vcpus, from.memory_mib);
    if !only_its_disk && !host.is_some_and(|host| host.hot_resize) {
        return refuse("its host changes vCPUs and memory only of machines that are off");
    }
    if to.vcpus < from.vcpus || to.memory_mib < from.memory_mib {
        return refuse("a running machine only grows");
    }
    change.hold_exactly(to).await
}
