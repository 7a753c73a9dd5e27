//! A host: machines that outlive their agent, and the real agent in front of
//! them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use vimana_agent::watchdog::{BootTime, Fenced};
use vimana_agent::{Agent, Config, Lease, Parts, Timing};
use vimana_driver_sim::{RunLog, SimDatastore, SimDriver, SimHost};
use vimana_model::name::{DatastoreName, HostName, ZoneName};
use vimana_model::unit::{MiB, Resources};
use vimana_model::{DatastoreId, HostId};
use vimana_protocol::agent::HostDatastore;
use vimana_protocol::dial::Random;

use super::chance::Chance;
use super::journal::Journal;
use super::ledger::Ledger;
use super::net::Net;
use super::server::Server;
use super::vault::{AgentVault, Images, Vault};
use super::weather::Weather;

/// How soon an agent that ended is started again.
const RESTART: Duration = Duration::from_secs(1);

/// What hosts share.
#[derive(Clone)]
pub struct Site {
    pub server: Server,
    pub net: Net,
    pub vault: Vault,
    pub chance: Chance,
    pub weather: Weather,
    pub journal: Journal,
    pub log: Arc<RunLog>,
    /// What all of them reach.
    pub shared: SimDatastore,
}

pub struct Host {
    pub id: HostId,
    pub name: String,
    pub capacity: Resources,
    pub sim: Arc<SimHost>,
    pub ledger: Ledger,
    site: Site,
    agent: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Host {
    /// Room for some small VMs; no agent yet.
    #[must_use]
    pub fn new(number: u8, site: Site) -> Self {
        let name = format!("host-{number}");
        let sim = SimHost::logged(&name, Arc::clone(&site.log));
        sim.add_datastore(fast());
        sim.share_datastore(shared(), &site.shared);
        let (weather, chance) = (site.weather.clone(), site.chance.fork());
        sim.direct(Box::new(move |call, _vm| weather.course(&chance, call)));
        Self {
            id: HostId::from_parts(u64::from(number), [number; 10]),
            capacity: Resources {
                vcpus: 6,
                memory_mib: MiB(2048),
                disk_mib: MiB(24 << 10),
            },
            sim,
            ledger: Ledger::new(&name, site.journal.clone()),
            name,
            site,
            agent: Mutex::default(),
        }
    }

    /// Starts the agent, if it does not run.
    pub fn start_agent(&self) {
        let mut agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        if agent.is_some() {
            return;
        }
        let parts = Maker {
            id: self.id,
            name: self.name.clone(),
            capacity: self.capacity,
            sim: Arc::clone(&self.sim),
            ledger: self.ledger.clone(),
            site: self.site.clone(),
        };
        let journal = self.site.journal.clone();
        let running = tokio::spawn(async move {
            loop {
                let made = Agent::new(parts.make());
                let ended = made.run(CancellationToken::new()).await;
                journal.say(&parts.name, format!("the agent ended: {ended:?}"));
                tokio::time::sleep(RESTART).await;
            }
        });
        *agent = Some(AbortOnDropHandle::new(running));
        drop(agent);
        self.site.journal.say(&self.name, "the agent starts");
    }

    /// kill -9 of the agent; machines run on.
    pub fn kill_agent(&self) {
        let agent = self
            .agent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if agent.is_some() {
            self.site.journal.say(&self.name, "the agent is killed");
            self.site.journal.count("agent kills", 1);
        }
    }

    /// The whole host is off at once: agent, machines, and what was not yet on
    /// its disk, of which `kept` records made it.
    pub fn lose_power(&self, kept: usize) {
        self.kill_agent();
        self.site.journal.say(&self.name, "loses power");
        self.site.journal.count("host crashes", 1);
        self.ledger.lose_power(kept);
        self.sim.crash_all("the host lost power");
    }
}

/// What every host has for volumes besides its own directory, and how much.
pub fn fast() -> DatastoreName {
    DatastoreName::new("fast").unwrap()
}

/// For the disk of a small VM, and not for all volumes there may be beside it.
const FAST: MiB = MiB((1 << 10) + 256);

/// The datastore that all hosts reach.
pub fn shared() -> DatastoreName {
    DatastoreName::new("shared").unwrap()
}

/// For some small VMs.
const SHARED: MiB = MiB(6 << 10);

struct Maker {
    id: HostId,
    name: String,
    capacity: Resources,
    sim: Arc<SimHost>,
    ledger: Ledger,
    site: Site,
}

impl Maker {
    fn make(&self) -> Parts {
        let Site {
            server,
            net,
            vault,
            chance,
            weather,
            ..
        } = &self.site;
        Parts {
            host_id: self.id,
            config: Config {
                name: HostName::new(self.name.as_str()).unwrap(),
                zone: ZoneName::new("default").unwrap(),
                capacity: self.capacity,
                datastores: vec![
                    HostDatastore {
                        name: fast(),
                        id: DatastoreId::from_parts(self.id.unix_ms(), [0; 10]),
                        capacity_mib: FAST,
                    },
                    HostDatastore {
                        name: shared(),
                        id: DatastoreId::from_parts(0, [9; 10]),
                        capacity_mib: SHARED,
                    },
                ],
                timing: Timing::default(),
                random: Random::from_seed(chance.number()),
            },
            driver: Arc::new(SimDriver::new(Arc::clone(&self.sim))),
            dial: Arc::new(net.dialler(&self.name)),
            images: Arc::new(Images),
            datastore: Arc::new(AgentVault {
                host_id: self.id,
                host: Arc::clone(&self.sim),
                server: server.clone(),
                vault: vault.clone(),
                chance: chance.fork(),
                weather: weather.clone(),
            }),
            journal: Arc::new(self.ledger.clone()),
            lease: Arc::new(NoLease(Instant::now())),
            consoles: None,
        }
    }
}

/// Machines run for ever.
struct NoLease(Instant);

#[async_trait]
impl Lease for NoLease {
    fn now(&self) -> BootTime {
        BootTime::from_ms(0).plus(self.0.elapsed())
    }

    fn grant(&self, _from: BootTime, _lease: Option<Duration>) {}

    fn is_over(&self) -> bool {
        false
    }

    fn fenced(&self) -> Option<Fenced> {
        None
    }

    fn told(&self, _fenced: &Fenced) {}

    async fn disarm(&self) {}
}
