//! What agents and schedulers prove themselves with.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use rand::TryRngCore;
use rand::rngs::OsRng;
use subtle::ConstantTimeEq;

use crate::data_dir::make_private;

/// 32 random bytes, in hexadecimal.
const SECRET_BYTES: usize = 32;

/// One secret; shows itself to nobody.
#[derive(Clone)]
pub struct Secret(String);

/// The secrets of the two kinds of peers.
#[derive(Clone, Debug)]
pub struct PeerSecrets {
    pub agent: Secret,
    pub scheduler: Secret,
}

impl PeerSecrets {
    /// Reads both from `dir`, or makes them on the first start.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        make_private(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self {
            agent: Secret::open(&dir.join("agent"))?,
            scheduler: Secret::open(&dir.join("scheduler"))?,
        })
    }
}

impl Secret {
    fn open(path: &Path) -> anyhow::Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => Self::read(path, text.trim()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(path),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn read(path: &Path, text: &str) -> anyhow::Result<Self> {
        if text.len() != 2 * SECRET_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            bail!(
                "{} does not hold a secret of {} hexadecimal digits; remove it to have one made",
                path.display(),
                2 * SECRET_BYTES
            );
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot protect {}", path.display()))?;
        Ok(Self(text.to_owned()))
    }

    fn make(path: &Path) -> anyhow::Result<Self> {
        let mut bytes = [0; SECRET_BYTES];
        OsRng
            .try_fill_bytes(&mut bytes)
            .context("the system gives no randomness")?;
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let write = || -> io::Result<()> {
            // Whole or not at all: a half-written secret would be kept for ever.
            let staged = path.with_extension("new");
            let mut file = fs::OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&staged)?;
            writeln!(file, "{text}")?;
            file.sync_all()?;
            fs::rename(&staged, path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(text))
    }

    /// Whether `given` is the secret, in a time that tells nothing.
    pub fn matches(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("secrets");
        let first = PeerSecrets::open(&dir).unwrap();
        let again = PeerSecrets::open(&dir).unwrap();
        assert!(again.agent.matches(&first.agent.0));
        assert!(!again.agent.matches(&first.scheduler.0));
        assert!(!again.agent.matches(""));
        for name in ["agent", "scheduler"] {
            let mode = fs::metadata(dir.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_damaged_secret_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("agent"), "short").unwrap();
        let refusal = PeerSecrets::open(dir.path()).unwrap_err().to_string();
        assert!(refusal.contains("64 hexadecimal digits"), "{refusal}");
        assert!(!refusal.contains("short"));
    }
}
