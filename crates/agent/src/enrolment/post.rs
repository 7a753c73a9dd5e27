//! One request to the server, and what its answer means.

use std::error::Error as _;

use futures::StreamExt as _;
use reqwest::{Client, Response, StatusCode};
use rustls::ClientConfig;
use serde::Serialize;
use vimana_model::Problem;
use vimana_protocol::enrolment::Certified;
use vimana_protocol::limits::HELLO_TIMEOUT;

use crate::limits::MAX_ENROLMENT_BYTES;

/// Why there is no certificate in the answer.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// What was shown is not good, now and for ever.
    #[error("the server refused: {0}")]
    NotGood(String),
    /// Somebody has to do something first.
    #[error("the server refused: {0}")]
    Refused(String),
    #[error("the server does not answer as it should: {0}")]
    Passing(String),
}

/// A client that connects anew for every request, and so always shows the
/// certificate that is current.
pub fn client(tls: &ClientConfig) -> Result<Client, PostError> {
    Client::builder()
        .use_preconfigured_tls(tls.clone())
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .connect_timeout(HELLO_TIMEOUT)
        .timeout(HELLO_TIMEOUT * 2)
        .build()
        .map_err(|error| PostError::Passing(cause(&error)))
}

pub async fn post<T: Serialize + Sync>(
    http: &Client,
    url: &str,
    form: &T,
) -> Result<Certified, PostError> {
    let passing = |error: reqwest::Error| PostError::Passing(cause(&error));
    let response = http.post(url).json(form).send().await.map_err(passing)?;
    let status = response.status();
    let body = body(response).await?;
    if status.is_success() {
        return serde_json::from_slice(&body)
            .map_err(|error| PostError::Passing(error.to_string()));
    }
    let told = match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => problem.detail,
        Err(_) => format!("it answers {status}"),
    };
    Err(match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => PostError::Passing(told),
        StatusCode::UNAUTHORIZED => PostError::NotGood(told),
        status if status.is_client_error() => PostError::Refused(told),
        _ => PostError::Passing(told),
    })
}

async fn body(response: Response) -> Result<Vec<u8>, PostError> {
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| PostError::Passing(cause(&error)))?;
        if body.len().saturating_add(chunk.len()) > MAX_ENROLMENT_BYTES {
            let told = format!("its answer is longer than {MAX_ENROLMENT_BYTES} bytes");
            return Err(PostError::Passing(told));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The innermost cause says most: "invalid peer certificate: UnknownIssuer".
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match error.source() {
        Some(_) => cause.to_string(),
        None => "the request failed".to_owned(),
    }
}
