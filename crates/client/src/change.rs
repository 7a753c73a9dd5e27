//! Calls that change something: each has one effect, however often it must be
//! sent until an answer arrives.

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use vimana_model::{Error, Result};

use crate::transport::Miss;
use crate::{Client, limits};

const IDEMPOTENCY_KEY: &str = "idempotency-key";

impl Client {
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.change(Method::POST, path, None).await
    }

    pub(crate) async fn post_json<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T> {
        self.change(Method::POST, path, Some(json(body)?)).await
    }

    pub(crate) async fn put_json<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T> {
        self.change(Method::PUT, path, Some(json(body)?)).await
    }

    pub(crate) async fn patch_json<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T> {
        self.change(Method::PATCH, path, Some(json(body)?)).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.change(Method::DELETE, path, None).await
    }

    /// Asks under a fresh key, and again under the same one while no answer
    /// arrives and patience lasts.
    async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<T> {
        let key = format!("{:032x}", rand::random::<u128>());
        let give_up = Instant::now() + limits::REPEAT_WITHIN;
        let mut pause = limits::FIRST_REPEAT_PAUSE;
        let mut attempt = 1;
        loop {
            let mut request = self.prepare(method.clone(), path)?;
            request = with_body(request.header(IDEMPOTENCY_KEY, &key), body.as_ref());
            let error = match self.attempt(request).await {
                Ok(answer) => return Ok(answer),
                Err(Miss::Refused(error)) => return Err(error),
                Err(Miss::Unanswered(error)) => error,
            };
            if attempt == limits::MAX_ATTEMPTS || Instant::now() + pause > give_up {
                return Err(error);
            }
            // Many clients lose one server at the same moment.
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = pause.saturating_mul(2);
            attempt += 1;
        }
    }
}

fn json<B: Serialize>(body: &B) -> Result<Bytes> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(Error::internal)
}

/// The body as JSON, where there is one.
fn with_body(request: RequestBuilder, body: Option<&Bytes>) -> RequestBuilder {
    match body {
        Some(body) => request
            .header(CONTENT_TYPE, "application/json")
            .body(body.clone()),
        None => request,
    }
}
