//! The dialing end of a connection to the server: address, proof of who asks,
//! TLS, WebSocket. Agents and schedulers share it; an agent proves itself by
//! its certificate, a scheduler by its secret.

mod link;
mod retry;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, Uri, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream};

pub use link::{Link, LinkError};
pub use retry::{Backoff, Random, Retry};
pub use wire::{Dial, FarEnd, Wire};

use crate::limits::{HELLO_TIMEOUT, MAX_SECRET_BYTES, READ_BUFFER_BYTES};

/// An open connection.
pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why the server cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("`{0}` is no server address: expected http://HOST[:PORT] or https://HOST[:PORT]")]
    BadAddress(String),
    #[error("cannot read the secret file `{path}`: {error}")]
    SecretUnreadable {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("the secret file `{0}` holds no secret: expected one line of printable characters")]
    BadSecret(PathBuf),
    #[error("the CA file `{path}` holds no usable certificate: {reason}")]
    BadCa { path: PathBuf, reason: String },
    #[error("`{0}` is not safe enough for an agent: expected https://HOST[:PORT]")]
    NotSecure(String),
    #[error("the server does not accept who asks: {0}")]
    Unauthorized(String),
    #[error("the host has not joined: {0}")]
    NotJoined(String),
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("cannot connect: {0}")]
    Unreachable(String),
    #[error("cannot connect: {0}")]
    Socket(#[from] Box<tungstenite::Error>),
}

/// Where the server is and how to prove who asks.
#[derive(Clone)]
pub struct Server {
    secure: bool,
    /// Host, port and leading path, without a slash at the end.
    place: String,
    loopback: bool,
    /// Where there is none, TLS proves who asks.
    secret_file: Option<PathBuf>,
    tls: Option<Arc<ClientConfig>>,
}

impl Server {
    /// For one who has a secret. `address` is `http(s)://HOST[:PORT][/PREFIX]`.
    /// With a `ca_file` the server's certificate must come from a CA in there;
    /// without one, from a CA the system trusts.
    ///
    /// # Errors
    /// Where the address, the secret file or the CA file cannot be used.
    pub fn new(
        address: &str,
        secret_file: &Path,
        ca_file: Option<&Path>,
    ) -> Result<Self, DialError> {
        let server = Self {
            secret_file: Some(secret_file.to_owned()),
            tls: ca_file.map(trust_only).transpose()?,
            ..Self::at(address)?
        };
        // Said at the start rather than at every try.
        server.bearer()?;
        Ok(server)
    }

    /// For one whom `tls` proves, and who is shown by it whom to believe.
    ///
    /// # Errors
    /// Where the address is none, or not one of https.
    pub fn with_tls(address: &str, tls: Arc<ClientConfig>) -> Result<Self, DialError> {
        let server = Self {
            tls: Some(tls),
            ..Self::at(address)?
        };
        if server.secure {
            Ok(server)
        } else {
            Err(DialError::NotSecure(address.to_owned()))
        }
    }

    fn at(address: &str) -> Result<Self, DialError> {
        let bad = || DialError::BadAddress(address.to_owned());
        let uri: Uri = address.parse().map_err(|_| bad())?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        let authority = uri
            .authority()
            .filter(|a| !a.as_str().contains('@'))
            .ok_or_else(bad)?;
        if uri.query().is_some() || authority.host().is_empty() {
            return Err(bad());
        }
        Ok(Self {
            secure,
            place: format!("{authority}{}", uri.path().trim_end_matches('/')),
            loopback: is_loopback(authority.host()),
            secret_file: None,
            tls: None,
        })
    }

    /// The secret would cross a network in the clear.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        !self.secure && !self.loopback
    }

    /// The address of `path` for plain requests.
    #[must_use]
    pub fn http_url(&self, path: &str) -> String {
        format!("http{}://{}{path}", self.s(), self.place)
    }

    fn ws_url(&self, path: &str) -> String {
        format!("ws{}://{}{path}", self.s(), self.place)
    }

    fn s(&self) -> &'static str {
        if self.secure { "s" } else { "" }
    }

    /// The TLS settings where they are not the usual ones.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<ClientConfig>> {
        self.tls.as_ref()
    }

    /// The `Authorization` header, where a secret proves who asks. The file is
    /// read each time, so that a renewed secret needs no restart.
    fn bearer(&self) -> Result<Option<HeaderValue>, DialError> {
        let Some(path) = &self.secret_file else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(path).map_err(|error| DialError::SecretUnreadable {
            path: path.clone(),
            error,
        })?;
        let secret = text.trim();
        let fine = !secret.is_empty()
            && secret.len() <= MAX_SECRET_BYTES
            && secret.bytes().all(|b| b.is_ascii_graphic());
        let mut value = Some(format!("Bearer {secret}"))
            .filter(|_| fine)
            .and_then(|text| HeaderValue::from_str(&text).ok())
            .ok_or_else(|| DialError::BadSecret(path.clone()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Opens a WebSocket at `path` that takes messages of at most
    /// `max_message_bytes` from the server.
    ///
    /// # Errors
    /// Where there is no connection within [`HELLO_TIMEOUT`].
    pub async fn open(&self, path: &str, max_message_bytes: usize) -> Result<Socket, DialError> {
        let mut request = self
            .ws_url(path)
            .into_client_request()
            .map_err(|error| DialError::Socket(Box::new(error)))?;
        if let Some(bearer) = self.bearer()? {
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(max_message_bytes))
            .max_frame_size(Some(max_message_bytes));
        let connector = self.tls.clone().map(Connector::Rustls);
        let dial = tokio_tungstenite::connect_async_tls_with_config(
            request,
            Some(config),
            true,
            connector,
        );
        match tokio::time::timeout(HELLO_TIMEOUT, Box::pin(dial)).await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(error)) => Err(refusal(error)),
            Err(_) => Err(DialError::TimedOut(HELLO_TIMEOUT)),
        }
    }
}

fn refusal(error: tungstenite::Error) -> DialError {
    if let tungstenite::Error::Http(response) = &error {
        let body = response.body().as_deref().unwrap_or_default();
        return match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => DialError::Unauthorized(why(body)),
            status => DialError::Status(status),
        };
    }
    DialError::Socket(Box::new(error))
}

/// What the server's problem document says, if it is one.
fn why(body: &[u8]) -> String {
    match serde_json::from_slice::<vimana_model::Problem>(body) {
        Ok(problem) => problem.detail,
        Err(_) => "it does not say why".to_owned(),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

fn trust_only(path: &Path) -> Result<Arc<ClientConfig>, DialError> {
    let bad = |reason: String| DialError::BadCa {
        path: path.to_owned(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(e.to_string()))? {
        let certificate = certificate.map_err(|e| bad(e.to_string()))?;
        roots.add(certificate).map_err(|e| bad(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("it is empty".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn secret(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn addresses_become_urls() {
        let file = secret("s3cret\n");
        let server = Server::new("http://127.0.0.1:8080/", file.path(), None).unwrap();
        assert_eq!(server.ws_url("/a"), "ws://127.0.0.1:8080/a");
        assert_eq!(server.http_url("/a"), "http://127.0.0.1:8080/a");
        assert!(!server.is_exposed());
        let bearer = server.bearer().unwrap().unwrap();
        assert_eq!(bearer.to_str().unwrap(), "Bearer s3cret");

        let server = Server::new("https://example.org/vimana", file.path(), None).unwrap();
        assert_eq!(server.ws_url("/a"), "wss://example.org/vimana/a");
        assert!(!server.is_exposed());
        let server = Server::new("http://[::1]:1", file.path(), None).unwrap();
        assert!(!server.is_exposed());
        let server = Server::new("http://example.org", file.path(), None).unwrap();
        assert!(server.is_exposed());
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let file = secret("s");
        for address in [
            "",
            "localhost:1",
            "ftp://a",
            "http://",
            "http://u:p@a",
            "http://a/?q",
        ] {
            let error = Server::new(address, file.path(), None).err().unwrap();
            assert!(
                matches!(error, DialError::BadAddress(_)),
                "{address:?}: {error}"
            );
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_and_never_shown() {
        for text in ["", " \n", "two words", "two\nlines"] {
            let file = secret(text);
            let error = Server::new("http://a", file.path(), None).err().unwrap();
            assert!(
                matches!(error, DialError::BadSecret(_)),
                "{text:?}: {error}"
            );
        }
        let file = secret("s3cret");
        let server = Server::new("http://a", file.path(), None).unwrap();
        assert!(!format!("{:?}", server.bearer().unwrap()).contains("s3cret"));
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let body = br#"{"type":"about:blank","title":"t","status":401,
            "code":"unauthenticated","detail":"the certificate was revoked"}"#;
        assert_eq!(why(body), "the certificate was revoked");
        assert_eq!(why(b"<html>"), "it does not say why");
    }

    #[test]
    fn who_is_proved_by_tls_has_no_secret_and_speaks_nothing_else() {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let config = Arc::new(config);
        let error = Server::with_tls("http://127.0.0.1", Arc::clone(&config));
        assert!(matches!(error.err().unwrap(), DialError::NotSecure(_)));
        let server = Server::with_tls("https://127.0.0.1:8701", config).unwrap();
        assert!(server.bearer().unwrap().is_none() && server.tls().is_some());
    }
}
