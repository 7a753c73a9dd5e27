//! Permissions for hosts to join: each is for one host, once.

use vimana_authz::Permission;
use vimana_model::host::{CreateJoinToken, JoinTokenView};
use vimana_model::name::HostName;
use vimana_model::{FieldError, Result};
use vimana_pki::{Fingerprint, JoinToken};
use vimana_store::join_token::JoinTokenRecord;
use vimana_store::{Store, join_token, write_tx};

use crate::authorize::{current, permit};
use crate::context::{OpContext, World, new_id};
use crate::idempotency::{IdempotencyKey, recall, remember};
use crate::limits::{DEFAULT_JOIN_TTL_SECONDS, MAX_JOIN_TTL_SECONDS, MIN_JOIN_TTL_SECONDS};
use crate::{Engine, secret};

/// Records a permission for one host to join. For whoever may do so by other
/// means than a user's permission: the operator on the server's own machine.
///
/// # Errors
/// `Invalid` for a name or a life that makes no sense.
pub async fn issue_join_token(
    store: &Store,
    world: &World,
    authority: Fingerprint,
    created_by: &str,
    form: &CreateJoinToken,
) -> Result<JoinTokenView> {
    let token = JoinToken::new(world.random_bytes(), authority);
    let record = token_record(world, &token, created_by, form)?;
    write_tx!(*store, |tx| {
        join_token::insert(tx, &record).await?;
        Ok(())
    })?;
    tracing::info!(id = %record.id, created_by, "a host may join");
    Ok(JoinTokenView {
        token: token.reveal(),
        ..token_view(record)
    })
}

impl Engine {
    /// A permission for one host to join, once.
    ///
    /// # Errors
    /// `Forbidden`; `Invalid` for a name or a life that makes no sense.
    pub async fn create_join_token(
        &self,
        cx: &OpContext,
        form: &CreateJoinToken,
    ) -> Result<JoinTokenView> {
        permit(cx, Permission::ManageHosts, None)?;
        let authority = &self.inner.enrolment.authority;
        let secret = match &cx.idempotency {
            // To answer the same again the token would have to be kept; so it
            // is made in the same way again.
            Some(IdempotencyKey { key, fingerprint }) => {
                authority.derive(&[&cx.subject.user_id.to_string(), key, fingerprint])
            }
            None => self.world().random_bytes(),
        };
        let token = JoinToken::new(secret, authority.fingerprint());
        let created_by = cx.subject.user_name.as_str();
        let record = token_record(self.world(), &token, created_by, form)?;
        let view = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            permit(cx, Permission::ManageHosts, None)?;
            if let Some(view) = recall::<JoinTokenView>(tx, cx).await? {
                return Ok(view);
            }
            join_token::insert(tx, &record).await?;
            let view = token_view(record.clone());
            remember(tx, cx, record.created_at, &view).await?;
            Ok(view)
        })?;
        tracing::info!(id = %record.id, created_by, "a host may join");
        Ok(JoinTokenView {
            token: token.reveal(),
            ..view
        })
    }
}

fn token_record(
    world: &World,
    token: &JoinToken,
    created_by: &str,
    form: &CreateJoinToken,
) -> Result<JoinTokenRecord> {
    let host_name = form.host_name.as_deref().map(HostName::new).transpose();
    let host_name = host_name.map_err(|error| FieldError::new("host_name", error))?;
    let ttl_ms = ttl_ms(form.ttl_seconds.unwrap_or(DEFAULT_JOIN_TTL_SECONDS))?;
    let now = world.now();
    Ok(JoinTokenRecord {
        id: new_id!(world, JoinTokenId),
        secret_hash: secret::stored_form(token.secret()),
        host_name,
        created_by: created_by.to_owned(),
        created_at: now,
        expires_at: now.plus_ms(ttl_ms),
        used_at: None,
        host_id: None,
    })
}

/// Without the token itself.
fn token_view(record: JoinTokenRecord) -> JoinTokenView {
    JoinTokenView {
        token: String::new(),
        host_name: record.host_name,
        expires_at: record.expires_at,
    }
}

fn ttl_ms(seconds: u64) -> Result<i64> {
    let range = MIN_JOIN_TTL_SECONDS..=MAX_JOIN_TTL_SECONDS;
    let ms = seconds
        .checked_mul(1000)
        .and_then(|ms| i64::try_from(ms).ok());
    ms.filter(|_| range.contains(&seconds)).ok_or_else(|| {
        let days = MAX_JOIN_TTL_SECONDS / (24 * 3600);
        let told =
            format!("must be at least {MIN_JOIN_TTL_SECONDS} seconds and at most {days} days");
        FieldError::new("ttl_seconds", told).into()
    })
}
