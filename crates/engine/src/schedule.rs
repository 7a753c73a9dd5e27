//! What is done with a VM again and again: snapshots and backups.
//!
//! What is due is taken on by one server, which moves the schedule's next time
//! on in the transaction that begins the operation. A VM that is busy is asked
//! again soon; times that were missed are not made up for. How many are kept is
//! decided where one more comes to be (`Change::prune_snapshots`,
//! `Change::prune_backups`).

use vimana_authz::Permission;
use vimana_model::action::VmAction;
use vimana_model::backup::BackupState;
use vimana_model::event::{Actor, EventKind};
use vimana_model::name::SnapshotName;
use vimana_model::schedule::{ScheduleKind, ScheduleView, SetSchedule};
use vimana_model::snapshot::{SnapshotState, TakeSnapshot};
use vimana_model::{BackupId, Error, Result, Timestamp, VmId};
use vimana_store::backup::BackupRecord;
use vimana_store::schedule::ScheduleRecord;
use vimana_store::{TxError, backup, schedule, snapshot, write_tx};

use crate::Engine;
use crate::authorize::{authorized, current, permit};
use crate::backup::{BackupPlan, dated};
use crate::change::{Change, Changed};
use crate::clock::ms;
use crate::context::OpContext;
use crate::idempotency::{recall, remember};
use crate::limits::{MAX_DUE, SCHEDULE_RETRY};

impl Engine {
    /// The schedules of a VM.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn schedules(&self, cx: &OpContext, id: VmId) -> Result<Vec<ScheduleView>> {
        self.viewable_vm(cx, id).await?;
        let found = schedule::for_vm(&self.store().read(), id).await?;
        Ok(found.into_iter().map(view).collect())
    }

    /// The schedules of the tenant's VMs, the next one first.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn all_schedules(&self, cx: &OpContext) -> Result<Vec<ScheduleView>> {
        let tenant = cx.subject.tenant_id;
        permit(cx, Permission::ViewVm, Some(tenant))?;
        let found = schedule::for_tenant(&self.store().read(), tenant).await?;
        Ok(found.into_iter().map(view).collect())
    }

    /// Sets a schedule, in place of the VM's one of that kind; the first is
    /// made at once.
    ///
    /// # Errors
    /// `Invalid` naming each field at fault, `Conflict` where the VM is done,
    /// `NotFound`, `Forbidden`.
    pub async fn set_schedule(
        &self,
        cx: &OpContext,
        id: VmId,
        kind: ScheduleKind,
        form: &SetSchedule,
    ) -> Result<ScheduleView> {
        let wanted = form.check(kind)?;
        if kind == ScheduleKind::Backup {
            self.inner
                .datastores
                .for_backups(wanted.datastore.as_ref())?;
        }
        let actor = Actor::User(cx.subject.user_name.clone());
        let answer = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            let mut change = self.scheduled(cx, tx, actor.clone(), id).await?;
            if change.vm.state.is_final() {
                let message = format!("`{}` is done", change.vm.name);
                return Err(Error::conflict(message).into());
            }
            let now = self.world().now();
            let record = ScheduleRecord {
                vm_id: id,
                kind,
                owner_name: cx.subject.user_name.clone(),
                schedule: wanted.clone(),
                next_at: now,
                last_at: None,
                trouble: None,
            };
            schedule::put(tx, &record).await?;
            let text = format!(
                "A {kind} is made every {} from now on, and {} are kept",
                every(wanted.every_s),
                wanted.keep
            );
            change.add_event(EventKind::Note { text });
            change.save().await?;
            let answer = view(record);
            remember(tx, cx, now, &answer).await?;
            Ok(answer)
        })?;
        self.inner.hub.wake();
        Ok(answer)
    }

    /// Ends a schedule; what it made stays.
    ///
    /// # Errors
    /// `NotFound`, also where there is no such schedule; `Forbidden`.
    pub async fn remove_schedule(
        &self,
        cx: &OpContext,
        id: VmId,
        kind: ScheduleKind,
    ) -> Result<()> {
        let actor = Actor::User(cx.subject.user_name.clone());
        write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            let mut change = self.scheduled(cx, tx, actor.clone(), id).await?;
            if !schedule::delete(tx, id, kind).await? {
                return Err(Error::not_found(format!("{kind} schedule of `{id}`")).into());
            }
            let text = format!("No {kind} is made by itself any more");
            change.add_event(EventKind::Note { text });
            change.save().await?;
            remember(tx, cx, self.world().now(), &()).await?;
            Ok(())
        })?;
        self.inner.hub.wake();
        Ok(())
    }

    async fn scheduled<'a>(
        &'a self,
        cx: &OpContext,
        tx: &'a vimana_store::WriteTx,
        actor: Actor,
        id: VmId,
    ) -> Result<Change<'a>, TxError> {
        let found = Change::lock(tx, self.world(), actor, id).await?;
        let permission = Permission::ManageBackups;
        Ok(authorized(cx, permission, format!("vm `{id}`"), found)?.into_inner())
    }

    /// Begins what is due.
    pub(crate) async fn run_schedules(&self) -> Result<()> {
        let now = self.world().now();
        let due = schedule::due(&self.store().read(), now, MAX_DUE.into()).await?;
        for record in due {
            let (vm, kind) = (record.vm_id, record.kind);
            if let Err(error) = self.run_schedule(&record).await {
                tracing::error!(%vm, %kind, error = ?error, "a schedule cannot be kept");
            }
        }
        Ok(())
    }

    async fn run_schedule(&self, due: &ScheduleRecord) -> Result<()> {
        let now = self.world().now();
        let every = i64::try_from(due.schedule.every_s.saturating_mul(1000)).unwrap_or(i64::MAX);
        if due.next_at > now {
            // The clock was set back: it counts from now on.
            let next = now.plus_ms(every);
            return write_tx!(self.store(), |tx| {
                schedule::take(tx, due, next).await?;
                Ok(())
            });
        }
        let next = next_after(due.next_at, now, every);
        match self.take_on(due, next).await {
            Ok(Some(changed)) => self.moved(changed).await,
            Ok(None) => {}
            Err(error) if error.kind.is_of_state() => {
                let soon = now.plus_ms(ms(SCHEDULE_RETRY)).min(next);
                let schedule = (due.vm_id, due.kind);
                write_tx!(self.store(), |tx| {
                    if schedule::take(tx, due, soon).await? {
                        let why = Some(&*error.public);
                        schedule::tell(tx, schedule, now, why).await?;
                    }
                    Ok(())
                })?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// # Errors
    /// `Conflict` or `Invalid` where it cannot be made now.
    async fn take_on(&self, due: &ScheduleRecord, next: Timestamp) -> Result<Option<Changed>> {
        let world = self.world();
        let (id, kind) = (due.vm_id, due.kind);
        write_tx!(self.store(), |tx| {
            if !schedule::take(tx, due, next).await? {
                return Ok(None);
            }
            let lock = Change::lock(tx, world, Actor::System, id).await?;
            let Some(mut change) = lock.filter(|change| !change.vm.state.is_final()) else {
                schedule::delete(tx, id, kind).await?;
                return Ok(None);
            };
            let action = match kind {
                ScheduleKind::Snapshot => VmAction::Snapshot,
                ScheduleKind::Backup => VmAction::Backup,
            };
            let in_flight = change.operation.as_ref().map(|operation| operation.kind);
            action
                .accept(change.vm.state, in_flight)
                .map_err(|refusal| Error::conflict(format!("`{}` {refusal}", change.vm.name)))?;
            self.begin_due(&mut change, due).await?;
            schedule::tell(tx, (id, kind), world.now(), None).await?;
            change.save().await.map(Some)
        })
    }

    async fn begin_due(
        &self,
        change: &mut Change<'_>,
        due: &ScheduleRecord,
    ) -> Result<(), TxError> {
        let by = due.owner_name.as_str();
        match due.kind {
            ScheduleKind::Snapshot => {
                let name: SnapshotName = dated("auto", change.now)?;
                let form = TakeSnapshot {
                    name: name.to_string(),
                    memory: false,
                    volume: None,
                };
                change.begin_snapshot(by, &form, true).await
            }
            ScheduleKind::Backup => {
                let asked = due.schedule.datastore.as_ref();
                let plan = BackupPlan {
                    name: None,
                    datastore: self.inner.datastores.for_backups(asked)?,
                    full: false,
                    scheduled: Some(due.schedule.full_every),
                };
                change.begin_backup(by, &plan).await
            }
        }
    }
}

impl Change<'_> {
    /// Deletes the oldest of the snapshots that a schedule made, where there
    /// are more than it keeps.
    pub(crate) async fn prune_snapshots(&mut self) -> Result<(), TxError> {
        let Some(due) = self.schedule(ScheduleKind::Snapshot).await? else {
            return Ok(());
        };
        let taken = snapshot::for_vm(self.tx, self.vm.id).await?;
        let made: Vec<_> = taken
            .iter()
            .filter(|taken| taken.scheduled && taken.state == SnapshotState::Ready)
            .collect();
        let keep = usize::try_from(due.schedule.keep).unwrap_or(usize::MAX);
        match made.first() {
            Some(oldest) if made.len() > keep => {
                let by = due.owner_name.as_str();
                Box::pin(self.begin_remove_snapshot(by, oldest.id)).await
            }
            _ => Ok(()),
        }
    }

    /// Deletes the backups that a schedule made and keeps no longer.
    pub(crate) async fn prune_backups(&mut self) -> Result<(), TxError> {
        let Some(due) = self.schedule(ScheduleKind::Backup).await? else {
            return Ok(());
        };
        let all = backup::for_vm(self.tx, self.vm.id).await?;
        for mut record in outlived(all, due.schedule.keep) {
            record.state = BackupState::Removing;
            backup::update(self.tx, &mut record).await?;
            self.add_event(EventKind::BackupDeleted { name: record.name });
        }
        Ok(())
    }

    async fn schedule(&self, kind: ScheduleKind) -> Result<Option<ScheduleRecord>, TxError> {
        let all = schedule::for_vm(self.tx, self.vm.id).await?;
        Ok(all.into_iter().find(|found| found.kind == kind))
    }
}

/// Those of a VM's backups, given newest first, that go: made by a schedule,
/// older than the `keep` latest, and needed by none that stays. One that failed
/// goes once a later one came to be.
fn outlived(all: Vec<BackupRecord>, keep: u32) -> Vec<BackupRecord> {
    let mut kept = 0;
    let mut needed: Vec<BackupId> = Vec::new();
    let mut go = Vec::new();
    for record in all {
        let counts = record.scheduled && record.state == BackupState::Ready;
        let stays = match record.state {
            BackupState::Ready => !record.scheduled || kept < keep || needed.contains(&record.id),
            BackupState::Failed => !record.scheduled || kept == 0,
            BackupState::Making | BackupState::Removing | BackupState::Removed => true,
        };
        kept += u32::from(counts);
        if stays {
            needed.extend(record.since);
        } else {
            go.push(record);
        }
    }
    go
}

/// The first of a schedule's times after `now`.
fn next_after(last: Timestamp, now: Timestamp, every_ms: i64) -> Timestamp {
    let missed = now.since_ms(last).max(0) / every_ms.max(1);
    last.plus_ms(every_ms.saturating_mul(missed.saturating_add(1)))
}

fn every(seconds: u64) -> String {
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute")];
    for (length, unit) in units {
        if seconds.is_multiple_of(length) {
            return match seconds / length {
                1 => unit.to_owned(),
                count => format!("{count} {unit}s"),
            };
        }
    }
    format!("{seconds} seconds")
}

fn view(record: ScheduleRecord) -> ScheduleView {
    let ScheduleRecord {
        vm_id,
        kind,
        owner_name: _,
        schedule,
        next_at,
        last_at,
        trouble,
    } = record;
    ScheduleView {
        vm_id,
        kind,
        every_s: schedule.every_s,
        keep: schedule.keep,
        full_every: schedule.full_every,
        datastore: schedule.datastore,
        next_at,
        last_at,
        trouble,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_were_missed_are_not_made_up_for() {
        let at = Timestamp::from_ms;
        assert_eq!(next_after(at(1000), at(1000), 100), at(1100));
        assert_eq!(next_after(at(1000), at(1450), 100), at(1500));
        assert_eq!(next_after(at(1000), at(1500), 100), at(1600));
        assert_eq!(next_after(at(1000), at(10), 100), at(1100));
    }

    #[test]
    fn intervals_read_like_speech() {
        let read = [86_400, 172_800, 3600, 21_600, 900, 61].map(every);
        let wanted = [
            "day",
            "2 days",
            "hour",
            "6 hours",
            "15 minutes",
            "61 seconds",
        ];
        assert_eq!(read, wanted);
    }
}
