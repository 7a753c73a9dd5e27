//! Machines with an agent: their sessions, their reports, their views.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;
use vimana_authz::Permission;
use vimana_driver::{Capabilities, Observed};
use vimana_model::event::{Actor, EventKind, EventView};
use vimana_model::host::{Hardware, HostDatastoreView, HostState, HostView};
use vimana_model::unit::{MiB, Resources};
use vimana_model::{Error, HostId, Result, Timestamp};
use vimana_protocol::agent::{Capacity, Hello, HostDatastore, ToAgent, negotiate};
use vimana_protocol::limits::MAX_QUEUED_FRAMES;
use vimana_store::event::NewEvent;
use vimana_store::host::HostRecord;
use vimana_store::host_datastore::HostDatastoreRecord;
use vimana_store::{
    StoreError, TxError, WriteTx, enrolment, event, host, host_datastore, write_tx,
};

use crate::Engine;
use crate::agent::{AgentSession, Inventory, Speaker};
use crate::authorize::permit;
use crate::context::OpContext;
use crate::limits::{
    MAX_HARDWARE_NAME, MAX_HOST_DATASTORES, MAX_HOST_MIB, MAX_HOST_VCPUS, MAX_INVENTORY,
    MAX_RUN_EPOCH, MAX_TIMELINE,
};

impl Engine {
    /// All hosts, by name.
    ///
    /// # Errors
    /// `Forbidden` for anyone but staff.
    pub async fn hosts(&self, cx: &OpContext) -> Result<Vec<HostView>> {
        permit(cx, Permission::ViewHosts, None)?;
        let read = self.store().read();
        let found = host::list(&read).await?;
        Ok(host_views(found, host_datastore::list(&read).await?))
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
        let protocol = match acceptable(&hello) {
            Ok(protocol) => protocol,
            Err(reason) => {
                self.refuse_agent(hello.host_id, &reason).await;
                return Err(reason);
            }
        };
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
        let session = AgentSession::enter(
            self.clone(),
            Speaker {
                host_id,
                actor,
                session_number,
            },
            hello.inventory,
            (to_agent, outgoing),
        );
        self.inner.enrolment.forget_refusal(host_id);
        self.inner.hub.wake();
        tracing::info!(host = %hello.name, "host connected");
        Ok(session)
    }

    /// What every connected host holds right now; those that do not answer
    /// within `patience` are left out.
    pub async fn inventories(&self, patience: Duration) -> BTreeMap<HostId, Inventory> {
        let agents = &self.inner.agents;
        let connected = agents.ids();
        let (to_us, mut answers) = mpsc::channel(connected.len().max(1));
        agents.ask(to_us);
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

    pub(crate) fn lease_ms(&self) -> Option<u64> {
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
            record_datastores(tx, hello).await?;
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

    /// Records that a session is over, unless a later one has begun.
    pub(crate) async fn host_disconnected(
        &self,
        id: HostId,
        number: u64,
        actor: &Actor,
    ) -> Result<()> {
        let now = self.world().now();
        write_tx!(self.store(), |tx| {
            let Some(mut record) = enrolment::lock(tx, id).await? else {
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
            let fact = host_event(now, actor, id, EventKind::HostDisconnected);
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

/// Records which datastores a host reaches now.
async fn record_datastores(tx: &WriteTx, hello: &Hello) -> Result<(), StoreError> {
    let host_id = hello.host_id;
    let known = host_datastore::for_host(tx, host_id).await?;
    let told = hello.datastores.iter().take(MAX_HOST_DATASTORES);
    let told: BTreeMap<_, _> = told.map(|told| (&told.name, told)).collect();
    // Volumes are in the one that had the name before.
    let is_another = |told: &HostDatastore, before: &HostDatastoreRecord| {
        before.id != told.id && before.used != MiB(0)
    };
    for before in &known {
        let told = told.get(&before.name);
        let is_there = told.is_some_and(|told| !is_another(told, before));
        if !is_there && before.present {
            tracing::warn!(host = %hello.name, datastore = %before.name, volumes = %before.used, "a datastore of a host is away");
            let away = HostDatastoreRecord {
                present: false,
                ..before.clone()
            };
            host_datastore::put(tx, &away).await?;
        }
    }
    for (name, told) in told {
        let before = known.iter().find(|before| before.name == *name);
        let another = before.is_some_and(|before| is_another(told, before));
        if name.is_local() || another || told.capacity_mib.0 > MAX_HOST_MIB {
            tracing::warn!(host = %hello.name, datastore = %name, another, "a datastore of a host is passed over");
            continue;
        }
        let record = HostDatastoreRecord {
            host_id,
            name: name.clone(),
            id: told.id,
            capacity: told.capacity_mib,
            used: MiB(0),
            used_by_all: MiB(0),
            present: true,
        };
        host_datastore::put(tx, &record).await?;
    }
    Ok(())
}

/// Each host with its own of the datastores.
pub(crate) fn host_views(
    hosts: Vec<HostRecord>,
    datastores: Vec<HostDatastoreRecord>,
) -> Vec<HostView> {
    let mut of: BTreeMap<HostId, Vec<HostDatastoreRecord>> = BTreeMap::new();
    for datastore in datastores {
        of.entry(datastore.host_id).or_default().push(datastore);
    }
    let view = |host: HostRecord| {
        let own = of.remove(&host.id).unwrap_or_default();
        host_view(host, own)
    };
    hosts.into_iter().map(view).collect()
}

/// A datastore of a host, where that reaches it or volumes are in it.
fn datastore_view(record: HostDatastoreRecord) -> Option<HostDatastoreView> {
    let HostDatastoreRecord {
        host_id: _,
        name,
        id,
        capacity,
        used,
        used_by_all,
        present,
    } = record;
    (present || used > MiB(0)).then_some(HostDatastoreView {
        name,
        id,
        capacity_mib: capacity,
        used_mib: used_by_all,
        present,
    })
}

/// What machines of the host see, unless it is no name of anything.
fn hardware(told: &Capabilities) -> Option<Hardware> {
    let is_name = |name: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._+".contains(c);
        (1..=MAX_HARDWARE_NAME).contains(&name.len()) && name.chars().all(plain)
    };
    let hardware = told.hardware.clone();
    hardware.filter(|told| is_name(&told.machine_type) && is_name(&told.cpu_model))
}

/// The version to speak with an agent.
///
/// # Errors
/// Why nothing can be made of its hello. Refused as a whole: of a machine that
/// is passed over here it would seem that it is gone.
fn acceptable(hello: &Hello) -> Result<u32, String> {
    let protocol = negotiate(hello.protocol)?;
    if hello.inventory.len() > MAX_INVENTORY {
        return Err(format!("more than {MAX_INVENTORY} machines are reported"));
    }
    let mut seen = BTreeSet::new();
    for Observed {
        vm_id, run_epoch, ..
    } in &hello.inventory
    {
        if *run_epoch > MAX_RUN_EPOCH {
            return Err(format!(
                "`{vm_id}` is reported in a run above {MAX_RUN_EPOCH}"
            ));
        }
        if !seen.insert(*vm_id) {
            return Err(format!("`{vm_id}` is reported twice"));
        }
    }
    Ok(protocol)
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
    let (capacity, doubt) = judged(&hello.capacity, known);
    let desired = known.map(|known| known.desired).unwrap_or_default();
    let record = HostRecord {
        id: hello.host_id,
        name: hello.name.clone(),
        zone: hello.zone.clone(),
        state: match doubt {
            Some(_) => HostState::Doubted,
            None => desired.state(),
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
        hardware: hardware(&hello.capabilities),
        protocol,
        // Written by others.
        certificate: None,
        revoked_at: None,
        session_number: 0,
        session_offered: 0,
        orphans: 0,
        desired,
        evacuation: None,
    };
    let known_doubt = known.is_some_and(|known| known.state == HostState::Doubted);
    // Said once, when it begins.
    (record, doubt.filter(|_| !known_doubt))
}

/// What is recorded of a host's capacity, and why it is doubted, if it is. What
/// cannot be so leaves the record as it was.
fn judged(said: &Capacity, known: Option<&HostRecord>) -> (Resources, Option<String>) {
    let recorded = known.map(|known| known.capacity).unwrap_or_default();
    let told = match said {
        Capacity::Told(told) => *told,
        Capacity::Nonsense(said) => {
            let doubt = format!("it reports a capacity that makes no sense: {said}");
            return (recorded, Some(doubt));
        }
    };
    let Resources {
        vcpus,
        memory_mib: MiB(memory),
        disk_mib: MiB(disk),
    } = told;
    let used = known.map(|known| known.used).unwrap_or_default();
    if vcpus > MAX_HOST_VCPUS || memory.max(disk) > MAX_HOST_MIB {
        let doubt = "it reports a capacity beyond any machine".to_owned();
        (recorded, Some(doubt))
    } else if vcpus < used.vcpus || memory < used.memory_mib.0 || disk < used.disk_mib.0 {
        let doubt = "it reports less than its VMs have been given".to_owned();
        (told, Some(doubt))
    } else if vcpus == 0 || memory == 0 || disk == 0 {
        let doubt = "it reports no vCPUs, no memory or no disk".to_owned();
        (told, Some(doubt))
    } else {
        (told, None)
    }
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
        image_id: None,
        volume_id: None,
        event,
    }
}

pub(crate) fn host_view(record: HostRecord, datastores: Vec<HostDatastoreRecord>) -> HostView {
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
        hardware,
        protocol: _,
        certificate,
        revoked_at,
        session_number: _,
        session_offered: _,
        orphans,
        desired,
        evacuation: _,
    } = record;
    HostView {
        id,
        name,
        zone,
        state,
        desired,
        connected,
        hypervisor,
        accelerator,
        accelerator_note,
        capacity,
        used,
        datastores: datastores.into_iter().filter_map(datastore_view).collect(),
        vms,
        agent_version,
        hot_resize,
        hardware,
        connected_since,
        certificate_expires_at: certificate.map(|certificate| certificate.expires_at),
        revoked: revoked_at.is_some(),
        orphans,
    }
}
