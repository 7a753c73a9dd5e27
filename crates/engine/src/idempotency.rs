//! One idempotency key, one effect: what was answered to a key is recorded in
//! the transaction of the change, and answered again.

use serde::Serialize;
use serde::de::DeserializeOwned;
use vimana_model::{Error, FieldError, Timestamp};
use vimana_store::idempotency::{self, IdempotencyRecord};
use vimana_store::{StoreError, TxError, WriteTx};

use crate::context::OpContext;

/// A caller's promise that calls with the same key are the same call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The caller's own; another user's with the same text is another key.
    pub key: String,
    /// Tells what was asked: the same key with another one is refused.
    pub fingerprint: String,
}

/// What was answered before to the caller's key, if anything was.
pub async fn recall<T: DeserializeOwned>(
    tx: &WriteTx,
    cx: &OpContext,
) -> Result<Option<T>, TxError> {
    let Some(IdempotencyKey { key, fingerprint }) = &cx.idempotency else {
        return Ok(None);
    };
    let Some(known) = idempotency::find(tx, cx.subject.user_id, key).await? else {
        return Ok(None);
    };
    if known.fingerprint != *fingerprint {
        let message = "this key was used for another request; take a new one";
        return Err(Error::from(FieldError::new("Idempotency-Key", message)).into());
    }
    let answer = serde_json::from_str(&known.answer).map_err(Error::internal)?;
    Ok(Some(answer))
}

/// Records the answer to the caller's key.
pub async fn remember<T: Serialize>(
    tx: &WriteTx,
    cx: &OpContext,
    now: Timestamp,
    answer: &T,
) -> Result<(), TxError> {
    let Some(IdempotencyKey { key, fingerprint }) = &cx.idempotency else {
        return Ok(());
    };
    let record = IdempotencyRecord {
        user_id: cx.subject.user_id,
        key: key.clone(),
        fingerprint: fingerprint.clone(),
        answer: serde_json::to_string(answer).map_err(Error::internal)?,
        created_at: now,
    };
    match idempotency::insert(tx, &record).await {
        // The same call was quicker beside this one: tried again, this one
        // finds its answer.
        Err(StoreError::Duplicate { .. }) => Err(StoreError::Conflict.into()),
        other => Ok(other?),
    }
}
