//! From the task that fetches to the thread that takes in.

use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use vimana_fetch::{FetchError, Mark, Opened};

use crate::limits::{MAX_WAIT, PIECE_BYTES, PIECES_WAITING};
use crate::{ImportError, Job, Progress, Staging};

/// What the thread is told.
enum Said {
    Piece(Bytes),
    /// That was all of it.
    End,
    /// It is another file by now: everything before was for nothing.
    Again,
}

/// The fetching end.
pub struct Line {
    pieces: mpsc::Sender<Said>,
    durable: watch::Receiver<u64>,
}

/// The thread's end. Reading it blocks.
pub struct Incoming {
    pieces: mpsc::Receiver<Said>,
    piece: Bytes,
    ended: bool,
    durable: watch::Sender<u64>,
}

/// The line broke, or its file is another one by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    #[error("nobody fetches any more")]
    Deserted,
    #[error("the file is another one by now")]
    Again,
}

pub fn new() -> (Line, Incoming) {
    let (sender, receiver) = mpsc::channel(PIECES_WAITING);
    let (told, durable) = watch::channel(0);
    let line = Line {
        pieces: sender,
        durable,
    };
    let incoming = Incoming {
        pieces: receiver,
        piece: Bytes::new(),
        ended: false,
        durable: told,
    };
    (line, incoming)
}

impl Incoming {
    /// Where to tell how many bytes of the source are on disk.
    pub fn durable(&self) -> watch::Sender<u64> {
        self.durable.clone()
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                Some(Said::Piece(piece)) => self.piece = piece,
                Some(Said::End) => self.ended = true,
                Some(Said::Again) => return Err(io::Error::other(Stop::Again)),
                None => return Err(io::Error::other(Stop::Deserted)),
            }
        }
        let count = self.piece.len().min(buffer.len());
        if let Some(part) = buffer.get_mut(..count) {
            self.piece.copy_to_slice(part);
        }
        Ok(count)
    }
}

/// Fetches until all is there, through as many connections as it takes;
/// `version` is what the source's was in the last of them.
pub async fn feed(
    job: &Job,
    staging: &Staging,
    mut mark: Mark,
    mut line: Line,
    version: &Mutex<Option<String>>,
    tell: impl Fn(Progress),
) -> Result<(), ImportError> {
    let mut progress = Progress {
        received_bytes: mark.offset,
        durable_bytes: mark.offset,
        ..Progress::default()
    };
    let mut fruitless = 0;
    let mut wait = job.patience.first_wait;
    loop {
        let before = mark.offset;
        let ended = one(
            job,
            staging,
            &mut mark,
            &mut line,
            &mut progress,
            version,
            &tell,
        )
        .await;
        let error = match ended {
            Ok(true) => {
                // Nobody there to hear it has said why.
                let _heard = line.pieces.send(Said::End).await;
                return Ok(());
            }
            // The thread ended, and tells why.
            Ok(false) => return Ok(()),
            Err(Ended::Changed) => {
                let _heard = line.pieces.send(Said::Again).await;
                return Ok(());
            }
            Err(Ended::Import(error)) => return Err(error),
            Err(Ended::Passing(error)) => error,
        };
        if mark.offset > before {
            (fruitless, wait) = (0, job.patience.first_wait);
        }
        fruitless += 1;
        progress.interruptions = progress.interruptions.saturating_add(1);
        tell(progress);
        if fruitless >= job.patience.tries {
            return Err(ImportError::Fruitless {
                times: fruitless,
                last: error,
            });
        }
        sleep(wait).await;
        wait = wait.saturating_mul(2).min(MAX_WAIT);
    }
}

/// How a connection ended.
enum Ended {
    /// It may go better next time.
    Passing(String),
    /// The file is another one.
    Changed,
    Import(ImportError),
}

impl From<FetchError> for Ended {
    fn from(error: FetchError) -> Self {
        if error.is_passing() {
            Self::Passing(error.to_string())
        } else {
            Self::Import(error.into())
        }
    }
}

/// One connection. False when nobody takes in any more.
async fn one(
    job: &Job,
    staging: &Staging,
    mark: &mut Mark,
    line: &mut Line,
    progress: &mut Progress,
    seen: &Mutex<Option<String>>,
    tell: &impl Fn(Progress),
) -> Result<bool, Ended> {
    let asked = (mark.offset > 0).then_some(&*mark);
    let opened = job.input.open(asked).await?;
    if opened.offset != mark.offset {
        return Err(Ended::Changed);
    }
    let Opened {
        total,
        version,
        mut body,
        ..
    } = opened;
    seen.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone_from(&version);
    mark.version = version;
    let whole = total.map(|total| total.max(mark.offset));
    if whole.is_some_and(|whole| whole > job.bounds.max_bytes) {
        let allowed = job.bounds.max_bytes;
        return Err(Ended::Import(ImportError::TooLarge(allowed)));
    }
    progress.total_bytes = total;
    tell(*progress);
    let mut pace = Pace::new(job);
    let mut room = BytesMut::new();
    loop {
        room.reserve(PIECE_BYTES);
        let count = tokio::select! {
            biased;
            changed = line.durable.changed() => {
                if changed.is_err() {
                    return Ok(false);
                }
                progress.durable_bytes = *line.durable.borrow_and_update();
                let reached = Mark {
                    offset: progress.durable_bytes,
                    version: mark.version.clone(),
                };
                let reached = staging.reached(&job.input, &reached).await;
                reached.map_err(|error| Ended::Import(error.into()))?;
                tell(*progress);
                continue;
            }
            count = body.read_buf(&mut room) => count,
        };
        let count = count.map_err(|error| Ended::Passing(error.to_string()))?;
        if count == 0 {
            break;
        }
        // What is here already goes along: many small pieces take longer than few
        // large ones.
        let mut broken = None;
        while room.len() < PIECE_BYTES {
            tokio::select! {
                biased;
                more = body.read_buf(&mut room) => match more {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => {
                        broken = Some(error);
                        break;
                    }
                },
                () = std::future::ready(()) => break,
            }
        }
        let piece = room.split().freeze();
        let count = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        if line.pieces.send(Said::Piece(piece)).await.is_err() {
            return Ok(false);
        }
        mark.offset = mark.offset.saturating_add(count);
        progress.received_bytes = mark.offset;
        tell(*progress);
        if mark.offset > job.bounds.max_bytes {
            let allowed = job.bounds.max_bytes;
            return Err(Ended::Import(ImportError::TooLarge(allowed)));
        }
        if let Some(error) = broken {
            return Err(Ended::Passing(error.to_string()));
        }
        pace.passed(count).await;
    }
    match total {
        Some(total) if mark.offset < total => Err(Ended::Passing("it ended too early".to_owned())),
        Some(_) | None => Ok(true),
    }
}

/// Holds back what comes too fast.
struct Pace {
    bytes_per_second: Option<u64>,
    due: Instant,
}

impl Pace {
    fn new(job: &Job) -> Self {
        Self {
            bytes_per_second: job.bounds.bytes_per_second.map(std::num::NonZeroU64::get),
            due: Instant::now(),
        }
    }

    /// Returns when so many more bytes were due.
    async fn passed(&mut self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else {
            return;
        };
        // Bytes that were due while nothing came are not made up for.
        let nanos = u128::from(bytes).saturating_mul(1_000_000_000) / u128::from(rate);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let from = self.due.max(Instant::now());
        self.due = from.checked_add(takes).unwrap_or(from);
        sleep_until(self.due).await;
    }
}
