//! Loops without input that move the world toward what is recorded. They only
//! go forward and never kill the unknown.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vimana_driver::{Fault, FaultKind};
use vimana_model::event::{Actor, EventKind};
use vimana_model::host::HostState;
use vimana_model::operation::StepKind;
use vimana_model::state::VmState;
use vimana_model::{Error, Result, VmId};
use vimana_store::host::HostRecord;
use vimana_store::{event, host, idempotency, join_token, operation, session, token, vm, write_tx};

use crate::Engine;
use crate::change::Change;
use crate::host::host_event;
use crate::limits::{IDEMPOTENCY_LIFE_MS, MAX_DUE};

const EVERY: Duration = Duration::from_secs(1);
const SWEEP_EVERY: Duration = Duration::from_secs(600);

impl Engine {
    /// Runs everything that is not a request, until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        tokio::join!(
            self.run_hub(cancel.clone()),
            repeat(&cancel, EVERY, "silent hosts", || self.mark_silent_hosts()),
            repeat(&cancel, EVERY, "operations that are due", || self
                .move_due()),
            repeat(&cancel, SWEEP_EVERY, "what has expired", || self.sweep()),
            repeat(&cancel, SWEEP_EVERY, "the datastore", || self
                .sweep_datastore()),
        );
    }

    /// A host that has been away for longer than the grace time is Unknown,
    /// and so is what runs on it.
    async fn mark_silent_hosts(&self) -> Result<()> {
        let now = self.world().now();
        let grace = i64::try_from(self.inner.settings.silence_grace.as_millis());
        let grace = grace.unwrap_or(i64::MAX);
        for record in host::list(&self.store().read()).await? {
            let silent = !record.connected
                && record.state != HostState::Unknown
                && record
                    .silent_since
                    .is_some_and(|since| now.since_ms(since) >= grace);
            if silent {
                self.mark_silent(record).await?;
            }
        }
        Ok(())
    }

    async fn mark_silent(&self, record: HostRecord) -> Result<()> {
        let now = self.world().now();
        let id = record.id;
        let gone = write_tx!(self.store(), |tx| {
            let Some(mut current) = host::find(tx, id).await? else {
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
        if !gone {
            return Ok(());
        }
        tracing::warn!(host = %record.name, "host is silent");
        for vm in vm::on_host(&self.store().read(), id).await? {
            if !vm.state.can_become(VmState::Unknown) {
                continue;
            }
            write_tx!(self.store(), |tx| {
                let lock = Change::lock(tx, self.world(), Actor::System, vm.id).await?;
                let Some(mut change) = lock else {
                    return Ok(());
                };
                let still_away = host::find(tx, id)
                    .await?
                    .is_some_and(|host| !host.connected);
                if still_away && change.vm.state.can_become(VmState::Unknown) {
                    change.turn(VmState::Unknown)?;
                    change.save().await?;
                }
                Ok(())
            })?;
        }
        self.inner.hub.wake();
        Ok(())
    }

    /// Operations whose next try has come, or whose host took too long.
    async fn move_due(&self) -> Result<()> {
        loop {
            let now = self.world().now();
            let due = operation::due(&self.store().read(), now, MAX_DUE).await?;
            let more = u32::try_from(due.len()).is_ok_and(|n| n >= MAX_DUE);
            for id in due {
                self.move_on(id).await?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    async fn move_on(&self, id: VmId) -> Result<()> {
        let world = self.world();
        let changed = write_tx!(self.store(), |tx| {
            let lock = Change::lock(tx, world, Actor::System, id).await?;
            let Some(mut change) = lock else {
                return Ok(None);
            };
            let due = change.operation.as_ref().and_then(|op| op.due_at);
            let (Some(current), true) = (change.current(), due.is_some_and(|at| at <= world.now()))
            else {
                return Ok(None);
            };
            // Our own work, or one whose time has come, begins anew; so does
            // what the host cannot even have heard of.
            let ours = current.kind == StepKind::Discard;
            let away = change
                .vm
                .host
                .as_ref()
                .is_some_and(|host| !self.inner.agents.is_connected(host.id));
            if current.waits || ours {
                change.try_again();
            } else if away {
                change.wait_longer();
            } else {
                let fault = Fault::new(FaultKind::Host, "the host did not answer in time");
                change.step_failed(&fault).await?;
            }
            change.save_if_changed().await.map(Some)
        })?;
        if let Some((vm, operation)) = changed {
            self.inner.hub.wake();
            self.dispatch(&vm, operation.as_ref()).await;
        }
        Ok(())
    }

    async fn sweep(&self) -> Result<()> {
        let now = self.world().now();
        write_tx!(self.store(), |tx| {
            session::delete_expired(tx, now).await?;
            token::delete_expired(tx, now).await?;
            join_token::delete_expired(tx, now).await?;
            idempotency::delete_before(tx, now.plus_ms(-IDEMPOTENCY_LIFE_MS)).await?;
            Ok(())
        })
    }

    /// Removes copies in the datastore that no record points to and no upload
    /// is making.
    async fn sweep_datastore(&self) -> Result<()> {
        let held = self
            .inner
            .datastore
            .holds()
            .await
            .map_err(Error::internal)?;
        for id in held {
            let read = self.store().read();
            let record = vm::find(&read, id).await?;
            let stops = match record.as_ref().and_then(|vm| vm.operation_id) {
                Some(id) => operation::find(&read, id)
                    .await?
                    .is_some_and(|found| !found.state.is_over()),
                None => false,
            };
            if stops || record.is_some_and(|vm| vm.saved.is_some()) {
                continue;
            }
            tracing::info!(vm = %id, "a copy in the datastore that belongs to nothing is removed");
            let discarded = self.inner.datastore.discard(id).await;
            discarded.map_err(Error::internal)?;
        }
        Ok(())
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
