//! Machines that hosts hold and that are not recorded there: kept in
//! quarantine, never killed at once.

use std::collections::BTreeMap;

use vimana_authz::Permission;
use vimana_driver::{DiskPlan, Observed, Power};
use vimana_model::event::EventKind;
use vimana_model::host::OrphanView;
use vimana_model::{Error, HostId, Result, VmId};
use vimana_protocol::agent::ToAgent;
use vimana_store::event::NewEvent;
use vimana_store::orphan::OrphanRecord;
use vimana_store::{event, orphan, vm, write_tx};

use crate::Engine;
use crate::agent::Speaker;
use crate::authorize::{current, permit};
use crate::context::OpContext;
use crate::host::host_event;
use crate::idempotency::{recall, remember};
use crate::migration::is_about;

impl Engine {
    /// Records which machines a host holds without a record, and which of
    /// those it no longer holds.
    pub(crate) async fn quarantine(
        &self,
        speaker: &Speaker,
        held: BTreeMap<VmId, Observed>,
    ) -> Result<()> {
        let Speaker { host_id, actor, .. } = speaker;
        let host_id = *host_id;
        let known = orphan::on_host(&self.store().read(), host_id).await?;
        if held.is_empty() && known.is_empty() {
            return Ok(());
        }
        let now = self.world().now();
        let still = write_tx!(self.store(), |tx| {
            if !speaker.is_current(tx).await? {
                return Ok(Vec::new());
            }
            let known = orphan::on_host(tx, host_id).await?;
            let mut facts: Vec<NewEvent> = Vec::new();
            for gone in known
                .iter()
                .filter(|known| !held.contains_key(&known.vm_id))
            {
                orphan::delete(tx, host_id, gone.vm_id).await?;
                let machine = gone.vm_id;
                let event = EventKind::OrphanGone { machine };
                facts.push(host_event(now, actor, host_id, event));
            }
            for (id, observed) in &held {
                // Placed here since the host spoke: it is none.
                let placed = match vm::find(tx, *id).await? {
                    Some(vm) => is_about(tx, &vm, host_id).await?,
                    None => false,
                };
                if placed || known.iter().any(|known| known.vm_id == *id) {
                    continue;
                }
                tracing::warn!(host = %host_id, vm = %id, "the host holds a machine that is not recorded there");
                let record = OrphanRecord {
                    host_id,
                    vm_id: *id,
                    run_epoch: observed.run_epoch,
                    power: power_name(&observed.power).to_owned(),
                    discarding: false,
                    first_seen_at: now,
                };
                orphan::insert(tx, &record).await?;
                let event = EventKind::OrphanFound { machine: *id };
                facts.push(host_event(now, actor, host_id, event));
            }
            if !facts.is_empty() {
                event::append(tx, &facts).await?;
            }
            Ok(orphan::on_host(tx, host_id).await?)
        })?;
        for orphan in still.iter().filter(|orphan| orphan.discarding) {
            self.send_discard(orphan).await?;
        }
        Ok(())
    }

    /// The machines a host holds that are not recorded there.
    ///
    /// # Errors
    /// `Forbidden` for anyone but staff.
    pub async fn host_orphans(&self, cx: &OpContext, id: HostId) -> Result<Vec<OrphanView>> {
        permit(cx, Permission::ViewHosts, None)?;
        let found = orphan::on_host(&self.store().read(), id).await?;
        Ok(found.into_iter().map(view).collect())
    }

    /// Has a machine that is not recorded stopped and removed, with its disk.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`.
    pub async fn discard_orphan(
        &self,
        cx: &OpContext,
        host_id: HostId,
        vm_id: VmId,
    ) -> Result<OrphanView> {
        let (answer, record) = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            permit(cx, Permission::ManageHosts, None)?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok((answer, None));
            }
            if !orphan::set_discarding(tx, host_id, vm_id).await? {
                return Err(Error::not_found(format!("orphan `{vm_id}`")).into());
            }
            let found = orphan::on_host(tx, host_id).await?;
            let record = found
                .into_iter()
                .find(|orphan| orphan.vm_id == vm_id)
                .ok_or_else(|| Error::not_found(format!("orphan `{vm_id}`")))?;
            let answer = view(record.clone());
            remember(tx, cx, self.world().now(), &answer).await?;
            Ok((answer, Some(record)))
        })?;
        // Goes out again whenever the host connects.
        if let Some(record) = record {
            self.send_discard(&record).await?;
        }
        Ok(answer)
    }

    async fn send_discard(&self, orphan: &OrphanRecord) -> Result<()> {
        let recorded = vm::find(&self.store().read(), orphan.vm_id).await?;
        let lives = recorded.is_some_and(|vm| !vm.state.is_final());
        let frame = ToAgent::Discard {
            vm_id: orphan.vm_id,
            run_epoch: orphan.run_epoch,
            // What other hosts reach of it may be where it lives.
            elsewhere: lives.then(|| DiskPlan {
                shares_root: true,
                ..DiskPlan::default()
            }),
        };
        self.inner.agents.send_frame(orphan.host_id, frame);
        Ok(())
    }

    /// An agent removed what was not recorded.
    pub(crate) async fn orphan_discarded(&self, speaker: &Speaker, machine: VmId) -> Result<()> {
        self.peer_is_clean(speaker, machine).await?;
        let now = self.world().now();
        let Speaker { host_id, actor, .. } = speaker;
        let host_id = *host_id;
        write_tx!(self.store(), |tx| {
            if !speaker.is_current(tx).await? {
                return Ok(());
            }
            if orphan::delete(tx, host_id, machine).await? {
                let event = EventKind::OrphanDiscarded { machine };
                event::append(tx, &[host_event(now, actor, host_id, event)]).await?;
            }
            Ok(())
        })?;
        self.inner.hub.wake();
        Ok(())
    }
}

const fn power_name(power: &Power) -> &'static str {
    match power {
        Power::Prepared => "prepared",
        Power::Running => "running",
        Power::Saved => "saved",
        Power::Arriving => "arriving",
        Power::Left => "left",
        Power::Off => "off",
        Power::Crashed { .. } => "crashed",
        Power::Unknown => "unknown",
    }
}

fn view(record: OrphanRecord) -> OrphanView {
    let OrphanRecord {
        host_id,
        vm_id,
        run_epoch,
        power,
        discarding,
        first_seen_at,
    } = record;
    OrphanView {
        host_id,
        vm_id,
        run_epoch,
        power,
        first_seen_at,
        discarding,
    }
}
