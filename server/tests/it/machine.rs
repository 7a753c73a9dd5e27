//! Machines with a real agent on a simulated host.

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
use vimana_model::name::{HostName, ZoneName};
use vimana_model::unit::{MiB, Resources};
use vimana_protocol::dial::{Random, Retry};

use crate::watch::PATIENCE;
use crate::world::World;

/// A machine whose agent is started and stopped.
pub struct Machine {
    dir: TempDir,
    pub name: &'static str,
    /// What it holds, with its agent and without.
    pub sim: Arc<SimHost>,
}

pub struct Running {
    pub host_id: HostId,
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Machine {
    pub fn new(name: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sim = SimHost::new();
        sim.keep_files_in(dir.path().join("machines"));
        Self { dir, name, sim }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn token_file(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    pub async fn give_token(&self, world: &World) {
        let token = world.join_token().await.reveal();
        std::fs::write(self.token_file(), token).unwrap();
    }

    /// Another machine with a copy of all its files.
    pub fn copied(&self) -> Self {
        let copy = Self::new(self.name);
        copy_dir(&self.data(), &copy.data());
        copy
    }

    pub fn start(&self, world: &World) -> Running {
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
            datastores: Vec::new(),
            timing: Timing {
                retry: Retry {
                    first: Duration::from_millis(10),
                    cap: Duration::from_millis(100),
                },
                refused: Duration::from_millis(100),
                ..Timing::default()
            },
            random: Random::from_seed(1),
        };
        let driver = Arc::new(SimDriver::new(Arc::clone(&self.sim)));
        let server = enrolment.server();
        let mut parts = Parts::of_host(config, server, data_dir, driver, None).unwrap();
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
    pub async fn stop(self) {
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
