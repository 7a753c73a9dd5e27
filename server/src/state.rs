//! What every handler can reach.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vimana_engine::Engine;
use vimana_model::{Error, Result};

use crate::limits;
use crate::secret::Secret;

/// The application. Clones share everything.
#[derive(Clone)]
pub struct App {
    pub engine: Engine,
    /// What schedulers prove themselves with.
    pub scheduler_secret: Secret,
    /// Whether browsers reach us by TLS.
    pub tls: bool,
    /// Cancelled when the server is asked to stop.
    pub stopping: CancellationToken,
    /// Work that the end of the server waits for.
    pub tasks: TaskTracker,
    streams: Arc<Semaphore>,
    consoles: Arc<Semaphore>,
    parts: Arc<Semaphore>,
}

impl App {
    pub fn new(engine: Engine, scheduler_secret: Secret, tls: bool) -> Self {
        Self {
            engine,
            scheduler_secret,
            tls,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            streams: Arc::new(Semaphore::new(limits::MAX_EVENT_STREAMS)),
            consoles: Arc::new(Semaphore::new(limits::MAX_CONSOLES)),
            parts: Arc::new(Semaphore::new(limits::MAX_PARTS)),
        }
    }

    /// Runs a change to its end, even when the one who asked hangs up.
    pub async fn detached<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        // An error here is a panic of the change.
        self.tasks.spawn(change).await.map_err(Error::internal)?
    }

    /// Room for one more event stream, until dropped.
    pub fn stream_permit(&self) -> Result<OwnedSemaphorePermit> {
        permit(&self.streams, "event streams", limits::MAX_EVENT_STREAMS)
    }

    /// Room for one more viewer of a console, until dropped.
    pub fn console_permit(&self) -> Result<OwnedSemaphorePermit> {
        permit(&self.consoles, "consoles", limits::MAX_CONSOLES)
    }

    /// Room for one more part of an image, until dropped.
    pub fn part_permit(&self) -> Result<OwnedSemaphorePermit> {
        permit(&self.parts, "uploads", limits::MAX_PARTS)
    }
}

fn permit(room: &Arc<Semaphore>, what: &str, limit: usize) -> Result<OwnedSemaphorePermit> {
    Arc::clone(room).try_acquire_owned().map_err(|_| {
        Error::unavailable(format!(
            "{limit} {what} are open, which is the limit; try again later"
        ))
    })
}
