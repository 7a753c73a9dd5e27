//! Machines with an agent: their sessions, their reports, their views.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;
use vimana_authz::Permission;
use vimana_model::event::{Actor, EventKind};
use vimana_model::host::{HostState, HostView};
use vimana_model::unit::Resources;
use vimana_model::{Error, HostId, Result, Timestamp};
use vimana_protocol::agent::{Command, FromAgent, Hello, PROTOCOL_VERSION, ToAgent};
use vimana_protocol::limits::MAX_QUEUED_FRAMES;
use vimana_store::event::NewEvent;
use vimana_store::host::HostRecord;
use vimana_store::{StoreError, TxError, event, host, write_tx};

use crate::Engine;
use crate::authorize::permit;
use crate::context::OpContext;
use crate::limits::{MAX_HOST_MIB, MAX_HOST_VCPUS, MAX_INVENTORY};

/// The agents connected to this server.
#[derive(Default)]
pub struct Agents {
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    by_host: HashMap<HostId, Session>,
    /// Number of the latest session, so that a late end of an old one does
    /// not take down its successor.
    latest: u64,
}

struct Session {
    number: u64,
    outgoing: mpsc::Sender<ToAgent>,
}

impl Agents {
    fn lock(&self) -> std::sync::MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_connected(&self, id: HostId) -> bool {
        self.lock().by_host.contains_key(&id)
    }

    fn enter(&self, id: HostId, outgoing: mpsc::Sender<ToAgent>) -> u64 {
        let mut sessions = self.lock();
        sessions.latest += 1;
        let number = sessions.latest;
        // An older session of the same host loses its sender and so ends.
        sessions.by_host.insert(id, Session { number, outgoing });
        number
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

    pub fn send(&self, id: HostId, command: Command) {
        self.send_frame(id, ToAgent::Command(command));
    }

    /// False when the host is not connected. A host that lets frames pile up
    /// is cut off; it connects again and gets what it missed.
    pub fn send_frame(&self, id: HostId, frame: ToAgent) -> bool {
        let mut sessions = self.lock();
        let Some(session) = sessions.by_host.get(&id) else {
            return false;
        };
        if session.outgoing.try_send(frame).is_ok() {
            return true;
        }
        tracing::warn!(host = %id, "the agent does not keep up; its session is ended");
        sessions.by_host.remove(&id);
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
        let outcome = match frame {
            FromAgent::Heartbeat => Ok(()),
            FromAgent::Hello(_) => {
                tracing::warn!(host = %self.host_id, "a second hello is ignored");
                Ok(())
            }
            FromAgent::Done { command, outcome } => {
                self.engine
                    .command_done(self.host_id, &self.actor, command, outcome)
                    .await
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

impl Drop for AgentHandle {
    fn drop(&mut self) {
        if !self.engine.inner.agents.leave(self.host_id, self.number) {
            return;
        }
        let (engine, id, actor) = (self.engine.clone(), self.host_id, self.actor.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = engine.host_disconnected(id, actor).await {
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

    /// Opens an agent's session with everything it reports, and sends again
    /// the commands it has not answered.
    ///
    /// # Errors
    /// The reason to refuse the session, for the agent's log.
    pub async fn connect_agent(&self, hello: Hello) -> Result<AgentSession, String> {
        check(&hello)?;
        let actor = Actor::Host(hello.name.clone());
        let host_id = hello.host_id;
        let internal = |error: Error| {
            tracing::error!(host = %host_id, error = ?error, "an agent cannot be connected");
            error.public
        };
        let (to_agent, outgoing) = mpsc::channel(MAX_QUEUED_FRAMES);
        let welcome = ToAgent::Welcome {
            protocol: PROTOCOL_VERSION,
        };
        to_agent
            .try_send(welcome)
            .map_err(|error| error.to_string())?;
        self.record_host(&hello, &actor).await.map_err(internal)?;
        let number = self.inner.agents.enter(host_id, to_agent);
        let handle = AgentHandle {
            engine: self.clone(),
            host_id,
            actor: actor.clone(),
            number,
        };
        self.reconcile_inventory(host_id, &actor, hello.inventory)
            .await
            .map_err(internal)?;
        self.inner.hub.wake();
        tracing::info!(host = %hello.name, "host connected");
        Ok(AgentSession { outgoing, handle })
    }

    async fn record_host(&self, hello: &Hello, actor: &Actor) -> Result<()> {
        let now = self.world().now();
        write_tx!(self.store(), |tx| {
            let record = HostRecord {
                id: hello.host_id,
                name: hello.name.clone(),
                zone: hello.zone.clone(),
                state: HostState::Enabled,
                connected: true,
                hypervisor: hello.capabilities.hypervisor.clone(),
                accelerator: hello.capabilities.accelerator,
                accelerator_note: hello.capabilities.accelerator_note.clone(),
                capacity: hello.capacity,
                used: Resources::default(),
                vms: 0,
                agent_version: hello.agent_version.clone(),
                connected_since: Some(now),
                silent_since: None,
            };
            let known = host::update_facts(tx, &record).await.map_err(name_in_use)?;
            if !known {
                host::insert(tx, &record).await.map_err(name_in_use)?;
            }
            let fact = host_event(now, actor, hello.host_id, EventKind::HostConnected);
            event::append(tx, &[fact]).await?;
            Ok(())
        })
    }

    async fn host_disconnected(&self, id: HostId, actor: Actor) -> Result<()> {
        let now = self.world().now();
        write_tx!(self.store(), |tx| {
            let Some(mut record) = host::find(tx, id).await? else {
                return Ok(());
            };
            if self.inner.agents.is_connected(id) || !record.connected {
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

/// Refuses a hello that makes no sense.
fn check(hello: &Hello) -> Result<(), String> {
    if hello.protocol != PROTOCOL_VERSION {
        return Err(format!(
            "the agent speaks protocol {}, this server speaks {PROTOCOL_VERSION}",
            hello.protocol
        ));
    }
    let capacity = hello.capacity;
    if capacity.vcpus > MAX_HOST_VCPUS
        || capacity.memory_mib.0 > MAX_HOST_MIB
        || capacity.disk_mib.0 > MAX_HOST_MIB
    {
        return Err("the reported capacity is beyond any machine".to_owned());
    }
    if hello.inventory.len() > MAX_INVENTORY {
        return Err(format!("more than {MAX_INVENTORY} machines are reported"));
    }
    Ok(())
}

fn name_in_use(error: StoreError) -> TxError {
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
        connected_since,
    }
}
