//! Uploads: bytes that somebody sends, part by part, and that are in the staging
//! directory before the import begins.

use std::fs::File;
use std::io::{self, Write as _};

use tokio::task::spawn_blocking;
use vimana_fetch::Mark;

use crate::limits::PIECE_BYTES;
use crate::sparse::SparseFile;
use crate::{Input, Staging};

/// A part on its way in. Dropped before it is kept, it never came.
pub struct Receiving {
    staging: Staging,
    input: Input,
    /// Away while it is written to.
    file: Option<SparseFile>,
    /// Not yet written.
    waiting: Vec<u8>,
    offset: u64,
    _lock: File,
}

impl Staging {
    /// Bytes of an upload of so many that are here for good.
    ///
    /// # Errors
    /// The file system's.
    pub async fn uploaded(&self, size_bytes: u64) -> io::Result<u64> {
        let found = self.found(&Input::Uploaded { size_bytes }).await?;
        Ok(found.map_or(0, |mark| mark.offset))
    }

    /// Begins to take in the next part of an upload of so many bytes.
    ///
    /// # Errors
    /// The file system's.
    pub async fn receive(&self, size_bytes: u64) -> io::Result<Receiving> {
        let lock = self.lock().await?;
        let input = Input::Uploaded { size_bytes };
        let Mark { offset, .. } = self.resume(&input).await?;
        let path = self.download();
        let opened = spawn_blocking(move || File::options().write(true).open(path));
        Ok(Receiving {
            staging: self.clone(),
            input,
            file: Some(SparseFile::new(opened.await??, offset)),
            waiting: Vec::new(),
            offset,
            _lock: lock,
        })
    }
}

impl Receiving {
    /// Where in the file the next byte belongs.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes in more. How much may come is for the caller to see to.
    ///
    /// # Errors
    /// The file system's; the part is lost then.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.waiting.extend_from_slice(bytes);
        let more = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.offset = self.offset.saturating_add(more);
        if self.waiting.len() < PIECE_BYTES {
            return Ok(());
        }
        self.write_waiting(|_| Ok(())).await
    }

    /// Has all of it on disk, and says how much of the file is there now.
    ///
    /// # Errors
    /// The file system's; the part is lost then.
    pub async fn keep(mut self) -> io::Result<u64> {
        self.write_waiting(|file| file.settled()?.sync_all())
            .await?;
        let mark = Mark {
            offset: self.offset,
            version: None,
        };
        self.staging.reached(&self.input, &mark).await?;
        Ok(self.offset)
    }

    /// Removes everything that came of the upload.
    ///
    /// # Errors
    /// It cannot be removed.
    pub async fn discard(self) -> io::Result<()> {
        self.staging.discard().await
    }

    async fn write_waiting(
        &mut self,
        then: impl FnOnce(&SparseFile) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let lost = || io::Error::other("an earlier write failed");
        let mut file = self.file.take().ok_or_else(lost)?;
        let waiting = std::mem::take(&mut self.waiting);
        let written = spawn_blocking(move || {
            file.write_all(&waiting)?;
            then(&file)?;
            Ok::<_, io::Error>(file)
        });
        self.file = Some(written.await??);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staging(dir: &tempfile::TempDir) -> Staging {
        Staging::new(dir.path().join("staging"))
    }

    #[tokio::test]
    async fn what_is_kept_is_there_and_what_is_not_never_came() {
        let dir = tempfile::tempdir().unwrap();
        let staging = staging(&dir);
        assert_eq!(staging.uploaded(10).await.unwrap(), 0);
        for (bytes, keep) in [
            ("abc", true),
            ("xxxxxx", false),
            ("defg", true),
            ("hij", true),
        ] {
            let mut receiving = staging.receive(10).await.unwrap();
            receiving.write(bytes.as_bytes()).await.unwrap();
            if keep {
                let offset = receiving.keep().await.unwrap();
                assert_eq!(staging.uploaded(10).await.unwrap(), offset);
            }
        }
        assert_eq!(std::fs::read(staging.download()).unwrap(), b"abcdefghij");
        assert_eq!(staging.uploaded(10).await.unwrap(), 10);
        // Of another size, it is another file.
        assert_eq!(staging.uploaded(11).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn zeros_take_no_room() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let staging = staging(&dir);
        let mut receiving = staging.receive(8 << 20).await.unwrap();
        for _ in 0..8 {
            receiving.write(&vec![0; 1 << 20]).await.unwrap();
        }
        assert_eq!(receiving.keep().await.unwrap(), 8 << 20);
        let file = std::fs::metadata(staging.download()).unwrap();
        assert_eq!(file.len(), 8 << 20);
        assert!(file.blocks() * 512 < 1 << 20);
    }

    #[tokio::test]
    async fn what_is_discarded_meanwhile_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let staging = staging(&dir);
        let mut receiving = staging.receive(3).await.unwrap();
        receiving.write(b"abc").await.unwrap();
        staging.discard().await.unwrap();
        assert!(receiving.keep().await.is_err());
        assert!(!staging.dir().exists());
    }
}
