//! The thread that takes in what comes: one pass over the bytes for everything.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::PathBuf;
use std::rc::Rc;
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};
use vimana_fetch::Mark;
use vimana_format::{Content, START_BYTES, check, check_whole, identify};

use crate::checksum::{Checksum, Hashes, hex};
use crate::convert;
use crate::limits::{MAX_RATIO, PIECE_BYTES, RATIO_FROM, SYNC_BYTES};
use crate::line::{Incoming, Stop};
use crate::sparse::SparseFile;
use crate::unpack::{is_packed, unpacked};
use crate::{Bounds, ImportError, Job, Staged, Staging};

pub struct Intake {
    download: PathBuf,
    content: PathBuf,
    /// Bytes of the source that are on disk already.
    resumed: u64,
    checksum: Option<Checksum>,
    declared: Option<Content>,
    converts: bool,
    bounds: Bounds,
    /// Held as long as the thread runs.
    _lock: File,
}

/// A file that is whole and on disk.
struct Whole {
    path: PathBuf,
    bytes: u64,
    sha256: String,
}

impl Intake {
    pub fn new(job: &Job, staging: &Staging, resumed: &Mark, lock: File) -> Self {
        Self {
            download: staging.download(),
            content: staging.content(),
            resumed: resumed.offset,
            checksum: job.checksum,
            declared: job.declared,
            converts: job.converter.is_some(),
            bounds: job.bounds,
            _lock: lock,
        }
    }

    pub fn run(self, incoming: Incoming) -> Result<Staged, ImportError> {
        let mut taken = Taken::new(&self, incoming)?;
        let mut start = Vec::with_capacity(START_BYTES);
        let beginning = (&mut taken)
            .take(START_BYTES as u64)
            .read_to_end(&mut start);
        beginning.map_err(failure)?;
        let first = Content::of(&start);
        let unpacked = if is_packed(first) {
            let received = Rc::clone(&taken.received);
            Some(self.unpack(first, start.chain(&mut taken), &received)?)
        } else {
            None
        };
        let (fetched, hashes) = taken.finish()?;
        if let Some(expected) = self.checksum {
            let found = hashes.like(&expected);
            if found != expected {
                return Err(ImportError::Checksum {
                    kind: expected.kind(),
                    found: found.to_string(),
                });
            }
        }
        let fetched_bytes = fetched.bytes;
        let whole = unpacked.unwrap_or(fetched);
        let file = File::open(&whole.path)?;
        let content = self.judge(identify(&file)?)?;
        let header = check(content, &file)?;
        if header.virtual_bytes > self.bounds.max_virtual_bytes {
            return Err(ImportError::DiskTooLarge {
                is: header.virtual_bytes,
                allowed: self.bounds.max_virtual_bytes,
            });
        }
        check_whole(content, &file)?;
        Ok(Staged {
            path: whole.path,
            content,
            size_bytes: whole.bytes,
            virtual_bytes: header.virtual_bytes,
            sha256: whole.sha256,
            fetched_bytes,
            fetched_checksum: match self.checksum {
                Some(checksum) => checksum,
                None => hashes.sha256(),
            },
            // Whoever fetched it knows.
            version: None,
        })
    }

    /// What the file is from now on, as it looks like `found`.
    fn judge(&self, found: Content) -> Result<Content, ImportError> {
        match self.declared {
            Some(declared) if declared != found => Err(ImportError::mismatch(declared, found)),
            Some(_) | None if matches!(found, Content::Raw | Content::Qcow2) => Ok(found),
            Some(_) | None if self.converts && convert::format(found).is_some() => Ok(found),
            Some(_) | None => Err(ImportError::NotAccepted(found.name())),
        }
    }

    fn unpack(
        &self,
        kind: Content,
        packed: impl Read,
        received: &Cell<u64>,
    ) -> Result<Whole, ImportError> {
        let mut source = unpacked(kind, packed)?;
        let mut target = SparseFile::new(File::create(&self.content)?, 0);
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failure(error)),
            };
            let piece = buffer.get(..count).unwrap_or_default();
            hasher.update(piece);
            target.write_all(piece)?;
            let bytes = target.position();
            if bytes > self.bounds.max_bytes {
                return Err(ImportError::TooLarge(self.bounds.max_bytes));
            }
            if bytes > RATIO_FROM && bytes / received.get().max(1) > MAX_RATIO {
                return Err(ImportError::Bomb);
            }
        }
        target.settled()?.sync_all()?;
        Ok(Whole {
            path: self.content.clone(),
            bytes: target.position(),
            sha256: hex(&hasher.finalize()),
        })
    }
}

/// The source's bytes, which are kept and hashed as they are read.
struct Taken {
    path: PathBuf,
    /// What came before this process, still to be read again.
    before: io::Take<File>,
    incoming: Incoming,
    file: SparseFile,
    hashes: Hashes,
    received: Rc<Cell<u64>>,
    /// Up to where the disk has it, or is being told.
    told: u64,
    telling: Option<JoinHandle<io::Result<()>>>,
}

impl Taken {
    fn new(intake: &Intake, incoming: Incoming) -> io::Result<Self> {
        let before = File::open(&intake.download)?.take(intake.resumed);
        let file = File::options().write(true).open(&intake.download)?;
        Ok(Self {
            path: intake.download.clone(),
            before,
            incoming,
            file: SparseFile::new(file, intake.resumed),
            hashes: Hashes::of(intake.checksum.as_ref()),
            received: Rc::default(),
            told: intake.resumed,
            telling: None,
        })
    }

    /// Has the disk written to beside what goes on here, one part at a time.
    fn tell_disk(&mut self) -> io::Result<()> {
        let reached = self.file.position();
        if reached < self.told.saturating_add(SYNC_BYTES) {
            return Ok(());
        }
        if self
            .telling
            .as_ref()
            .is_some_and(|telling| !telling.is_finished())
        {
            return Ok(());
        }
        self.told_disk()?;
        let file = self.file.settled()?;
        let durable = self.incoming.durable();
        self.telling = Some(std::thread::spawn(move || {
            file.sync_data()?;
            durable.send_replace(reached);
            Ok(())
        }));
        self.told = reached;
        Ok(())
    }

    /// The part that the disk was told last is there.
    fn told_disk(&mut self) -> io::Result<()> {
        match self.telling.take().map(JoinHandle::join) {
            Some(Ok(told)) => told,
            Some(Err(_)) => Err(io::Error::other("telling the disk panicked")),
            None => Ok(()),
        }
    }

    /// Reads what nobody has read yet, and has it all on disk.
    fn finish(mut self) -> Result<(Whole, Hashes), ImportError> {
        let mut rest = vec![0; PIECE_BYTES];
        loop {
            match self.read(&mut rest) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failure(error)),
            }
        }
        self.told_disk()?;
        self.file.settled()?.sync_all()?;
        let whole = Whole {
            bytes: self.file.position(),
            sha256: self.hashes.sha256().to_string(),
            path: self.path,
        };
        Ok((whole, self.hashes))
    }
}

impl Read for Taken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = self.before.read(buffer)?;
        let anew = count == 0 && !buffer.is_empty();
        if anew {
            count = self.incoming.read(buffer)?;
        }
        let piece = buffer.get(..count).unwrap_or_default();
        self.hashes.update(piece);
        if anew {
            self.file.write_all(piece)?;
            self.tell_disk()?;
        }
        let received = self.received.get();
        self.received.set(received.saturating_add(count as u64));
        Ok(count)
    }
}

/// Who is to blame for a read that failed: the line, the disk, or the bytes.
fn failure(error: io::Error) -> ImportError {
    let stop = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Stop>());
    match stop {
        Some(Stop::Again) => ImportError::Changed,
        Some(Stop::Deserted) => ImportError::Deserted,
        None if error.raw_os_error().is_some() => ImportError::Io(error),
        None => ImportError::Packed(error.to_string()),
    }
}
