//! Ends all machines of a host whose agent does not run.

use std::time::Duration;

use futures::future::join_all;
use vimana_driver::{Fault, HostDriver, Observed, Power};

/// Why machines still run.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    #[error("cannot list the host's machines: {0}")]
    Inventory(Fault),
    #[error("{failed} of {running} machines still run: {first}")]
    StillRunning {
        failed: usize,
        running: usize,
        first: Fault,
    },
}

/// Shuts down every running machine, all at once; a guest that has not ended
/// after `grace` is switched off. Says how many there were. Disks stay.
///
/// # Errors
/// Where the machines cannot be listed, or some cannot be stopped.
pub async fn stop_machines(driver: &dyn HostDriver, grace: Duration) -> Result<usize, StopError> {
    let inventory = driver.inventory().await.map_err(StopError::Inventory)?;
    let running: Vec<Observed> = inventory
        .into_iter()
        .filter(|observed| observed.power == Power::Running)
        .collect();
    let ends = running
        .iter()
        .map(|observed| driver.shutdown(observed.vm_id, observed.run_epoch, grace));
    let ends = join_all(ends).await;
    let mut faults = ends.into_iter().filter_map(Result::err);
    match faults.next() {
        None => Ok(running.len()),
        Some(first) => Err(StopError::StillRunning {
            failed: faults.count().saturating_add(1),
            running: running.len(),
            first,
        }),
    }
}
