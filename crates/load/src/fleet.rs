//! The hosts: real agents, as a host's own process has one, over a simulated
//! hypervisor.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vimana_agent::{
    Agent, Config, DataDir, Enrolment, JoinTerms, MemoryJournal, Parts, StartError, Timing,
};
use vimana_driver::{Observed, Power};
use vimana_driver_sim::{SimDriver, SimHost};
use vimana_model::HostId;
use vimana_model::name::{HostName, ZoneName};
use vimana_model::unit::{MiB, Resources};
use vimana_protocol::dial::Random;

use crate::people::People;

/// Where hosts keep their files, if it is there: each has a disk of its own in
/// truth, and must not compete for the server's.
const MEMORY: &str = "/dev/shm";
/// Hosts whose tokens are asked for at once.
const AT_ONCE: usize = 32;
/// What every host has to give.
const CAPACITY: Resources = Resources {
    vcpus: 64,
    memory_mib: MiB(64 << 10),
    disk_mib: MiB(1 << 20),
};

pub struct Fleet {
    hosts: Vec<Host>,
    _dir: TempDir,
}

struct Host {
    id: HostId,
    sim: Arc<SimHost>,
    _agent: JoinHandle<Result<(), StartError>>,
}

impl Fleet {
    /// Every host gets a token of its own and begins to join with it.
    pub async fn join(people: &People, agent_url: &str, count: u32) -> Result<Self> {
        let memory = PathBuf::from(MEMORY);
        let place = if memory.is_dir() {
            memory
        } else {
            std::env::temp_dir()
        };
        let dir = TempDir::with_prefix_in("vimana-hosts-", place)?;
        let hosts = stream::iter(0..count).map(async |number| {
            let name = format!("host-{number}");
            let token = people.join_token(&name).await?;
            let root = dir.path().join(&name);
            host(&root, name, &token, agent_url).with_context(|| format!("host {number}"))
        });
        let hosts = hosts.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(Self { hosts, _dir: dir })
    }

    /// The guest of one machine on each host switches itself off, where there
    /// is one. Gives the hosts where there was.
    pub fn end_one_machine_each(&self) -> BTreeSet<HostId> {
        let ends = |host: &&Host| {
            let held = host.sim.observed();
            let running = |machine: &&Observed| machine.power == Power::Running;
            let machine = held.iter().find(running);
            machine.is_some_and(|machine| host.sim.guest_power_off(machine.vm_id))
        };
        let hosts = self.hosts.iter().filter(ends);
        hosts.map(|host| host.id).collect()
    }
}

/// Starts an agent as `vimana-agent` does, with its ledger in memory.
fn host(root: &Path, name: String, token: &str, agent_url: &str) -> Result<Host> {
    let data_dir = Arc::new(DataDir::open(root)?);
    let token_file = root.join("join-token");
    std::fs::write(&token_file, token)?;
    let (name, zone) = (HostName::new(name)?, ZoneName::new("default")?);
    let terms = JoinTerms {
        address: agent_url.to_owned(),
        token_file: Some(token_file),
        name: name.clone(),
        zone: zone.clone(),
    };
    let enrolment = Enrolment::open(&data_dir, terms)?;
    let config = Config {
        name,
        zone,
        capacity: CAPACITY,
        datastores: Vec::new(),
        timing: Timing::default(),
        random: Random::from_system(),
    };
    let sim = SimHost::new();
    let driver = Arc::new(SimDriver::new(Arc::clone(&sim)));
    let id = data_dir.host_id();
    let mut parts = Parts::of_host(config, enrolment.server(), data_dir, driver, None)?;
    parts.journal = Arc::new(MemoryJournal::new());
    parts.enrol(enrolment);
    let agent = Agent::new(parts).run(CancellationToken::new());
    Ok(Host {
        id,
        sim,
        _agent: tokio::spawn(agent),
    })
}
