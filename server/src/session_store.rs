//! Sessions of browsers, kept in our own store.
//!
//! The store knows the hash of an id alone: who reads the database cannot
//! take over a session. A session is saved only where it exists, so that one
//! which ended meanwhile stays ended.

use std::collections::HashMap;

use async_trait::async_trait;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tower_sessions::SessionStore;
use tower_sessions::cookie::time::OffsetDateTime;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::{Error, Result};
use vimana_model::Timestamp;
use vimana_store::session::{self, SessionRecord};
use vimana_store::{Store, write_tx};

#[derive(Clone, Debug)]
pub struct Sessions(pub Store);

#[async_trait]
impl SessionStore for Sessions {
    async fn create(&self, record: &mut Record) -> Result<()> {
        // 128 random bits do not meet twice.
        let record = to_store(record)?;
        write_tx!(self.0, |tx| {
            session::insert(tx, &record).await?;
            Ok(())
        })
        .map_err(backend)
    }

    async fn save(&self, record: &Record) -> Result<()> {
        let record = to_store(record)?;
        write_tx!(self.0, |tx| {
            session::update(tx, &record).await?;
            Ok(())
        })
        .map_err(backend)
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        let now = from_time(OffsetDateTime::now_utc());
        session::find(&self.0.read(), &hash(id), now)
            .await
            .map_err(backend)?
            .map(|found| from_store(*id, &found))
            .transpose()
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        let hash = hash(id);
        write_tx!(self.0, |tx| {
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

fn to_store(record: &Record) -> Result<SessionRecord> {
    let Record {
        id,
        data,
        expiry_date,
    } = record;
    Ok(SessionRecord {
        id_hash: hash(id),
        data: serde_json::to_string(data).map_err(|error| Error::Encode(error.to_string()))?,
        expires_at: from_time(*expiry_date),
    })
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

fn from_time(time: OffsetDateTime) -> Timestamp {
    let ms = time.unix_timestamp_nanos() / 1_000_000;
    Timestamp::from_ms(i64::try_from(ms).unwrap_or(i64::MAX))
}

fn to_time(at: Timestamp) -> Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.as_ms()) * 1_000_000)
        .map_err(|error| Error::Decode(error.to_string()))
}

fn backend(error: impl std::fmt::Display) -> Error {
    Error::Backend(error.to_string())
}
