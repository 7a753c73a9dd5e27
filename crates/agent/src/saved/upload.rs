//! Files on their way to the server. One whose sending broke off goes on where
//! the server's bytes are those that the file begins with.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt as _;
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Body, StatusCode};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;
use vimana_driver::{Fault, FaultKind};
use vimana_protocol::agent::{ReceivedPart, UPLOAD_OFFSET_HEADER};

use super::digest::{hash_of, is_digest};
use crate::Meter;
use crate::limits::{
    CHECKSUM_BYTES_PER_SECOND, DOWNLOAD_STALL, TRANSFER_CHUNK_BYTES, UPLOAD_STALL,
};
use crate::transfer::{Failure, Transfer, broken, refused, stalled};

/// What a file is sent for, in words.
#[derive(Clone, Copy)]
pub struct Upload {
    pub doing: &'static str,
    pub reading: &'static str,
    /// Whether the server keeps what came of it.
    pub goes_on: bool,
}

/// The server's answer to an upload: what it has on its disk.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Stored {
    pub size_bytes: u64,
    pub sha256: String,
}

/// What is sent, and what of it is there already.
struct Outgoing {
    file: File,
    size_bytes: u64,
    /// `None`: it is begun anew.
    offset: Option<u64>,
    flow: Arc<Outflow>,
}

/// Sends files, each to its URL.
pub async fn put_all(
    transfer: &Transfer,
    what: Upload,
    files: &[(String, &Path)],
    meter: &Meter,
) -> Result<Vec<Stored>, Fault> {
    for (_, path) in files {
        let data = tokio::fs::metadata(path).await;
        let data = data.map_err(|error| Fault::io(what.reading, &error))?;
        meter.expect(data.len());
    }
    let mut all = Vec::with_capacity(files.len());
    for (url, path) in files {
        all.push(put(transfer, what, url, path, meter).await?);
    }
    Ok(all)
}

/// Sends a file, in as many tries as that takes.
pub async fn put(
    transfer: &Transfer,
    what: Upload,
    url: &str,
    path: &Path,
    meter: &Meter,
) -> Result<Stored, Fault> {
    let mut tries = transfer.tries();
    loop {
        match try_put(transfer, what, url, path, meter).await {
            Ok(stored) => return Ok(stored),
            Err(failure) => tries.after(failure).await?,
        }
    }
}

async fn try_put(
    transfer: &Transfer,
    what: Upload,
    url: &str,
    path: &Path,
    meter: &Meter,
) -> Result<Stored, Failure> {
    let reading = |error: io::Error| Fault::io(what.reading, &error);
    let mut file = File::open(path).await.map_err(reading)?;
    let size_bytes = file.metadata().await.map_err(reading)?.len();
    let here = match what.goes_on {
        true => received(transfer, what.doing, url, size_bytes).await?,
        false => None,
    };
    let mut outgoing = (Sha256::new(), 0, None);
    if let Some(here) = here {
        let hash = hash_of(&mut file, here.size_bytes).await.map_err(reading)?;
        let is_ours = format!("{:x}", hash.clone().finalize()) == here.sha256;
        match (is_ours, here.whole) {
            (true, true) if here.size_bytes == size_bytes => {
                meter.moved(size_bytes);
                return Ok(Stored {
                    size_bytes,
                    sha256: here.sha256,
                });
            }
            (true, false) => outgoing = (hash, here.size_bytes, Some(here.size_bytes)),
            (true, true) | (false, _) => {
                file = File::open(path).await.map_err(reading)?;
            }
        }
    }
    let (hash, sent, offset) = outgoing;
    meter.moved(sent);
    let flow = Arc::new(Outflow {
        sent: Mutex::new((hash, sent)),
        moved: Notify::new(),
    });
    let outgoing = Outgoing {
        file,
        size_bytes,
        offset,
        flow: Arc::clone(&flow),
    };
    let result = send(transfer, what.doing, url, outgoing, meter).await;
    if result.is_err() {
        meter.moved_in_vain(flow.sent().1);
    }
    let stored = result?;
    let (hash, sent) = flow.sent();
    let ours = Stored {
        size_bytes: sent,
        sha256: format!("{:x}", hash.finalize()),
    };
    if sent != size_bytes || stored != ours {
        meter.moved_in_vain(sent);
        let message = format!("{}: other bytes arrived than went", what.doing);
        return Err(Failure::Passing(Fault::new(FaultKind::BadImage, message)));
    }
    Ok(stored)
}

/// What the server has of a file of so many bytes; `None` where that is
/// nothing, or it does not say: then the file is begun anew.
async fn received(
    transfer: &Transfer,
    doing: &'static str,
    url: &str,
    size_bytes: u64,
) -> Result<Option<ReceivedPart>, Failure> {
    // It reads what it has before it answers.
    let reading = Duration::from_secs(size_bytes / CHECKSUM_BYTES_PER_SECOND);
    let asked = async {
        let response = transfer.ask(&format!("{url}/received")).send().await;
        let response = response.map_err(|error| broken(doing, error))?;
        let status = response.status();
        if status.is_server_error() {
            return Err(refused(doing, response).await);
        }
        if status != StatusCode::OK {
            return Ok(None);
        }
        let here: Option<ReceivedPart> = response.json().await.ok();
        Ok(here.filter(|here| is_digest(&here.sha256)))
    };
    let here = timeout(DOWNLOAD_STALL.saturating_add(reading), asked).await;
    let here = here.unwrap_or(Ok(None))?;
    Ok(here.filter(|here| (1..=size_bytes).contains(&here.size_bytes)))
}

async fn send(
    transfer: &Transfer,
    doing: &'static str,
    url: &str,
    outgoing: Outgoing,
    meter: &Meter,
) -> Result<Stored, Failure> {
    let Outgoing {
        file,
        size_bytes,
        offset,
        flow,
    } = outgoing;
    let (outflow, meter) = (Arc::clone(&flow), meter.clone());
    let body = ReaderStream::with_capacity(file, TRANSFER_CHUNK_BYTES).inspect_ok(move |chunk| {
        outflow.pass(chunk);
        meter.moved(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
    });
    let answer = async {
        let left = size_bytes.saturating_sub(offset.unwrap_or(0));
        let mut request = transfer.put(url).header(CONTENT_LENGTH, left);
        if let Some(offset) = offset {
            request = request.header(UPLOAD_OFFSET_HEADER, offset);
        }
        let response = request.body(Body::wrap_stream(body)).send().await;
        let response = response.map_err(|error| broken(doing, error))?;
        match response.status() {
            StatusCode::OK | StatusCode::CREATED => {}
            StatusCode::GONE => {
                let message = format!("{doing}: nobody wants it any more");
                return Err(Fault::new(FaultKind::Cancelled, message).into());
            }
            // Something else came meanwhile: the next try asks again.
            StatusCode::CONFLICT if offset.is_some() => {
                let message = format!("{doing}: the server goes on at another byte");
                return Err(Failure::Passing(Fault::new(
                    FaultKind::Unavailable,
                    message,
                )));
            }
            _ => return Err(refused(doing, response).await),
        }
        let stored = response.json().await;
        stored.map_err(|error| broken(doing, error))
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        () = flow.stall() => Err(stalled(doing, UPLOAD_STALL)),
    }
}

/// What has left of a file, with what had before, seen from outside.
struct Outflow {
    sent: Mutex<(Sha256, u64)>,
    moved: Notify,
}

impl Outflow {
    fn pass(&self, chunk: &[u8]) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.0.update(chunk);
        let size = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        sent.1 = sent.1.saturating_add(size);
        drop(sent);
        self.moved.notify_one();
    }

    fn sent(&self) -> (Sha256, u64) {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.clone()
    }

    /// Returns when nothing has moved for too long.
    async fn stall(&self) {
        while timeout(UPLOAD_STALL, self.moved.notified()).await.is_ok() {}
    }
}
