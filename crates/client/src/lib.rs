//! A typed client of Vimana's REST interface: one method per route, the
//! model's views in and out, and the model's errors for every refusal.
//!
//! Nothing here reads the environment: address, certificate authority and
//! token are arguments. A proxy from the environment is not used either, so
//! that requests, events and consoles all take the same way.
//!
//! Every call that changes something carries an idempotency key of its own
//! and is sent again, under the same key, when no answer arrives.

mod backup;
mod base;
mod change;
mod console;
mod event;
mod flavor;
mod host;
mod image;
pub mod limits;
mod operation;
mod quota;
mod request;
mod session;
mod snapshot;
mod sse;
mod template;
mod tenant;
mod tls;
mod transport;
mod vm;
mod volume;

use std::sync::Arc;

pub use base::BaseUrl;
pub use console::{Console, ConsoleReader, ConsoleWriter};
pub use event::Notice;
pub use image::{ImageDownload, UploadReach};
pub use request::RequestFilter;
pub use tls::CaFile;
use vimana_model::Result;
pub use vm::VmFilter;

/// A connection pool to one server, with at most one token. Cloning is cheap.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: BaseUrl,
    tls: Arc<rustls::ClientConfig>,
    token: Option<Arc<str>>,
}

impl Client {
    /// Prepares a client; nothing is sent yet. `ca` names certificates to
    /// trust beside the system's own.
    ///
    /// # Errors
    /// Invalid when the certificates cannot be read.
    pub fn new(base: BaseUrl, ca: Option<&CaFile>) -> Result<Self> {
        let tls = tls::config(&base, ca)?;
        let http = transport::http_client(&tls)?;
        Ok(Self {
            http,
            base,
            tls: Arc::new(tls),
            token: None,
        })
    }

    /// The same client, with `token` on every request.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(Arc::from(token));
        self
    }

    #[must_use]
    pub fn base(&self) -> &BaseUrl {
        &self.base
    }
}
