//! How hosts come to belong to the installation: certificates, their renewal,
//! and their end.
//!
//! A certificate alone proves little: it may have been copied, replaced or
//! revoked since it was signed. What counts is what is recorded of the host,
//! and that is asked with every connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;
use vimana_authz::Permission;
use vimana_model::event::{Actor, EventKind};
use vimana_model::host::{Accelerator, DesiredState, HostState, HostView};
use vimana_model::unit::Resources;
use vimana_model::{Error, ErrorKind, FieldError, HostId, Result, Timestamp};
use vimana_pki::{Authority, CertificateRequest, PeerIdentity, PkiError, Serial};
use vimana_protocol::enrolment::{Certified, JoinRequest, RenewRequest};
use vimana_store::host::{HostCertificate, HostRecord};
use vimana_store::join_token::JoinTokenRecord;
use vimana_store::{
    TxError, WriteTx, enrolment, event, host, host_datastore, join_token, write_tx,
};

use crate::authorize::{current, permit};
use crate::context::{OpContext, World};
use crate::host::{host_event, host_view, name_in_use};
use crate::idempotency::{recall, remember};
use crate::limits::{
    ALARM_BURST, ALARM_REFILL, JOIN_BURST, JOIN_REFILL, MAX_BUCKETS, MAX_PENDING_CERTIFICATES,
    MAX_SESSION_NUMBER, RENEW_BURST, RENEW_REFILL,
};
use crate::rate_limit::RateLimit;
use crate::{Engine, secret};

/// What guards the door for hosts.
pub struct Enrolment {
    pub(crate) authority: Arc<Authority>,
    joins: RateLimit<IpAddr>,
    renewals: RateLimit<HostId>,
    alarms: RateLimit<HostId>,
    proofs: Mutex<HashMap<HostId, CancellationToken>>,
    /// Why the hosts were refused last that have had no session since.
    refusals: Mutex<HashMap<HostId, String>>,
}

/// A host that has proved who it is.
#[derive(Clone, Debug)]
pub struct HostProof {
    pub host_id: HostId,
    /// Cancelled when the host is revoked: everything that lives off this
    /// proof ends then.
    pub revoked: CancellationToken,
}

/// What is recorded of the certificate that a host shows.
enum Standing {
    /// It is the host's.
    Current,
    /// It was handed out later than the one in use, and is used now.
    Next(HostCertificate),
    Refused(&'static str),
}

impl Enrolment {
    pub fn new(authority: Arc<Authority>) -> Self {
        Self {
            authority,
            joins: RateLimit::new(JOIN_BURST, JOIN_REFILL, MAX_BUCKETS),
            renewals: RateLimit::new(RENEW_BURST, RENEW_REFILL, MAX_BUCKETS),
            alarms: RateLimit::new(ALARM_BURST, ALARM_REFILL, MAX_BUCKETS),
            proofs: Mutex::default(),
            refusals: Mutex::default(),
        }
    }

    fn proof(&self, host_id: HostId) -> HostProof {
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        let revoked = proofs.entry(host_id).or_default().clone();
        HostProof { host_id, revoked }
    }

    fn end_proofs(&self, host_id: HostId) {
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = proofs.remove(&host_id) {
            token.cancel();
        }
    }

    /// Whether the host was not refused for the same reason before.
    fn is_refused_anew(&self, host_id: HostId, reason: &str) -> bool {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let before = refusals.insert(host_id, reason.to_owned());
        before.is_none_or(|before| before != reason)
    }

    /// The host has a session.
    pub(crate) fn forget_refusal(&self, host_id: HostId) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.remove(&host_id);
    }

    /// Whether one more alarm about the host is worth an event: a copy that
    /// tries for days must not fill the log.
    pub(crate) fn is_news(&self, host_id: HostId) -> bool {
        self.alarms.take(host_id)
    }
}

impl Engine {
    /// Takes a host in that shows a join token, and certifies its key.
    ///
    /// Whoever did not get the answer may ask again with the same token and
    /// the same key, until the host's first session.
    ///
    /// # Errors
    /// `Unauthenticated` with one sentence for every token that is not good,
    /// `RateLimited` after too many of them, `Conflict` where the host or its
    /// name is taken, `Invalid` for a request that proves nothing.
    pub async fn join_host(&self, form: &JoinRequest, peer: IpAddr) -> Result<Certified> {
        let guard = &self.inner.enrolment;
        if !guard.joins.take(peer) {
            return Err(Error::new(
                ErrorKind::RateLimited,
                "too many join tokens that are not good; wait a minute and try again",
            ));
        }
        if form.session_number > MAX_SESSION_NUMBER {
            return Err(FieldError::new("session_number", "no host had that many").into());
        }
        let asked = read_request(&form.request)?;
        let (issued, certified) = self.certify(&asked, form.host_id)?;
        let hash = secret::stored_form(&form.secret);
        let now = self.world().now();
        let actor = Actor::Host(form.name.clone());
        write_tx!(self.store(), |tx| {
            let found = join_token::find_by_hash(tx, &hash).await?;
            let token = found
                .filter(|token| token.expires_at > now_to_end(self.world(), token))
                .filter(|token| token.secret_hash.as_bytes().ct_eq(hash.as_bytes()).into())
                .ok_or_else(not_good)?;
            let known = enrolment::lock(tx, form.host_id).await?;
            if token.used_at.is_some() {
                let again = join_again(&token, known, &issued).ok_or_else(not_good)?;
                enrolment::set_certificate(tx, form.host_id, &again).await?;
            } else {
                let spent_at = now_to_end(self.world(), &token);
                take_in(tx, (&token, spent_at), known, form, &issued, now).await?;
            }
            let fact = host_event(now, &actor, form.host_id, EventKind::HostCertified);
            event::append(tx, &[fact]).await?;
            Ok(())
        })?;
        guard.joins.give_back(&peer);
        self.inner.hub.wake();
        tracing::info!(host = %form.host_id, name = %form.name, "a host has joined");
        Ok(certified)
    }

    /// Another certificate for a host that has one. The one it shows stays
    /// good until the new one is used.
    ///
    /// # Errors
    /// `Unauthenticated` where the certificate shown is not the host's any
    /// more, `RateLimited`, `Invalid` for a request that proves nothing.
    pub async fn renew_certificate(
        &self,
        shown: &PeerIdentity,
        form: &RenewRequest,
    ) -> Result<Certified> {
        let host_id = shown.host_id;
        if !self.inner.enrolment.renewals.take(host_id) {
            return Err(Error::new(
                ErrorKind::RateLimited,
                "too many renewals; wait a minute and try again",
            ));
        }
        let asked = read_request(&form.request)?;
        let (issued, certified) = self.certify(&asked, host_id)?;
        let now = self.world().now();
        write_tx!(self.store(), |tx| {
            let Some(known) = enrolment::lock(tx, host_id).await? else {
                return Err(unauthenticated(NOT_KNOWN).into());
            };
            let current = match standing(&known, shown) {
                Standing::Refused(why) => return Err(unauthenticated(why).into()),
                Standing::Next(promoted) => promoted,
                Standing::Current => known
                    .certificate
                    .ok_or_else(|| unauthenticated(NOT_KNOWN))?,
            };
            enrolment::set_certificate(tx, host_id, &with_next(current, &issued)).await?;
            let actor = Actor::Host(known.name);
            let fact = host_event(now, &actor, host_id, EventKind::HostCertified);
            event::append(tx, &[fact]).await?;
            Ok(())
        })?;
        self.inner.hub.wake();
        tracing::info!(host = %host_id, "a host's certificate was renewed");
        Ok(certified)
    }

    /// Whether the certificate a host shows, and that TLS has verified, is
    /// good for this host and now.
    ///
    /// # Errors
    /// `Unauthenticated` with the reason, for the agent's log.
    pub async fn authenticate_host(&self, shown: &PeerIdentity) -> Result<HostProof> {
        let host_id = shown.host_id;
        // Before the look: a revocation right after it ends this proof, too.
        let proof = self.inner.enrolment.proof(host_id);
        let known = host::find(&self.store().read(), host_id).await?;
        let known = known.ok_or_else(|| unauthenticated(NOT_KNOWN))?;
        match standing(&known, shown) {
            Standing::Current => Ok(proof),
            Standing::Next(_) => self.use_next(shown).await.map(|()| proof),
            Standing::Refused(why) => {
                self.alarm(&known, why).await?;
                Err(unauthenticated(why))
            }
        }
    }

    /// The renewed certificate is in use: those before it are not good any more.
    async fn use_next(&self, shown: &PeerIdentity) -> Result<()> {
        write_tx!(self.store(), |tx| {
            let known = enrolment::lock(tx, shown.host_id).await?;
            match known.as_ref().map(|known| standing(known, shown)) {
                Some(Standing::Current) => {}
                Some(Standing::Next(promoted)) => {
                    enrolment::set_certificate(tx, shown.host_id, &promoted).await?;
                }
                Some(Standing::Refused(why)) => return Err(unauthenticated(why).into()),
                None => return Err(unauthenticated(NOT_KNOWN).into()),
            }
            Ok(())
        })
    }

    /// Ends what the host's certificate is good for, at once. It comes back
    /// only by joining with a new token.
    ///
    /// # Errors
    /// `Forbidden`; `NotFound`.
    pub async fn revoke_host(&self, cx: &OpContext, id: HostId) -> Result<HostView> {
        permit(cx, Permission::ManageHosts, None)?;
        let now = self.world().now();
        let actor = Actor::User(cx.subject.user_name.clone());
        let (view, again) = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            permit(cx, Permission::ManageHosts, None)?;
            if let Some(view) = recall(tx, cx).await? {
                return Ok((view, true));
            }
            if enrolment::revoke(tx, id, now).await? {
                let fact = host_event(now, &actor, id, EventKind::HostRevoked);
                event::append(tx, &[fact]).await?;
            }
            let found = host::find(tx, id).await?;
            let found = found.ok_or_else(|| Error::not_found(format!("host `{id}`")))?;
            let view: HostView = host_view(found, host_datastore::for_host(tx, id).await?);
            remember(tx, cx, now, &view).await?;
            Ok((view, false))
        })?;
        // The host may have joined anew since the same call was made before.
        if !again {
            self.inner.enrolment.end_proofs(id);
            self.inner.agents.cut_off(id);
            self.inner.hub.wake();
            tracing::info!(host = %id, by = %cx.subject.user_name, "a host was revoked");
        }
        Ok(view)
    }

    /// A host that has proved who it is says what this server can do nothing
    /// with. It asks again and again: an alarm is raised once.
    pub async fn refuse_agent(&self, host_id: HostId, reason: &str) {
        if !self.inner.enrolment.is_refused_anew(host_id, reason) {
            return;
        }
        let raised = async {
            match host::find(&self.store().read(), host_id).await? {
                Some(known) => self.alarm(&known, reason).await,
                None => Ok(()),
            }
        };
        if let Err(error) = raised.await {
            tracing::error!(host = %host_id, error = ?error, "a refusal cannot be recorded");
        }
    }

    /// Someone shows what is not the host's (any more): worth an event, now
    /// and then.
    pub(crate) async fn alarm(&self, known: &HostRecord, reason: &str) -> Result<()> {
        tracing::warn!(host = %known.name, reason, "a host was refused");
        if !self.inner.enrolment.is_news(known.id) {
            return Ok(());
        }
        let now = self.world().now();
        let reason = reason.to_owned();
        let kind = EventKind::HostRefused { reason };
        let fact = host_event(now, &Actor::System, known.id, kind);
        write_tx!(self.store(), |tx| {
            event::append(tx, std::slice::from_ref(&fact)).await?;
            Ok(())
        })?;
        self.inner.hub.wake();
        Ok(())
    }

    fn certify(
        &self,
        request: &CertificateRequest,
        host_id: HostId,
    ) -> Result<(HostCertificate, Certified)> {
        let life = self.inner.settings.certificate_life;
        let life_ms = i64::try_from(life.as_millis()).unwrap_or(i64::MAX);
        let authority = &self.inner.enrolment.authority;
        let serial = Serial::from_random(self.world().random_bytes());
        let expires_at = self.world().now().plus_ms(life_ms);
        let issued = authority
            .certify_host(request, host_id, serial, expires_at)
            .map_err(Error::internal)?;
        let record = HostCertificate {
            serial: issued.serial.to_string(),
            fingerprint: issued.key.to_string(),
            expires_at: issued.expires_at,
            joined_after: None,
            next: Vec::new(),
        };
        let certified = Certified {
            certificate: issued.pem,
            authority: authority.certificate_pem().to_owned(),
            life_ms: u64::try_from(life_ms).unwrap_or(0),
        };
        Ok((record, certified))
    }
}

fn read_request(text: &str) -> Result<CertificateRequest> {
    CertificateRequest::from_pem(text)
        .map_err(|error: PkiError| FieldError::new("request", error).into())
}

/// The time by which the token has ended.
fn now_to_end(world: &World, token: &JoinTokenRecord) -> Timestamp {
    let life = u64::try_from(token.expires_at.since_ms(token.created_at));
    world.now_to_end(Duration::from_millis(life.unwrap_or_default()))
}

/// A host's first use of a token that nobody used before.
async fn take_in(
    tx: &WriteTx,
    (token, spent_at): (&JoinTokenRecord, Timestamp),
    known: Option<HostRecord>,
    form: &JoinRequest,
    issued: &HostCertificate,
    now: Timestamp,
) -> Result<(), TxError> {
    if let Some(name) = token.host_name.as_ref().filter(|name| **name != form.name) {
        let told = format!("this token is for a host named `{name}`");
        return Err(Error::conflict(told).into());
    }
    if known.as_ref().is_some_and(|known| is_certified(known, now)) {
        // Else whoever may bring in a host could take over any other.
        let told = "this host has a certificate that is good; revoke it first";
        return Err(Error::conflict(told).into());
    }
    if !join_token::spend(tx, token.id, form.host_id, spent_at).await? {
        return Err(not_good().into());
    }
    if known.is_none() {
        let newcomer = newcomer(form, now);
        host::insert(tx, &newcomer).await.map_err(name_in_use)?;
    }
    let first = HostCertificate {
        joined_after: Some(form.session_number),
        ..issued.clone()
    };
    enrolment::admit(tx, form.host_id, &first, form.session_number).await?;
    Ok(())
}

/// The same host asks again with the token it used, since it did not get the
/// answer: the key must be the same, and no session may have shown that it
/// got it.
fn join_again(
    token: &JoinTokenRecord,
    known: Option<HostRecord>,
    issued: &HostCertificate,
) -> Option<HostCertificate> {
    let known =
        known.filter(|known| token.host_id == Some(known.id) && known.revoked_at.is_none())?;
    let current = known
        .certificate
        .filter(|current| current.fingerprint == issued.fingerprint)
        .filter(|current| current.joined_after == Some(known.session_offered))?;
    Some(with_next(current, issued))
}

fn is_certified(known: &HostRecord, now: Timestamp) -> bool {
    let expires_at = known.certificate.as_ref().map(|current| {
        let all = std::iter::once(current).chain(&current.next);
        all.fold(current.expires_at, |latest, one| latest.max(one.expires_at))
    });
    known.revoked_at.is_none() && expires_at.is_some_and(|at| at > now)
}

/// A host that has joined and was not heard of yet.
fn newcomer(form: &JoinRequest, now: Timestamp) -> HostRecord {
    HostRecord {
        id: form.host_id,
        name: form.name.clone(),
        zone: form.zone.clone(),
        state: HostState::Unknown,
        connected: false,
        hypervisor: "not connected yet".to_owned(),
        accelerator: Accelerator::Tcg,
        accelerator_note: "the host has joined and not connected yet".to_owned(),
        capacity: Resources::default(),
        used: Resources::default(),
        vms: 0,
        agent_version: String::new(),
        connected_since: None,
        silent_since: Some(now),
        hot_resize: false,
        hardware: None,
        protocol: 0,
        certificate: None,
        revoked_at: None,
        session_number: 0,
        session_offered: 0,
        orphans: 0,
        desired: DesiredState::Enabled,
        evacuation: None,
    }
}

const NOT_KNOWN: &str = "this host is not known here; it has to join with a token";
const REVOKED: &str = "the host's certificate was revoked; it has to join with a new token";
const REPLACED: &str = "this certificate was replaced by a later one, or is not the host's";

fn standing(known: &HostRecord, shown: &PeerIdentity) -> Standing {
    let Some(current) = &known.certificate else {
        return Standing::Refused(NOT_KNOWN);
    };
    if known.revoked_at.is_some() {
        return Standing::Refused(REVOKED);
    }
    let serial = shown.serial.to_string();
    if current.serial == serial {
        return Standing::Current;
    }
    match current.next.iter().find(|next| next.serial == serial) {
        Some(next) => Standing::Next(next.clone()),
        None => Standing::Refused(REPLACED),
    }
}

/// `issued` beside what is good already. Where several answers got lost, the
/// oldest are forgotten.
fn with_next(mut current: HostCertificate, issued: &HostCertificate) -> HostCertificate {
    current.next.push(issued.clone());
    let surplus = current.next.len().saturating_sub(MAX_PENDING_CERTIFICATES);
    current.next.drain(..surplus);
    current
}

fn not_good() -> Error {
    unauthenticated("the join token is unknown, used or expired; ask for a new one")
}

fn unauthenticated(why: &str) -> Error {
    Error::new(ErrorKind::Unauthenticated, why)
}

/// Life of a host's certificate where the operator sets none.
pub(crate) const CERTIFICATE_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
