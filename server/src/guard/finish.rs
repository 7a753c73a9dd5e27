//! The outermost layer: a request id, problem documents for everything that
//! was refused, one line in the log for what was our fault, and the headers
//! that every answer carries.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use vimana_model::{Error, ErrorKind, Problem};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers refused by our own handlers carry what happened.
#[derive(Clone)]
pub struct Refused(pub Arc<Error>);

/// An answer without a body yet; [`finish`] writes it.
pub fn refusal(error: Error) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status_of(error.kind);
    response.extensions_mut().insert(Refused(Arc::new(error)));
    response
}

/// What a panic in a handler becomes.
pub fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    refusal(Error::internal(format!("a handler panicked: {message}")))
}

pub async fn finish(request: Request, next: Next) -> Response {
    let id = request_id();
    let begun = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    tracing::debug!(
        %method, ?path, status = response.status().as_u16(), ms = begun.elapsed().as_millis(), id,
        "request"
    );
    if let Some(Refused(error)) = response.extensions_mut().remove() {
        log(&error, &method, &path, &id);
        let mut problem = told(&error, &id);
        problem.status = response.status().as_u16();
        write_problem(&mut response, &problem);
    } else if is_bare_refusal(&response) {
        let problem = unexplained(response.status(), &method, &path, &id);
        write_problem(&mut response, &problem);
    }
    if let Ok(value) = HeaderValue::try_from(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    set_security_headers(response.headers_mut());
    response
}

fn request_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// What is ours to mend is logged here, once.
fn log(error: &Error, method: &Method, path: &str, id: &str) {
    let source = error.source.as_ref().map(|source| chain(source.as_ref()));
    match error.kind {
        ErrorKind::Internal => {
            tracing::error!(%method, ?path, id, source = ?source, "request failed: {error}");
        }
        ErrorKind::Unavailable => {
            tracing::warn!(%method, ?path, id, source = ?source, "request turned away: {error}");
        }
        ErrorKind::Malformed
        | ErrorKind::Unauthenticated
        | ErrorKind::Forbidden
        | ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::OverQuota
        | ErrorKind::Stale
        | ErrorKind::TooLarge
        | ErrorKind::Invalid
        | ErrorKind::RateLimited => {}
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// What the caller learns; for a fault of ours, where it stands in our log.
fn told(error: &Error, id: &str) -> Problem {
    let mut problem = error.problem();
    if error.kind == ErrorKind::Internal {
        problem.detail = format!("{} as request {id}", problem.detail);
    }
    problem
}

/// A refusal by a layer that speaks no problem documents.
fn is_bare_refusal(response: &Response) -> bool {
    let status = response.status();
    (status.is_client_error() || status.is_server_error())
        && !response.headers().contains_key(header::CONTENT_TYPE)
}

fn unexplained(status: StatusCode, method: &Method, path: &str, id: &str) -> Problem {
    let kind = match status.as_u16() {
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        412 => ErrorKind::Stale,
        413 => ErrorKind::TooLarge,
        429 => ErrorKind::RateLimited,
        400..500 => ErrorKind::Malformed,
        503 => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    let mut problem = match (kind, status) {
        (ErrorKind::Internal, _) => {
            let error = Error::internal(format!("a layer answered {status}"));
            log(&error, method, path, id);
            told(&error, id)
        }
        (kind, StatusCode::METHOD_NOT_ALLOWED) => {
            Error::new(kind, "this address does not take this method").problem()
        }
        (ErrorKind::NotFound, _) => Error::new(kind, "there is nothing at this address").problem(),
        (kind, _) => Error::new(kind, kind.title()).problem(),
    };
    problem.status = status.as_u16();
    problem
}

fn write_problem(response: &mut Response, problem: &Problem) {
    let body = serde_json::to_vec(problem).unwrap_or_default();
    *response.body_mut() = Body::from(body);
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if problem.status == 401 {
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"vimana\""),
        );
    }
}

fn status_of(kind: ErrorKind) -> StatusCode {
    StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The policy of an answer that is no page: it may load nothing at all. Pages
/// carry their own, with a nonce.
const NOTHING: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn set_security_headers(headers: &mut HeaderMap) {
    let mut always = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    always(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    always(header::REFERRER_POLICY, "same-origin");
    always(
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    );
    always(
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    );
    let mut unless_set = |name: HeaderName, value: &'static str| {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    };
    unless_set(header::CONTENT_SECURITY_POLICY, NOTHING);
    unless_set(header::CACHE_CONTROL, "no-store");
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::to_bytes;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;

    async fn problem_of(path: &str) -> (Problem, String) {
        let router = Router::new()
            .route(
                "/panic",
                get(async || -> () { panic!("secret of the house") }),
            )
            .route("/bare", get(async || StatusCode::BAD_GATEWAY))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(from_fn(finish));
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let id = response.headers()[REQUEST_ID].to_str().unwrap().to_owned();
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        (serde_json::from_slice(&body).unwrap(), id)
    }

    #[tokio::test]
    async fn a_panic_is_a_fault_of_ours_and_tells_nothing() {
        let (problem, id) = problem_of("/panic").await;
        assert_eq!((problem.status, problem.code), (500, ErrorKind::Internal));
        assert!(problem.detail.ends_with(&format!("as request {id}")));
        assert!(!problem.detail.contains("secret"));
    }

    #[tokio::test]
    async fn a_bare_refusal_becomes_a_problem() {
        let (problem, _) = problem_of("/bare").await;
        assert_eq!((problem.status, problem.code), (502, ErrorKind::Internal));
        let (problem, _) = problem_of("/nothing").await;
        assert_eq!((problem.status, problem.code), (404, ErrorKind::NotFound));
    }
}
