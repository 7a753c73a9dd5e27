//! The agent's side: key and certificate, and the TLS that shows them.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::authority::read_certificate;
use crate::tls::{self, client_config, judge, provider, verifier};
use crate::{Fingerprint, HostKey, PeerIdentity, PkiError, Result};

/// A host's key and certificate, and the one authority it believes.
pub struct Identity {
    peer: PeerIdentity,
    authority: Fingerprint,
    certified: Arc<CertifiedKey>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl Identity {
    /// # Errors
    /// The certificate is not a host's, or does not belong to the key, or one
    /// of them cannot be read.
    pub fn new(key: &HostKey, certificate: &str, authority: &str) -> Result<Self> {
        let certificate = read_certificate(certificate)?;
        let authority = read_certificate(authority)?;
        let peer = PeerIdentity::from_der(&certificate)?;
        if peer.key != key.fingerprint() {
            return Err(PkiError::Mismatch);
        }
        let certified = CertifiedKey::from_der(vec![certificate], key.to_der(), &provider())
            .map_err(tls::tls)?;
        Ok(Self {
            peer,
            authority: Fingerprint::of(&authority),
            certified: Arc::new(certified),
            verifier: verifier(&authority)?,
        })
    }

    /// What the certificate says.
    #[must_use]
    pub fn peer(&self) -> PeerIdentity {
        self.peer
    }

    /// Of the authority's certificate.
    #[must_use]
    pub fn authority(&self) -> Fingerprint {
        self.authority
    }
}

/// The identity an agent shows at the moment: none before it has joined,
/// another one after each renewal. Connections made by
/// [`CurrentIdentity::client_config`] take whatever is current when they begin.
#[derive(Default)]
pub struct CurrentIdentity {
    identity: RwLock<Option<Arc<Identity>>>,
}

impl CurrentIdentity {
    pub fn set(&self, identity: Identity) {
        let mut current = self
            .identity
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Some(Arc::new(identity));
    }

    #[must_use]
    pub fn get(&self) -> Option<Arc<Identity>> {
        self.identity
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// For all connections of the agent, now and later.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn client_config(self: &Arc<Self>) -> Result<ClientConfig> {
        let (verifier, resolver) = (Arc::clone(self), Arc::clone(self));
        client_config(verifier, |builder| {
            builder.with_client_cert_resolver(resolver)
        })
    }
}

impl fmt::Debug for CurrentIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(identity) => write!(f, "CurrentIdentity({:?})", identity.peer),
            None => f.write_str("CurrentIdentity(none)"),
        }
    }
}

impl ResolvesClientCert for CurrentIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.get()?.certified))
    }

    fn has_certs(&self) -> bool {
        self.get().is_some()
    }
}

impl ServerCertVerifier for CurrentIdentity {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let identity = self.get().ok_or_else(|| {
            rustls::Error::General("the host has not joined and believes no server yet".to_owned())
        })?;
        judge(&identity.verifier, end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        tls::verify_tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        tls::verify_tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::schemes()
    }
}
