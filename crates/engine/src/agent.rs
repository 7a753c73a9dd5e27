//! Agents: their sessions, and what they say in them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use vimana_driver::Observed;
use vimana_model::event::Actor;
use vimana_model::{HostId, Result};
use vimana_protocol::agent::{Command, Disks, FromAgent, ToAgent};
use vimana_protocol::limits::MAX_QUEUED_FRAMES;
use vimana_store::{TxError, WriteTx, enrolment, write_tx};

use crate::Engine;
use crate::report::Answer;

/// The agents connected to this server.
#[derive(Default)]
pub struct Agents {
    sessions: Mutex<Sessions>,
    /// Who waits for hosts' inventories.
    asked: Mutex<Vec<mpsc::Sender<(HostId, Inventory)>>>,
}

/// What a host holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    pub machines: Vec<Observed>,
    /// Absent where the host's agent is older.
    pub disks: Option<Disks>,
}

#[derive(Default)]
struct Sessions {
    by_host: BTreeMap<HostId, Session>,
    /// Number of each host's latest session, so that a late end of an old one
    /// does not take down its successor.
    latest: BTreeMap<HostId, u64>,
    /// Number of the latest session of all.
    count: u64,
}

struct Session {
    number: u64,
    /// None once it is cut off: its connection then ends, and with it the
    /// handle, which records that the host is away.
    outgoing: Option<mpsc::Sender<ToAgent>>,
}

impl Agents {
    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_connected(&self, id: HostId) -> bool {
        let sessions = self.lock();
        let session = sessions.by_host.get(&id);
        session.is_some_and(|session| session.outgoing.is_some())
    }

    pub fn enter(&self, id: HostId, outgoing: mpsc::Sender<ToAgent>) -> u64 {
        let mut sessions = self.lock();
        sessions.count += 1;
        let number = sessions.count;
        sessions.latest.insert(id, number);
        // An older session of the same host loses its sender and so ends.
        let outgoing = Some(outgoing);
        sessions.by_host.insert(id, Session { number, outgoing });
        number
    }

    /// Who is connected.
    pub fn ids(&self) -> Vec<HostId> {
        self.lock().by_host.keys().copied().collect()
    }

    /// Where the inventories go that hosts take from now on.
    pub fn ask(&self, asker: mpsc::Sender<(HostId, Inventory)>) {
        self.askers().push(asker);
    }

    fn askers(&self) -> MutexGuard<'_, Vec<mpsc::Sender<(HostId, Inventory)>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inventory_taken(&self, id: HostId, inventory: &Inventory) {
        self.askers()
            .retain(|asker| asker.try_send((id, inventory.clone())).is_ok());
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

    /// Whether there was no later one. What an earlier session still brings is
    /// out of date: the inventory that a later one began with is newer.
    fn is_latest(&self, id: HostId, number: u64) -> bool {
        self.lock().latest.get(&id) == Some(&number)
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
    outgoing: mpsc::Receiver<ToAgent>,
    handle: AgentHandle,
}

/// The receiving end of a session. Its end is the session's.
pub struct AgentHandle {
    end: Arc<End>,
    said: mpsc::Sender<FromAgent>,
}

/// Takes in what the agent says, in its order, one after the other, and before
/// all of it what the host holds. What the database cannot take at the moment
/// is tried again rather than lost, while heartbeats, and with them the host's
/// lease, go on.
struct Intake {
    end: Arc<End>,
    inventory: Vec<Observed>,
    said: mpsc::Receiver<FromAgent>,
}

/// The server's end.
struct End {
    engine: Engine,
    speaker: Speaker,
    number: u64,
    ready: AtomicBool,
}

/// Who says something of a host, and in which session.
pub struct Speaker {
    pub host_id: HostId,
    pub actor: Actor,
    /// What the host has to have on its disk before anything it says counts.
    pub session_number: u64,
}

impl Speaker {
    /// Whether it speaks in the host's latest session. What an earlier one
    /// still brings is out of date: the inventory that a later one began with
    /// is newer. Holds until the transaction ends, whichever server the later
    /// session is with: it waits for the host's row.
    pub async fn is_current(&self, tx: &WriteTx) -> Result<bool, TxError> {
        let host = enrolment::lock(tx, self.host_id).await?;
        let current = host.is_some_and(|host| host.session_offered == self.session_number);
        if !current {
            let Self {
                host_id,
                session_number,
                ..
            } = self;
            tracing::debug!(host = %host_id, session_number, "a word of an earlier session is ignored");
        }
        Ok(current)
    }
}

impl AgentSession {
    /// A session that the host is told about, and that ends an earlier one.
    pub(crate) fn enter(
        engine: Engine,
        speaker: Speaker,
        inventory: Vec<Observed>,
        outgoing: (mpsc::Sender<ToAgent>, mpsc::Receiver<ToAgent>),
    ) -> Self {
        let (to_agent, outgoing) = outgoing;
        let number = engine.inner.agents.enter(speaker.host_id, to_agent);
        let end = Arc::new(End {
            engine,
            speaker,
            number,
            ready: AtomicBool::new(false),
        });
        let (said, queue) = mpsc::channel(MAX_QUEUED_FRAMES);
        let intake = Intake {
            end: Arc::clone(&end),
            inventory,
            said: queue,
        };
        end.engine.spawn(intake.run());
        Self {
            outgoing,
            handle: AgentHandle { end, said },
        }
    }

    /// Takes the halves apart, for two tasks.
    #[must_use]
    pub fn split(self) -> (mpsc::Receiver<ToAgent>, AgentHandle) {
        (self.outgoing, self.handle)
    }
}

impl AgentHandle {
    #[must_use]
    pub fn host_id(&self) -> HostId {
        self.end.speaker.host_id
    }

    /// Takes one frame. Heartbeats are answered at once, everything else waits
    /// its turn; an agent that says more than can wait is cut off, and says it
    /// again when it is back.
    pub fn receive(&self, frame: FromAgent) {
        let End { engine, number, .. } = &*self.end;
        let host_id = &self.end.speaker.host_id;
        if matches!(frame, FromAgent::Heartbeat) {
            let lease_ms = engine.lease_ms();
            let answer = ToAgent::Heartbeat { lease_ms };
            engine.inner.agents.answer(*host_id, *number, answer);
            return;
        }
        if self.said.try_send(frame).is_err() {
            tracing::warn!(host = %host_id, "the agent says more than can be taken in; its session is ended");
            self.end.cut_off();
        }
    }
}

impl Intake {
    /// Until the handle is gone, and all is taken in that came before.
    async fn run(mut self) {
        // Boxed, as the work below: most hosts have nothing to say most of the
        // time, and their tasks are small then.
        if let Err(error) = Box::pin(self.begin()).await {
            tracing::error!(host = %self.end.speaker.host_id, error = ?error, "what a host holds cannot be compared with the record");
            // It connects again, and is compared again.
            self.end.cut_off();
            return;
        }
        while let Some(frame) = self.said.recv().await {
            let end = &self.end;
            let take = || end.take(frame.clone());
            let taken = Box::pin(end.engine.persist("what an agent says", take)).await;
            if let Err(error) = taken {
                tracing::error!(host = %end.speaker.host_id, error = ?error, "an agent's frame has no effect");
            }
        }
    }

    /// Compares what the host holds with what is recorded, and sends the
    /// commands that it has not answered.
    async fn begin(&mut self) -> Result<()> {
        let (end, inventory) = (&self.end, std::mem::take(&mut self.inventory));
        let compare = || async {
            if !end.is_latest() {
                return Ok(());
            }
            let inventory = inventory.clone();
            let engine = &end.engine;
            engine.reconcile_inventory(&end.speaker, inventory).await?;
            engine.inner.hub.wake();
            Ok(())
        };
        end.engine.persist("what a host holds", compare).await
    }
}

impl End {
    fn is_latest(&self) -> bool {
        let agents = &self.engine.inner.agents;
        agents.is_latest(self.speaker.host_id, self.number)
    }

    async fn take(&self, frame: FromAgent) -> Result<()> {
        let (engine, speaker) = (&self.engine, &self.speaker);
        let host_id = speaker.host_id;
        match frame {
            FromAgent::Ready { session_number } => self.ready(session_number).await,
            _ if !self.ready.load(Ordering::Acquire) => {
                tracing::warn!(host = %host_id, "an agent says something before it is ready");
                self.cut_off();
                Ok(())
            }
            // What leaves no record asks no record.
            FromAgent::Progress { .. } | FromAgent::Inventory { .. } if !self.is_latest() => Ok(()),
            FromAgent::Progress { command, progress } => {
                engine.progressed(host_id, command, progress).await
            }
            FromAgent::VolumeRemoved { volume_id } => {
                engine.volume_removed(speaker, volume_id).await
            }
            FromAgent::VolumeNotSent { order, fault } => {
                engine.volume_not_sent(speaker, order, &fault).await
            }
            FromAgent::Discarded { vm_id } => engine.orphan_discarded(speaker, vm_id).await,
            FromAgent::Done {
                command,
                claim_epoch,
                outcome,
            } => {
                let answer = Answer {
                    host: Some(host_id),
                    command,
                    claim_epoch,
                    outcome,
                };
                engine.command_done(&speaker.actor, answer).await
            }
            FromAgent::Inventory { inventory, disks } => {
                let inventory = Inventory {
                    machines: inventory,
                    disks,
                };
                engine.inner.agents.inventory_taken(host_id, &inventory);
                Ok(())
            }
            FromAgent::Observed(observed) => engine.observed(speaker, observed).await,
            FromAgent::Hello(_) => {
                tracing::warn!(host = %host_id, "a second hello is ignored");
                Ok(())
            }
            // The handle answers those.
            FromAgent::Heartbeat => Ok(()),
            FromAgent::Unknown => {
                tracing::debug!(host = %host_id, "a frame of a later version is ignored");
                Ok(())
            }
        }
    }

    /// The host has the session's number on its disk; whoever has an older
    /// one is a copy from now on.
    async fn ready(&self, session_number: u64) -> Result<()> {
        let (id, named) = (self.speaker.host_id, session_number);
        let confirmed = named == self.speaker.session_number
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
        if let Some(session) = sessions.by_host.get_mut(&self.speaker.host_id)
            && session.number == self.number
        {
            session.outgoing = None;
        }
    }
}

impl Drop for AgentHandle {
    fn drop(&mut self) {
        let end = Arc::clone(&self.end);
        let agents = &end.engine.inner.agents;
        if !agents.leave(end.speaker.host_id, end.number) {
            return;
        }
        self.end.engine.spawn(async move {
            let engine = &end.engine;
            let Speaker {
                host_id: id,
                actor,
                session_number,
            } = &end.speaker;
            let record = || engine.host_disconnected(*id, *session_number, actor);
            if let Err(error) = engine.persist("a lost host", record).await {
                tracing::error!(host = %id, error = ?error, "a lost host cannot be recorded");
            }
        });
    }
}
