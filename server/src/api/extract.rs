//! What handlers take out of a request, each with its refusal in our words.

use std::fmt::Display;
use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use tower_sessions::Session;
use vimana_engine::OpContext;
use vimana_model::{Error, ErrorKind, Result};

use super::problem::ApiError;
use crate::guard::body::WholeBody;
use crate::guard::session::user_of;
use crate::limits;
use crate::state::App;

/// Who asks, by token or by the portal's session.
pub struct Caller(pub OpContext);

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let subject = match authorization_token(&parts.headers)? {
            Some(token) => app.engine.subject_of_token(token).await?,
            None => {
                let session = parts.extensions.get::<Session>();
                let user = match session {
                    Some(session) => user_of(session).await?,
                    None => None,
                };
                let user = user.ok_or_else(sign_in_first)?;
                app.engine.subject_of_user(user).await?
            }
        };
        Ok(Self(OpContext::new(subject)))
    }
}

/// The token of the request itself.
pub struct CurrentToken(pub String);

impl FromRequestParts<App> for CurrentToken {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        let token = authorization_token(&parts.headers)?.ok_or_else(sign_in_first)?;
        Ok(Self(token.to_owned()))
    }
}

fn sign_in_first() -> Error {
    Error::new(ErrorKind::Unauthenticated, "sign in first")
}

/// The token of an `Authorization: Bearer` header, if there is such a header.
pub fn authorization_token(headers: &HeaderMap) -> Result<Option<&str>> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| Some(token.trim()))
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Unauthenticated,
                "the Authorization header holds no bearer token",
            )
        })
}

/// An id out of the path; what is no id names nothing.
pub struct Id<T>(pub T);

impl<S, T> FromRequestParts<S> for Id<T>
where
    S: Send + Sync,
    T: FromStr<Err: Display>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let refused = |why: String| ApiError(Error::new(ErrorKind::NotFound, why));
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| refused(rejection.body_text()))?;
        text.parse()
            .map(Self)
            .map_err(|error: T::Err| refused(error.to_string()))
    }
}

/// Two ids, or other words, out of the path.
pub struct Ids<A, B>(pub A, pub B);

impl<S, A, B> FromRequestParts<S> for Ids<A, B>
where
    S: Send + Sync,
    A: FromStr<Err: Display>,
    B: FromStr<Err: Display>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let refused = |why: String| ApiError(Error::new(ErrorKind::NotFound, why));
        let Path((first, second)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| refused(rejection.body_text()))?;
        let first = first
            .parse()
            .map_err(|error: A::Err| refused(error.to_string()))?;
        let second = second
            .parse()
            .map_err(|error: B::Err| refused(error.to_string()))?;
        Ok(Self(first, second))
    }
}

/// The query string; unknown parameters are refused by the type.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        axum::extract::Query::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|rejection: QueryRejection| malformed(&rejection.body_text()))
    }
}

/// A JSON body. Broken JSON, an unknown field and a wrong shape are told with
/// where they are.
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let refused = |why: &str| malformed(why).into_response();
        if !is_json(request.headers()) {
            let mut refusal = refused("send JSON, with `Content-Type: application/json`");
            *refusal.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(refusal);
        }
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection: BytesRejection| refused(&rejection.body_text()))?;
        parse(&bytes).map(Self).map_err(|why| refused(&why))
    }
}

/// A JSON body that may be left out.
pub struct JsonOrNothing<T>(pub T);

impl<T: DeserializeOwned + Default> FromRequest<App> for JsonOrNothing<T> {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Self, Response> {
        let body = request.extensions().get::<WholeBody>();
        if body.is_some_and(|WholeBody(bytes)| bytes.is_empty()) {
            return Ok(Self(T::default()));
        }
        let Json(value) = Json::from_request(request, app).await?;
        Ok(Self(value))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if path == "." || error.is_syntax() {
            error.to_string()
        } else {
            format!("{path}: {error}")
        }
    })?;
    deserializer.end().map_err(|error| error.to_string())?;
    Ok(value)
}

/// The parser's words may repeat what was sent, which may be long.
fn malformed(why: &str) -> ApiError {
    let why: String = why.chars().take(limits::MAX_COMPLAINT_CHARS).collect();
    ApiError(Error::new(ErrorKind::Malformed, why))
}

#[cfg(test)]
mod tests {
    use vimana_model::vm::CreateVm;

    use super::*;

    fn complaint(text: &str) -> String {
        parse::<CreateVm>(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn broken_json_is_told_with_its_place() {
        assert!(complaint("{\n \"name\": }").contains("line 2 column 10"));
        assert!(complaint(r#"{"name":"a","host_id":"x"}"#).contains("unknown field `host_id`"));
        assert!(complaint(r#"{"name":7}"#).starts_with("name: invalid type: integer `7`"));
        assert!(complaint(r#"{"name":"a","name":"b"}"#).contains("duplicate field `name`"));
        assert!(complaint(r#"{"name":"a","image":"b","flavor":"c"} x"#).contains("trailing"));
        assert!(complaint(r#"{"hold":NaN}"#).contains("line 1 column"));
        assert!(complaint("").contains("EOF"));
    }

    #[test]
    fn deep_json_is_refused_and_not_followed() {
        let deep = format!("{{\"name\":{}", "[".repeat(100_000));
        assert!(!complaint(&deep).is_empty());
    }
}
