//! Sessions of browsers, kept in our own store.
//!
//! The store knows the hash of an id alone: who reads the database cannot
//! take over a session. A session is saved only where it exists, so that one
//! which ended meanwhile stays ended.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tower_sessions::SessionStore;
use tower_sessions::cookie::time::OffsetDateTime;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::{Error, Result};
use vimana_engine::{Engine, SESSION_LIFE};
use vimana_model::Timestamp;
use vimana_store::session::{self, SessionRecord};
use vimana_store::write_tx;

/// With the engine's clock: that of the library is taken from the air.
#[derive(Clone)]
pub struct Sessions(pub Engine);

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

impl Sessions {
    fn to_store(&self, record: &Record) -> Result<SessionRecord> {
        let Record {
            id,
            data,
            // Always a whole life from now.
            expiry_date: _,
        } = record;
        let life = i64::try_from(SESSION_LIFE.as_millis()).unwrap_or(i64::MAX);
        Ok(SessionRecord {
            id_hash: hash(id),
            data: serde_json::to_string(data).map_err(|error| Error::Encode(error.to_string()))?,
            expires_at: self.0.world().now().plus_ms(life),
        })
    }
}

#[async_trait]
impl SessionStore for Sessions {
    async fn create(&self, record: &mut Record) -> Result<()> {
        // 128 random bits do not meet twice.
        let record = self.to_store(record)?;
        write_tx!(self.0.store(), |tx| {
            session::insert(tx, &record).await?;
            Ok(())
        })
        .map_err(backend)
    }

    async fn save(&self, record: &Record) -> Result<()> {
        let record = self.to_store(record)?;
        write_tx!(self.0.store(), |tx| {
            session::update(tx, &record).await?;
            Ok(())
        })
        .map_err(backend)
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        let now = self.0.world().now_to_end(SESSION_LIFE);
        session::find(&self.0.store().read(), &hash(id), now)
            .await
            .map_err(backend)?
            .map(|found| from_store(*id, &found))
            .transpose()
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        let hash = hash(id);
        write_tx!(self.0.store(), |tx| {
            session::delete(tx, &hash).await?;
            Ok(())
        })
        .map_err(backend)
    }
}

fn hash(id: &Id) -> String {
    let digest = Sha256::digest(id.0.to_le_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_store(id: Id, found: &SessionRecord) -> Result<Record> {
    let data: HashMap<String, Value> =
        serde_json::from_str(&found.data).map_err(|error| Error::Decode(error.to_string()))?;
    Ok(Record {
        id,
        data,
        expiry_date: to_time(found.expires_at)?,
    })
}

fn to_time(at: Timestamp) -> Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.as_ms()) * 1_000_000)
        .map_err(|error| Error::Decode(error.to_string()))
}

fn backend(error: impl fmt::Display) -> Error {
    Error::Backend(error.to_string())
}
