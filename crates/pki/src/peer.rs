//! What a host's certificate says.

use vimana_model::{HostId, Timestamp};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::authority::unreadable;
use crate::{Fingerprint, PkiError, Result, Serial};

/// Before a host's id in its certificate's one alternative name, a URI.
const URI_PREFIX: &str = "urn:vimana:";

pub fn uri_of(host_id: HostId) -> String {
    format!("{URI_PREFIX}{host_id}")
}

/// Who is at the other end, by a certificate that TLS has already verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    pub host_id: HostId,
    pub serial: Serial,
    /// Of the public key.
    pub key: Fingerprint,
    pub expires_at: Timestamp,
}

impl PeerIdentity {
    /// Reads a certificate; whether it holds is not decided here.
    ///
    /// # Errors
    /// It is not one that [`crate::Authority::certify_host`] makes.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        let (rest, certificate) =
            x509_parser::parse_x509_certificate(der).map_err(|error| unreadable(&error))?;
        if !rest.is_empty() {
            return Err(PkiError::NotAHost("something follows it"));
        }
        let expires_at = certificate.validity().not_after.timestamp();
        Ok(Self {
            host_id: host_id(&certificate)?,
            serial: Serial::from_certificate(certificate.raw_serial())
                .ok_or(PkiError::NotAHost("its serial number is not one of ours"))?,
            key: Fingerprint::of(certificate.public_key().raw),
            expires_at: Timestamp::from_ms(expires_at.saturating_mul(1000)),
        })
    }
}

fn host_id(certificate: &X509Certificate<'_>) -> Result<HostId> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| unreadable(&error))?
        .ok_or(PkiError::NotAHost("it has no alternative name"))?;
    // One name alone: nobody has to choose.
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else {
        return Err(PkiError::NotAHost("its alternative name is not one URI"));
    };
    uri.strip_prefix(URI_PREFIX)
        .and_then(|id| id.parse().ok())
        .ok_or(PkiError::NotAHost(
            "its alternative name is not a host's id",
        ))
}
