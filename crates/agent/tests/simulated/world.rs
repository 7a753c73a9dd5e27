//! A simulated host, and the server's end of its agent's sessions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use vimana_agent::{Agent, Config, MemoryJournal, Parts, Timing};
use vimana_driver_sim::{SimDriver, SimHost};
use vimana_model::HostId;
use vimana_model::name::{HostName, ZoneName};
use vimana_model::unit::{MiB, Resources};
use vimana_protocol::agent::{
    Command, CommandRef, FromAgent, Hello, Outcome, PROTOCOL_VERSIONS, ToAgent,
};
use vimana_protocol::dial::{Dial, DialError, FarEnd, Random, Wire};

use crate::shelf::{FakeLease, Held, Shelf, Store};

/// In virtual time.
pub const PATIENCE: Duration = Duration::from_secs(3600);
const CAPACITY: Resources = Resources {
    vcpus: 64,
    memory_mib: MiB(65536),
    disk_mib: MiB(65536),
};

struct Network {
    calls: mpsc::UnboundedSender<FarEnd>,
    is_up: AtomicBool,
}

#[async_trait]
impl Dial for Network {
    async fn dial(&self, path: &str) -> Result<Wire, DialError> {
        assert_eq!(path, "/agent/v1/session");
        if !self.is_up.load(Ordering::SeqCst) {
            return Err(DialError::Unreachable("the network is down".to_owned()));
        }
        let (wire, far) = Wire::in_memory(16);
        self.calls.send(far).unwrap();
        Ok(wire)
    }
}

pub struct World {
    pub host: Arc<SimHost>,
    pub journal: MemoryJournal,
    pub shelf: Arc<Shelf>,
    pub lease: Arc<FakeLease>,
    network: Arc<Network>,
    calls: mpsc::UnboundedReceiver<FarEnd>,
    agent: Option<(JoinHandle<()>, CancellationToken)>,
    seed: u64,
    sessions: u64,
}

impl World {
    pub fn new() -> Self {
        Self::seeded(1)
    }

    pub fn seeded(seed: u64) -> Self {
        let mut world = Self::on(SimHost::new(), Arc::default());
        world.seed = seed;
        world.start();
        world
    }

    /// Without an agent.
    pub fn on(host: Arc<SimHost>, store: Arc<Store>) -> Self {
        let (sender, calls) = mpsc::unbounded_channel();
        let shelf = Shelf {
            store,
            host: Arc::clone(&host),
            image_takes: Mutex::default(),
        };
        Self {
            host,
            journal: MemoryJournal::new(),
            shelf: Arc::new(shelf),
            lease: Arc::new(FakeLease::new()),
            network: Arc::new(Network {
                calls: sender,
                is_up: AtomicBool::new(true),
            }),
            calls,
            agent: None,
            seed: 1,
            sessions: 0,
        }
    }

    pub fn start(&mut self) {
        let parts = Parts {
            host_id: HostId::from_parts(1, [1; 10]),
            config: Config {
                name: HostName::new("host-a").unwrap(),
                zone: ZoneName::new("default").unwrap(),
                capacity: CAPACITY,
                datastores: Vec::new(),
                timing: Timing::default(),
                random: Random::from_seed(self.seed),
            },
            driver: Arc::new(SimDriver::new(Arc::clone(&self.host))),
            dial: self.network.clone(),
            images: self.shelf.clone(),
            datastore: self.shelf.clone(),
            journal: Arc::new(self.journal.clone()),
            lease: Arc::new(Held(Arc::clone(&self.lease))),
            consoles: None,
        };
        let shutdown = CancellationToken::new();
        let agent = Agent::new(parts).run(shutdown.clone());
        let task = tokio::spawn(async move { agent.await.unwrap() });
        self.agent = Some((task, shutdown));
    }

    /// As kill -9 does it: nothing of the agent goes on.
    pub async fn kill(&mut self) {
        let (task, _) = self.agent.take().unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        // What it had dialed is not answered.
        while self.calls.try_recv().is_ok() {}
    }

    pub async fn stop(&mut self) {
        let (task, shutdown) = self.agent.take().unwrap();
        shutdown.cancel();
        timeout(PATIENCE, task).await.unwrap().unwrap();
    }

    pub fn set_network(&self, is_up: bool) {
        self.network.is_up.store(is_up, Ordering::SeqCst);
    }

    /// The next connection, with its Hello read and not answered.
    pub async fn hello(&mut self) -> (Session, Hello) {
        let far = timeout(PATIENCE, self.calls.recv()).await.unwrap().unwrap();
        let mut session = Session { far };
        let first = session.next().await.unwrap();
        let FromAgent::Hello(hello) = first else {
            panic!("{first:?}")
        };
        (session, hello)
    }

    /// The next session, welcomed.
    pub async fn session(&mut self) -> Session {
        let (mut session, _) = self.hello().await;
        session.welcome(self.next_number()).await;
        session
    }

    pub fn next_number(&mut self) -> u64 {
        self.sessions += 1;
        self.sessions
    }
}

/// The server's end of one session. It answers heartbeats.
pub struct Session {
    pub far: FarEnd,
}

impl Session {
    /// Opens the session, and sees that the agent is ready for it.
    pub async fn welcome(&mut self, session_number: u64) {
        self.send(welcome(session_number)).await;
        let ready = self.next().await.unwrap();
        assert_eq!(ready, FromAgent::Ready { session_number });
    }

    pub async fn send(&mut self, frame: ToAgent) {
        self.send_text(serde_json::to_string(&frame).unwrap()).await;
    }

    pub async fn send_text(&mut self, text: String) {
        // Gone: the test finds out when it reads.
        let _ = self.far.sender.send(text).await;
    }

    /// The next frame, heartbeats as well; None where the agent is gone.
    pub async fn frame(&mut self) -> Option<FromAgent> {
        let text = timeout(PATIENCE, self.far.receiver.recv()).await.unwrap()?;
        Some(serde_json::from_str(&text).unwrap())
    }

    /// The next frame that is not a heartbeat.
    pub async fn next(&mut self) -> Option<FromAgent> {
        let since = Instant::now();
        loop {
            assert!(since.elapsed() < PATIENCE, "only heartbeats come");
            let frame = self.frame().await?;
            if frame != FromAgent::Heartbeat {
                return Some(frame);
            }
            self.send(ToAgent::Heartbeat { lease_ms: None }).await;
        }
    }

    /// The next end of a command; what else comes on the way is passed over.
    pub async fn done(&mut self) -> (CommandRef, u64, Outcome) {
        loop {
            if let FromAgent::Done {
                command,
                claim_epoch,
                outcome,
            } = self.next().await.unwrap()
            {
                return (command, claim_epoch, outcome);
            }
        }
    }

    pub async fn order(&mut self, command: &Command) {
        self.send(ToAgent::Command(command.clone())).await;
    }

    /// Orders and waits for the outcome.
    pub async fn carry_out(&mut self, command: &Command) -> Outcome {
        self.order(command).await;
        let (done, claim_epoch, outcome) = self.done().await;
        assert_eq!((done, claim_epoch), (command.command, command.claim_epoch));
        outcome
    }
}

pub fn welcome(session_number: u64) -> ToAgent {
    ToAgent::Welcome {
        protocol: PROTOCOL_VERSIONS.max,
        session_number,
        lease_ms: None,
    }
}

pub fn fault_kind(outcome: &Outcome) -> Option<vimana_driver::FaultKind> {
    match outcome {
        Outcome::Ok { .. } | Outcome::Unknown => None,
        Outcome::Fault { fault } => Some(fault.kind),
    }
}
