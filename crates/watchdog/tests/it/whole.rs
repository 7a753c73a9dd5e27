//! A whole agent and a watchdog; only the server is played.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vimana_agent::{
    Agent, Config, Datastore, Fetched, ImageSource, LocalImage, MemoryJournal, Meter, Parts,
    Timing, Watchdog,
};
use vimana_driver::{BackupFile, Fault, ImageRef, Part, SavedMachine, SavedPart};
use vimana_driver_sim::{SimDriver, SimHost};
use vimana_model::backup::KeptDisk;
use vimana_model::name::{HostName, ZoneName};
use vimana_model::unit::{MiB, Resources};
use vimana_model::{BackupId, HostId, VmId};
use vimana_protocol::agent::{FromAgent, Hello, PROTOCOL_VERSIONS, ToAgent, VolumeOrder};
use vimana_protocol::dial::{Dial, DialError, FarEnd, Random, Wire};
use vimana_watchdog::protocol::State;
use vimana_watchdog::{BootTime, Client};

use crate::world::{PATIENCE, SHORT, World};

/// Twice the time between two heartbeats.
const LEASE: Duration = Duration::from_secs(4);

/// Hands the other end of each connection to the test.
struct Network(mpsc::UnboundedSender<FarEnd>);

#[async_trait]
impl Dial for Network {
    async fn dial(&self, _path: &str) -> Result<Wire, DialError> {
        let (wire, far) = Wire::in_memory(64);
        // Err: the test is over.
        let _ = self.0.send(far);
        Ok(wire)
    }
}

/// Nothing is fetched and nothing is saved.
struct Nothing;

#[async_trait]
impl ImageSource for Nothing {
    async fn get(&self, _: &ImageRef, _: &Meter) -> Result<LocalImage, Fault> {
        unreachable!()
    }
}

#[async_trait]
impl Datastore for Nothing {
    async fn upload(
        &self,
        _: VmId,
        _: u64,
        _: &[(Part, PathBuf)],
        _: &Meter,
    ) -> Result<Vec<SavedPart>, Fault> {
        unreachable!()
    }

    async fn keep(&self, _: BackupId, _: &[BackupFile], _: &Meter) -> Result<Vec<KeptDisk>, Fault> {
        unreachable!()
    }

    async fn download(&self, _: VmId, _: &SavedMachine, _: &Meter) -> Result<Fetched, Fault> {
        unreachable!()
    }

    async fn send_volume(&self, _: &VolumeOrder, _: &Path) -> Result<(), Fault> {
        unreachable!()
    }
}

/// The server's view of a host whose watchdog ends with the test.
struct Server {
    world: World,
    calls: mpsc::UnboundedReceiver<FarEnd>,
    agent: JoinHandle<()>,
    shutdown: CancellationToken,
    sessions: u64,
    /// By when the last Hello was sent.
    hello_by: BootTime,
}

impl Server {
    async fn new() -> Self {
        let world = World::new();
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_vimana-watchdog"));
        let watchdog = Watchdog::start(world.dir(), Some(&binary)).await.unwrap();
        let (sender, calls) = mpsc::unbounded_channel();
        let parts = Parts {
            host_id: HostId::from_parts(1, [1; 10]),
            config: Config {
                name: HostName::new("host-a").unwrap(),
                zone: ZoneName::new("default").unwrap(),
                capacity: Resources {
                    vcpus: 1,
                    memory_mib: MiB(1),
                    disk_mib: MiB(1),
                },
                datastores: Vec::new(),
                timing: Timing::default(),
                random: Random::from_seed(1),
            },
            driver: Arc::new(SimDriver::new(SimHost::new())),
            dial: Arc::new(Network(sender)),
            images: Arc::new(Nothing),
            datastore: Arc::new(Nothing),
            journal: Arc::new(MemoryJournal::new()),
            lease: Arc::new(watchdog),
            consoles: None,
        };
        let shutdown = CancellationToken::new();
        let agent = Agent::new(parts).run(shutdown.clone());
        Self {
            world,
            calls,
            agent: tokio::spawn(async move { agent.await.unwrap() }),
            shutdown,
            sessions: 0,
            hello_by: BootTime::from_ms(0),
        }
    }

    /// The next session, opened with a lease.
    async fn session(&mut self) -> (Session, Hello) {
        let far = timeout(PATIENCE, self.calls.recv()).await.unwrap();
        let mut session = Session(far.unwrap());
        let FromAgent::Hello(hello) = session.next().await else {
            panic!("the first frame is no Hello");
        };
        self.hello_by = BootTime::now();
        // The answer takes its time, and the lease does not wait for it.
        tokio::time::sleep(SHORT).await;
        self.sessions += 1;
        let welcome = ToAgent::Welcome {
            protocol: PROTOCOL_VERSIONS.max,
            session_number: self.sessions,
            lease_ms: Some(4000),
        };
        session.send(&welcome).await;
        assert!(matches!(session.next().await, FromAgent::Ready { .. }));
        (session, hello)
    }

    fn state(&self) -> State {
        Client::connect(self.world.dir()).unwrap().1
    }

    /// Until when the watchdog keeps still, once it has heard of a lease.
    async fn armed_beyond(&self, earlier: BootTime) -> BootTime {
        let look = async {
            loop {
                match self.state() {
                    State::Armed { until } if until > earlier => return until,
                    State::Disarmed | State::Armed { .. } | State::Fenced { .. } => {}
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, look).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.agent.abort();
        if let Ok((client, _)) = Client::connect(self.world.dir()) {
            let _ = client.end();
        }
    }
}

struct Session(FarEnd);

impl Session {
    async fn next(&mut self) -> FromAgent {
        let text = timeout(PATIENCE, self.0.receiver.recv()).await.unwrap();
        serde_json::from_str(&text.unwrap()).unwrap()
    }

    async fn send(&mut self, frame: &ToAgent) {
        let text = serde_json::to_string(frame).unwrap();
        self.0.sender.send(text).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_answers_keeps_the_machines_and_one_that_falls_silent_does_not() {
    let mut server = Server::new().await;
    let mut machine = server.world.recorded("vm_a");
    let (mut session, hello) = server.session().await;
    assert_eq!(hello.fenced, 0);
    let first = server.armed_beyond(BootTime::from_ms(0)).await;
    assert!(first <= server.hello_by.plus(LEASE));

    assert_eq!(session.next().await, FromAgent::Heartbeat);
    let lease_ms = Some(4000);
    session.send(&ToAgent::Heartbeat { lease_ms }).await;
    let second = server.armed_beyond(first).await;
    assert!(machine.is_alive(), "it is renewed");
    // From now on the server reads and says nothing.
    machine.is_killed();
    assert!(BootTime::now() >= second, "it had that much time");

    let (session, hello) = server.session().await;
    assert_eq!(hello.fenced, 1, "the server is told");
    server.armed_beyond(second).await;
    drop(session);
    let (_session, hello) = server.session().await;
    assert_eq!(hello.fenced, 0, "and once is enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_of_an_agent_that_was_told_to_stop_run_on() {
    let mut server = Server::new().await;
    let machine = server.world.recorded("vm_a");
    let (_session, _) = server.session().await;
    let until = server.armed_beyond(BootTime::from_ms(0)).await;
    server.shutdown.cancel();
    timeout(PATIENCE, &mut server.agent).await.unwrap().unwrap();
    assert_eq!(server.state(), State::Disarmed);
    machine.outlives(until.plus(SHORT));
}
