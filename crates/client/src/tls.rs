//! Which servers are believed.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use vimana_model::{Error, FieldError, Result};

use crate::BaseUrl;

/// A PEM file with certificates of authorities to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaFile(pub PathBuf);

/// The configuration for requests and consoles alike. The system's
/// certificates are only read where they are needed.
pub(crate) fn config(base: &BaseUrl, ca: Option<&CaFile>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if base.is_https() {
        // One unreadable certificate of the system must not make the rest useless.
        for certificate in rustls_native_certs::load_native_certs().certs {
            let _ = roots.add(certificate);
        }
    }
    if let Some(ca) = ca {
        add_file(&mut roots, ca)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::internal)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn add_file(roots: &mut RootCertStore, CaFile(path): &CaFile) -> Result<()> {
    let refused = |why: String| {
        let message = format!("{}: {why}", path.display());
        Error::from(FieldError::new("ca_file", message))
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| refused(error.to_string()))?;
    if certificates.is_empty() {
        return Err(refused("holds no certificate".to_owned()));
    }
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|error| refused(error.to_string()))?;
    }
    Ok(())
}
