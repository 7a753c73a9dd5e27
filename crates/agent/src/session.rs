//! One session with the server: Hello, then commands in, outcomes and
//! changes out.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use vimana_driver::{Fault, HostDriver};
use vimana_model::HostId;
use vimana_protocol::agent::{FromAgent, Hello, PROTOCOL_VERSION, ToAgent};
use vimana_protocol::dial::{DialError, Link, LinkError};
use vimana_protocol::limits::{HELLO_TIMEOUT, MAX_FRAME_BYTES};

use crate::Config;
use crate::console::Consoles;
use crate::work::Workshop;

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
    #[error("the server did not answer the Hello within {} s", HELLO_TIMEOUT.as_secs())]
    NoWelcome,
    #[error("the server refused this agent: {0}")]
    Refused(String),
    #[error("{0} changes were missed; the next Hello tells them")]
    Lagged(u64),
    #[error("the driver ended")]
    DriverEnded,
    #[error("the server sent a frame that has no place here")]
    Unexpected,
}

/// What every session of an agent shares.
pub struct Host {
    pub id: HostId,
    pub config: Config,
    pub driver: Arc<dyn HostDriver>,
    pub work: Arc<Workshop>,
    pub consoles: Arc<Consoles>,
}

impl Host {
    /// One session; Ok upon shutdown. `opened` is set with the Welcome.
    pub async fn session(
        &self,
        opened: &mut Option<Instant>,
        shutdown: &CancellationToken,
    ) -> Result<(), SessionError> {
        let Some(open) = shutdown.run_until_cancelled(self.open()).await else {
            return Ok(());
        };
        let (mut link, mut changes) = open?;
        *opened = Some(Instant::now());
        tracing::info!("the session with the server is open");
        loop {
            tokio::select! {
                // A machine's change goes before the outcome that it belongs to.
                biased;
                () = shutdown.cancelled() => {
                    link.close().await;
                    return Ok(());
                }
                change = changes.recv() => match change {
                    Ok(observed) => link.send(&FromAgent::Observed(observed))?,
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        return Err(SessionError::Lagged(missed));
                    }
                    Err(broadcast::error::RecvError::Closed) => {
                        return Err(SessionError::DriverEnded);
                    }
                },
                (command, outcome) = self.work.ledger().unsent() => {
                    let frame = FromAgent::Done { command, outcome: outcome.clone() };
                    if let Err(error) = link.send(&frame) {
                        self.work.ledger().put_back(command, outcome);
                        return Err(error.into());
                    }
                }
                frame = link.receive() => self.take(frame?)?,
            }
        }
    }

    /// Dials and introduces the host.
    async fn open(
        &self,
    ) -> Result<(AgentLink, broadcast::Receiver<vimana_driver::Observed>), SessionError> {
        // Subscribed before the inventory: what changes in between comes twice
        // rather than never.
        let changes = self.driver.subscribe();
        let inventory = self
            .driver
            .inventory()
            .await
            .map_err(SessionError::Inventory)?;
        let socket = self.config.server.open(PATH, MAX_FRAME_BYTES).await?;
        let mut link = AgentLink::new(socket, &FromAgent::Heartbeat)?;
        link.send(&FromAgent::Hello(Hello {
            protocol: PROTOCOL_VERSION,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            host_id: self.id,
            name: self.config.name.clone(),
            zone: self.config.zone.clone(),
            capabilities: self.driver.capabilities().clone(),
            capacity: self.config.capacity,
            inventory,
        }))?;
        tokio::time::timeout(HELLO_TIMEOUT, welcome(&mut link))
            .await
            .map_err(|_| SessionError::NoWelcome)??;
        Ok((link, changes))
    }

    fn take(&self, frame: ToAgent) -> Result<(), SessionError> {
        match frame {
            ToAgent::Command(command) => self.work.submit(command),
            ToAgent::OpenConsole { console_id, vm_id } => self.consoles.open(console_id, vm_id),
            ToAgent::Heartbeat => {}
            ToAgent::Refused { reason } => return Err(SessionError::Refused(reason)),
            ToAgent::Welcome { .. } => return Err(SessionError::Unexpected),
        }
        Ok(())
    }
}

async fn welcome(link: &mut AgentLink) -> Result<(), SessionError> {
    loop {
        match link.receive().await? {
            ToAgent::Welcome {
                protocol: PROTOCOL_VERSION,
            } => return Ok(()),
            ToAgent::Welcome { protocol } => {
                let reason = format!(
                    "it speaks version {protocol} of the protocol, this agent {PROTOCOL_VERSION}"
                );
                return Err(SessionError::Refused(reason));
            }
            ToAgent::Refused { reason } => return Err(SessionError::Refused(reason)),
            ToAgent::Heartbeat => {}
            ToAgent::Command(_) | ToAgent::OpenConsole { .. } => {
                return Err(SessionError::Unexpected);
            }
        }
    }
}
