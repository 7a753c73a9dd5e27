//! The installation's certificate authority.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use vimana_model::{HostId, Timestamp};

use crate::limits::MAX_CERTIFICATE_BYTES;
use crate::peer::uri_of;
use crate::request::read_key;
use crate::{CertificateRequest, Fingerprint, HostKey, PkiError, Result, SERVER_NAME, Serial};

/// Signs for one installation.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

/// What the server shows to agents. Its key is never written anywhere.
pub struct ServerCertificate {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// A host's new certificate, and what the server remembers of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCertificate {
    pub pem: String,
    pub serial: Serial,
    /// Of the public key.
    pub key: Fingerprint,
    pub expires_at: Timestamp,
}

impl Authority {
    /// A new authority with a key of its own.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate(serial: Serial) -> Result<Self> {
        let key = HostKey::generate()?;
        let mut params = params(serial, "Vimana")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = read_key(&key.to_pem())?;
        let certificate = params.self_signed(&key).map_err(unsigned)?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// # Errors
    /// The texts are not an authority's certificate and its key.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self> {
        let der = read_certificate(certificate)?;
        let key = read_key(key)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|error| unreadable(&error))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(PkiError::Mismatch);
        }
        if !parsed.is_ca() {
            return Err(PkiError::Certificate("it is not an authority's".to_owned()));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(unsigned)?;
        Ok(Self {
            issuer,
            pem: certificate.to_owned(),
            der,
        })
    }

    /// Key and certificate in one text, for the server's own disk alone: so
    /// that one file holds both, or none.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}{}", self.key_pem(), self.pem)
    }

    /// # Errors
    /// The text is not one of [`Self::to_text`]. It is not repeated.
    pub fn from_text(text: &str) -> Result<Self> {
        let certificate = text.find(CERTIFICATE).ok_or_else(|| {
            PkiError::Certificate("expected a key and then its certificate, in PEM".to_owned())
        })?;
        let (key, certificate) = text.split_at(certificate);
        Self::from_pem(certificate, key)
    }

    /// The certificate, which everyone may know.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The key alone, for the server's own disk.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Of the certificate.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    /// A secret that only who has the authority's key can tell, and that is
    /// always the same for the same words.
    #[must_use]
    pub fn derive(&self, words: &[&str]) -> [u8; 32] {
        let key = Sha256::digest(self.issuer.key().serialized_der());
        let inner = words
            .iter()
            .fold(Sha256::new_with_prefix(key), |hash, word| {
                // No two lists of words read the same.
                hash.chain_update(word.len().to_le_bytes())
                    .chain_update(word)
            });
        let outer = Sha256::new_with_prefix(key).chain_update(inner.finalize());
        outer.finalize().into()
    }

    /// A certificate for the server, with a new key. It does not expire: it
    /// lives as long as the process that asked for it.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn certify_server(&self, serial: Serial) -> Result<ServerCertificate> {
        let key = HostKey::generate()?;
        let signing = read_key(&key.to_pem())?;
        let mut params = params(serial, SERVER_NAME)?;
        let name = SERVER_NAME.try_into().map_err(unsigned)?;
        params.subject_alt_names = vec![SanType::DnsName(name)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = self.sign(params, &signing)?;
        Ok(ServerCertificate {
            // The authority's own goes along, for agents that know it only by
            // its fingerprint yet.
            chain: vec![certificate.der().clone(), self.der.clone()],
            key: key.to_der(),
        })
    }

    /// A certificate for the host whose key asks.
    ///
    /// # Errors
    /// `expires_at` is no year that a certificate can hold.
    pub fn certify_host(
        &self,
        request: &CertificateRequest,
        host_id: HostId,
        serial: Serial,
        expires_at: Timestamp,
    ) -> Result<HostCertificate> {
        let mut params = params(serial, &host_id.to_string())?;
        params.not_after = to_time(expires_at)?;
        let uri = uri_of(host_id).try_into().map_err(unsigned)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        // Hosts talk to the server, and machines go from host to host. QEMU takes
        // no certificate that does not also say what RSA would need.
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let certificate = self.sign(params, request.key())?;
        Ok(HostCertificate {
            pem: certificate.pem(),
            serial,
            key: request.fingerprint(),
            // Certificates count whole seconds.
            expires_at: Timestamp::from_ms(
                expires_at.as_ms().div_euclid(1000).saturating_mul(1000),
            ),
        })
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<rcgen::Certificate> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.signed_by(key, &self.issuer).map_err(unsigned)
    }
}

/// How a certificate begins in PEM.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// What all our certificates have in common.
fn params(serial: Serial, name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.not_before = OffsetDateTime::from_unix_timestamp(NOT_BEFORE).map_err(bad_time)?;
    params.not_after = OffsetDateTime::from_unix_timestamp(NEVER).map_err(bad_time)?;
    params.serial_number = Some(SerialNumber::from_slice(serial.bytes()));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

/// As early as any clock can be.
const NOT_BEFORE: i64 = 0;
/// The last second of the year 9999, which stands for no end at all (RFC 5280,
/// 4.1.2.5).
const NEVER: i64 = 253_402_300_799;

fn to_time(at: Timestamp) -> Result<OffsetDateTime> {
    let seconds = at.as_ms().div_euclid(1000);
    if seconds > NEVER {
        return Err(PkiError::Certificate(format!("it would expire at {at}")));
    }
    OffsetDateTime::from_unix_timestamp(seconds).map_err(bad_time)
}

/// The one certificate in a PEM text.
pub fn read_certificate(pem: &str) -> Result<CertificateDer<'static>> {
    if pem.len() > MAX_CERTIFICATE_BYTES {
        let refusal = format!("it is longer than {MAX_CERTIFICATE_BYTES} bytes");
        return Err(PkiError::Certificate(refusal));
    }
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| unreadable(&error))
}

pub fn unreadable(error: &dyn std::fmt::Display) -> PkiError {
    PkiError::Certificate(error.to_string())
}

fn unsigned(error: rcgen::Error) -> PkiError {
    PkiError::Certificate(error.to_string())
}

fn bad_time(error: time::error::ComponentRange) -> PkiError {
    PkiError::Certificate(error.to_string())
}
