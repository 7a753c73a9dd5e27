//! Requests that a page of somebody else's made a browser send are refused:
//! changes and WebSockets need an `Origin` of our own.
//!
//! Our own origin is what the browser thinks it talks to, the `Host` header;
//! another site cannot make a browser lie about it. Nothing else is decided
//! by that header. Programs send no `Origin`, and no cookie either.

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName};
use axum::http::{Method, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use vimana_model::{Error, ErrorKind};

use crate::api::problem::ApiError;
use crate::state::App;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let concerned = !is_safe(request.method()) || is_websocket(request.headers());
    if concerned && let Err(why) = judge(request.headers(), request.uri().authority(), app.tls) {
        return ApiError(Error::new(ErrorKind::Forbidden, why)).into_response();
    }
    next.run(request).await
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn is_websocket(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE) || headers.contains_key(header::SEC_WEBSOCKET_KEY)
}

fn judge(
    headers: &HeaderMap,
    authority: Option<&Authority>,
    tls: bool,
) -> Result<(), &'static str> {
    const FOREIGN: &str = "the request comes from a page of another site";
    let site = headers.get(SEC_FETCH_SITE).map(|value| value.as_bytes());
    if !matches!(site, None | Some(b"same-origin" | b"none")) {
        return Err(FOREIGN);
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        // Browsers name the origin of every change; one that does not cannot
        // be trusted with a cookie.
        return match headers.contains_key(header::COOKIE) && site.is_none() {
            true => Err("the request carries a cookie and no Origin"),
            false => Ok(()),
        };
    };
    let ours = match authority {
        // HTTP/2 has no Host header.
        Some(authority) => Some(authority.as_str()),
        None => headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok()),
    };
    let origin = origin.to_str().map_err(|_| FOREIGN)?;
    let theirs = match (tls, origin.split_once("://")) {
        (_, Some(("https", authority))) | (false, Some(("http", authority))) => authority,
        (_, Some(_) | None) => return Err(FOREIGN),
    };
    match ours {
        Some(ours) if ours.eq_ignore_ascii_case(theirs) => Ok(()),
        Some(_) | None => Err(FOREIGN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(tls: bool, pairs: &[(&str, &str)]) -> bool {
        let headers = pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    value.parse().unwrap(),
                )
            })
            .collect();
        judge(&headers, None, tls).is_ok()
    }

    #[test]
    fn our_own_pages_pass() {
        let host = ("host", "h:8700");
        assert!(judged(
            false,
            &[host, ("origin", "http://h:8700"), ("cookie", "a=b")]
        ));
        assert!(judged(
            false,
            &[
                host,
                ("origin", "http://H:8700"),
                ("sec-fetch-site", "same-origin")
            ]
        ));
        // Behind a proxy that ends TLS.
        assert!(judged(false, &[host, ("origin", "https://h:8700")]));
        assert!(judged(true, &[host, ("origin", "https://h:8700")]));
    }

    #[test]
    fn programs_pass() {
        assert!(judged(
            false,
            &[("host", "h:8700"), ("authorization", "Bearer x")]
        ));
    }

    #[test]
    fn pages_of_others_do_not() {
        let host = ("host", "h:8700");
        for origin in [
            "http://evil",
            "http://h:8701",
            "http://h",
            "null",
            "",
            "h:8700",
            "file://",
        ] {
            assert!(!judged(false, &[host, ("origin", origin)]), "{origin}");
        }
        assert!(!judged(true, &[host, ("origin", "http://h:8700")]));
        for site in ["cross-site", "same-site", "new"] {
            assert!(!judged(
                false,
                &[host, ("origin", "http://h:8700"), ("sec-fetch-site", site)]
            ));
        }
        assert!(!judged(false, &[host, ("cookie", "a=b")]));
        assert!(!judged(false, &[("origin", "http://h:8700")]));
    }
}
