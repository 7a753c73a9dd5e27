//! One session with the server: Hello, then commands in, outcomes and
//! changes out.

mod frame;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use vimana_driver::{Fault, FaultKind, HostDriver, Observed};
use vimana_model::{DatastoreId, HostId, VolumeId};
use vimana_protocol::agent::{Disks, FromAgent, Hello, PROTOCOL_VERSIONS, ToAgent, Versions};
use vimana_protocol::dial::{Dial, DialError, Link, LinkError};
use vimana_protocol::limits::{HEARTBEAT_EVERY, HELLO_TIMEOUT};

use crate::console::Consoles;
use crate::ledger::Ledger;
use crate::limits::MAX_UNANSWERED_HEARTBEATS;
use crate::watchdog::BootTime;
use crate::work::Workshop;
use crate::{Config, Lease};
use frame::Arrived;

const PATH: &str = "/agent/v1/session";

type AgentLink = Link<ToAgent, FromAgent>;

/// Why there is no session, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the host's machines cannot be listed: {0}")]
    Inventory(Fault),
    #[error("the session's number cannot be kept: {0}")]
    Ledger(Fault),
    #[error("the server did not answer the Hello within {} s", HELLO_TIMEOUT.as_secs())]
    NoWelcome,
    #[error("the server refused this agent: {0}")]
    Refused(String),
    #[error("{0} changes were missed; the next Hello tells them")]
    Lagged(u64),
    #[error("the driver ended")]
    DriverEnded,
    #[error("the lease is over: what the server commands may be out of date")]
    LeaseOver,
    #[error("the server sent a frame that has no place here")]
    Unexpected,
}

/// What every session of an agent shares.
pub struct Host {
    pub id: HostId,
    pub config: Config,
    pub driver: Arc<dyn HostDriver>,
    pub dial: Arc<dyn Dial>,
    pub ledger: Arc<Ledger>,
    pub lease: Arc<dyn Lease>,
    pub work: Arc<Workshop>,
    /// None where serial lines are not served.
    pub consoles: Option<Arc<Consoles>>,
}

/// What the server says of a session that it opens.
struct Opening {
    session_number: u64,
    lease: Option<Duration>,
}

/// An open session.
struct Session {
    link: AgentLink,
    number: u64,
    changes: broadcast::Receiver<Observed>,
    /// When the heartbeats were sent that the server has not answered yet.
    asked: VecDeque<BootTime>,
}

impl Host {
    /// One session; Ok upon shutdown. `opened` is set with the Welcome.
    pub async fn session(
        &self,
        opened: &mut Option<Instant>,
        shutdown: &CancellationToken,
    ) -> Result<(), SessionError> {
        let Some(session) = shutdown.run_until_cancelled(self.open()).await else {
            return Ok(());
        };
        let mut session = session?;
        *opened = Some(Instant::now());
        tracing::info!(
            number = session.number,
            "the session with the server is open"
        );
        let served = shutdown.run_until_cancelled(self.serve(&mut session)).await;
        if let Some(result) = served {
            return result;
        }
        session.link.close().await;
        Ok(())
    }

    /// Until the session breaks.
    async fn serve(&self, session: &mut Session) -> Result<(), SessionError> {
        let Session {
            link,
            number,
            changes,
            asked,
        } = session;
        let mut pulse = interval_at(Instant::now() + HEARTBEAT_EVERY, HEARTBEAT_EVERY);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let room = link.room();
            tokio::select! {
                // A machine's change goes before the outcome that it belongs to.
                biased;
                change = changes.recv() => match change {
                    Ok(observed) => link.send(&FromAgent::Observed(observed))?,
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        return Err(SessionError::Lagged(missed));
                    }
                    Err(broadcast::error::RecvError::Closed) => {
                        return Err(SessionError::DriverEnded);
                    }
                },
                _ = pulse.tick() => {
                    // Not remembered, its answer prolongs no lease.
                    if asked.len() < MAX_UNANSWERED_HEARTBEATS {
                        asked.push_back(self.lease.now());
                    }
                    link.send(&FromAgent::Heartbeat)?;
                }
                report = self.next_report(room) => {
                    if let Err(error) = link.send(&report) {
                        self.ledger.put_back(report);
                        return Err(error.into());
                    }
                }
                text = link.receive_text() => match frame::read(&text?)? {
                    // Not in the background: what changes afterwards is to be
                    // told afterwards.
                    Arrived::Frame(ToAgent::TakeInventory) => {
                        match self.take_inventory().await {
                            Ok(inventory) => link.send(&inventory)?,
                            Err(fault) => {
                                tracing::warn!(%fault, "the host's machines cannot be listed");
                            }
                        }
                    }
                    Arrived::Frame(frame) => self.take(frame, *number, asked)?,
                    Arrived::Command { command, claim_epoch } => {
                        self.ledger.refuse(command, claim_epoch, not_understood());
                    }
                    Arrived::Strange => {}
                },
            }
        }
    }

    async fn take_inventory(&self) -> Result<FromAgent, Fault> {
        Ok(FromAgent::Inventory {
            inventory: self.driver.inventory().await?,
            disks: Some(Disks {
                volumes: self.driver.volumes().await?,
                snapshots: self.driver.snapshots().await?,
            }),
        })
    }

    /// Once there is room for it: a server that reads slowly is waited for.
    async fn next_report(&self, room: impl Future<Output = ()>) -> FromAgent {
        room.await;
        self.ledger.report().await
    }

    /// Dials and introduces the host.
    async fn open(&self) -> Result<Session, SessionError> {
        // Subscribed before the inventory: what changes in between comes twice
        // rather than never.
        let changes = self.driver.subscribe();
        let inventory = self.driver.inventory().await;
        let inventory = inventory.map_err(SessionError::Inventory)?;
        let wire = self.dial.dial(PATH).await?;
        let mut link = AgentLink::without_heartbeat(wire);
        let fenced = self.lease.fenced();
        let machines = fenced.as_ref().map_or(0, |fenced| fenced.vms.len());
        let asked_at = self.lease.now();
        link.send(&FromAgent::Hello(Hello {
            protocol: PROTOCOL_VERSIONS,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            host_id: self.id,
            name: self.config.name.clone(),
            zone: self.config.zone.clone(),
            capabilities: self.driver.capabilities().clone(),
            capacity: self.config.capacity.into(),
            datastores: self.config.datastores.clone(),
            inventory,
            session_number: self.ledger.session_number(),
            fenced: u32::try_from(machines).unwrap_or(u32::MAX),
        }))?;
        let opening = tokio::time::timeout(HELLO_TIMEOUT, welcome(&mut link))
            .await
            .map_err(|_| SessionError::NoWelcome)??;

        let number = opening.session_number;
        let written = self.ledger.begin_session(number).await;
        written.map_err(SessionError::Ledger)?;
        link.send(&FromAgent::Ready {
            session_number: number,
        })?;
        self.lease.grant(asked_at, opening.lease);
        if let Some(fenced) = fenced {
            self.lease.told(&fenced);
        }
        Ok(Session {
            link,
            number,
            changes,
            asked: VecDeque::new(),
        })
    }

    /// Nothing is said of a volume that may be where this host cannot look.
    fn remove_volume(&self, volume_id: VolumeId, datastores: &[DatastoreId]) {
        let ours = &self.config.datastores;
        let reached = |id: &&DatastoreId| ours.iter().any(|datastore| datastore.id == **id);
        match datastores.iter().find(|id| !reached(id)) {
            None => self.work.remove_volume(volume_id),
            Some(datastore) => {
                tracing::warn!(%volume_id, %datastore, "a volume stays: this host does not have its datastore now");
            }
        }
    }

    fn take(
        &self,
        frame: ToAgent,
        number: u64,
        asked: &mut VecDeque<BootTime>,
    ) -> Result<(), SessionError> {
        match frame {
            ToAgent::Command(_)
            | ToAgent::Discard { .. }
            | ToAgent::RemoveVolume { .. }
            | ToAgent::SendVolume(_)
                if self.lease.is_over() =>
            {
                return Err(SessionError::LeaseOver);
            }
            ToAgent::Command(command) => self.work.submit(command),
            ToAgent::Discard {
                vm_id,
                run_epoch,
                elsewhere,
            } => self.work.discard(vm_id, run_epoch, elsewhere),
            ToAgent::RemoveVolume {
                volume_id,
                datastores,
            } => self.remove_volume(volume_id, &datastores),
            ToAgent::SendVolume(order) => self.work.send_volume(order),
            ToAgent::OpenConsole { console_id, vm_id } => {
                if let Some(consoles) = &self.consoles {
                    consoles.open(console_id, vm_id);
                }
            }
            ToAgent::Heartbeat { lease_ms } => {
                // The server answers heartbeats in their order.
                if let Some(at) = asked.pop_front() {
                    self.lease.grant(at, lease_ms.map(Duration::from_millis));
                }
            }
            ToAgent::Refused { reason } => return Err(SessionError::Refused(reason)),
            // The same once more changes nothing.
            ToAgent::Welcome { session_number, .. } if session_number == number => {}
            ToAgent::Welcome { .. } | ToAgent::TakeInventory => {
                return Err(SessionError::Unexpected);
            }
            ToAgent::Unknown => {
                tracing::warn!("the server sent a frame of a later version");
            }
        }
        Ok(())
    }
}

async fn welcome(link: &mut AgentLink) -> Result<Opening, SessionError> {
    loop {
        let frame = match frame::read(&link.receive_text().await?)? {
            Arrived::Frame(frame) => frame,
            Arrived::Command { .. } => return Err(SessionError::Unexpected),
            Arrived::Strange => {
                // The same would come again: somebody has to do something.
                let reason = "its answer to the Hello cannot be understood";
                return Err(SessionError::Refused(reason.to_owned()));
            }
        };
        match frame {
            ToAgent::Welcome {
                protocol,
                session_number,
                lease_ms,
            } => {
                let only = Versions {
                    min: protocol,
                    max: protocol,
                };
                if PROTOCOL_VERSIONS.common(only).is_none() {
                    let Versions { min, max } = PROTOCOL_VERSIONS;
                    let reason = format!(
                        "it speaks version {protocol} of the protocol, this agent {min} to {max}"
                    );
                    return Err(SessionError::Refused(reason));
                }
                return Ok(Opening {
                    session_number,
                    lease: lease_ms.map(Duration::from_millis),
                });
            }
            ToAgent::Refused { reason } => return Err(SessionError::Refused(reason)),
            ToAgent::Heartbeat { .. } | ToAgent::Unknown => {}
            ToAgent::Command(_)
            | ToAgent::OpenConsole { .. }
            | ToAgent::Discard { .. }
            | ToAgent::RemoveVolume { .. }
            | ToAgent::SendVolume(_)
            | ToAgent::TakeInventory => {
                return Err(SessionError::Unexpected);
            }
        }
    }
}

fn not_understood() -> Fault {
    let message = "this agent is older than the server and does not know what to do";
    Fault::new(FaultKind::Unsupported, message)
}
