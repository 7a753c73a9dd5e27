//! An image's bytes, to agents, and those of a volume from them.

use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;
use vimana_engine::{HostProof, UploadPart};
use vimana_model::{Error, ErrorKind, ImageId, OperationId, Result};

use super::AgentCaller;
use super::saved::Stored;
use crate::api::Id;
use crate::api::problem::{ApiError, ApiResult};
use crate::guard::body::{BROKE_OFF, announced};
use crate::limits::UPLOAD_STALL;
use crate::state::App;

/// How much of the file is read at a time.
const CHUNK_BYTES: usize = 256 << 10;

pub async fn download(
    State(app): State<App>,
    AgentCaller(proof): AgentCaller,
    Id(id): Id<ImageId>,
) -> ApiResult<Response> {
    let path = app.engine.image_file(id).await?;
    let file = File::open(&path).await.map_err(Error::internal)?;
    let length = file.metadata().await.map_err(Error::internal)?.len();
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    let bytes = ReaderStream::with_capacity(file, CHUNK_BYTES);
    let body = Body::from_stream(bytes.take_until(proof.revoked.cancelled_owned()));
    Ok((headers, body).into_response())
}

/// Takes in what was on a volume.
pub async fn receive(
    State(app): State<App>,
    AgentCaller(proof): AgentCaller,
    Path((id, operation_id)): Path<(ImageId, OperationId)>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let malformed = |what| Error::new(ErrorKind::Malformed, what);
    let size_bytes = announced(&headers).ok_or_else(|| malformed("say how much comes"))?;
    let host = proof.host_id;
    let engine = &app.engine;
    let receiving = engine.receive_volume(host, id, operation_id, size_bytes);
    let Some(part) = receiving.await? else {
        return Ok(unwanted());
    };
    match take_in(&app, &proof, part, body.into_data_stream()).await {
        Ok(Some(stored)) => Ok(Json(stored).into_response()),
        Ok(None) => Ok(unwanted()),
        Err(error) => {
            // Whoever sends it may not be there any more.
            engine.expect_volume(id);
            Err(ApiError(error))
        }
    }
}

/// `None` where nobody wants it any more.
async fn take_in(
    app: &App,
    proof: &HostProof,
    mut part: UploadPart,
    mut chunks: BodyDataStream,
) -> Result<Option<Stored>> {
    let broken = |what| Error::new(ErrorKind::Malformed, what);
    let mut hash = Sha256::new();
    loop {
        let chunk = tokio::select! {
            biased;
            () = part.unwanted() => return Ok(None),
            () = app.stopping.cancelled() => return Err(Error::unavailable("the server stops")),
            () = proof.revoked.cancelled() => {
                let message = "the host's certificate was revoked";
                return Err(Error::new(ErrorKind::Unauthenticated, message));
            }
            chunk = timeout(UPLOAD_STALL, chunks.next()) => chunk,
        };
        let chunk = chunk.map_err(|_| Error::unavailable("the upload stalled"))?;
        let Some(chunk) = chunk else { break };
        let chunk = chunk.map_err(|_| broken(BROKE_OFF))?;
        hash.update(&chunk);
        part.write(&chunk).await?;
    }
    if part.left_bytes() > 0 {
        return Err(broken(BROKE_OFF));
    }
    let size_bytes = part.keep().await?.size_bytes;
    Ok(Some(Stored {
        size_bytes,
        sha256: format!("{:x}", hash.finalize()),
    }))
}

fn unwanted() -> Response {
    let told = Error::not_found("an image that waits for this volume");
    let mut refusal = ApiError(told).into_response();
    *refusal.status_mut() = StatusCode::GONE;
    refusal
}
