//! A journal in a file: one record in a line, each with a checksum.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rustix::fs::{FallocateFlags, fallocate};
use sha2::{Digest as _, Sha256};

use super::Journal;
use crate::data_dir::{DataDir, sweep, sync_dir};
use crate::limits::JOURNAL_RESERVE_BYTES;

/// Bytes of the checksum, which is the beginning of a SHA-256.
const SUM_BYTES: usize = 8;

/// What a file that is not yet the journal is called.
const PARTIAL_PREFIX: &str = ".ledger-";

/// The journal in an agent's directory.
///
/// Some room behind the last record is reserved, so that a disk that is full
/// of machines does not keep the agent from removing some.
#[derive(Clone, Debug)]
pub struct FileJournal(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// Nobody else may use the directory while a write is under way.
    data_dir: Arc<DataDir>,
    path: PathBuf,
    file: File,
    /// Up to where the file is good.
    length: u64,
    /// Up to where it has room.
    reserved: u64,
}

impl FileJournal {
    /// Opens the journal in `data_dir`; an empty one where there is none.
    ///
    /// # Errors
    /// Where the file cannot be opened.
    pub fn open(data_dir: &Arc<DataDir>) -> io::Result<Self> {
        // What an agent left that died while it replaced its journal.
        sweep(data_dir.path(), PARTIAL_PREFIX)?;
        let path = data_dir.path().join("ledger");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)?;
        sync_dir(data_dir.path())?;
        let length = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Inner {
            data_dir: Arc::clone(data_dir),
            path,
            file,
            length,
            reserved: 0,
        }))))
    }

    /// Off the runtime's threads, for a disk may take its time.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inner) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || {
            // Every change leaves it whole, also when it panics.
            work(&mut inner.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await?
    }
}

#[async_trait]
impl Journal for FileJournal {
    async fn read(&self) -> io::Result<Vec<String>> {
        self.with(Inner::read).await
    }

    async fn append(&self, records: &[String]) -> io::Result<()> {
        let lines = lines(records);
        self.with(move |inner| inner.append(&lines)).await
    }

    async fn replace(&self, records: &[String]) -> io::Result<()> {
        let lines = lines(records);
        self.with(move |inner| inner.replace(&lines)).await
    }
}

impl Inner {
    fn read(&mut self) -> io::Result<Vec<String>> {
        let bytes = std::fs::read(&self.path)?;
        let mut records = Vec::new();
        let (mut good_bytes, mut lost) = (0, 0);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            match record(line) {
                Some(record) if lost == 0 => {
                    good_bytes += line.len();
                    records.push(record);
                }
                Some(record) => records.push(record),
                None => lost += 1,
            }
        }
        if lost > 0 {
            // The last one may have been under way when the agent died; that
            // had no effect yet. More than that should not happen.
            tracing::warn!(
                lost,
                kept = records.len(),
                "some of the ledger cannot be read"
            );
            if good_bytes == lines(&records).len() {
                self.file.set_len(u64::try_from(good_bytes).unwrap_or(0))?;
                self.file.sync_all()?;
            } else {
                self.replace(&lines(&records))?;
            }
        }
        self.length = self.file.metadata()?.len();
        Ok(records)
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let more = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        let end = self.length.saturating_add(more);
        self.reserve(end);
        self.file.write_all_at(lines, self.length)?;
        self.file.sync_data()?;
        self.length = end;
        Ok(())
    }

    fn replace(&mut self, lines: &[u8]) -> io::Result<()> {
        let data_dir = Arc::clone(&self.data_dir);
        let dir = data_dir.path();
        let mut file = tempfile::Builder::new()
            .prefix(PARTIAL_PREFIX)
            .tempfile_in(dir)?;
        file.write_all(lines)?;
        file.as_file().sync_all()?;
        let file = file.persist(&self.path).map_err(|error| error.error)?;
        self.file = file;
        self.length = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        self.reserved = 0;
        self.reserve(self.length);
        sync_dir(dir)
    }

    /// Keeps room ready behind `end`. Without it the next records may still
    /// find some.
    fn reserve(&mut self, end: u64) {
        if end.saturating_add(JOURNAL_RESERVE_BYTES / 2) <= self.reserved {
            return;
        }
        let reserved = end.saturating_add(JOURNAL_RESERVE_BYTES);
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, reserved) {
            Ok(()) => self.reserved = reserved,
            Err(error) => tracing::debug!(%error, "no room could be reserved for the ledger"),
        }
    }
}

fn lines(records: &[String]) -> Vec<u8> {
    let mut lines = Vec::new();
    for record in records {
        lines.extend_from_slice(sum(record.as_bytes()).as_bytes());
        lines.push(b' ');
        lines.extend_from_slice(record.as_bytes());
        lines.push(b'\n');
    }
    lines
}

/// The record in a line that is whole.
fn record(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (told, record) = line.split_once(' ')?;
    (told == sum(record.as_bytes())).then(|| record.to_owned())
}

fn sum(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(bytes);
    let mut sum = String::with_capacity(2 * SUM_BYTES);
    for byte in digest.iter().take(SUM_BYTES) {
        // Writing to a string cannot fail.
        let _ = write!(sum, "{byte:02x}");
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self {
                dir: tempfile::tempdir().unwrap(),
            }
        }

        fn open(&self) -> FileJournal {
            let data_dir = Arc::new(DataDir::open(self.dir.path()).unwrap());
            FileJournal::open(&data_dir).unwrap()
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("ledger")
        }
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn records_outlive_the_journal() {
        let place = Place::new();
        let journal = place.open();
        assert!(journal.read().await.unwrap().is_empty());
        journal.append(&texts(&["a", "b"])).await.unwrap();
        journal.append(&texts(&["c"])).await.unwrap();
        drop(journal);
        let journal = place.open();
        assert_eq!(journal.read().await.unwrap(), ["a", "b", "c"]);
        journal.replace(&texts(&["d"])).await.unwrap();
        journal.append(&texts(&["e"])).await.unwrap();
        drop(journal);
        assert_eq!(place.open().read().await.unwrap(), ["d", "e"]);
    }

    #[tokio::test]
    async fn a_last_record_torn_anywhere_is_forgotten_and_the_others_stay() {
        let place = Place::new();
        let journal = place.open();
        journal.append(&texts(&["first"])).await.unwrap();
        let good = std::fs::read(place.path()).unwrap();
        journal.append(&texts(&["second"])).await.unwrap();
        drop(journal);
        let whole = std::fs::read(place.path()).unwrap();
        for end in good.len()..whole.len() {
            std::fs::write(place.path(), &whole[..end]).unwrap();
            let journal = place.open();
            assert_eq!(journal.read().await.unwrap(), ["first"], "cut at {end}");
            journal.append(&texts(&["third"])).await.unwrap();
            drop(journal);
            assert_eq!(place.open().read().await.unwrap(), ["first", "third"]);
        }
    }

    #[tokio::test]
    async fn any_flipped_bit_loses_its_own_record_only() {
        let place = Place::new();
        let journal = place.open();
        journal.append(&texts(&["a", "b", "c"])).await.unwrap();
        drop(journal);
        let whole = std::fs::read(place.path()).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(place.path(), &bytes).unwrap();
            let kept = place.open().read().await.unwrap();
            // A broken line break takes its neighbour along.
            assert!(!kept.is_empty() && kept.len() < 3, "{at}: {kept:?}");
            assert!(kept.iter().all(|record| "abc".contains(record.as_str())));
            // What was found broken is repaired.
            let again = place.open();
            assert_eq!(again.read().await.unwrap(), kept);
            again.append(&texts(&["d"])).await.unwrap();
            assert_eq!(again.read().await.unwrap().last().unwrap(), "d");
        }
    }

    #[tokio::test]
    async fn the_room_reserved_is_no_part_of_the_file() {
        let place = Place::new();
        let journal = place.open();
        journal.append(&texts(&["a"])).await.unwrap();
        let length = std::fs::metadata(place.path()).unwrap().len();
        assert_eq!(length, 2 * SUM_BYTES as u64 + 3);
    }

    #[tokio::test]
    async fn what_a_dying_agent_left_is_swept() {
        let place = Place::new();
        std::fs::write(place.dir.path().join(".ledger-x"), "half").unwrap();
        std::fs::write(place.dir.path().join("mine"), "whole").unwrap();
        place.open();
        assert!(!place.dir.path().join(".ledger-x").exists());
        assert!(place.dir.path().join("mine").exists());
    }
}
