//! Loops without input that move the world toward what is recorded. They only
//! go forward and never kill the unknown.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vimana_model::Result;
use vimana_model::event::{Actor, EventKind};
use vimana_model::host::HostState;
use vimana_model::state::VmState;
use vimana_store::host::HostRecord;
use vimana_store::{event, host, session, token, vm, write_tx};

use crate::Engine;
use crate::host::host_event;
use crate::progress::Change;

const EVERY: Duration = Duration::from_secs(1);
const SWEEP_EVERY: Duration = Duration::from_secs(600);

impl Engine {
    /// Runs everything that is not a request, until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        tokio::join!(
            self.run_hub(cancel.clone()),
            repeat(&cancel, EVERY, "silent hosts", || self.mark_silent_hosts()),
            repeat(&cancel, SWEEP_EVERY, "expired credentials", || self
                .sweep_credentials()),
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

    async fn sweep_credentials(&self) -> Result<()> {
        let now = self.world().now();
        write_tx!(self.store(), |tx| {
            session::delete_expired(tx, now).await?;
            token::delete_expired(tx, now).await?;
            Ok(())
        })
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
            _ = ticks.tick() => {}
            () = cancel.cancelled() => return,
        }
        if let Err(error) = work().await {
            tracing::error!(error = ?error, "reconciling {what} failed");
        }
    }
}
