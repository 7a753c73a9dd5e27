//! Real agents, on simulated hosts, with the real server between sockets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vimana_agent::{Agent, Config, DataDir, Enrolment, JoinTerms, Parts, Timing};
use vimana_driver_sim::{SimDriver, SimHost};
use vimana_model::HostId;
use vimana_model::event::EventKind;
use vimana_model::name::{HostName, ZoneName};
use vimana_model::unit::{MiB, Resources};
use vimana_protocol::dial::{Random, Retry};
use vimana_server::start;

use crate::watch::{PATIENCE, Watch};
use crate::world::{World, client, config};

/// A machine whose agent is started and stopped.
struct Machine {
    dir: TempDir,
    name: &'static str,
}

struct Running {
    host_id: HostId,
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Machine {
    fn new(name: &'static str) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            name,
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn token_file(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    async fn give_token(&self, world: &World) {
        let token = world.join_token().await.reveal();
        std::fs::write(self.token_file(), token).unwrap();
    }

    /// Another machine with a copy of all its files.
    fn copied(&self) -> Self {
        let copy = Self::new(self.name);
        copy_dir(&self.data(), &copy.data());
        copy
    }

    fn start(&self, world: &World) -> Running {
        let name = HostName::new(self.name).unwrap();
        let zone = ZoneName::new("default").unwrap();
        let data_dir = Arc::new(DataDir::open(&self.data()).unwrap());
        let terms = JoinTerms {
            address: world.running.agent_url(),
            token_file: Some(self.token_file()),
            name: name.clone(),
            zone: zone.clone(),
        };
        let enrolment = Enrolment::open(&data_dir, terms).unwrap();
        let config = Config {
            name,
            zone,
            capacity: Resources {
                vcpus: 8,
                memory_mib: MiB(8192),
                disk_mib: MiB(8192),
            },
            timing: Timing {
                retry: Retry {
                    first: Duration::from_millis(10),
                    cap: Duration::from_millis(100),
                },
                refused: Duration::from_millis(100),
            },
            random: Random::from_seed(1),
        };
        let driver = Arc::new(SimDriver::new(SimHost::new()));
        let server = enrolment.server();
        let mut parts = Parts::of_host(config, server, data_dir, driver).unwrap();
        parts.enrol(enrolment);
        let host_id = parts.host_id;
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let task = tokio::spawn(async move { Agent::new(parts).run(token).await.unwrap() });
        Running {
            host_id,
            task,
            shutdown,
        }
    }
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test]
async fn an_agent_joins_and_needs_no_token_when_it_comes_back() {
    let world = World::new().await;
    let machine = Machine::new("host-a");
    machine.give_token(&world).await;
    let mut watch = Watch::new(&world).await;
    let agent = machine.start(&world);
    let id = watch.until_connected().await;
    assert_eq!(id, agent.host_id);
    agent.stop().await;
    std::fs::remove_file(machine.token_file()).unwrap();
    let agent = machine.start(&world);
    assert_eq!(watch.until_connected().await, id);
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_renews_before_its_certificate_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.host_certificate_life = Duration::from_secs(10);
    let running = start(config).await.unwrap();
    let http = client();
    let world = World { running, dir, http };
    let machine = Machine::new("host-a");
    machine.give_token(&world).await;
    let mut watch = Watch::new(&world).await;
    let kept = machine.data().join("certificate.json");
    let agent = machine.start(&world);
    watch.until_connected().await;
    let first = std::fs::read(&kept).unwrap();
    // The second one; the first came with joining, before the connection.
    watch
        .until(|event| *event == EventKind::HostCertified)
        .await;
    watch
        .until(|event| *event == EventKind::HostCertified)
        .await;
    agent.stop().await;
    assert_ne!(std::fs::read(&kept).unwrap(), first);
    let agent = machine.start(&world);
    watch.until_connected().await;
    agent.stop().await;
}

#[tokio::test]
async fn a_revoked_agent_comes_back_with_a_new_token() {
    let world = World::new().await;
    let machine = Machine::new("host-a");
    machine.give_token(&world).await;
    let mut watch = Watch::new(&world).await;
    let agent = machine.start(&world);
    let id = watch.until_connected().await;
    assert!(watch.client.revoke_host(id).await.unwrap().revoked);
    watch
        .until(|event| *event == EventKind::HostDisconnected)
        .await;
    // It tries, and is not let in.
    let refused = |event: &EventKind| matches!(event, EventKind::HostRefused { .. });
    watch.until(refused).await;
    assert!(!watch.client.hosts().await.unwrap()[0].connected);
    machine.give_token(&world).await;
    assert_eq!(watch.until_connected().await, id);
    assert!(!watch.client.hosts().await.unwrap()[0].revoked);
    agent.stop().await;
}

#[tokio::test]
async fn a_copy_of_a_hosts_files_is_refused_and_the_host_goes_on() {
    let world = World::new().await;
    let machine = Machine::new("host-a");
    machine.give_token(&world).await;
    let mut watch = Watch::new(&world).await;
    let agent = machine.start(&world);
    watch.until_connected().await;
    agent.stop().await;
    let copy = machine.copied();
    let agent = machine.start(&world);
    let id = watch.until_connected().await;
    let impostor = copy.start(&world);
    assert_eq!(impostor.host_id, id);
    let refused = |event: &EventKind| matches!(event, EventKind::HostRefused { .. });
    let alarm = watch.until(refused).await;
    let told = alarm.event.event.sentence();
    assert!(
        told.contains("another machine uses this host's identity"),
        "{told}"
    );
    assert!(alarm.host.unwrap().connected);
    impostor.stop().await;
    let timeline = watch.client.host_timeline(id).await.unwrap();
    let sessions = timeline
        .iter()
        .filter(|entry| entry.event == EventKind::HostConnected);
    assert_eq!(sessions.count(), 2);
    let lost = timeline
        .iter()
        .find(|entry| entry.seq > alarm.event.seq && entry.event == EventKind::HostDisconnected);
    assert_eq!(lost, None);
    agent.stop().await;
}
