//! Machines with an agent: their sessions, their reports, their views.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use vimana_authz::Permission;
use vimana_driver::Observed;
use vimana_model::event::{Actor, EventKind, EventView};
use vimana_model::host::{HostState, HostView};
use vimana_model::unit::Resources;
use vimana_model::{Error, HostId, Result, Timestamp};
use vimana_protocol::agent::{Command, FromAgent, Hello, PROTOCOL_VERSIONS, ToAgent, Versions};
use vimana_protocol::limits::MAX_QUEUED_FRAMES;
use vimana_store::event::NewEvent;
use vimana_store::host::HostRecord;
use vimana_store::{StoreError, TxError, enrolment, event, host, write_tx};

use crate::Engine;
use crate::authorize::permit;
use crate::context::OpContext;
use crate::limits::{MAX_HOST_MIB, MAX_HOST_VCPUS, MAX_INVENTORY, MAX_TIMELINE};
use crate::report::Answer;

/// The agents connected to this server.
#[derive(Default)]
pub struct Agents {
    sessions: Mutex<Sessions>,
    /// Who waits for hosts' inventories.
    asked: Mutex<Vec<mpsc::Sender<Inventory>>>,
}

/// What a host holds.
type Inventory = (HostId, Vec<Observed>);

#[derive(Default)]
struct Sessions {
    by_host: HashMap<HostId, Session>,
    /// Number of the latest session, so that a late end of an old one does
    /// not take down its successor.
    latest: u64,
}

struct Session {
    number: u64,
    /// None once it is cut off: its connection then ends, and with it the
    /// handle, which records that the host is away.
    outgoing: Option<mpsc::Sender<ToAgent>>,
}

impl Agents {
    fn lock(&self) -> std::sync::MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_connected(&self, id: HostId) -> bool {
        let sessions = self.lock();
        let session = sessions.by_host.get(&id);
        session.is_some_and(|session| session.outgoing.is_some())
    }

    fn enter(&self, id: HostId, outgoing: mpsc::Sender<ToAgent>) -> u64 {
        let mut sessions = self.lock();
        sessions.latest += 1;
        let number = sessions.latest;
        // An older session of the same host loses its sender and so ends.
        let outgoing = Some(outgoing);
        sessions.by_host.insert(id, Session { number, outgoing });
        number
    }

    fn inventory_taken(&self, id: HostId, inventory: Vec<Observed>) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|asker| asker.try_send((id, inventory.clone())).is_ok());
    }

    /// Ends the host's session, if it has one.
    pub fn cut_off(&self, id: HostId) {
        if let Some(session) = self.lock().by_host.get_mut(&id) {
            session.outgoing = None;
        }
    }

    /// Whether this very session was the host's current one.
    fn leave(&self, id: HostId, number: u64) -> bool {
        let mut sessions = self.lock();
        let current = sessions
            .by_host
            .get(&id)
            .is_some_and(|session| session.number == number);
        if current {
            sessions.by_host.remove(&id);
        }
        current
    }

    /// What an earlier session still brings is out of date: the inventory that
    /// the current one began with is newer.
    fn is_current(&self, id: HostId, number: u64) -> bool {
        let sessions = self.lock();
        let session = sessions.by_host.get(&id);
        session.is_some_and(|session| session.number == number)
    }

    /// To this very session, if it is still the current one.
    fn answer(&self, id: HostId, number: u64, frame: ToAgent) {
        let current = self
            .lock()
            .by_host
            .get(&id)
            .is_some_and(|session| session.number == number);
        if current {
            self.send_frame(id, frame);
        }
    }

    pub fn send(&self, id: HostId, command: Command) {
        self.send_frame(id, ToAgent::Command(command));
    }

    /// False when the host is not connected. A host that lets frames pile up
    /// is cut off; it connects again and gets what it missed.
    pub fn send_frame(&self, id: HostId, frame: ToAgent) -> bool {
        let mut sessions = self.lock();
        let Some(session) = sessions.by_host.get_mut(&id) else {
            return false;
        };
        let Some(outgoing) = &session.outgoing else {
            return false;
        };
        if outgoing.try_send(frame).is_ok() {
            return true;
        }
        tracing::warn!(host = %id, "the agent does not keep up; its session is ended");
        session.outgoing = None;
        false
    }
}

/// One agent's connection. Dropping it marks the host as not connected.
pub struct AgentSession {
    /// Frames for the agent, the Welcome first; closed when the session is over.
    pub outgoing: mpsc::Receiver<ToAgent>,
    handle: AgentHandle,
}

/// The receiving half of a session.
pub struct AgentHandle {
    engine: Engine,
    host_id: HostId,
    actor: Actor,
    number: u64,
    /// What the host has to have on its disk before anything it says counts.
    session_number: u64,
    ready: AtomicBool,
}

impl AgentSession {
    /// Takes the halves apart, for two tasks.
    #[must_use]
    pub fn split(self) -> (mpsc::Receiver<ToAgent>, AgentHandle) {
        (self.outgoing, self.handle)
    }
}

impl AgentHandle {
    /// Takes in one frame. What goes wrong is logged here; the session goes on.
    pub async fn receive(&self, frame: FromAgent) {
        if !self
            .engine
            .inner
            .agents
            .is_current(self.host_id, self.number)
        {
            tracing::debug!(host = %self.host_id, "a frame of an earlier session is ignored");
            return;
        }
        let outcome = match frame {
            FromAgent::Heartbeat => {
                let lease_ms = self.engine.lease_ms();
                let answer = ToAgent::Heartbeat { lease_ms };
                self.engine
                    .inner
                    .agents
                    .answer(self.host_id, self.number, answer);
                Ok(())
            }
            FromAgent::Ready { session_number } => self.ready(session_number).await,
            _ if !self.ready.load(Ordering::Acquire) => {
                tracing::warn!(host = %self.host_id, "an agent says something before it is ready");
                self.cut_off();
                Ok(())
            }
            FromAgent::Progress { command, progress } => {
                self.engine
                    .progressed(self.host_id, command, progress)
                    .await
            }
            FromAgent::Discarded { vm_id } => {
                self.engine
                    .orphan_discarded(self.host_id, &self.actor, vm_id)
                    .await
            }
            FromAgent::Unknown => {
                tracing::debug!(host = %self.host_id, "a frame of a later version is ignored");
                Ok(())
            }
            FromAgent::Hello(_) => {
                tracing::warn!(host = %self.host_id, "a second hello is ignored");
                Ok(())
            }
            FromAgent::Done {
                command,
                claim_epoch,
                outcome,
            } => {
                let answer = Answer {
                    host: Some(self.host_id),
                    command,
                    claim_epoch,
                    outcome,
                };
                self.engine.command_done(&self.actor, answer).await
            }
            FromAgent::Inventory { inventory } => {
                self.engine
                    .inner
                    .agents
                    .inventory_taken(self.host_id, inventory);
                Ok(())
            }
            FromAgent::Observed(observed) => {
                self.engine
                    .observed(self.host_id, &self.actor, observed)
                    .await
            }
        };
        if let Err(error) = outcome {
            tracing::error!(host = %self.host_id, error = ?error, "an agent's frame has no effect");
        }
    }
}

impl AgentHandle {
    /// The host has the session's number on its disk; whoever has an older
    /// one is a copy from now on.
    async fn ready(&self, session_number: u64) -> Result<()> {
        let (id, named) = (self.host_id, session_number);
        let confirmed = named == self.session_number
            && write_tx!(self.engine.store(), |tx| {
                Ok(enrolment::confirm_session(tx, id, named).await?)
            })?;
        if confirmed {
            self.ready.store(true, Ordering::Release);
        } else {
            tracing::warn!(host = %id, named, "a session's number is not the one that was offered");
            self.cut_off();
        }
        Ok(())
    }

    /// This session alone: a later one of the same host goes on.
    fn cut_off(&self) {
        let mut sessions = self.engine.inner.agents.lock();
        if let Some(session) = sessions.by_host.get_mut(&self.host_id)
            && session.number == self.number
        {
            session.outgoing = None;
        }
    }
}

impl Drop for AgentHandle {
    fn drop(&mut self) {
        if !self.engine.inner.agents.leave(self.host_id, self.number) {
            return;
        }
        let (engine, id, actor) = (self.engine.clone(), self.host_id, self.actor.clone());
        let number = self.session_number;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = engine.host_disconnected(id, number, actor).await {
                    tracing::error!(host = %id, error = ?error, "a lost host cannot be recorded");
                }
            });
        }
    }
}

impl Engine {
    /// All hosts, by name.
    ///
    /// # Errors
    /// `Forbidden` for anyone but staff.
    pub async fn hosts(&self, cx: &OpContext) -> Result<Vec<HostView>> {
        permit(cx, Permission::ViewHosts, None)?;
        let found = host::list(&self.store().read()).await?;
        Ok(found.into_iter().map(host_view).collect())
    }

    /// What happened to a host itself, oldest first.
    ///
    /// # Errors
    /// `NotFound`; `Forbidden` for anyone but staff.
    pub async fn host_timeline(&self, cx: &OpContext, id: HostId) -> Result<Vec<EventView>> {
        permit(cx, Permission::ViewHosts, None)?;
        let read = self.store().read();
        if host::find(&read, id).await?.is_none() {
            return Err(Error::not_found(format!("host `{id}`")));
        }
        Ok(event::for_host(&read, id, MAX_TIMELINE).await?)
    }

    /// Opens an agent's session with everything it reports, and sends again
    /// the commands it has not answered.
    ///
    /// # Errors
    /// The reason to refuse the session, for the agent's log.
    pub async fn connect_agent(&self, hello: Hello) -> Result<AgentSession, String> {
        let Some(protocol) = PROTOCOL_VERSIONS.common(hello.protocol) else {
            let Versions { min, max } = hello.protocol;
            let ours = PROTOCOL_VERSIONS;
            return Err(format!(
                "the agent speaks protocol {min} to {max}, this server {} to {}",
                ours.min, ours.max
            ));
        };
        if hello.inventory.len() > MAX_INVENTORY {
            return Err(format!("more than {MAX_INVENTORY} machines are reported"));
        }
        let actor = Actor::Host(hello.name.clone());
        let host_id = hello.host_id;
        let internal = |error: Error| {
            tracing::error!(host = %host_id, error = ?error, "an agent cannot be connected");
            error.public
        };
        let recorded = self.record_host(&hello, protocol, &actor);
        let session_number = match recorded.await.map_err(internal)? {
            Ok(number) => number,
            Err(refusal) => {
                self.inner.hub.wake();
                return Err(refusal);
            }
        };
        let (to_agent, outgoing) = mpsc::channel(MAX_QUEUED_FRAMES);
        let welcome = ToAgent::Welcome {
            protocol,
            session_number,
            lease_ms: self.lease_ms(),
        };
        to_agent
            .try_send(welcome)
            .map_err(|error| error.to_string())?;
        let number = self.inner.agents.enter(host_id, to_agent);
        let handle = AgentHandle {
            engine: self.clone(),
            host_id,
            actor: actor.clone(),
            number,
            session_number,
            ready: AtomicBool::new(false),
        };
        self.reconcile_inventory(host_id, &actor, hello.inventory)
            .await
            .map_err(internal)?;
        self.inner.hub.wake();
        tracing::info!(host = %hello.name, "host connected");
        Ok(AgentSession { outgoing, handle })
    }

    /// What every connected host holds right now; those that do not answer
    /// within `patience` are left out.
    pub async fn inventories(&self, patience: Duration) -> BTreeMap<HostId, Vec<Observed>> {
        let agents = &self.inner.agents;
        let connected: Vec<HostId> = agents.lock().by_host.keys().copied().collect();
        let (to_us, mut answers) = mpsc::channel(connected.len().max(1));
        agents
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(to_us);
        let mut awaited: BTreeSet<HostId> = connected
            .into_iter()
            .filter(|id| agents.send_frame(*id, ToAgent::TakeInventory))
            .collect();
        let mut inventories = BTreeMap::new();
        let collect = async {
            while !awaited.is_empty() {
                let Some((id, inventory)) = answers.recv().await else {
                    return;
                };
                awaited.remove(&id);
                inventories.insert(id, inventory);
            }
        };
        let _in_time = tokio::time::timeout(patience, collect).await;
        inventories
    }

    fn lease_ms(&self) -> Option<u64> {
        let lease = self.inner.settings.host_lease?;
        Some(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX))
    }

    /// Records what a host says of itself and gives its session a number.
    /// `Err` is the reason to refuse it.
    async fn record_host(
        &self,
        hello: &Hello,
        protocol: u32,
        actor: &Actor,
    ) -> Result<Result<u64, String>> {
        let now = self.world().now();
        let id = hello.host_id;
        let (outcome, known) = write_tx!(self.store(), |tx| {
            let known = enrolment::lock(tx, id).await?;
            let (record, doubt) = described(hello, protocol, known.as_ref(), now);
            if known.is_none() {
                host::insert(tx, &record).await.map_err(name_in_use)?;
            }
            let Some(number) = enrolment::offer_session(tx, id, hello.session_number).await? else {
                return Ok((Err(refusal(known.as_ref(), hello)), known));
            };
            host::update_facts(tx, &record).await.map_err(name_in_use)?;
            let mut events = vec![EventKind::HostConnected];
            events.extend(doubt.map(|reason| EventKind::HostDoubted { reason }));
            if hello.fenced > 0 {
                let machines = hello.fenced;
                events.push(EventKind::HostFenced { machines });
            }
            let facts: Vec<NewEvent> = events
                .into_iter()
                .map(|event| host_event(now, actor, id, event))
                .collect();
            event::append(tx, &facts).await?;
            Ok((Ok(number), known))
        })?;
        if let (Err(reason), Some(known)) = (&outcome, &known) {
            self.alarm(known, reason).await?;
        }
        Ok(outcome)
    }

    async fn host_disconnected(&self, id: HostId, number: u64, actor: Actor) -> Result<()> {
        let now = self.world().now();
        write_tx!(self.store(), |tx| {
            let Some(mut record) = host::find(tx, id).await? else {
                return Ok(());
            };
            // A later session may be recorded before it is entered.
            let later = record.session_offered != number || self.inner.agents.is_connected(id);
            if later || !record.connected {
                return Ok(());
            }
            record.connected = false;
            record.connected_since = None;
            record.silent_since = Some(now);
            host::update_facts(tx, &record).await?;
            let fact = host_event(now, &actor, id, EventKind::HostDisconnected);
            event::append(tx, &[fact]).await?;
            Ok(())
        })?;
        tracing::info!(host = %id, "host disconnected");
        self.inner.hub.wake();
        Ok(())
    }

    /// At start no agent is connected, whatever the last server recorded.
    pub(crate) async fn forget_connections(&self) -> Result<()> {
        let now = self.world().now();
        write_tx!(self.store(), |tx| {
            let lost = host::disconnect_all(tx, now).await?;
            let facts: Vec<NewEvent> = lost
                .into_iter()
                .map(|id| host_event(now, &Actor::System, id, EventKind::HostDisconnected))
                .collect();
            if !facts.is_empty() {
                event::append(tx, &facts).await?;
            }
            Ok(())
        })
    }
}

/// Why a host's session is refused.
fn refusal(known: Option<&HostRecord>, hello: &Hello) -> String {
    let named = hello.session_number;
    match known {
        Some(known) if known.revoked_at.is_some() => {
            "its certificate was revoked; it needs a new token to join".to_owned()
        }
        Some(known) => format!(
            "another machine uses this host's identity: it names session {named}, the last was {}",
            known.session_offered
        ),
        None => format!("a host that is new here names session {named}"),
    }
}

/// The record after a hello, and why the host is doubted, if it is.
fn described(
    hello: &Hello,
    protocol: u32,
    known: Option<&HostRecord>,
    now: Timestamp,
) -> (HostRecord, Option<String>) {
    let told = hello.capacity;
    let absurd = told.vcpus > MAX_HOST_VCPUS
        || told.memory_mib.0 > MAX_HOST_MIB
        || told.disk_mib.0 > MAX_HOST_MIB;
    let used = known.map(|known| known.used).unwrap_or_default();
    let short = told.vcpus < used.vcpus
        || told.memory_mib < used.memory_mib
        || told.disk_mib < used.disk_mib;
    let doubt = if absurd {
        Some("it reports a capacity beyond any machine".to_owned())
    } else if short {
        Some("it reports less than its VMs have been given".to_owned())
    } else {
        None
    };
    let capacity = if absurd {
        known.map(|known| known.capacity).unwrap_or_default()
    } else {
        told
    };
    let record = HostRecord {
        id: hello.host_id,
        name: hello.name.clone(),
        zone: hello.zone.clone(),
        state: match doubt {
            Some(_) => HostState::Doubted,
            None => HostState::Enabled,
        },
        connected: true,
        hypervisor: hello.capabilities.hypervisor.clone(),
        accelerator: hello.capabilities.accelerator,
        accelerator_note: hello.capabilities.accelerator_note.clone(),
        capacity,
        used: Resources::default(),
        vms: 0,
        agent_version: hello.agent_version.clone(),
        connected_since: Some(now),
        silent_since: None,
        hot_resize: hello.capabilities.hot_resize,
        protocol,
        // Written by others.
        certificate: None,
        revoked_at: None,
        session_number: 0,
        session_offered: 0,
        orphans: 0,
    };
    let known_doubt = known.is_some_and(|known| known.state == HostState::Doubted);
    // Said once, when it begins.
    (record, doubt.filter(|_| !known_doubt))
}

pub(crate) fn name_in_use(error: StoreError) -> TxError {
    if matches!(error, StoreError::Duplicate { .. }) {
        let refusal = "another host has this name; give the agent another one with --name";
        return Error::conflict(refusal).into();
    }
    error.into()
}

pub(crate) fn host_event(at: Timestamp, actor: &Actor, id: HostId, event: EventKind) -> NewEvent {
    NewEvent {
        at,
        actor: actor.clone(),
        tenant_id: None,
        vm_id: None,
        host_id: Some(id),
        request_id: None,
        event,
    }
}

pub(crate) fn host_view(record: HostRecord) -> HostView {
    let HostRecord {
        id,
        name,
        zone,
        state,
        connected,
        hypervisor,
        accelerator,
        accelerator_note,
        capacity,
        used,
        vms,
        agent_version,
        connected_since,
        silent_since: _,
        hot_resize,
        protocol: _,
        certificate,
        revoked_at,
        session_number: _,
        session_offered: _,
        orphans,
    } = record;
    HostView {
        id,
        name,
        zone,
        state,
        connected,
        hypervisor,
        accelerator,
        accelerator_note,
        capacity,
        used,
        vms,
        agent_version,
        hot_resize,
        connected_since,
        certificate_expires_at: certificate.map(|certificate| certificate.expires_at),
        revoked: revoked_at.is_some(),
        orphans,
    }
}
