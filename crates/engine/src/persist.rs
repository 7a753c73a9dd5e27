//! What has to be recorded and cannot be at the moment: the database is busy,
//! away, or its disk is full.

use std::time::Duration;

use vimana_model::{ErrorKind, Result};

use crate::Engine;
use crate::limits::{MAX_DEFECTS, PERSIST_CAP, PERSIST_FIRST};

impl Engine {
    /// Does `work` again, a little later each time, until the database takes
    /// it; what looks like a defect, of ours or of the disk below, is tried a
    /// few times only, so that it holds up nothing else for good. The work must
    /// be idempotent: the answer to a commit may have been lost.
    ///
    /// # Errors
    /// Those of `work` that no waiting mends.
    pub(crate) async fn persist<T, F>(&self, what: &str, mut work: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut wait = PERSIST_FIRST;
        let mut defects = 0;
        loop {
            let error = match work().await {
                Err(error) if error.kind == ErrorKind::Unavailable => error,
                Err(error) if error.kind == ErrorKind::Internal && defects < MAX_DEFECTS => {
                    defects += 1;
                    error
                }
                done => return done,
            };
            if wait == PERSIST_FIRST {
                tracing::warn!(error = ?error, "{what} cannot be recorded yet");
            }
            tokio::time::sleep(wait).await;
            wait = later(wait);
        }
    }

    /// Goes on beside everything else, until the engine ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.inner.ended.clone();
        // An engine that is dropped outside of a runtime has nobody to go on for.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { ended.run_until_cancelled(task).await });
        }
    }
}

fn later(wait: Duration) -> Duration {
    wait.saturating_mul(2).min(PERSIST_CAP)
}
