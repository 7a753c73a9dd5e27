//! A host's key, and the request for a certificate it signs.

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKey,
    PublicKeyData as _,
};
use rustls::pki_types::PrivateKeyDer;

use crate::limits::MAX_REQUEST_BYTES;
use crate::{Fingerprint, PkiError, Result};

/// A private key on the curve P-256. It is made on the host and stays there.
pub struct HostKey(KeyPair);

impl HostKey {
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<Self> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|error| PkiError::Key(error.to_string()))
    }

    /// # Errors
    /// The text is not a P-256 key in PEM. It is not repeated in the error.
    pub fn from_pem(pem: &str) -> Result<Self> {
        read_key(pem).map(Self)
    }

    /// For the host's own disk alone.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// A request for a certificate, in PEM. It says nothing but the public
    /// key, and proves that the key is there: everything else in a certificate
    /// is the server's to decide.
    ///
    /// # Errors
    /// The key does not sign.
    pub fn request(&self) -> Result<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .serialize_request(&self.0)
            .and_then(|request| request.pem())
            .map_err(|error| PkiError::Request(error.to_string()))
    }

    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.0.subject_public_key_info())
    }

    pub(crate) fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.0.serialize_der().into())
    }
}

/// Only the curve and the form that [`HostKey::generate`] makes.
pub fn read_key(pem: &str) -> Result<KeyPair> {
    let refused = || PkiError::Key("expected a P-256 key in PEM (PKCS #8)".to_owned());
    KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256).map_err(|_| refused())
}

/// A request whose signature holds.
pub struct CertificateRequest {
    key: PublicKey,
}

impl CertificateRequest {
    /// # Errors
    /// The text is no request, asks for a key other than P-256, or is not
    /// signed by the key it names.
    pub fn from_pem(pem: &str) -> Result<Self> {
        if pem.len() > MAX_REQUEST_BYTES {
            let refusal = format!("it is longer than {MAX_REQUEST_BYTES} bytes");
            return Err(PkiError::Request(refusal));
        }
        let request = CertificateSigningRequestParams::from_pem(pem)
            .map_err(|error| PkiError::Request(error.to_string()))?;
        // What else it asks for is not even looked at.
        let key = request.public_key;
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(PkiError::Request("its key is not P-256".to_owned()));
        }
        Ok(Self { key })
    }

    /// Of the key that asks; the same key asks under the same fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.key.subject_public_key_info())
    }

    pub(crate) fn key(&self) -> &PublicKey {
        &self.key
    }
}
