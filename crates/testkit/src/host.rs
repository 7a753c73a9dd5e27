//! A host: the simulated driver behind an agent without a network.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vimana_driver::{Fault, HostDriver, Observed, ShutdownEnd};
use vimana_driver_sim::{SimDriver, SimHost};
use vimana_engine::Engine;
use vimana_model::HostId;
use vimana_model::name::{HostName, ZoneName};
use vimana_model::unit::{MiB, Resources};
use vimana_protocol::agent::{Command, FromAgent, Hello, Outcome, PROTOCOL_VERSION, ToAgent, Work};

/// One simulated host; its machines outlive its agent.
pub struct TestHost {
    pub id: HostId,
    pub name: String,
    pub capacity: Resources,
    /// What the host "really" holds, and where faults are injected.
    pub sim: Arc<SimHost>,
    agent: Option<CancellationToken>,
}

impl TestHost {
    /// A host with room for 8 vCPUs, 4 GiB and 100 GiB, not yet connected.
    #[must_use]
    pub fn new(number: u8) -> Self {
        Self {
            id: HostId::from_parts(u64::from(number), [number; 10]),
            name: format!("host-{number}"),
            capacity: Resources {
                vcpus: 8,
                memory_mib: MiB(4096),
                disk_mib: MiB(100 << 10),
            },
            sim: SimHost::new(),
            agent: None,
        }
    }

    /// Starts the agent and connects it.
    ///
    /// # Panics
    /// The server refuses it.
    pub async fn connect(&mut self, engine: &Engine) {
        let driver = Arc::new(SimDriver::new(Arc::clone(&self.sim)));
        let changes = driver.subscribe();
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            agent_version: "test".to_owned(),
            host_id: self.id,
            name: HostName::new(self.name.as_str()).unwrap(),
            zone: ZoneName::new("default").unwrap(),
            capabilities: driver.capabilities().clone(),
            capacity: self.capacity,
            inventory: driver.inventory().await.unwrap(),
        };
        let session = engine
            .connect_agent(hello)
            .await
            .expect("the host is welcome");
        let (outgoing, handle) = session.split();
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = serve(driver, changes, outgoing, &handle) => {}
                () = token.cancelled() => {}
            }
        });
        self.agent = Some(cancel);
    }

    /// The agent is gone; its machines run on.
    pub fn disconnect(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.cancel();
        }
    }
}

async fn serve(
    driver: Arc<SimDriver>,
    mut changes: tokio::sync::broadcast::Receiver<Observed>,
    mut outgoing: mpsc::Receiver<ToAgent>,
    handle: &vimana_engine::AgentHandle,
) {
    let (to_server, mut answers) = mpsc::channel(64);
    loop {
        tokio::select! {
            frame = outgoing.recv() => match frame {
                None => return,
                Some(ToAgent::Command(command)) => {
                    let (driver, to_server) = (Arc::clone(&driver), to_server.clone());
                    tokio::spawn(async move {
                        let outcome = match carry_out(&driver, &command).await {
                            Ok(note) => Outcome::Ok { note },
                            Err(fault) => Outcome::Fault { fault },
                        };
                        let done = FromAgent::Done { command: command.command, outcome };
                        let _gone = to_server.send(done).await;
                    });
                }
                Some(
                    ToAgent::Welcome { .. }
                    | ToAgent::Refused { .. }
                    | ToAgent::OpenConsole { .. }
                    | ToAgent::Heartbeat,
                ) => {}
            },
            Some(answer) = answers.recv() => handle.receive(answer).await,
            Ok(observed) = changes.recv() => handle.receive(FromAgent::Observed(observed)).await,
        }
    }
}

async fn carry_out(driver: &SimDriver, command: &Command) -> Result<Option<String>, Fault> {
    let (vm, epoch) = (command.vm_id, command.run_epoch);
    match &command.work {
        Work::Prepare { spec } => driver.prepare(spec, Path::new("")).await?,
        Work::Boot => driver.boot(vm, epoch).await?,
        Work::Shutdown { grace_ms } => {
            let grace = Duration::from_millis(*grace_ms);
            if driver.shutdown(vm, epoch, grace).await? == ShutdownEnd::Forced {
                return Ok(Some("switched off by force".to_owned()));
            }
        }
        Work::Kill => driver.kill(vm, epoch).await?,
        Work::Clean => driver.clean(vm, epoch).await?,
    }
    Ok(None)
}
