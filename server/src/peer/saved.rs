//! Saved machines, to the datastore and back.

use std::io::SeekFrom;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::Serialize;
use tokio::io::AsyncSeekExt as _;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;
use vimana_datastore::{Received, Receiving};
use vimana_engine::{Begun, HostProof, datastore_error};
use vimana_model::saved::Part;
use vimana_model::{Error, ErrorKind, VmId};
use vimana_protocol::agent::{ReceivedPart, UPLOAD_OFFSET_HEADER};

use super::AgentCaller;
use crate::api::problem::{ApiError, ApiResult};
use crate::limits::UPLOAD_STALL;
use crate::state::App;

/// How much of a file is read at a time.
const CHUNK_BYTES: usize = 256 << 10;

const UPLOAD_OFFSET: HeaderName = HeaderName::from_static(UPLOAD_OFFSET_HEADER);

/// What was stored.
#[derive(Serialize)]
pub struct Stored {
    pub size_bytes: u64,
    pub sha256: String,
}

/// The whole file, or with `Upload-Offset` what comes after the bytes that are
/// here; 409 with the right one where it is another.
pub async fn upload(
    State(app): State<App>,
    AgentCaller(proof): AgentCaller,
    Path((vm_id, run_epoch, part)): Path<(VmId, u64, Part)>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let offset = offset_of(&headers)?;
    let host = proof.host_id;
    let begun = app
        .engine
        .receive_saved(host, vm_id, run_epoch, part, offset);
    let (receiving, most) = match begun.await? {
        Begun::Receiving { receiving, most } => (receiving, most),
        Begun::Elsewhere { at } => return Ok(elsewhere(part, at)),
    };
    let too_large = format!("the {part} is larger than the VM can have made it");
    let stored = take_in(&proof, *receiving, (most, too_large), body).await?;
    Ok(stored.into_response())
}

/// What is here of a part, for who goes on with it.
pub async fn received(
    State(app): State<App>,
    AgentCaller(proof): AgentCaller,
    Path((vm_id, run_epoch, part)): Path<(VmId, u64, Part)>,
) -> ApiResult<Json<ReceivedPart>> {
    let host = proof.host_id;
    let received = app.engine.received_saved(host, vm_id, run_epoch, part);
    let Received {
        size_bytes,
        sha256,
        is_whole,
    } = received.await?;
    Ok(Json(ReceivedPart {
        size_bytes,
        sha256,
        whole: is_whole,
    }))
}

/// Takes a file in, of at most so many bytes; the refusal of one that has more.
pub async fn take_in(
    proof: &HostProof,
    mut receiving: Receiving,
    (most, too_large): (u64, String),
    body: Body,
) -> ApiResult<Json<Stored>> {
    let mut bytes = body.into_data_stream();
    let overtaken = receiving.overtaken();
    loop {
        let chunk = tokio::select! {
            biased;
            () = proof.revoked.cancelled() => return Err(refused(ErrorKind::Unauthenticated, "the host's certificate was revoked")),
            () = overtaken.cancelled() => return Err(refused(ErrorKind::Unavailable, "a later upload took over")),
            chunk = timeout(UPLOAD_STALL, bytes.next()) => chunk,
        };
        let stalled = |_| refused(ErrorKind::Unavailable, "the upload stalled");
        let Some(chunk) = chunk.map_err(stalled)? else {
            break;
        };
        let chunk = chunk.map_err(|_| refused(ErrorKind::Malformed, "the upload broke off"))?;
        receiving.write(&chunk).await.map_err(datastore_error)?;
        if receiving.size_bytes() > most {
            return Err(refused(ErrorKind::TooLarge, too_large));
        }
    }
    let stored = receiving.finish().await.map_err(datastore_error)?;
    Ok(Json(Stored {
        size_bytes: stored.size_bytes,
        sha256: stored.sha256,
    }))
}

/// All of a part; with `Range: bytes=N-` what comes after the first N bytes.
pub async fn download(
    State(app): State<App>,
    AgentCaller(proof): AgentCaller,
    Path((vm_id, run_epoch, part)): Path<(VmId, u64, Part)>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let from = range_of(&headers)?;
    let host = proof.host_id;
    let opened = app.engine.open_saved(host, vm_id, run_epoch, part);
    let (mut file, size_bytes) = opened.await?;
    let (status, range) = match from {
        None => (StatusCode::OK, None),
        Some(from) if from < size_bytes => {
            file.seek(SeekFrom::Start(from))
                .await
                .map_err(datastore_error)?;
            let last = size_bytes.saturating_sub(1);
            let range = format!("bytes {from}-{last}/{size_bytes}");
            (StatusCode::PARTIAL_CONTENT, Some(range))
        }
        Some(_) => {
            let range = [(header::CONTENT_RANGE, format!("bytes */{size_bytes}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, range).into_response());
        }
    };
    let left = size_bytes.saturating_sub(from.unwrap_or(0));
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, left.to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ];
    let range = range.map(|range| [(header::CONTENT_RANGE, range)]);
    let bytes = ReaderStream::with_capacity(file, CHUNK_BYTES);
    let body = Body::from_stream(bytes.take_until(proof.revoked.cancelled_owned()));
    Ok((status, headers, range, body).into_response())
}

fn elsewhere(part: Part, at: u64) -> Response {
    let message = format!("the {part} goes on at byte {at}");
    let mut refusal = refused(ErrorKind::Conflict, message).into_response();
    refusal.headers_mut().insert(UPLOAD_OFFSET, at.into());
    refusal
}

/// # Errors
/// `Malformed` where it is no number of bytes, or said twice.
fn offset_of(headers: &HeaderMap) -> ApiResult<Option<u64>> {
    one(headers, &UPLOAD_OFFSET, number)
}

/// # Errors
/// `Malformed` where it is anything but `bytes=N-`, or said twice.
fn range_of(headers: &HeaderMap) -> ApiResult<Option<u64>> {
    one(headers, &header::RANGE, |text| {
        number(text.strip_prefix("bytes=")?.strip_suffix('-')?)
    })
}

fn one(
    headers: &HeaderMap,
    name: &HeaderName,
    read: impl Fn(&str) -> Option<u64>,
) -> ApiResult<Option<u64>> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let read = value.to_str().ok().and_then(read);
    match (read, values.next()) {
        (Some(number), None) => Ok(Some(number)),
        (None, _) | (_, Some(_)) => {
            let message = format!("`{name}` cannot be read");
            Err(refused(ErrorKind::Malformed, message))
        }
    }
}

/// Digits alone: `parse` takes a sign.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

fn refused(kind: ErrorKind, message: impl Into<String>) -> ApiError {
    ApiError(Error::new(kind, message))
}
