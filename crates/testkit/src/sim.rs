//! A whole Vimana on virtual time: the real engine, agents and schedulers over
//! simulated machines, disks and a network, all in one thread and all of it
//! drawn from one seed. The same seed does the same.
//!
//! [`World`] is the place; [`run()`] is a storm over it, which ends in a
//! calm where everything that was promised must come true.

mod chance;
mod check;
mod clock;
mod habits;
mod host;
mod journal;
mod ledger;
mod library;
pub mod matrix;
mod nemesis;
mod net;
mod people;
mod reader;
pub mod repeat;
mod rights;
mod run;
pub mod scenario;
mod scheduler;
mod server;
mod setup;
mod shelf;
mod trace;
mod vault;
mod wall;
mod weather;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use vimana_driver_sim::{RunLog, SimDatastore};
use vimana_engine::Settings;
use vimana_model::VmId;
use vimana_store::Reader as Store;

pub use chance::Chance;
pub use check::all;
pub use clock::SimClock;
pub use host::Host;
pub use journal::Journal;
pub use net::{Net, Way};
pub use people::{
    ADMIN, AUTOMATIC, Answer, Ask, MANUAL, MONA, PAUL, People, Person, Promise, RITA,
};
pub use reader::Reader;
pub use run::{Outcome, in_time, run};
pub use scheduler::Scheduler;
pub use server::{At, Server};
pub use vault::Vault;
pub use weather::{Sky, Weather};

use check::Seen;
use host::Site;

/// Everything there is.
pub struct World {
    pub clock: Arc<SimClock>,
    pub chance: Chance,
    pub weather: Weather,
    pub journal: Journal,
    pub vault: Vault,
    pub server: Server,
    pub net: Net,
    pub hosts: Vec<Host>,
    pub schedulers: Vec<Scheduler>,
    pub people: People,
    pub readers: Vec<Reader>,
    /// When which machine ran where.
    pub log: Arc<RunLog>,
    /// Machines that somebody else started.
    pub strangers: Vec<VmId>,
    seen: Mutex<Seen>,
    site: Site,
}

impl World {
    /// An installation with image `demo` and two tenants; nothing runs yet.
    /// Must be called on a runtime whose time is paused.
    pub async fn new(seed: u64) -> Self {
        Self::with_settings(seed, Settings::default()).await
    }

    pub async fn with_settings(seed: u64, settings: Settings) -> Self {
        let clock = Arc::new(SimClock::begin());
        let chance = Chance::from_seed(seed);
        let (weather, vault) = (Weather::default(), Vault::default());
        let journal = Journal::new(Arc::clone(&clock));
        setup::keep_secrets(&journal);
        let server = Server::new(
            Arc::clone(&clock),
            chance.fork(),
            vault.clone(),
            journal.clone(),
            weather.clone(),
            settings,
        );
        setup::install(&server.offline_store()).await;
        let net = Net::new(
            server.clone(),
            chance.fork(),
            weather.clone(),
            journal.clone(),
        );
        let people = People::new(
            server.clone(),
            chance.fork(),
            weather.clone(),
            journal.clone(),
        );
        let log = RunLog::new();
        let site = Site {
            shared: SimDatastore::default(),
            server: server.clone(),
            net: net.clone(),
            vault: vault.clone(),
            chance: chance.fork(),
            weather: weather.clone(),
            journal: journal.clone(),
            log: Arc::clone(&log),
        };
        Self {
            clock,
            chance,
            weather,
            journal,
            vault,
            server,
            net,
            hosts: Vec::new(),
            schedulers: Vec::new(),
            people,
            readers: Vec::new(),
            log,
            strangers: Vec::new(),
            seen: Mutex::default(),
            site,
        }
    }

    /// Another host; its agent does not run yet.
    pub fn add_host(&mut self) -> &Host {
        let number = u8::try_from(self.hosts.len() + 1).unwrap();
        self.hosts.push(Host::new(number, self.site.clone()));
        self.hosts.last().unwrap()
    }

    /// Another scheduler; it does not run yet.
    pub fn add_scheduler(&mut self) -> &Scheduler {
        let scheduler = Scheduler::new(
            &format!("sched-{}", self.schedulers.len() + 1),
            self.server.clone(),
            self.chance.fork(),
            self.weather.clone(),
            self.journal.clone(),
        );
        self.schedulers.push(scheduler);
        self.schedulers.last().unwrap()
    }

    /// Somebody reads along from now on.
    pub fn add_reader(&mut self, who: Person) {
        let reader = Reader::new(who);
        tokio::spawn(
            reader
                .clone()
                .read(self.server.clone(), self.journal.clone()),
        );
        self.readers.push(reader);
    }

    /// Starts whatever does not run.
    pub fn start_all(&self) {
        self.server.start();
        for host in &self.hosts {
            host.start_agent();
        }
        for scheduler in &self.schedulers {
            scheduler.start();
        }
    }

    /// A world that runs: server, so many hosts, one scheduler, one reader.
    ///
    /// # Panics
    /// The server does not come up.
    pub async fn running(seed: u64, hosts: usize) -> Self {
        let mut world = Self::new(seed).await;
        for _ in 0..hosts {
            world.add_host();
        }
        world.add_scheduler();
        world.add_reader(ADMIN);
        world.start_all();
        assert!(
            world.until_connected(Duration::from_secs(30)).await,
            "no host connected"
        );
        world
    }

    /// Waits until every host is connected; `false` where that takes too long.
    pub async fn until_connected(&self, patience: Duration) -> bool {
        self.until(patience, async |store| {
            let hosts = vimana_store::host::list(&store).await.unwrap();
            hosts.len() == self.hosts.len() && hosts.iter().all(|host| host.connected)
        })
        .await
    }

    /// Waits, looking now and then, until the records are as wanted.
    pub async fn until(&self, patience: Duration, wanted: impl AsyncFn(Store) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(engine) = self.server.engine() {
                let looking = self.server.look();
                let there = wanted(engine.store().read()).await;
                drop(looking);
                if there {
                    return true;
                }
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}
