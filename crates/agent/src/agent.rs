//! The agent: puts the parts together and keeps a session.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vimana_driver::{Fault, HostDriver};
use vimana_protocol::dial::Backoff;

use crate::console::Consoles;
use crate::images::{Images, http_client};
use crate::limits::STOP_TIMEOUT;
use crate::session::{Host, SessionError};
use crate::work::Workshop;
use crate::{Config, DataDir, Timing, Watchdog};

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot clear the image cache: {0}")]
    Images(io::Error),
    #[error("cannot prepare to fetch images: {0}")]
    Http(#[from] reqwest::Error),
    #[error("cannot list the host's machines: {0}")]
    Inventory(Fault),
}

/// One host's agent. Machines outlive it.
pub struct Agent {
    host: Host,
    timing: Timing,
    watchdog: Watchdog,
    /// Held until the agent is gone.
    _data_dir: DataDir,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Agent {
    /// # Errors
    /// Where the image cache cannot be used or TLS cannot be set up.
    pub fn new(
        config: Config,
        data_dir: DataDir,
        driver: Arc<dyn HostDriver>,
    ) -> Result<Self, StartError> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let server = config.server.clone();
        let http = http_client(&server)?;
        let retry = config.timing.retry;
        let images = Images::open(data_dir.images(), server.clone(), http, retry)
            .map_err(StartError::Images)?;
        let work = Workshop::new(Arc::clone(&driver), images, tasks.clone(), stop.clone());
        let consoles = Consoles::new(server, Arc::clone(&driver), tasks.clone(), stop.clone());
        Ok(Self {
            timing: config.timing,
            host: Host {
                id: data_dir.host_id(),
                config,
                driver,
                work,
                consoles,
            },
            watchdog: Watchdog::none(),
            _data_dir: data_dir,
            tasks,
            stop,
        })
    }

    /// With somebody beside it who stops the machines when a lease is over;
    /// without, the agent takes no lease.
    #[must_use]
    pub fn guarded_by(mut self, watchdog: Watchdog) -> Self {
        self.watchdog = watchdog;
        self
    }

    /// Serves until `shutdown`; machines keep running afterwards.
    ///
    /// # Errors
    /// Where the machines that survived an earlier agent cannot be listed.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StartError> {
        // Re-adoption comes before anything is reported.
        let held = self
            .host
            .driver
            .inventory()
            .await
            .map_err(StartError::Inventory)?;
        tracing::info!(host_id = %self.host.id, machines = held.len(), "the agent is ready");
        self.keep_session(&shutdown).await;
        self.watchdog.disarm().await;
        tracing::info!("the agent stops; machines keep running");
        self.stop.cancel();
        self.tasks.close();
        if timeout(STOP_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("some work did not stop in time");
        }
        Ok(())
    }

    async fn keep_session(&self, shutdown: &CancellationToken) {
        let mut backoff = Backoff::new(self.timing.retry);
        let mut said = String::new();
        loop {
            let mut opened = None;
            let Err(error) = self.host.session(&mut opened, shutdown).await else {
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
                SessionError::Refused(_) => self.timing.refused,
                SessionError::Dial(_)
                | SessionError::Link(_)
                | SessionError::Inventory(_)
                | SessionError::NoWelcome
                | SessionError::Lagged(_)
                | SessionError::DriverEnded
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
}
