//! Moves the VMs of hosts away that are being drained, some at once, each by a
//! migration like those that people ask for.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use vimana_model::action::VmAction;
use vimana_model::event::{Actor, EventKind, StreamItem};
use vimana_model::host::DesiredState;
use vimana_model::migration::{Destination, Limits};
use vimana_model::name::HostName;
use vimana_model::operation::OperationState;
use vimana_model::{Error, HostId, Result};
use vimana_store::host::{EvacuationRecord, HostRecord};
use vimana_store::vm::VmRecord;
use vimana_store::{
    TxError, WriteTx, enrolment, event, host, host_datastore, operation, snapshot, volume, write_tx,
};

use super::look::{Look, Ready, is_exhausted, leaving, look, on_their_way};
use super::want;
use crate::Engine;
use crate::change::{Change, Changed};
use crate::host::host_event;
use crate::migration::{Disks, ways};

/// What no event tells, such as room that was given back elsewhere, is looked
/// for this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Wakes the one who moves VMs away.
#[derive(Default)]
pub struct Drains(Notify);

impl Drains {
    /// Something happened that may let more go.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

/// Whether a fact may let VMs of a host that is drained go, or end its draining.
pub fn may_let_vms_go(item: &StreamItem) -> bool {
    let drains = |desired| desired == DesiredState::Draining;
    let here = item.host.as_ref().is_some_and(|host| drains(host.desired));
    let takes_vms = matches!(
        item.event.event,
        EventKind::HostConnected | EventKind::HostEnabled
    );
    let operation = item.vm.as_ref().and_then(|vm| vm.operation.as_ref());
    let ends = operation
        .is_some_and(|operation| operation.migration.is_some() && operation.state.is_over());
    here || takes_vms || ends
}

impl Engine {
    /// Looks at the hosts that are drained whenever something happens, until
    /// cancelled.
    pub(crate) async fn run_drains(&self, cancel: CancellationToken) {
        let mut next = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = self.inner.drains.0.notified() => {}
                () = sleep_until(next) => {}
            }
            let within = self.drain_hosts().await.unwrap_or_else(|error| {
                tracing::error!(error = ?error, "hosts that are drained cannot be looked at");
                LOOK_EVERY
            });
            next = Instant::now() + within;
        }
    }

    /// When to look again at the latest.
    async fn drain_hosts(&self) -> Result<Duration> {
        let mut within = LOOK_EVERY;
        for record in host::draining(&self.store().read()).await? {
            let id = record.id;
            match self.drain_host(&record).await {
                Ok(again) => within = within.min(again.unwrap_or(within)),
                Err(error) => {
                    tracing::error!(host = %id, error = ?error, "the VMs of a host cannot be moved away");
                }
            }
        }
        Ok(within)
    }

    /// When one of its VMs that rest goes again.
    async fn drain_host(&self, record: &HostRecord) -> Result<Option<Duration>> {
        let Some(evacuation) = &record.evacuation else {
            return Ok(None);
        };
        if evacuation.begun_at > self.world().now() {
            self.begin_anew(record.id).await?;
            return Ok(None);
        }
        let look = {
            let snapshot = self.store().snapshot().await?;
            look(&snapshot, record, evacuation, self.pace()).await?
        };
        let limit = usize::try_from(evacuation.limit).unwrap_or(usize::MAX);
        let mut free = limit.saturating_sub(look.moving.len());
        let mut begun = false;
        for ready in &look.ready {
            if free == 0 {
                break;
            }
            if self.send_off(record, ready).await? {
                free -= 1;
                begun = true;
            }
        }
        if !begun {
            self.note_end(record.id, &look).await?;
        }
        Ok(look.goes_again)
    }

    /// The clock was set back: what is tried counts from now on.
    async fn begin_anew(&self, id: HostId) -> Result<()> {
        let now = self.world().now();
        write_tx!(self.store(), |tx| {
            let Some((mut record, evacuation)) = draining(tx, id).await? else {
                return Ok(());
            };
            record.evacuation = Some(EvacuationRecord {
                begun_at: now.min(evacuation.begun_at),
                ..evacuation
            });
            host::set_desired(tx, &record).await?;
            Ok(())
        })?;
        self.inner.drains.wake();
        Ok(())
    }

    /// Sends the VM on its way to the host that suits it best, of those that it
    /// was sent to least. False where it did not go after all.
    async fn send_off(&self, from: &HostRecord, Ready { vm, tried }: &Ready) -> Result<bool> {
        let read = self.store().read();
        let all = host::list(&read).await?;
        let disks = Disks {
            vm,
            volumes: &volume::of_vm(&read, vm.id).await?,
            snapshots: &snapshot::for_vm(&read, vm.id).await?,
            places: &host_datastore::list(&read).await?,
        };
        let ways = ways(&disks, Some(from), &all).into_iter();
        let open = ways.filter(|way| way.refusal.is_none());
        let best = open.min_by_key(|way| tried.iter().filter(|id| **id == way.host.id).count());
        let Some(best) = best else {
            return Ok(false);
        };
        let to = HostName::new(best.host.name).map_err(Error::internal)?;
        match self.begin_leaving(from, vm, &to).await {
            Ok(Some(changed)) => {
                self.moved(changed).await;
                Ok(true)
            }
            Ok(None) => Ok(false),
            // Something was quicker; the next look finds what that was.
            Err(error) if error.kind.is_of_state() => {
                tracing::debug!(vm = %vm.id, error = ?error, "a VM is not moved away now");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// `Conflict` or `Invalid` where it cannot go there now.
    async fn begin_leaving(
        &self,
        from: &HostRecord,
        vm: &VmRecord,
        to: &HostName,
    ) -> Result<Option<Changed>> {
        let world = self.world();
        write_tx!(self.store(), |tx| {
            let lock = Change::lock(tx, world, Actor::System, vm.id).await?;
            let Some(mut change) = lock.filter(|change| change.is_on(from.id)) else {
                return Ok(None);
            };
            // Held until the end, so that no two servers exceed the limit.
            let Some((mut record, mut evacuation)) = draining(tx, from.id).await? else {
                return Ok(None);
            };
            let limit = usize::try_from(evacuation.limit).unwrap_or(usize::MAX);
            let may_go = on_their_way(tx, from.id).await? < limit
                && !tried_enough(tx, from, vm, &evacuation).await?;
            if !may_go {
                return Ok(None);
            }
            let in_flight = change.operation.as_ref().map(|operation| operation.kind);
            VmAction::Migrate
                .accept(change.vm.state, in_flight)
                .map_err(|refusal| Error::conflict(format!("`{}` {refusal}", change.vm.name)))?;
            // Live or cold, as its state is.
            let there = Destination::Host {
                name: to.clone(),
                datastore: None,
                mode: None,
                limits: Limits::default(),
            };
            change.begin_migrate(&evacuation.by, &there).await?;
            if evacuation.stuck.take().is_some() {
                record.evacuation = Some(evacuation);
                host::set_desired(tx, &record).await?;
            }
            change.save().await.map(Some)
        })
    }

    /// Nothing is sent on its way now: perhaps since all are gone, or none of
    /// those that are left can go.
    async fn note_end(&self, id: HostId, look: &Look) -> Result<()> {
        let idle = look.moving.is_empty() && look.ready.is_empty() && look.waiting.is_empty();
        let now = self.world().now();
        let told = write_tx!(self.store(), |tx| {
            let Some((mut record, mut evacuation)) = draining(tx, id).await? else {
                return Ok(false);
            };
            let left = record.vms.saturating_add(record.orphans);
            let empty = left == 0;
            let stuck = (idle && !empty).then_some(left);
            if !empty && evacuation.stuck == stuck {
                return Ok(false);
            }
            evacuation.stuck = stuck;
            let event = match stuck {
                _ if empty => Some(EventKind::HostDrained),
                Some(left) => Some(EventKind::HostStuck { left }),
                None => None,
            };
            let desired = match empty {
                true => DesiredState::Maintenance,
                false => DesiredState::Draining,
            };
            want(&mut record, desired, Some(evacuation));
            host::set_desired(tx, &record).await?;
            let Some(event) = event else {
                return Ok(false);
            };
            let fact = host_event(now, &Actor::System, id, event);
            event::append(tx, &[fact]).await?;
            Ok(true)
        })?;
        if told {
            self.inner.hub.wake();
        }
        Ok(())
    }
}

/// The host, held until the transaction ends, if it is still being drained.
async fn draining(
    tx: &WriteTx,
    id: HostId,
) -> Result<Option<(HostRecord, EvacuationRecord)>, TxError> {
    let found = enrolment::lock(tx, id).await?;
    let found = found.filter(|host| host.desired == DesiredState::Draining);
    Ok(found.and_then(|host| {
        let evacuation = host.evacuation.clone()?;
        Some((host, evacuation))
    }))
}

/// Whether the VM was sent on its way in vain as often as it may be.
async fn tried_enough(
    tx: &WriteTx,
    from: &HostRecord,
    vm: &VmRecord,
    evacuation: &EvacuationRecord,
) -> Result<bool, TxError> {
    let history = operation::for_vm(tx, vm.id).await?;
    let in_vain = history.iter().filter(|found| {
        let came_to_nothing = matches!(
            found.state,
            OperationState::Failed | OperationState::Cancelled
        );
        came_to_nothing
            && found.created_at >= evacuation.begun_at
            && leaving(found, from.id).is_some()
    });
    Ok(is_exhausted(in_vain.count()))
}
