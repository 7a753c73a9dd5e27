//! How the host gets its certificate: it joins once, with a token that an
//! operator brought, and renews in time from then on.
//!
//! The key is made here and never leaves the host. Key and certificate are one
//! file, so that a renewal changes both or none.

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use vimana_model::HostId;
use vimana_model::name::{HostName, ZoneName};
use vimana_pki::{CurrentIdentity, Fingerprint, HostKey, Identity, InvalidJoinToken, JoinToken};
use vimana_pki::{PkiError, first_contact};
use vimana_protocol::dial::{Backoff, Dial, DialError, Server, Wire};
use vimana_protocol::enrolment::{Certified, JOIN_PATH, JoinRequest, RENEW_PATH, RenewRequest};

use crate::data_dir::write_private;
use crate::ledger::session_number;
use crate::limits::{MAX_JOIN_TOKEN_BYTES, RENEW_CHECK_LONGEST, RENEW_CHECK_SHORTEST};
use crate::renewal::{Life, Wall};
use crate::{DataDir, Journal};

mod post;

pub use post::PostError;

/// The host's certificate and its key.
const CERTIFICATE: &str = "certificate.json";
/// The key of a host that has asked for its first certificate: should the
/// answer get lost, it asks again with the same one.
const JOIN_KEY: &str = "join-key.pem";

/// Why the host has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error(
        "the host has no certificate yet: give it a join token, in a file, with --join-token-file"
    )]
    NoToken,
    #[error("cannot read the join token in `{path}`: {error}")]
    TokenUnreadable { path: PathBuf, error: io::Error },
    #[error("`{path}`: {error}")]
    BadToken {
        path: PathBuf,
        error: InvalidJoinToken,
    },
    #[error("cannot use `{path}` in the data directory: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("`{path}` does not hold a host's certificate: {reason}")]
    BadFile { path: PathBuf, reason: String },
    #[error("the server's answer makes no sense: {0}")]
    BadAnswer(String),
    #[error("the join token was refused before; give the host a new one")]
    RefusedBefore,
    #[error("cannot read the ledger: {0}")]
    Ledger(io::Error),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Post(#[from] PostError),
}

/// What the host shows to the server, and how it gets it.
pub struct Enrolment {
    root: PathBuf,
    host_id: HostId,
    terms: JoinTerms,
    server: Server,
    current: Arc<CurrentIdentity>,
    http: reqwest::Client,
    kept: Mutex<Option<Kept>>,
    /// There is a certificate that was not renewed but is new.
    joined: Notify,
    /// The token that was refused last: it will not be better the next time.
    refused: Mutex<Option<Fingerprint>>,
}

/// What a host that joins is told by its operator.
#[derive(Clone, Debug)]
pub struct JoinTerms {
    /// `https://HOST[:PORT]`
    pub address: String,
    /// Needed once, and only while there is no certificate.
    pub token_file: Option<PathBuf>,
    pub name: HostName,
    pub zone: ZoneName,
}

/// `certificate.json`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    key: String,
    certificate: String,
    authority: String,
    /// When it came, by this host's clock.
    issued_at_ms: u64,
    /// How long it was good for then.
    life_ms: u64,
}

impl Enrolment {
    /// Takes over what an earlier agent had.
    ///
    /// # Errors
    /// [`EnrolError::NoToken`] where there is neither a certificate nor a
    /// token; or the address or the files cannot be used.
    pub fn open(data_dir: &DataDir, terms: JoinTerms) -> Result<Arc<Self>, EnrolError> {
        let current = Arc::new(CurrentIdentity::default());
        let tls = current.client_config()?;
        let http = post::client(&tls)?;
        let enrolment = Self {
            root: data_dir.path().to_owned(),
            host_id: data_dir.host_id(),
            server: Server::with_tls(&terms.address, Arc::new(tls))?,
            terms,
            current,
            http,
            kept: Mutex::default(),
            joined: Notify::new(),
            refused: Mutex::default(),
        };
        match enrolment.read_kept()? {
            Some(kept) => enrolment.take_over(kept)?,
            None if enrolment.terms.token_file.is_none() => return Err(EnrolError::NoToken),
            None => {}
        }
        Ok(Arc::new(enrolment))
    }

    /// For all connections: it always shows the current certificate.
    #[must_use]
    pub fn server(&self) -> Server {
        self.server.clone()
    }

    #[must_use]
    pub fn has_certificate(&self) -> bool {
        self.current.get().is_some()
    }

    /// Whether the server cannot but refuse the host: then it may join anew,
    /// if its operator wants it.
    fn is_lost(&self, error: &DialError) -> bool {
        match error {
            DialError::Unauthorized(_) => true,
            // TLS does not tell us apart from a server that is away.
            DialError::Socket(_) => {
                let expires_at = self.current.get().map(|known| known.peer().expires_at);
                expires_at.is_some_and(|at| u64::try_from(at.as_ms()).unwrap_or(0) < now_ms())
            }
            DialError::BadAddress(_)
            | DialError::SecretUnreadable { .. }
            | DialError::BadSecret(_)
            | DialError::BadCa { .. }
            | DialError::NotSecure(_)
            | DialError::NotJoined(_)
            | DialError::Status(_)
            | DialError::TimedOut(_)
            | DialError::Unreachable(_) => false,
        }
    }

    /// Joins. `session_number` is that of the host's last session.
    ///
    /// # Errors
    /// There is no token, or it is refused or was before, or the server is away.
    async fn join(&self, session_number: u64) -> Result<(), EnrolError> {
        let token = self.read_token()?;
        let print = Fingerprint::of(token.secret().as_bytes());
        if *lock(&self.refused) == Some(print) {
            return Err(EnrolError::RefusedBefore);
        }
        let key = self.join_key()?;
        let form = JoinRequest {
            secret: token.secret().to_owned(),
            host_id: self.host_id,
            name: self.terms.name.clone(),
            zone: self.terms.zone.clone(),
            request: key.request()?,
            session_number,
        };
        let http = post::client(&first_contact(token.authority())?)?;
        let answer = post::post(&http, &self.server.http_url(JOIN_PATH), &form).await;
        if matches!(answer, Err(PostError::NotGood(_))) {
            *lock(&self.refused) = Some(print);
        }
        let kept = kept(&key, answer?);
        let identity = self.identity(&kept)?;
        if identity.authority() != token.authority() {
            let told = "it names another authority than the join token does";
            return Err(EnrolError::BadAnswer(told.to_owned()));
        }
        self.keep(kept, identity)?;
        let path = self.root.join(JOIN_KEY);
        std::fs::remove_file(&path).map_err(|error| EnrolError::Io { path, error })?;
        self.joined.notify_one();
        tracing::info!(host_id = %self.host_id, "the host has joined");
        Ok(())
    }

    /// Gets the next certificate, for a key of its own.
    ///
    /// # Errors
    /// The server refuses or is away.
    async fn renew(&self) -> Result<(), EnrolError> {
        let key = HostKey::generate()?;
        let form = RenewRequest {
            request: key.request()?,
        };
        let url = self.server.http_url(RENEW_PATH);
        let kept = kept(&key, post::post(&self.http, &url, &form).await?);
        let identity = self.identity(&kept)?;
        let expires_at = identity.peer().expires_at;
        self.keep(kept, identity)?;
        tracing::info!(%expires_at, "the host's certificate was renewed");
        Ok(())
    }

    /// Renews whenever it is due, for ever.
    async fn keep_renewed(&self, mut backoff: Backoff) {
        let mut before = 0;
        loop {
            let now = now_ms();
            let (mut wait, due) = self.look(now, before);
            before = now;
            if due && let Err(error) = self.renew().await {
                tracing::warn!(%error, "the host's certificate cannot be renewed yet");
                // The look that found it due may not find it so again.
                before = u64::MAX;
                wait = wait.min(backoff.wait());
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.joined.notified() => {}
            }
        }
    }

    /// How long until the next look at the clock, and whether to renew now.
    fn look(&self, now: u64, before: u64) -> (Duration, bool) {
        let (Some(identity), Some(kept)) = (self.current.get(), lock(&self.kept).clone()) else {
            return (RENEW_CHECK_LONGEST, false);
        };
        let [.., random] = self.host_id.uuid().into_bytes();
        let life = Life::new(kept.life_ms, random);
        let wall = Wall {
            issued_at: kept.issued_at_ms,
            now,
            before,
            expires_at: u64::try_from(identity.peer().expires_at.as_ms()).unwrap_or(0),
        };
        let wait = Duration::from_millis(life.ms / 30);
        let wait = wait.clamp(RENEW_CHECK_SHORTEST, RENEW_CHECK_LONGEST);
        (wait, life.is_due(wall))
    }

    fn read_token(&self) -> Result<JoinToken, EnrolError> {
        let path = self.terms.token_file.as_ref().ok_or(EnrolError::NoToken)?;
        let read = || -> io::Result<String> {
            let mut text = String::new();
            let file = std::fs::File::open(path)?;
            file.take(MAX_JOIN_TOKEN_BYTES).read_to_string(&mut text)?;
            Ok(text)
        };
        let text = read().map_err(|error| EnrolError::TokenUnreadable {
            path: path.clone(),
            error,
        })?;
        text.trim().parse().map_err(|error| EnrolError::BadToken {
            path: path.clone(),
            error,
        })
    }

    /// What the host shows at the moment, in PEM: the authority's certificate, its
    /// own, and the key. Nothing before it has joined.
    #[must_use]
    pub fn pems(&self) -> Option<[String; 3]> {
        let kept = lock(&self.kept);
        let kept = kept.as_ref()?;
        Some([&kept.authority, &kept.certificate, &kept.key].map(Clone::clone))
    }

    fn join_key(&self) -> Result<HostKey, EnrolError> {
        let path = self.root.join(JOIN_KEY);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(HostKey::from_pem(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = HostKey::generate()?;
                self.write(JOIN_KEY, key.to_pem().as_bytes())?;
                Ok(key)
            }
            Err(error) => Err(EnrolError::Io { path, error }),
        }
    }

    fn read_kept(&self) -> Result<Option<Kept>, EnrolError> {
        let path = self.root.join(CERTIFICATE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(EnrolError::Io { path, error }),
        };
        // The parser's own words could repeat a part of the key.
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|_| EnrolError::BadFile {
            path,
            reason: "it is damaged".to_owned(),
        })
    }

    fn take_over(&self, kept: Kept) -> Result<(), EnrolError> {
        let identity = self.identity(&kept).map_err(|error| EnrolError::BadFile {
            path: self.root.join(CERTIFICATE),
            reason: error.to_string(),
        })?;
        self.current.set(identity);
        *lock(&self.kept) = Some(kept);
        Ok(())
    }

    fn identity(&self, kept: &Kept) -> Result<Identity, EnrolError> {
        let key = HostKey::from_pem(&kept.key)?;
        let identity = Identity::new(&key, &kept.certificate, &kept.authority)?;
        if identity.peer().host_id != self.host_id {
            let told = format!("the certificate is {}'s", identity.peer().host_id);
            return Err(EnrolError::BadAnswer(told));
        }
        Ok(identity)
    }

    /// On the disk first: the server forgets the old one with the first use of
    /// the new one.
    fn keep(&self, kept: Kept, identity: Identity) -> Result<(), EnrolError> {
        let text = serde_json::to_vec(&kept).map_err(|_| EnrolError::BadFile {
            path: self.root.join(CERTIFICATE),
            reason: "it cannot be written".to_owned(),
        })?;
        self.write(CERTIFICATE, &text)?;
        self.current.set(identity);
        *lock(&self.kept) = Some(kept);
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), EnrolError> {
        let path = self.root.join(name);
        write_private(&self.root, &path, bytes).map_err(|error| EnrolError::Io { path, error })
    }
}

/// Dials for a host that joins where it has to. Dropping it ends the renewals.
pub struct Enrolled {
    enrolment: Arc<Enrolment>,
    journal: Arc<dyn Journal>,
    _renewing: AbortOnDropHandle<()>,
}

impl Enrolled {
    /// Inside a runtime.
    pub fn new(enrolment: Arc<Enrolment>, journal: Arc<dyn Journal>, backoff: Backoff) -> Self {
        let renewed = Arc::clone(&enrolment);
        let renewing = tokio::spawn(async move { renewed.keep_renewed(backoff).await });
        Self {
            enrolment,
            journal,
            _renewing: AbortOnDropHandle::new(renewing),
        }
    }

    async fn join(&self) -> Result<(), EnrolError> {
        let number = session_number(self.journal.as_ref()).await;
        self.enrolment
            .join(number.map_err(EnrolError::Ledger)?)
            .await
    }
}

#[async_trait]
impl Dial for Enrolled {
    async fn dial(&self, path: &str) -> Result<Wire, DialError> {
        if !self.enrolment.has_certificate() {
            let joined = self.join().await;
            joined.map_err(not_joined)?;
        }
        let refused = match self.enrolment.server.dial(path).await {
            Err(error) if self.enrolment.is_lost(&error) => error,
            other => return other,
        };
        match self.join().await {
            Ok(()) => self.enrolment.server.dial(path).await,
            // Nobody wants it to.
            Err(
                EnrolError::NoToken
                | EnrolError::TokenUnreadable { .. }
                | EnrolError::RefusedBefore,
            ) => Err(refused),
            Err(error) => Err(not_joined(error)),
        }
    }
}

fn not_joined(error: EnrolError) -> DialError {
    if let EnrolError::Post(PostError::Passing(why)) = error {
        // Soon tried again, as any connection.
        return DialError::Unreachable(why);
    }
    DialError::NotJoined(error.to_string())
}

fn kept(key: &HostKey, answer: Certified) -> Kept {
    Kept {
        key: key.to_pem(),
        certificate: answer.certificate,
        authority: answer.authority,
        issued_at_ms: now_ms(),
        life_ms: answer.life_ms,
    }
}

fn now_ms() -> u64 {
    let since_epoch = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while it is half changed.
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
