//! Moving large files between the host and the server, over HTTP.

use std::error::Error as _;
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::StatusCode;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use vimana_driver::{Fault, FaultKind};
use vimana_model::Problem;
use vimana_protocol::dial::{Backoff, Random, Retry, Server};
use vimana_protocol::limits::HELLO_TIMEOUT;

use crate::Meter;
use crate::limits::{DOWNLOAD_STALL, MAX_PROBLEM_BYTES, MAX_TRANSFER_TRIES};

/// How to get bytes from the server and to it.
#[derive(Clone)]
pub struct Transfer {
    server: Server,
    /// Gives up where nothing comes for a while.
    downloads: reqwest::Client,
    /// Nothing comes while a body is on its way out.
    uploads: reqwest::Client,
    retry: Retry,
    random: Random,
}

/// Why a try failed.
#[derive(Debug)]
pub enum Failure {
    /// The same again would fail the same.
    Final(Fault),
    /// The server or the way to it had a bad moment.
    Passing(Fault),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Final(fault)
    }
}

/// The tries of one transfer.
pub struct Tries {
    backoff: Backoff,
    done: u32,
}

impl Transfer {
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new(server: Server, retry: Retry, random: Random) -> reqwest::Result<Self> {
        // The control connection uses no proxy either: one way to the server.
        let builder = || {
            let builder = reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                // A connection kept would go on showing a certificate that
                // was renewed since.
                .pool_max_idle_per_host(0)
                .connect_timeout(HELLO_TIMEOUT);
            match server.tls() {
                Some(tls) => builder.use_preconfigured_tls(tls.as_ref().clone()),
                None => builder,
            }
        };
        Ok(Self {
            downloads: builder().read_timeout(DOWNLOAD_STALL).build()?,
            uploads: builder().build()?,
            server,
            retry,
            random,
        })
    }

    #[must_use]
    pub fn tries(&self) -> Tries {
        Tries {
            backoff: Backoff::with(self.retry, self.random.clone()),
            done: 0,
        }
    }

    #[must_use]
    pub fn random(&self) -> &Random {
        &self.random
    }

    /// Asks for `path` in order to do `what` ("fetching the image"); an answer
    /// other than OK is a failure.
    pub async fn get(
        &self,
        what: &'static str,
        path: &str,
        missing: &'static str,
    ) -> Result<reqwest::Response, Failure> {
        let response = self.downloads.get(self.server.http_url(path)).send().await;
        let response = response.map_err(|error| broken(what, error))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::NOT_FOUND => Err(Fault::new(FaultKind::BadImage, missing).into()),
            _ => Err(refused(what, response).await),
        }
    }

    /// Whether the server says that it has nothing at `path`.
    ///
    /// # Errors
    /// It cannot be asked now, or will not answer.
    pub async fn is_gone(&self, what: &'static str, path: &str) -> Result<bool, Fault> {
        let response = self.downloads.head(self.server.http_url(path)).send().await;
        let failed = |failure| match failure {
            Failure::Final(fault) | Failure::Passing(fault) => fault,
        };
        let response = response.map_err(|error| failed(broken(what, error)))?;
        match response.status() {
            StatusCode::OK => Ok(false),
            StatusCode::NOT_FOUND => Ok(true),
            _ => Err(failed(refused(what, response).await)),
        }
    }

    /// Asks for bytes at `path`; gives up where nothing comes for a while.
    pub fn fetch(&self, path: &str) -> reqwest::RequestBuilder {
        self.downloads.get(self.server.http_url(path))
    }

    /// Asks at `path`, where the answer may take its time.
    pub fn ask(&self, path: &str) -> reqwest::RequestBuilder {
        self.uploads.get(self.server.http_url(path))
    }

    pub fn put(&self, path: &str) -> reqwest::RequestBuilder {
        self.uploads.put(self.server.http_url(path))
    }
}

impl Tries {
    /// Waits for the next try.
    ///
    /// # Errors
    /// The failure's fault where there is none.
    pub async fn after(&mut self, failure: Failure) -> Result<(), Fault> {
        self.done += 1;
        match failure {
            Failure::Passing(fault) if self.done < MAX_TRANSFER_TRIES => {
                tracing::debug!(%fault, "will be tried again");
                tokio::time::sleep(self.backoff.wait()).await;
                Ok(())
            }
            Failure::Passing(fault) | Failure::Final(fault) => Err(fault),
        }
    }
}

/// What a body is to be.
pub struct Promise<'a> {
    pub size_bytes: u64,
    pub sha256: &'a str,
}

/// Writes a response's body to `file`, and sees that it is what was promised.
/// `what` is for people: "the image".
pub async fn receive(
    response: reqwest::Response,
    file: &mut File,
    promise: &Promise<'_>,
    what: &'static str,
    meter: &Meter,
) -> Result<(), Failure> {
    let mut inflow = Inflow::default();
    let result = receive_rest(response, file, promise, what, meter, &mut inflow).await;
    if result.is_err() {
        meter.moved_in_vain(inflow.received);
    }
    result
}

/// What has come of a body.
#[derive(Default)]
pub struct Inflow {
    pub hash: Sha256,
    /// Bytes.
    pub received: u64,
}

/// As [`receive`], after what `inflow` says has come; it is in the file as far
/// as that says, however it ends.
pub async fn receive_rest(
    response: reqwest::Response,
    file: &mut File,
    promise: &Promise<'_>,
    what: &'static str,
    meter: &Meter,
    inflow: &mut Inflow,
) -> Result<(), Failure> {
    let storing = |error: std::io::Error| Fault::io(&format!("storing {what}"), &error);
    let mut body = response.bytes_stream();
    let broke = loop {
        let chunk = match body.next().await {
            None => break None,
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) => break Some(broken(&format!("fetching {what}"), error)),
        };
        let size = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        if inflow.received.saturating_add(size) > promise.size_bytes {
            return Err(wrong_size(what, "more", promise).into());
        }
        file.write_all(&chunk).await.map_err(storing)?;
        inflow.hash.update(&chunk);
        inflow.received = inflow.received.saturating_add(size);
        meter.moved(size);
    };
    file.flush().await.map_err(storing)?;
    broke.map_or_else(|| promise.check(inflow, what), Err)
}

impl Promise<'_> {
    /// Whether that is what has come.
    pub fn check(&self, inflow: &Inflow, what: &str) -> Result<(), Failure> {
        if inflow.received < self.size_bytes {
            return Err(wrong_size(what, "fewer", self).into());
        }
        let digest = format!("{:x}", inflow.hash.clone().finalize());
        if !digest.eq_ignore_ascii_case(self.sha256) {
            let message = format!("{what}'s checksum is not the one promised");
            return Err(Fault::new(FaultKind::BadImage, message).into());
        }
        Ok(())
    }
}

fn wrong_size(what: &str, how: &str, promise: &Promise<'_>) -> Fault {
    let promised = promise.size_bytes;
    let message = format!("{what} has {how} bytes than the {promised} promised");
    Fault::new(FaultKind::BadImage, message)
}

/// An answer that is not the one hoped for, in the server's words.
pub async fn refused(what: &str, mut response: reqwest::Response) -> Failure {
    let status = response.status();
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await
        && body.len() < MAX_PROBLEM_BYTES
    {
        body.extend_from_slice(&chunk);
    }
    let message = match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => format!("{what}: {}", problem.detail),
        Err(_) => format!("{what}: the server answered {status}"),
    };
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return Fault::new(FaultKind::BadImage, message).into();
    }
    let fault = Fault::new(FaultKind::Unavailable, message);
    let passes = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    if status.is_server_error() || passes.contains(&status) {
        Failure::Passing(fault)
    } else {
        Failure::Final(fault)
    }
}

/// The way to the server broke.
pub fn broken(what: &str, error: reqwest::Error) -> Failure {
    // The address names nothing a user knows; the cause does.
    let error = error.without_url();
    let mut message = format!("{what}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    Failure::Passing(Fault::new(FaultKind::Unavailable, message))
}

/// No sign of life from the server for that long.
pub fn stalled(what: &str, long: Duration) -> Failure {
    let message = format!("{what}: nothing moved for {} s", long.as_secs());
    Failure::Passing(Fault::new(FaultKind::Unavailable, message))
}
