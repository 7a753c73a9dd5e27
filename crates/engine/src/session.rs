//! Sign-in with a password, and API tokens.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use argon2::password_hash::SaltString;
use argon2::{Argon2, PasswordHash, PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::Semaphore;
use vimana_authz::Subject;
use vimana_model::name::UserName;
use vimana_model::session::{MAX_PASSWORD_BYTES, MeView, SignIn, TokenView};
use vimana_model::{Error, ErrorKind, Result, UserId};
use vimana_store::token::TokenRecord;
use vimana_store::user::UserRecord;
use vimana_store::{tenant, token, user, write_tx};

use crate::context::{OpContext, World, new_id};
use crate::limits::{
    MAX_BUCKETS, MAX_PARALLEL_HASHES, MAX_WAITING_HASHES, SIGN_IN_ADDRESS_BURST, SIGN_IN_BURST,
    SIGN_IN_REFILL,
};
use crate::rate_limit::RateLimit;
use crate::{Engine, secret};

const TOKEN_PREFIX: &str = "vimana_";

/// What guards the door.
pub struct SignIns {
    per_account: RateLimit<(String, IpAddr)>,
    per_address: RateLimit<IpAddr>,
    hashing: Semaphore,
    waiting: AtomicUsize,
    /// Verified against when there is no such user, so that both answers
    /// take the same time.
    decoy: Arc<str>,
}

impl SignIns {
    pub fn new() -> Result<Self> {
        Ok(Self {
            per_account: RateLimit::new(SIGN_IN_BURST, SIGN_IN_REFILL, MAX_BUCKETS),
            per_address: RateLimit::new(SIGN_IN_ADDRESS_BURST, SIGN_IN_REFILL, MAX_BUCKETS),
            hashing: Semaphore::new(MAX_PARALLEL_HASHES),
            waiting: AtomicUsize::new(0),
            decoy: decoy()?,
        })
    }

    /// Whether `password` is the one behind `hash`; `None` hash never matches.
    async fn verify(&self, password: String, hash: Option<String>) -> Result<bool> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING_HASHES {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::unavailable(
                "too many people are signing in; try again shortly",
            ));
        }
        let permit = self.hashing.acquire().await;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let _permit = permit.map_err(Error::internal)?;
        let decoy = Arc::clone(&self.decoy);
        tokio::task::spawn_blocking(move || {
            let known = hash.is_some();
            let hash = hash.unwrap_or_else(|| decoy.to_string());
            let parsed =
                PasswordHash::new(&hash).map_err(|error| Error::internal(error.to_string()))?;
            let matches = Argon2::default()
                .verify_password(password.as_bytes(), &parsed)
                .is_ok();
            Ok(matches && known)
        })
        .await
        .map_err(Error::internal)?
    }
}

/// The same for every engine, and costly: made once.
fn decoy() -> Result<Arc<str>> {
    static DECOY: OnceLock<Arc<str>> = OnceLock::new();
    if let Some(made) = DECOY.get() {
        return Ok(Arc::clone(made));
    }
    let made = hash_password("no such user", &[0; 16])?.into();
    Ok(Arc::clone(DECOY.get_or_init(|| made)))
}

/// argon2id with the crate's defaults (19 MiB, 2 passes), the OWASP baseline.
pub fn hash_password(password: &str, salt: &[u8; 16]) -> Result<String> {
    let internal = |error: argon2::password_hash::Error| Error::internal(error.to_string());
    let salt = SaltString::encode_b64(salt).map_err(internal)?;
    Ok(Argon2::default()
        .hash_password(password.as_bytes(), &salt)
        .map_err(internal)?
        .to_string())
}

fn wrong() -> Error {
    Error::new(ErrorKind::Unauthenticated, "wrong user name or password")
}

impl Engine {
    /// Checks a user name and a password.
    ///
    /// # Errors
    /// `Unauthenticated` with one sentence for every wrong combination,
    /// `RateLimited` after too many of them.
    pub async fn sign_in(&self, form: &SignIn, peer: IpAddr) -> Result<Subject> {
        let guard = &self.inner.sign_ins;
        // An account is whatever was typed, whether it exists or not.
        let account = (form.user_name.chars().take(64).collect::<String>(), peer);
        if !guard.per_address.take(peer) || !guard.per_account.take(account.clone()) {
            return Err(Error::new(
                ErrorKind::RateLimited,
                "too many wrong passwords; wait a minute and try again",
            ));
        }
        if form.password.len() > MAX_PASSWORD_BYTES {
            return Err(wrong());
        }
        let user = match UserName::new(form.user_name.as_str()) {
            Ok(name) => user::find_by_name(&self.store().read(), &name).await?,
            Err(_) => None,
        };
        let hash = user.as_ref().map(|user| user.password_hash.clone());
        let matches = guard.verify(form.password.clone(), hash).await?;
        let user = user.filter(|_| matches).ok_or_else(wrong)?;
        guard.per_address.give_back(&peer);
        guard.per_account.give_back(&account);
        self.subject_of(user).await
    }

    /// Signs in and hands out an API token.
    ///
    /// # Errors
    /// As [`Engine::sign_in`].
    pub async fn issue_token(&self, form: &SignIn, peer: IpAddr) -> Result<TokenView> {
        let subject = self.sign_in(form, peer).await?;
        let text = secret::fresh(self.world(), TOKEN_PREFIX);
        let now = self.world().now();
        let life = i64::try_from(self.inner.settings.token_life.as_millis()).unwrap_or(i64::MAX);
        let record = TokenRecord {
            id: new_id!(self.world(), TokenId),
            user_id: subject.user_id,
            hash: secret::stored_form(&text),
            expires_at: now.plus_ms(life),
            created_at: now,
        };
        write_tx!(self.store(), |tx| {
            token::insert(tx, &record).await?;
            Ok(())
        })?;
        Ok(TokenView {
            id: record.id,
            token: text,
            expires_at: record.expires_at,
            user_name: subject.user_name,
        })
    }

    /// Makes the token worthless; fine if it already was.
    ///
    /// # Errors
    /// The database fails.
    pub async fn revoke_token(&self, _cx: &OpContext, text: &str) -> Result<()> {
        let hash = secret::stored_form(text);
        write_tx!(self.store(), |tx| {
            token::delete_by_hash(tx, &hash).await?;
            Ok(())
        })
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// `Unauthenticated` for a token that is unknown, revoked or expired.
    pub async fn subject_of_token(&self, text: &str) -> Result<Subject> {
        let spent = || {
            Error::new(
                ErrorKind::Unauthenticated,
                "the token is unknown, revoked or expired; sign in again",
            )
        };
        let life = self.inner.settings.token_life;
        // The lookup is by hash: what time it takes tells nothing of the secret.
        let found = token::find_by_hash(&self.store().read(), &secret::stored_form(text)).await?;
        let found = found
            .filter(|token| token.expires_at > self.world().now_to_end(life))
            .ok_or_else(spent)?;
        self.subject_of_user(found.user_id).await
    }

    /// The user of a browser's session.
    ///
    /// # Errors
    /// `Unauthenticated` when the user no longer exists.
    pub async fn subject_of_user(&self, id: UserId) -> Result<Subject> {
        let user = user::find(&self.store().read(), id).await?;
        let gone = || Error::new(ErrorKind::Unauthenticated, "this account no longer exists");
        self.subject_of(user.ok_or_else(gone)?).await
    }

    async fn subject_of(&self, user: UserRecord) -> Result<Subject> {
        let memberships = user::memberships(&self.store().read(), user.id).await?;
        let Some(membership) = memberships.into_iter().next() else {
            return Err(Error::new(
                ErrorKind::Forbidden,
                "your account belongs to no tenant; ask an administrator",
            ));
        };
        Ok(Subject {
            user_id: user.id,
            user_name: user.name,
            staff: user.staff,
            tenant_id: membership.tenant_id,
            role: membership.role,
        })
    }

    /// The signed-in user.
    ///
    /// # Errors
    /// The database fails.
    pub async fn me(&self, cx: &OpContext) -> Result<MeView> {
        let subject = &cx.subject;
        let tenant = tenant::find(&self.store().read(), subject.tenant_id).await?;
        let tenant = tenant.ok_or_else(|| Error::not_found("your tenant"))?;
        Ok(MeView {
            user_id: subject.user_id,
            user_name: subject.user_name.clone(),
            staff: subject.staff,
            tenant_id: tenant.id,
            tenant: tenant.name,
            tenant_kind: tenant.kind,
            role: subject.role,
        })
    }
}

/// A salted hash of `password`, ready to be stored.
pub fn password_record(world: &World, password: &str) -> Result<String> {
    hash_password(password, &world.random_bytes())
}
