//! TLS between the server and its agents: version 1.3 alone, and no session
//! is resumed, so that every connection proves itself anew.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};
use vimana_model::Timestamp;

use crate::{Authority, Fingerprint, PkiError, Result, SERVER_NAME, ServerCertificate};

/// The server's end. An agent may come without a certificate, for how else
/// would it join; one that shows a certificate of another authority, or one
/// that has expired by `now`, gets no connection.
///
/// # Errors
/// TLS cannot be set up.
pub fn server_config(
    authority: &Authority,
    certificate: ServerCertificate,
    now: impl Fn() -> Timestamp + Send + Sync + 'static,
) -> Result<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).map_err(tls)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(tls)?;
    let time = Arc::new(Time(now));
    let ServerCertificate { chain, key } = certificate;
    let mut config = ServerConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(tls)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// An agent's end when it has nothing but a join token: the server must come
/// with the authority of this fingerprint.
///
/// # Errors
/// TLS cannot be set up.
pub fn first_contact(authority: Fingerprint) -> Result<ClientConfig> {
    client_config(Arc::new(Pinned { authority }), |builder| {
        builder.with_no_client_auth()
    })
}

type Unauthenticated = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

pub fn client_config(
    verifier: Arc<dyn ServerCertVerifier>,
    authenticate: impl FnOnce(Unauthenticated) -> ClientConfig,
) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = authenticate(builder);
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Believes this authority and no other.
pub fn verifier(authority: &CertificateDer<'_>) -> Result<Arc<WebPkiServerVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone().into_owned()).map_err(tls)?;
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(tls)
}

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub fn tls(error: impl fmt::Display) -> PkiError {
    PkiError::Tls(error.to_string())
}

/// Decides about a server, whatever address it was found at.
pub fn judge(
    verifier: &WebPkiServerVerifier,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<ServerCertVerified, rustls::Error> {
    let name = ServerName::try_from(SERVER_NAME)
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    verifier.verify_server_cert(end_entity, intermediates, &name, &[], now)
}

/// What our verifiers say about signatures; all the same.
pub fn verify_tls12(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms())
}

pub fn verify_tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms())
}

pub fn schemes() -> Vec<SignatureScheme> {
    algorithms().supported_schemes()
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    rustls::crypto::ring::default_provider().signature_verification_algorithms
}

/// Knows the authority by its fingerprint alone, and finds it in what the
/// server sends along.
#[derive(Debug)]
struct Pinned {
    authority: Fingerprint,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| Fingerprint::of(certificate) == self.authority)
            .ok_or(CertificateError::UnknownIssuer)?;
        let verifier =
            verifier(authority).map_err(|error| rustls::Error::General(error.to_string()))?;
        judge(&verifier, end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// The caller's clock, as TLS asks it.
struct Time<F>(F);

impl<F> fmt::Debug for Time<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

impl<F: Fn() -> Timestamp + Send + Sync> TimeProvider for Time<F> {
    fn current_time(&self) -> Option<UnixTime> {
        // Before 1970 is 1970.
        let ms = u64::try_from((self.0)().as_ms()).unwrap_or(0);
        Some(UnixTime::since_unix_epoch(
            std::time::Duration::from_millis(ms),
        ))
    }
}
