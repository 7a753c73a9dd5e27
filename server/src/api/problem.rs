//! Refusals as problem documents.

use axum::response::{IntoResponse, Response};
use utoipa::IntoResponses;
use vimana_model::{Error, Problem};

use crate::guard::finish::refusal;

pub type ApiResult<T> = Result<T, ApiError>;

/// The engine's error on its way to the caller.
#[derive(Debug)]
pub struct ApiError(pub Error);

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        refusal(self.0)
    }
}

/// What every route may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes answers, never built")]
pub enum Refusals {
    /// The request cannot be read: broken JSON, an unknown field or parameter
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(#[to_schema] Problem),
    /// Nobody is signed in, or the credential is wrong or spent
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(#[to_schema] Problem),
    /// Not allowed, or sent by a page of another site
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(#[to_schema] Problem),
    /// The body is larger than 256 KiB
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(#[to_schema] Problem),
    /// A fault of ours; the detail names the request in our log
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(#[to_schema] Problem),
    /// A needed part is away
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(#[to_schema] Problem),
}
