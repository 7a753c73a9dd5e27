//! Where the token is kept between two commands.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vimana_client::{BaseUrl, CaFile, Client};
use vimana_model::{ErrorKind, Timestamp};

use crate::failure::{Failure, Outcome};
use crate::limits::MAX_CREDENTIALS_BYTES;

/// One sign-in.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    pub url: String,
    pub user_name: String,
    pub token: String,
    pub expires_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// A client that is signed in: by the environment, else by the stored token.
pub fn client() -> Outcome<Client> {
    match (std::env::var("VIMANA_URL"), std::env::var("VIMANA_TOKEN")) {
        (Ok(url), Ok(token)) => {
            let ca = std::env::var_os("VIMANA_CA_FILE").map(PathBuf::from);
            connect(&url, ca.as_deref(), &token)
        }
        (Err(_), Ok(_)) => Err(Failure::Usage(
            "VIMANA_TOKEN is set without VIMANA_URL; set both or neither".to_owned(),
        )),
        (_, Err(_)) => {
            let stored = load()?.ok_or_else(|| {
                Failure::Failed(
                    "nobody is signed in; use `vimana login --url URL --user NAME`".to_owned(),
                )
            })?;
            connect(&stored.url, stored.ca_file.as_deref(), &stored.token)
        }
    }
}

/// Both are set: the stored sign-in is not used.
pub fn are_in_environment() -> bool {
    ["VIMANA_URL", "VIMANA_TOKEN"]
        .iter()
        .all(|name| std::env::var(name).is_ok())
}

/// Where a token that is not good any more came from, and how to get another.
pub fn explained(failure: Failure) -> Failure {
    let Failure::Refused(mut error) = failure else {
        return failure;
    };
    if error.kind == ErrorKind::Unauthenticated {
        let hint = match load() {
            _ if are_in_environment() => "the token is the one in VIMANA_TOKEN".to_owned(),
            Ok(Some(stored)) => format!(
                "`vimana login --url {} --user {}`",
                stored.url, stored.user_name
            ),
            Ok(None) | Err(_) => "`vimana login`".to_owned(),
        };
        error.public.push_str(&format!(" ({hint})"));
    }
    Failure::Refused(error)
}

fn connect(url: &str, ca: Option<&Path>, token: &str) -> Outcome<Client> {
    let base: BaseUrl = url
        .parse()
        .map_err(|error| Failure::Usage(format!("`{url}`: {error}")))?;
    let ca = ca.map(|path| CaFile(path.to_owned()));
    Ok(Client::new(base, ca.as_ref())?.with_token(token))
}

/// The stored sign-in, if there is one.
pub fn load() -> Outcome<Option<Credentials>> {
    let path = path()?;
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(trouble("read", &path, &error)),
    };
    let mut text = String::new();
    file.take(MAX_CREDENTIALS_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| trouble("read", &path, &error))?;
    serde_json::from_str(&text).map(Some).map_err(|error| {
        // The error's text must not quote the file, which holds a secret.
        Failure::Failed(format!(
            "{} is damaged (line {}); sign in again with `vimana login`",
            path.display(),
            error.line()
        ))
    })
}

/// Stores a sign-in for its owner alone, whole or not at all.
pub fn save(credentials: &Credentials) -> Outcome {
    let path = path()?;
    let write = || -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let text = serde_json::to_vec_pretty(credentials)?;
        // A temporary file of this crate is made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(&text)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        Ok(())
    };
    write().map_err(|error| trouble("write", &path, &error))
}

/// Forgets the stored sign-in.
pub fn forget() -> Outcome {
    let path = path()?;
    match fs::remove_file(&path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(trouble("remove", &path, &error)),
    }
}

fn trouble(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot {what} {}: {error}", path.display()))
}

fn path() -> Outcome<PathBuf> {
    let filled = |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
    let dir = if let Some(dir) = filled("VIMANA_CONFIG_DIR") {
        PathBuf::from(dir)
    } else if let Some(dir) = filled("XDG_CONFIG_HOME") {
        PathBuf::from(dir).join("vimana")
    } else if let Some(home) = filled("HOME") {
        PathBuf::from(home).join(".config").join("vimana")
    } else {
        return Err(Failure::Usage(
            "no place for the credentials: set HOME or VIMANA_CONFIG_DIR".to_owned(),
        ));
    };
    Ok(dir.join("credentials.json"))
}
