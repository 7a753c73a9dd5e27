//! The agent: puts the parts together and keeps a session.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use vimana_driver::Fault;
use vimana_protocol::dial::{Backoff, DialError};

use crate::console::Consoles;
use crate::ledger::Ledger;
use crate::limits::STOP_TIMEOUT;
use crate::session::{Host, SessionError};
use crate::tasks::Tasks;
use crate::work::Workshop;
use crate::{Lease, Parts, Timing};

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot read the ledger: {0}")]
    Ledger(io::Error),
    #[error("cannot list the host's machines: {0}")]
    Inventory(Fault),
}

/// One host's agent. Machines outlive it.
///
/// All it does, it does while [`Agent::run`] is polled: dropping that future,
/// at any point, is to the host as if the agent's process were killed.
pub struct Agent(Parts);

impl Agent {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(parts)
    }

    /// With somebody beside it who stops the machines when a lease is over;
    /// without, the agent takes no lease.
    #[must_use]
    pub fn guarded_by(mut self, lease: impl Lease) -> Self {
        self.0.lease = Arc::new(lease);
        self
    }

    /// Serves until `shutdown`; machines keep running afterwards.
    ///
    /// # Errors
    /// Where what an earlier agent left, its ledger and its machines, cannot
    /// be read.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StartError> {
        let parts = self.0;
        let ledger = Ledger::open(parts.journal)
            .await
            .map_err(StartError::Ledger)?;
        let ledger = Arc::new(ledger);
        // Re-adoption comes before anything is reported.
        let held = parts.driver.inventory().await;
        let held = held.map_err(StartError::Inventory)?;
        ledger.compare(&held);
        tracing::info!(host_id = %parts.host_id, machines = held.len(), "the agent is ready");

        let (tasks, stop) = (Arc::new(Tasks::default()), CancellationToken::new());
        let kept = Arc::clone(&ledger);
        let keeper = AbortOnDropHandle::new(tokio::spawn(async move { kept.keep().await }));
        let timing = parts.config.timing;
        let images = Arc::clone(&parts.images);
        let _tidier = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                tokio::time::sleep(timing.images).await;
                images.forget_gone().await;
            }
        }));
        let work = Workshop::new(
            Arc::clone(&parts.driver),
            parts.images,
            parts.datastore,
            Arc::clone(&ledger),
            tasks.spawner(),
            stop.clone(),
        );
        let consoles = parts.consoles.map(|server| {
            let driver = Arc::clone(&parts.driver);
            Consoles::new(server, driver, tasks.spawner(), stop.clone())
        });
        let host = Host {
            id: parts.host_id,
            config: parts.config,
            driver: parts.driver,
            dial: parts.dial,
            ledger: Arc::clone(&ledger),
            lease: parts.lease,
            work,
            consoles,
        };
        keep_session(&host, timing, &shutdown).await;
        host.lease.disarm().await;
        tracing::info!("the agent stops; machines keep running");
        stop.cancel();
        let ended = async {
            tasks.join().await;
            ledger.flush().await;
        };
        if timeout(STOP_TIMEOUT, ended).await.is_err() {
            tracing::warn!("some work did not stop in time");
        }
        keeper.abort();
        // Cancelled, as it is meant to be.
        let _ = keeper.await;
        Ok(())
    }
}

async fn keep_session(host: &Host, timing: Timing, shutdown: &CancellationToken) {
    let random = &host.config.random;
    let mut backoff = Backoff::with(timing.retry, random.clone());
    let mut said = String::new();
    loop {
        let mut opened = None;
        let Err(error) = host.session(&mut opened, shutdown).await else {
            return;
        };
        // Every try fails the same while the server is away: said once.
        let says = error.to_string();
        if opened.is_some() || says != said {
            tracing::warn!(error = says, "no session with the server");
        }
        said = says;
        backoff.session_ended(opened.map_or(Duration::ZERO, |at| at.elapsed()));
        let wait = match error {
            // Somebody has to do something first.
            SessionError::Refused(_)
            | SessionError::Dial(DialError::Unauthorized(_) | DialError::NotJoined(_)) => {
                timing.refused + random.up_to(timing.refused)
            }
            SessionError::Dial(_)
            | SessionError::Link(_)
            | SessionError::Inventory(_)
            | SessionError::Ledger(_)
            | SessionError::NoWelcome
            | SessionError::Lagged(_)
            | SessionError::DriverEnded
            | SessionError::LeaseOver
            | SessionError::Unexpected => backoff.wait(),
        };
        if shutdown
            .run_until_cancelled(tokio::time::sleep(wait))
            .await
            .is_none()
        {
            return;
        }
    }
}
