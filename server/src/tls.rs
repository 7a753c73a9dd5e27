//! HTTPS, when given a certificate.

use std::path::Path;

use anyhow::{Context, bail};
use axum_server::tls_rustls::RustlsConfig;

use crate::config::TlsFiles;

/// The TLS configuration, or `None` for plain HTTP.
pub async fn config(files: &TlsFiles) -> anyhow::Result<Option<RustlsConfig>> {
    match (&files.tls_cert, &files.tls_key) {
        (Some(cert), Some(key)) => load(cert, key).await.map(Some),
        (None, None) => Ok(None),
        (Some(_), None) | (None, Some(_)) => {
            bail!("a certificate needs its key: give both --tls-cert and --tls-key")
        }
    }
}

async fn load(cert: &Path, key: &Path) -> anyhow::Result<RustlsConfig> {
    RustlsConfig::from_pem_file(cert, key)
        .await
        .with_context(|| {
            format!(
                "cannot use the certificate {} with the key {}",
                cert.display(),
                key.display()
            )
        })
}
