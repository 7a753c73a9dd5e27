//! A journal in memory: the disk of a simulated host.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::Journal;

/// Clones are the same disk, so that it outlives an agent. A killed agent
/// loses nothing it had written; a host that loses power loses what was not
/// yet synced.
#[derive(Clone, Debug, Default)]
pub struct MemoryJournal(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    synced: Vec<String>,
    /// Written, but still in the cache.
    written: Vec<String>,
    sync_takes: Duration,
    fault: Option<io::ErrorKind>,
    syncs: u64,
}

impl MemoryJournal {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on it takes this long until something is durable.
    pub fn sync_takes(&self, long: Duration) {
        self.disk().sync_takes = long;
    }

    /// From now on every write fails so, or none.
    pub fn fail(&self, fault: Option<io::ErrorKind>) {
        self.disk().fault = fault;
    }

    /// The host loses power: of what was not yet synced, only the first
    /// `kept` records made it.
    pub fn lose_power(&self, kept: usize) {
        let mut disk = self.disk();
        let mut written = std::mem::take(&mut disk.written);
        written.truncate(kept);
        disk.synced.append(&mut written);
    }

    /// How often something was made durable.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// What a new agent would read.
    #[must_use]
    pub fn records(&self) -> Vec<String> {
        let disk = self.disk();
        disk.synced.iter().chain(&disk.written).cloned().collect()
    }

    async fn sync(&self) {
        let takes = self.disk().sync_takes;
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        // Nothing panics while the disk is half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    fn check(&self) -> io::Result<()> {
        self.fault.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn read(&self) -> io::Result<Vec<String>> {
        Ok(self.records())
    }

    async fn append(&self, records: &[String]) -> io::Result<()> {
        {
            let mut disk = self.disk();
            disk.check()?;
            disk.written.extend_from_slice(records);
        }
        self.sync().await;
        let mut disk = self.disk();
        let mut written = std::mem::take(&mut disk.written);
        disk.synced.append(&mut written);
        disk.syncs += 1;
        Ok(())
    }

    async fn replace(&self, records: &[String]) -> io::Result<()> {
        self.disk().check()?;
        self.sync().await;
        let mut disk = self.disk();
        disk.synced = records.to_vec();
        disk.written.clear();
        disk.syncs += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_synced_survives_a_kill_and_not_a_loss_of_power() {
        let journal = MemoryJournal::new();
        journal.append(&texts(&["a"])).await.unwrap();
        journal.sync_takes(Duration::from_secs(1));
        let dropped = texts(&["b", "c"]);
        assert!(journal.append(&dropped).now_or_never().is_none());
        assert_eq!(journal.read().await.unwrap(), ["a", "b", "c"]);
        journal.lose_power(1);
        assert_eq!(journal.read().await.unwrap(), ["a", "b"]);
        journal.replace(&texts(&["d"])).await.unwrap();
        assert_eq!(journal.read().await.unwrap(), ["d"]);
    }

    #[tokio::test]
    async fn a_failing_disk_takes_nothing() {
        let journal = MemoryJournal::new();
        journal.fail(Some(io::ErrorKind::StorageFull));
        let error = journal.append(&texts(&["a"])).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(journal.replace(&texts(&["a"])).await.is_err());
        journal.fail(None);
        assert!(journal.read().await.unwrap().is_empty());
    }
}
