//! Loops without input that move the world toward what is recorded. They only
//! go forward and never kill the unknown.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vimana_datastore::Item;
use vimana_driver::{Fault, FaultKind};
use vimana_model::event::{Actor, EventKind};
use vimana_model::host::HostState;
use vimana_model::state::VmState;
use vimana_model::{Error, HostId, Result, VmId};
use vimana_protocol::agent::CommandRef;
use vimana_store::host::HostRecord;
use vimana_store::{
    enrolment, event, host, idempotency, join_token, migration, operation, session, token, vm,
    write_tx,
};

use crate::Engine;
use crate::change::Change;
use crate::clock::ms;
use crate::dispatch::command_ref;
use crate::host::host_event;
use crate::limits::{IDEMPOTENCY_LIFE, MAX_DUE, MAX_JOIN_TTL_SECONDS, RETRY_CAP_MS, SESSION_LIFE};
use crate::saga::current;

const EVERY: Duration = Duration::from_secs(1);
const SCHEDULES_EVERY: Duration = Duration::from_secs(5);
const SWEEP_EVERY: Duration = Duration::from_secs(600);
const SWEEP_DATASTORE_EVERY: Duration = Duration::from_secs(60);
const REFRESH_EVERY: Duration = Duration::from_secs(60);

impl Engine {
    /// Runs everything that is not a request, until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        let _ended = self.inner.ended.clone().drop_guard();
        let engine = self.clone();
        self.spawn(async move {
            let resume = || engine.resume_own_work();
            if let Err(error) = engine.persist("the server's own work", resume).await {
                tracing::error!(error = ?error, "the server's own work cannot be taken up again");
            }
        });
        tokio::join!(
            self.run_hub(cancel.clone()),
            self.run_drains(cancel.clone()),
            repeat(&cancel, EVERY, "silent hosts", || self.mark_silent_hosts()),
            repeat(&cancel, EVERY, "steps to be tried again", || self
                .retry_due()),
            repeat(&cancel, EVERY, "hosts that do not answer", || self
                .give_up_overdue()),
            repeat(&cancel, EVERY, "uploads that nobody sends", || self
                .give_up_silent_uploads()),
            repeat(&cancel, SCHEDULES_EVERY, "schedules", || self
                .run_schedules()),
            repeat(&cancel, SWEEP_EVERY, "what has expired", || self.sweep()),
            repeat(&cancel, SWEEP_DATASTORE_EVERY, "the datastore", || self
                .sweep_datastore()),
            repeat(&cancel, SWEEP_DATASTORE_EVERY, "the backups", || self
                .sweep_backups()),
            repeat(&cancel, SWEEP_DATASTORE_EVERY, "the images", || self
                .sweep_images()),
            repeat(&cancel, REFRESH_EVERY, "images to be refreshed", || self
                .refresh_due()),
            repeat(
                &cancel,
                SWEEP_DATASTORE_EVERY,
                "what migrations left",
                || self.remind_of_leftovers()
            ),
            repeat(
                &cancel,
                SWEEP_DATASTORE_EVERY,
                "errands with volumes",
                || self.remind_of_volumes(None)
            ),
        );
    }

    /// A host that has been away for longer than the grace time is Unknown,
    /// and so is what runs on it. Counted on the monotonic clock: a step of
    /// the wall clock makes nobody silent.
    async fn mark_silent_hosts(&self) -> Result<()> {
        let absences = &self.inner.absences;
        let away = host::away(&self.store().read()).await?;
        absences.keep(&away.iter().map(|host| host.id).collect());
        for record in away {
            if absences.seen_away(record.id) < self.inner.settings.silence_grace {
                continue;
            }
            let id = record.id;
            if let Err(error) = self.mark_silent(record).await {
                tracing::error!(host = %id, error = ?error, "a silent host cannot be marked");
            }
        }
        Ok(())
    }

    /// The VMs first: where the server ends in between, the host is looked at
    /// again, and so are they.
    async fn mark_silent(&self, record: HostRecord) -> Result<()> {
        let id = record.id;
        for vm in vm::on_host(&self.store().read(), id).await? {
            if vm.state.can_become(VmState::Unknown) {
                self.mark_vm_unknown(id, vm.id).await?;
            }
        }
        for found in migration::on_host(&self.store().read(), id).await? {
            self.peer_is_silent(found.vm_id, id).await?;
        }
        let now = self.world().now();
        let gone = write_tx!(self.store(), |tx| {
            let Some(mut current) = enrolment::lock(tx, id).await? else {
                return Ok(false);
            };
            if current.connected || current.state == HostState::Unknown {
                return Ok(false);
            }
            current.state = HostState::Unknown;
            host::update_facts(tx, &current).await?;
            let fact = host_event(now, &Actor::System, id, EventKind::HostSilent);
            event::append(tx, &[fact]).await?;
            Ok(true)
        })?;
        if gone {
            tracing::warn!(host = %record.name, "host is silent");
        }
        self.inner.hub.wake();
        Ok(())
    }

    async fn mark_vm_unknown(&self, host_id: HostId, id: VmId) -> Result<()> {
        write_tx!(self.store(), |tx| {
            let lock = Change::lock(tx, self.world(), Actor::System, id).await?;
            let Some(mut change) = lock else {
                return Ok(());
            };
            let away = enrolment::lock(tx, host_id)
                .await?
                .is_some_and(|host| !host.connected);
            let here = change.is_on(host_id);
            if away && here && change.vm.state.can_become(VmState::Unknown) {
                change.turn(VmState::Unknown)?;
                change.save().await?;
            }
            Ok(())
        })
    }

    /// Operations whose next try has come.
    async fn retry_due(&self) -> Result<()> {
        loop {
            let now = self.world().now();
            // No try is ever that far away: the clock was set back meanwhile.
            let beyond = now.plus_ms(RETRY_CAP_MS);
            let due = operation::due(&self.store().read(), now, beyond, MAX_DUE).await?;
            let more = u32::try_from(due.len()).is_ok_and(|n| n >= MAX_DUE);
            let mut failed = false;
            for id in due {
                if let Err(error) = self.move_on(id, None).await {
                    tracing::error!(vm = %id, error = ?error, "a step cannot be tried again");
                    failed = true;
                }
            }
            // What failed is due again, in the next turn.
            if failed || !more {
                return Ok(());
            }
        }
    }

    /// Commands whose host took too long.
    async fn give_up_overdue(&self) -> Result<()> {
        let deadlines = &self.inner.deadlines;
        for (vm, command) in deadlines.take_overdue() {
            if let Err(error) = self.move_on(vm, Some(command)).await {
                tracing::error!(%vm, error = ?error, "an overdue step cannot be ended");
                deadlines.set(vm, command, Duration::ZERO);
            }
        }
        Ok(())
    }

    async fn move_on(&self, id: VmId, overdue: Option<CommandRef>) -> Result<()> {
        let world = self.world();
        let changed = write_tx!(self.store(), |tx| {
            let lock = Change::lock(tx, world, Actor::System, id).await?;
            let Some(mut change) = lock else {
                return Ok(None);
            };
            let under_way = change.operation.as_ref().and_then(|operation| {
                current(operation).map(|current| (current, command_ref(operation, current)))
            });
            let Some((current, command)) = under_way else {
                return Ok(None);
            };
            if current.waits && overdue.is_none() {
                change.try_again();
            } else if overdue == Some(command) {
                let host = change.host_of(current.kind).await?;
                if host.is_none_or(|host| !self.inner.agents.is_connected(host)) {
                    // Asked again, with all patience, when it is back.
                    return Ok(None);
                }
                let fault = Fault::new(FaultKind::Host, "the host did not answer in time");
                change.step_failed(&fault).await?;
                self.settle_seen(&mut change).await?;
            }
            change.save_if_changed().await.map(Some)
        })?;
        if let Some(changed) = changed {
            self.moved(changed).await;
        }
        Ok(())
    }

    /// A VM that goes to that host, or has left it, waits no longer for it.
    async fn peer_is_silent(&self, vm_id: VmId, host: HostId) -> Result<()> {
        let world = self.world();
        let changed = write_tx!(self.store(), |tx| {
            let Some(mut change) = Change::lock(tx, world, Actor::System, vm_id).await? else {
                return Ok(None);
            };
            let found = migration::find(tx, vm_id).await?;
            let peer = found.map(|found| found.peer).filter(|peer| peer.id == host);
            let Some(peer) = peer else {
                return Ok(None);
            };
            let away = host::find(tx, host)
                .await?
                .is_some_and(|host| !host.connected);
            if !away || !change.peer_is_silent(&peer).await? {
                return Ok(None);
            }
            self.settle_seen(&mut change).await?;
            change.save().await.map(Some)
        })?;
        if let Some(changed) = changed {
            self.moved(changed).await;
        }
        Ok(())
    }

    async fn sweep(&self) -> Result<()> {
        let world = self.world();
        let now = world.now();
        let session_life = now.plus_ms(ms(SESSION_LIFE));
        let join_token_life = Duration::from_secs(MAX_JOIN_TTL_SECONDS);
        let token_life = self.inner.settings.token_life;
        let answered = world.now_to_end(IDEMPOTENCY_LIFE);
        let answered = answered.plus_ms(ms(IDEMPOTENCY_LIFE).saturating_neg());
        let running = operation::running(&self.store().read()).await?;
        self.inner
            .progress
            .keep(&running.iter().map(|found| found.id).collect());
        write_tx!(self.store(), |tx| {
            // Where the clock was set back, nothing lives longer for that.
            session::bring_back(tx, session_life).await?;
            token::bring_back(tx, now).await?;
            join_token::bring_back(tx, now).await?;
            idempotency::bring_back(tx, now).await?;
            session::delete_expired(tx, world.now_to_end(SESSION_LIFE)).await?;
            token::delete_expired(tx, world.now_to_end(token_life)).await?;
            join_token::delete_expired(tx, world.now_to_end(join_token_life)).await?;
            idempotency::delete_before(tx, answered).await?;
            Ok(())
        })
    }

    /// Removes copies in the datastore that no record points to and no upload
    /// is making, and what is left of uploads that nobody goes on with.
    async fn sweep_datastore(&self) -> Result<()> {
        let datastore = self.inner.datastores.main();
        for item in datastore.holds().await.map_err(Error::internal)? {
            let Item::Saved(id) = item else {
                continue;
            };
            let record = vm::find(&self.store().read(), id).await?;
            if self.may_upload(record.as_ref()).await?
                || record.is_some_and(|vm| vm.saved.is_some())
            {
                continue;
            }
            tracing::info!(vm = %id, "a copy in the datastore that belongs to nothing is removed");
            datastore.discard(item).await.map_err(Error::internal)?;
        }
        for item in datastore.staged().await.map_err(Error::internal)? {
            let Item::Saved(id) = item else {
                continue;
            };
            let record = vm::find(&self.store().read(), id).await?;
            if self.may_upload(record.as_ref()).await? {
                continue;
            }
            tracing::info!(vm = %id, "what came of an upload that is over is removed");
            let removed = datastore.discard_staged(item).await;
            removed.map_err(Error::internal)?;
        }
        Ok(())
    }

    /// Whether something is under way for the VM that its copy may be part of.
    async fn may_upload(&self, vm: Option<&vm::VmRecord>) -> Result<bool> {
        let Some(id) = vm.and_then(|vm| vm.operation_id) else {
            return Ok(false);
        };
        let found = operation::find(&self.store().read(), id).await?;
        Ok(found.is_some_and(|found| !found.state.is_over()))
    }
}

async fn repeat<F: Future<Output = Result<()>>>(
    cancel: &CancellationToken,
    every: Duration,
    what: &str,
    mut work: impl FnMut() -> F,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = work().await {
            tracing::error!(error = ?error, "reconciling {what} failed");
        }
    }
}
