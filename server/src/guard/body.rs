//! Bodies are read here, whole and bounded, before anybody looks at them.

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures::StreamExt;
use vimana_model::{Error, ErrorKind, Result};

use crate::api::problem::ApiError;
use crate::limits;

/// The body, for those who look at it before the one who takes it.
#[derive(Clone)]
pub struct WholeBody(pub Bytes);

/// What is said of a body that ends before its end.
pub const BROKE_OFF: &str = "the request broke off inside its body";

/// Replaces the request's body by its bytes. What is too large is refused
/// and costs no more memory than what is not.
pub async fn read_whole(request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let read = tokio::time::timeout(limits::BODY_TIMEOUT, read(&parts.headers, body));
    match read.await {
        Ok(Ok(bytes)) => {
            parts.extensions.insert(WholeBody(bytes.clone()));
            next.run(Request::from_parts(parts, Body::from(bytes)))
                .await
        }
        Ok(Err(error)) => ApiError(error).into_response(),
        Err(_) => {
            let seconds = limits::BODY_TIMEOUT.as_secs();
            let told = format!("the body did not arrive within {seconds} s");
            ApiError(Error::new(ErrorKind::Malformed, told)).into_response()
        }
    }
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes> {
    let announced = announced(headers);
    if announced.is_some_and(|length| length > limits::MAX_DRAINED_BYTES) {
        return Err(too_large());
    }
    // Who waits for our word before sending gets it now.
    let waits = headers.contains_key(header::EXPECT);
    if waits && announced.is_some_and(|length| !fits(length)) {
        return Err(too_large());
    }
    let mut chunks = body.into_data_stream();
    let mut bytes = BytesMut::new();
    let mut seen: u64 = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Error::new(ErrorKind::Malformed, BROKE_OFF))?;
        seen = seen.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        if fits(seen) {
            bytes.extend_from_slice(&chunk);
        } else if seen > limits::MAX_DRAINED_BYTES {
            return Err(too_large());
        } else {
            bytes = BytesMut::new();
        }
    }
    if fits(seen) {
        Ok(bytes.freeze())
    } else {
        Err(too_large())
    }
}

/// Reads and throws away what is left of a body that is refused, so that its
/// sender gets to read the refusal; not for ever, and not all there may be.
pub async fn drain(mut chunks: BodyDataStream) {
    let read = async {
        let mut seen: u64 = 0;
        while let Some(Ok(chunk)) = chunks.next().await
            && seen <= limits::MAX_DRAINED_BYTES
        {
            seen = seen.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        }
    };
    // Whoever is that slow learns it by the connection's end.
    let _in_time = tokio::time::timeout(limits::BODY_TIMEOUT, read).await;
}

/// What the request says of its body's length.
pub fn announced(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok())
}

fn fits(length: u64) -> bool {
    usize::try_from(length).is_ok_and(|length| length <= limits::MAX_BODY_BYTES)
}

fn too_large() -> Error {
    let limit = limits::MAX_BODY_BYTES >> 10;
    Error::new(
        ErrorKind::TooLarge,
        format!("the body is larger than {limit} KiB"),
    )
}
