//! An image's bytes, for agents.

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use tokio::fs::File;
use tokio_util::io::ReaderStream;
use vimana_model::{Error, ImageId};

use super::AgentCaller;
use crate::api::Id;
use crate::api::problem::ApiResult;
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
