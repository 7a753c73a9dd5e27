//! QEMU's jobs: long work that it does beside everything else.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::limits::JOB_POLL;
use crate::machine;
use crate::qmp::{Qmp, QmpError};

/// A job under a name of ours: there is one of that name at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job<'a> {
    pub id: &'a str,
    /// The command that begins it.
    pub command: &'static str,
    pub within: Duration,
}

impl Job<'_> {
    /// Has it done from its beginning to its end.
    pub async fn run(self, qmp: &Qmp, arguments: Value) -> Result<(), QmpError> {
        self.begin(qmp, arguments).await?;
        self.ended(qmp).await
    }

    /// Begins it, after the end of an earlier one whose agent died.
    pub async fn begin(self, qmp: &Qmp, mut arguments: Value) -> Result<(), QmpError> {
        if let Err(error) = self.ended(qmp).await {
            tracing::debug!(job = self.id, %error, "an earlier job failed");
        }
        if let Some(fields) = arguments.as_object_mut() {
            fields.insert("job-id".to_owned(), json!(self.id));
        }
        qmp.job_begin(self.command, arguments).await
    }

    /// Waits until it is in step with what it mirrors.
    pub async fn ready(self, qmp: &Qmp) -> Result<(), QmpError> {
        let mut events = qmp.events().ok_or(QmpError::Closed)?;
        let deadline = Instant::now() + self.within;
        loop {
            match qmp.job(self.id).await {
                Ok(Some(job)) if job.ready => return Ok(()),
                Ok(Some(job)) if job.over => {
                    self.ended(qmp).await?;
                    return Err(QmpError::Unexpected);
                }
                Ok(None) => return Err(QmpError::Unexpected),
                Ok(Some(_)) | Err(QmpError::Timeout { .. }) if Instant::now() < deadline => {}
                Ok(Some(_)) => {
                    let (command, within) = (self.command, self.within);
                    return Err(QmpError::Timeout { command, within });
                }
                Err(error) => return Err(error),
            }
            let heard = machine::heard(&mut events, "JOB_STATUS_CHANGE");
            let _ = timeout(JOB_POLL, heard).await;
        }
    }

    /// Waits until there is none: how the last one ended. It must not be
    /// dismissed by QEMU itself.
    pub async fn ended(self, qmp: &Qmp) -> Result<(), QmpError> {
        let Self {
            id,
            command,
            within,
        } = self;
        let mut events = qmp.events().ok_or(QmpError::Closed)?;
        let deadline = Instant::now() + within;
        loop {
            match qmp.job(id).await {
                Ok(None) => return Ok(()),
                Ok(Some(job)) if job.over => {
                    qmp.job_dismiss(id).await?;
                    return match job.error {
                        None => Ok(()),
                        Some(description) => Err(QmpError::Refused {
                            command,
                            description,
                        }),
                    };
                }
                // It says nothing while it moves memory.
                Ok(Some(_)) | Err(QmpError::Timeout { .. }) if Instant::now() < deadline => {}
                Ok(Some(_)) => return Err(QmpError::Timeout { command, within }),
                Err(error) => return Err(error),
            }
            let heard = machine::heard(&mut events, "JOB_STATUS_CHANGE");
            let _ = timeout(JOB_POLL, heard).await;
        }
    }

    /// Ends it before its time; fine if there is none.
    pub async fn cancel(self, qmp: &Qmp) -> Result<(), QmpError> {
        match qmp.job(self.id).await? {
            None => return Ok(()),
            Some(job) if job.over => {}
            Some(_) => {
                // One that ends meanwhile cannot be cancelled, and need not be.
                let _ = qmp.job_cancel(self.id).await;
            }
        }
        match self.ended(qmp).await {
            // That it did not come to its end is what was asked for.
            Ok(()) | Err(QmpError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
