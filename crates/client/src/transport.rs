//! Requests and answers, and how every failure becomes a model error.

use bytes::BytesMut;
use futures::StreamExt;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use vimana_model::{Error, ErrorKind, Problem, Result};

use crate::{Client, limits};

const USER_AGENT: &str = concat!("vimana-client/", env!("CARGO_PKG_VERSION"));

/// A list as it travels.
#[derive(serde::Deserialize)]
pub(crate) struct Items<T> {
    pub(crate) items: Vec<T>,
}

/// Why there is no answer to hand out.
pub(crate) enum Miss {
    /// The server was not reached, or its answer did not arrive whole; what
    /// was asked may have happened all the same.
    Unanswered(Error),
    /// It answered, and that is that.
    Refused(Error),
}

impl From<Miss> for Error {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::Unanswered(error) | Miss::Refused(error) => error,
        }
    }
}

pub(crate) fn http_client(tls: &rustls::ClientConfig) -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .use_preconfigured_tls(tls.clone())
        .user_agent(USER_AGENT)
        // A redirect would carry the token to wherever it points.
        .redirect(Policy::none())
        .no_proxy()
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .pool_idle_timeout(limits::POOL_IDLE_TIMEOUT)
        .read_timeout(limits::SILENCE_TIMEOUT)
        .build()
        .map_err(Error::internal)
}

impl Client {
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(self.prepare(Method::GET, path)?).await
    }

    /// A request with the credentials on it; the caller sets the time limit.
    pub(crate) fn prepare(&self, method: Method, path: &str) -> Result<RequestBuilder> {
        let url = self.base.of(path);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(token) = &self.token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
                Error::new(
                    ErrorKind::Unauthenticated,
                    "the token holds characters that no token has",
                )
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(self.http.request(method, url).headers(headers))
    }

    /// Asks once and reads the whole answer.
    pub(crate) async fn call<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        Ok(self.attempt(request).await?)
    }

    /// As [`Client::call`], for those who ask again.
    pub(crate) async fn attempt<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, Miss> {
        let response = self.send(request.timeout(limits::REQUEST_TIMEOUT)).await?;
        let body = self.body(response).await?;
        // An answer without a body reads as JSON's null.
        let body = if body.is_empty() {
            &b"null"[..]
        } else {
            &body[..]
        };
        serde_json::from_slice(body).map_err(|error| {
            let error = self
                .broken("the answer is not what was expected")
                .with_source(error);
            Miss::Refused(error)
        })
    }

    /// Sends and returns the answer of a request that was granted.
    pub(crate) async fn answer(&self, request: RequestBuilder) -> Result<Response> {
        Ok(self.send(request).await?)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Miss> {
        let response = request
            .send()
            .await
            .map_err(|error| Miss::Unanswered(self.unreachable(error)))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    async fn body(&self, response: Response) -> Result<BytesMut, Miss> {
        let mut body = BytesMut::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| Miss::Unanswered(self.unreachable(error)))?;
            if body.len().saturating_add(chunk.len()) > limits::MAX_ANSWER_BYTES {
                let limit = limits::MAX_ANSWER_BYTES >> 20;
                let told = self.broken(&format!("the answer is larger than {limit} MiB"));
                return Err(Miss::Refused(told));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    async fn refusal(&self, response: Response) -> Miss {
        let status = response.status();
        let is_problem = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("application/problem+json"));
        if is_problem
            && let Ok(body) = self.body(response).await
            && let Ok(problem) = serde_json::from_slice::<Problem>(&body)
        {
            let Problem {
                code,
                detail,
                errors,
                ..
            } = problem;
            let mut error = Error::new(code, detail);
            error.fields = errors;
            return Miss::Refused(error);
        }
        let told = format!("{} answered {status}", self.base);
        Miss::Refused(Error::new(kind_of(status), told))
    }

    pub(crate) fn unreachable(&self, error: reqwest::Error) -> Error {
        let why = if error.is_timeout() {
            "it does not answer in time".to_owned()
        } else if speaks_no_tls(&error) {
            "it does not speak TLS; try http:// in place of https://".to_owned()
        } else {
            innermost(&error)
        };
        Error::unavailable(format!("cannot reach {}: {why}", self.base)).with_source(error)
    }

    /// The server says what it should not.
    pub(crate) fn broken(&self, what: &str) -> Error {
        Error::new(ErrorKind::Internal, format!("{}: {what}", self.base))
    }
}

/// For answers that do not come from Vimana itself, such as a proxy's.
fn kind_of(status: StatusCode) -> ErrorKind {
    match status.as_u16() {
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::Forbidden,
        404 | 410 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        412 => ErrorKind::Stale,
        413 => ErrorKind::TooLarge,
        422 => ErrorKind::Invalid,
        429 => ErrorKind::RateLimited,
        400..500 => ErrorKind::Malformed,
        502..=504 => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

/// Whether the other end answered a TLS handshake in the clear.
fn speaks_no_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let clear = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref() == Some(&clear) {
            return true;
        }
        // What an I/O error wraps is not its source.
        let wrapped = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}

/// The cause at the bottom says most: "Connection refused (os error 111)".
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
