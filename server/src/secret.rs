//! What schedulers prove themselves with, and the installation's authority,
//! which agents are proved by.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use rand::TryRngCore;
use rand::rngs::OsRng;
use subtle::ConstantTimeEq;
use vimana_engine::World;
use vimana_pki::{Authority, Serial};

use crate::data_dir::make_private;

/// 32 random bytes, in hexadecimal.
const SECRET_BYTES: usize = 32;
/// Where the authority's key and certificate are kept.
const AUTHORITY: &str = "authority.pem";

/// One secret; shows itself to nobody.
#[derive(Clone)]
pub struct Secret(String);

/// What peers are told apart from others by.
#[derive(Clone)]
pub struct PeerSecrets {
    pub scheduler: Secret,
    pub authority: Arc<Authority>,
}

impl PeerSecrets {
    /// Reads both from `dir`, or makes them on the first start.
    pub fn open(dir: &Path, world: &World) -> anyhow::Result<Self> {
        make_private(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let authority = match read_authority(dir)? {
            Some(authority) => authority,
            None => make_authority(dir, world)?,
        };
        Ok(Self {
            scheduler: Secret::open(&dir.join("scheduler"))?,
            authority: Arc::new(authority),
        })
    }
}

/// Key and certificate of the authority; none before the server's first start.
pub fn read_authority(dir: &Path) -> anyhow::Result<Option<Authority>> {
    let path = dir.join(AUTHORITY);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let authority = Authority::from_text(&text)
                .with_context(|| format!("cannot use {}", path.display()))?;
            protect(&path)?;
            Ok(Some(authority))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn make_authority(dir: &Path, world: &World) -> anyhow::Result<Authority> {
    let serial = Serial::from_random(world.random_bytes());
    let authority = Authority::generate(serial).context("cannot make a certificate authority")?;
    write(&dir.join(AUTHORITY), &authority.to_text())?;
    Ok(authority)
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
        protect(path)?;
        Ok(Self(text.to_owned()))
    }

    fn make(path: &Path) -> anyhow::Result<Self> {
        let mut bytes = [0; SECRET_BYTES];
        OsRng
            .try_fill_bytes(&mut bytes)
            .context("the system gives no randomness")?;
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        write(path, &format!("{text}\n"))?;
        Ok(Self(text))
    }

    /// Whether `given` is the secret, in a time that tells nothing.
    pub fn matches(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

fn protect(path: &Path) -> anyhow::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", path.display()))
}

/// Whole or not at all: a half-written secret would be kept for ever.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let staged = path.with_extension("new");
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&staged)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&staged, path)?;
        path.parent()
            .map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
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
        let world = World::system();
        assert!(read_authority(&dir).unwrap().is_none());
        let first = PeerSecrets::open(&dir, &world).unwrap();
        let again = PeerSecrets::open(&dir, &world).unwrap();
        assert!(again.scheduler.matches(&first.scheduler.0));
        assert!(!again.scheduler.matches(""));
        assert_eq!(again.authority.fingerprint(), first.authority.fingerprint());
        for name in ["authority.pem", "scheduler"] {
            let mode = fs::metadata(dir.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_damaged_secret_is_refused() {
        for (name, told) in [
            ("scheduler", "64 hexadecimal digits"),
            ("authority.pem", "expected a key"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(name), "short").unwrap();
            let refusal = PeerSecrets::open(dir.path(), &World::system());
            let refusal = format!("{:#}", refusal.err().unwrap());
            assert!(refusal.contains(told), "{refusal}");
            assert!(!refusal.contains("short"));
        }
    }
}
