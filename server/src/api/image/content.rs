//! The bytes of an image that is uploaded: where the next ones belong, and part
//! by part what they are. The offset is the key of a part: sent again, it is
//! refused with the place where the upload goes on.

use std::pin::pin;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;
use tower_http::services::ServeFile;
use utoipa::ToSchema;
use vimana_engine::{ImageDownload, OpContext, UploadPart, UploadReach};
use vimana_model::{Error, ErrorKind, ImageId, Problem, Result};

use crate::api::extract::{Caller, Id};
use crate::api::problem::{ApiError, ApiResult, Refusals};
use crate::guard::body::{BROKE_OFF, announced, drain};
use crate::limits;
use crate::state::App;

const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const PART: &str = "application/offset+octet-stream";

/// Bytes of a file, for the interface's description alone.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "nobody makes one")]
struct ImagePart(Vec<u8>);

/// Download an image
///
/// As it is stored; `ETag` is the SHA-256 of it. Parts can be asked for with
/// `Range`, so that a download that broke goes on.
#[utoipa::path(
    get, path = "/images/{image_id}/content", tag = "image", operation_id = "download_image",
    params(
        ("image_id" = ImageId, Path),
        ("Range" = Option<String>, Header, description = "The part that is wanted, `bytes=FROM-`"),
    ),
    responses(
        (status = 200, description = "All of it", body = ImagePart, content_type = "application/octet-stream"),
        (status = 206, description = "The part", body = ImagePart, content_type = "application/octet-stream"),
        (status = 404, description = "No such image", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is not ready", body = Problem, content_type = "application/problem+json"),
        (status = 416, description = "There is no such part"),
        Refusals,
    ),
)]
pub async fn download(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<ImageId>,
    request: Request,
) -> ApiResult<Response> {
    let image = app.engine.image_download(&cx, id).await?;
    Ok(file_of(&image, request).await?)
}

/// A file that never changes, or the part of it that is asked for.
async fn file_of(image: &ImageDownload, mut request: Request) -> Result<Response> {
    let ImageDownload {
        path,
        name,
        content,
    } = image;
    let tag = format!("\"{}\"", content.sha256);
    // A part of something else would be of no use.
    let other = request.headers().get(header::IF_RANGE);
    if other.is_some_and(|given| given.as_bytes() != tag.as_bytes()) {
        request.headers_mut().remove(header::RANGE);
    }
    // When the file came has nothing to do with what it is.
    for conditional in [
        header::IF_RANGE,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
        header::ACCEPT_ENCODING,
    ] {
        request.headers_mut().remove(conditional);
    }
    let served = ServeFile::new(path).oneshot(request).await;
    let served = served.map_err(Error::internal)?;
    let mut response = served.map(Body::new);
    if !response.status().is_success() && response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
        return Err(Error::unavailable("the image's file cannot be read now"));
    }
    // An image's name has no character that means anything here.
    let file = format!("attachment; filename=\"{name}.{}\"", content.format);
    let headers = response.headers_mut();
    headers.remove(header::LAST_MODIFIED);
    let kind = "application/octet-stream".to_owned();
    for (field, value) in [
        (header::CONTENT_TYPE, kind),
        (header::ETAG, tag),
        (header::CONTENT_DISPOSITION, file),
    ] {
        let value = HeaderValue::try_from(value).map_err(Error::internal)?;
        headers.insert(field, value);
    }
    Ok(response)
}

/// How far the upload of an image is, and how large an image is
///
/// Of one that is there: what a download of it answers, without the bytes.
/// `Upload-Offset` is where the next part begins: so many bytes are here for
/// good, and equal `Upload-Length` when all are.
#[utoipa::path(
    head, path = "/images/{image_id}/content", tag = "image", operation_id = "image_upload",
    params(("image_id" = ImageId, Path)),
    responses(
        (status = 200, description = "It is there", headers(
            ("Content-Length" = u64, description = "Bytes of the image, as it is stored"),
            ("ETag" = String, description = "Its SHA-256"),
        )),
        (status = 204, description = "How far it is", headers(
            ("Upload-Offset" = u64, description = "Bytes that are here for good"),
            ("Upload-Length" = u64, description = "Bytes of the whole file"),
        )),
        (status = 404, description = "No such image", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is not uploaded, or its import is over", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn reach(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<ImageId>,
    request: Request,
) -> ApiResult<Response> {
    let reach = app.engine.image_upload(&cx, id).await;
    let Ok(image) = app.engine.image_download(&cx, id).await else {
        return Ok(answer(reach?));
    };
    let mut response = file_of(&image, request).await?;
    if let Ok(reach) = reach {
        response.headers_mut().extend(reach_headers(reach));
    }
    Ok(response)
}

/// Send the next part of an image
///
/// At most 16 MiB, durable once it is answered. Of a part that breaks off, what
/// came is kept: ask how far the upload is, and go on from there.
#[utoipa::path(
    patch, path = "/images/{image_id}/content", tag = "image", operation_id = "upload_image",
    params(
        ("image_id" = ImageId, Path),
        ("Upload-Offset" = u64, Header, description = "Where in the file the part begins"),
    ),
    request_body(content = ImagePart, content_type = "application/offset+octet-stream"),
    responses(
        (status = 204, description = "It is here", headers(
            ("Upload-Offset" = u64, description = "Where the next part begins"),
            ("Upload-Length" = u64, description = "Bytes of the whole file"),
        )),
        (status = 404, description = "No such image", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The upload goes on elsewhere, another part is on its way, or it is over", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not sent as a part", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "More than the file was said to have", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn send(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<ImageId>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let chunks = body.into_data_stream();
    if !is_part(&headers) {
        turn_away(&headers, chunks).await;
        let told = format!("send the part with `Content-Type: {PART}`");
        let mut refusal = ApiError(Error::new(ErrorKind::Malformed, told)).into_response();
        *refusal.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return refusal;
    }
    let (part, room) = match begin(&app, &cx, id, &headers).await {
        Ok(begun) => begun,
        Err(error) => {
            turn_away(&headers, chunks).await;
            return ApiError(error).into_response();
        }
    };
    let taking = take_in(app.clone(), part, chunks, room);
    // Whoever hangs up in the middle finds what came.
    match app.detached(taking).await {
        Ok(reach) => answer(reach),
        Err(error) => ApiError(error).into_response(),
    }
}

fn is_part(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(PART.as_bytes()))
}

async fn begin(
    app: &App,
    cx: &OpContext,
    id: ImageId,
    headers: &HeaderMap,
) -> Result<(UploadPart, OwnedSemaphorePermit)> {
    let offset = offset_of(headers)?;
    let announced = announced(headers);
    if announced.is_some_and(|length| length > limits::MAX_PART_BYTES) {
        return Err(too_large());
    }
    let room = app.part_permit()?;
    let part = app.engine.receive_image(cx, id, offset).await?;
    part.admit(announced.unwrap_or(0))?;
    Ok((part, room))
}

/// Who waits for our word before sending gets it now; anybody else sends on, and
/// reads it after that.
async fn turn_away(headers: &HeaderMap, chunks: BodyDataStream) {
    if !headers.contains_key(header::EXPECT) {
        drain(chunks).await;
    }
}

fn offset_of(headers: &HeaderMap) -> Result<u64> {
    let value = headers.get(UPLOAD_OFFSET);
    value
        .and_then(|value| value.to_str().ok())
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| malformed("say where the part begins, with `Upload-Offset: BYTES`"))
}

/// Takes in what comes, and keeps it however it ends, unless nobody wants it.
async fn take_in(
    app: App,
    mut part: UploadPart,
    mut chunks: BodyDataStream,
    _room: OwnedSemaphorePermit,
) -> Result<UploadReach> {
    let mut late = pin!(sleep(limits::PART_TIMEOUT));
    let mut came = 0_u64;
    let broken = loop {
        let chunk = tokio::select! {
            biased;
            () = part.unwanted() => return Err(part.over().await),
            () = app.stopping.cancelled() => break Some(Error::unavailable("the server stops")),
            () = &mut late => break Some(too_slow()),
            chunk = timeout(limits::UPLOAD_STALL, chunks.next()) => chunk,
        };
        let chunk = match chunk {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(Some(Err(_))) => break Some(malformed(BROKE_OFF)),
            Ok(None) => break None,
            Err(_) => break Some(stalled()),
        };
        came = came.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        let taken = match came > limits::MAX_PART_BYTES {
            true => Err(too_large()),
            false => part.write(&chunk).await,
        };
        if let Err(error) = taken {
            drop(part);
            drain(chunks).await;
            return Err(error);
        }
    };
    let reach = part.keep().await?;
    broken.map_or(Ok(reach), Err)
}

fn answer(reach: UploadReach) -> Response {
    (StatusCode::NO_CONTENT, reach_headers(reach)).into_response()
}

fn reach_headers(reach: UploadReach) -> HeaderMap {
    let UploadReach {
        offset_bytes,
        size_bytes,
    } = reach;
    HeaderMap::from_iter([
        (UPLOAD_OFFSET, HeaderValue::from(offset_bytes)),
        (UPLOAD_LENGTH, HeaderValue::from(size_bytes)),
    ])
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::Malformed, what)
}

fn too_large() -> Error {
    let limit = limits::MAX_PART_BYTES >> 20;
    Error::new(
        ErrorKind::TooLarge,
        format!("the part is larger than {limit} MiB"),
    )
}

fn too_slow() -> Error {
    let minutes = limits::PART_TIMEOUT.as_secs() / 60;
    malformed(&format!(
        "the part did not arrive within {minutes} minutes; send smaller ones"
    ))
}

fn stalled() -> Error {
    let seconds = limits::UPLOAD_STALL.as_secs();
    malformed(&format!("nothing of the part came for {seconds} s"))
}
