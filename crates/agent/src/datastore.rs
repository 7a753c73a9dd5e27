//! The directories for volumes that an operator names, besides the agent's own.
//!
//! Each has a file that says which datastore it is: so another directory that
//! gets its name, or the empty one below a file system that is not mounted, is
//! not taken for it.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vimana_model::DatastoreId;
use vimana_model::datastore::DatastoreDir;
use vimana_model::name::DatastoreName;
use vimana_protocol::agent::HostDatastore;

use crate::capacity;
use crate::data_dir::{sync_dir, unix_ms};

const MARKER: &str = ".vimana-datastore";

/// Why a directory cannot serve as a datastore.
#[derive(Debug, thiserror::Error)]
pub enum DatastoreError {
    #[error("`local` is the data directory; call datastore {0} something else")]
    Local(PathBuf),
    #[error("two datastores are called `{0}`")]
    Twice(DatastoreName),
    #[error("datastore `{name}`: {path} is not a directory, or not mounted")]
    Missing { name: DatastoreName, path: PathBuf },
    #[error("datastore `{name}`: {path} holds other files; give it a directory of its own")]
    Strange { name: DatastoreName, path: PathBuf },
    #[error("datastore `{name}`: {path} is datastore `{is}`")]
    Other {
        name: DatastoreName,
        path: PathBuf,
        is: DatastoreName,
    },
    #[error("datastore `{name}`: {path}: {error}")]
    Io {
        name: DatastoreName,
        path: PathBuf,
        error: io::Error,
    },
}

/// What the directory is.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    datastore_id: DatastoreId,
    name: DatastoreName,
}

/// Finds each in its place; an empty directory becomes one.
///
/// # Errors
/// The first one that cannot serve.
pub fn open(named: &[DatastoreDir]) -> Result<Vec<HostDatastore>, DatastoreError> {
    let mut found: Vec<HostDatastore> = Vec::new();
    for DatastoreDir { name, path } in named {
        if name.is_local() {
            return Err(DatastoreError::Local(path.clone()));
        }
        if found.iter().any(|datastore| datastore.name == *name) {
            return Err(DatastoreError::Twice(name.clone()));
        }
        found.push(open_one(name, path)?);
    }
    Ok(found)
}

fn open_one(name: &DatastoreName, path: &Path) -> Result<HostDatastore, DatastoreError> {
    let (named, at) = (|| name.clone(), || path.to_owned());
    let failed = |error| DatastoreError::Io {
        name: named(),
        path: at(),
        error,
    };
    if !path.is_dir() {
        let (name, path) = (named(), at());
        return Err(DatastoreError::Missing { name, path });
    }
    let marker = match fs::read(path.join(MARKER)) {
        Ok(text) => {
            let read = serde_json::from_slice::<Marker>(&text);
            read.map_err(|error| failed(error.into()))?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !is_empty(path).map_err(failed)? {
                let (name, path) = (named(), at());
                return Err(DatastoreError::Strange { name, path });
            }
            mark(name, path).map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    if marker.name != *name {
        let (name, path, is) = (named(), at(), marker.name);
        return Err(DatastoreError::Other { name, path, is });
    }
    Ok(HostDatastore {
        name: named(),
        id: marker.datastore_id,
        capacity_mib: capacity::disk(path).map_err(failed)?,
    })
}

/// But for what a new file system has.
fn is_empty(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        if entry?.file_name() != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn mark(name: &DatastoreName, path: &Path) -> io::Result<Marker> {
    let marker = Marker {
        datastore_id: DatastoreId::from_parts(unix_ms(), rand::random()),
        name: name.clone(),
    };
    // Whole or not at all; of two agents that come at once one is refused.
    let mut file = tempfile::NamedTempFile::new_in(path)?;
    file.write_all(&serde_json::to_vec(&marker)?)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path.join(MARKER))
        .map_err(|error| error.error)?;
    sync_dir(path)?;
    Ok(marker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, path: &Path) -> DatastoreDir {
        format!("{name}={}", path.display()).parse().unwrap()
    }

    fn refusal(all: &[DatastoreDir]) -> String {
        open(all).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_directory_becomes_a_datastore_and_stays_the_same_one() {
        let dir = tempfile::tempdir().unwrap();
        let fast = [named("fast", dir.path())];
        let first = open(&fast).unwrap();
        fs::write(dir.path().join("volume"), "bytes").unwrap();
        let second = open(&fast).unwrap();
        assert_eq!(first[0].id, second[0].id);
        let said = refusal(&[named("slow", dir.path())]);
        assert!(said.ends_with("is datastore `fast`"), "{said}");
    }

    #[test]
    fn what_cannot_be_one_is_refused_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let said = refusal(&[named("local", dir.path())]);
        assert!(said.contains("is the data directory"), "{said}");
        let said = refusal(&[named("fast", &dir.path().join("none"))]);
        assert!(said.contains("not a directory, or not mounted"), "{said}");
        let said = refusal(&[named("fast", dir.path()), named("fast", dir.path())]);
        assert_eq!(said, "two datastores are called `fast`");
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("letters"), "dear").unwrap();
        let said = refusal(&[named("slow", other.path())]);
        assert!(said.contains("holds other files"), "{said}");
        fs::write(other.path().join(MARKER), "{}").unwrap();
        let said = refusal(&[named("slow", other.path())]);
        assert!(said.contains("missing field"), "{said}");
    }
}
