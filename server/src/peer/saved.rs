//! Saved machines, to the datastore and back.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::Serialize;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;
use vimana_datastore::Receiving;
use vimana_engine::{HostProof, datastore_error};
use vimana_model::saved::Part;
use vimana_model::{Error, ErrorKind, VmId};

use super::AgentCaller;
use crate::api::problem::{ApiError, ApiResult};
use crate::limits::UPLOAD_STALL;
use crate::state::App;

/// How much of a file is read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// What was stored.
#[derive(Serialize)]
pub struct Stored {
    pub size_bytes: u64,
    pub sha256: String,
}

pub async fn upload(
    State(app): State<App>,
    AgentCaller(proof): AgentCaller,
    Path((vm_id, run_epoch, part)): Path<(VmId, u64, Part)>,
    body: Body,
) -> ApiResult<Json<Stored>> {
    let host = proof.host_id;
    let receiving = app.engine.receive_saved(host, vm_id, run_epoch, part);
    let (receiving, most) = receiving.await?;
    let too_large = format!("the {} is larger than the VM can have made it", part.name());
    take_in(&proof, receiving, (most, too_large), body).await
}

/// Takes a file in, of at most so many bytes; the refusal of one that has more.
pub async fn take_in(
    proof: &HostProof,
    mut receiving: Receiving,
    (most, too_large): (u64, String),
    body: Body,
) -> ApiResult<Json<Stored>> {
    let mut bytes = body.into_data_stream();
    loop {
        let chunk = tokio::select! {
            biased;
            () = proof.revoked.cancelled() => return Err(refused(ErrorKind::Unauthenticated, "the host's certificate was revoked")),
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

pub async fn download(
    State(app): State<App>,
    AgentCaller(proof): AgentCaller,
    Path((vm_id, run_epoch, part)): Path<(VmId, u64, Part)>,
) -> ApiResult<Response> {
    let host = proof.host_id;
    let opened = app.engine.open_saved(host, vm_id, run_epoch, part);
    let (file, size_bytes) = opened.await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size_bytes.to_string()),
    ];
    let bytes = ReaderStream::with_capacity(file, CHUNK_BYTES);
    let body = Body::from_stream(bytes.take_until(proof.revoked.cancelled_owned()));
    Ok((headers, body).into_response())
}

fn refused(kind: ErrorKind, message: impl Into<String>) -> ApiError {
    ApiError(Error::new(kind, message))
}
