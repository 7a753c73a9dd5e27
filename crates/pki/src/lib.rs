//! The installation's certificates.
//!
//! Every installation has a certificate authority of its own, made at the
//! server's first start. It signs the certificate the server shows to agents,
//! and one certificate per host, which the host's agent shows to the server.
//! Nobody else's authority is trusted on either side, and the server is always
//! called [`SERVER_NAME`], so that no address needs to be configured.
//!
//! Certificates are valid since 1970, and the server's never expires: no clock
//! that is wrong on a host keeps it from its server, and none that was set back
//! on the server makes a certificate one that is "not yet valid".
//!
//! Pure: files, sockets, time and serial numbers are the caller's. Only keys
//! are made here, from the system's randomness.

mod authority;
mod fingerprint;
mod identity;
mod join_token;
mod limits;
mod peer;
mod request;
mod serial;
mod tls;

pub use authority::{Authority, HostCertificate, ServerCertificate};
pub use fingerprint::{Fingerprint, InvalidFingerprint};
pub use identity::{CurrentIdentity, Identity};
pub use join_token::{InvalidJoinToken, JoinToken};
pub use peer::PeerIdentity;
pub use request::{CertificateRequest, HostKey};
pub use serial::{InvalidSerial, Serial};
pub use tls::{first_contact, server_config};

/// What agents call the server, wherever it is.
pub const SERVER_NAME: &str = "server.vimana";

/// Why a certificate, a key or a request is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("the key cannot be made or read: {0}")]
    Key(String),
    #[error("the certificate cannot be made or read: {0}")]
    Certificate(String),
    #[error("the certificate and the key do not belong together")]
    Mismatch,
    #[error("the certificate request cannot be accepted: {0}")]
    Request(String),
    #[error("the certificate is not a host's: {0}")]
    NotAHost(&'static str),
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

pub type Result<T, E = PkiError> = std::result::Result<T, E>;
