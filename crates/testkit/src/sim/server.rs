//! The server's process: the real engine on a simulated disk, started and
//! killed at will. All it does runs in tasks of its own, so that killing it
//! leaves nothing but the disk.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vimana_engine::{Datastores, Engine, EngineConfig, Settings, World};
use vimana_pki::{Authority, Serial};
use vimana_store::Store;
use vimana_store::simulation::{DiskCall, SimDisk};

use super::chance::Chance;
use super::clock::SimClock;
use super::journal::Journal;
use super::library::Library;
use super::vault::{ServerVault, Vault};
use super::weather::Weather;

/// A call of the database that something is to happen at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Any call where there is none.
    pub call: Option<DiskCall>,
    /// So many more of them pass before.
    pub after: u32,
}

/// Clones are the same process.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    disk: SimDisk,
    clock: Arc<SimClock>,
    chance: Chance,
    vault: Vault,
    journal: Journal,
    weather: Weather,
    settings: Settings,
    state: Mutex<State>,
    /// Of starts and ends. Not tokio's `watch`, which wakes in an order of
    /// chance's.
    changes: Notify,
}

#[derive(Default)]
struct State {
    running: bool,
    /// There once it serves.
    engine: Option<Engine>,
    /// What the next process opens.
    store: Option<Store>,
    tasks: JoinSet<()>,
    /// Cancelled when the process is killed.
    dead: CancellationToken,
    /// Grows with every start.
    life: u64,
    deadly: Option<At>,
    bell: Option<(At, Arc<Notify>)>,
    /// How many calls of each kind the disk saw so far.
    calls: Vec<(DiskCall, u32)>,
    /// A checker looks at the disk, which nobody shall notice.
    looking: u32,
}

/// Somebody looks at the disk; until it is dropped, nothing befalls its calls.
pub struct Looking(Server);

impl Drop for Looking {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.looking = state.looking.saturating_sub(1);
    }
}

impl At {
    /// Whether it is this call; counts it.
    fn has_come(&mut self, call: DiskCall) -> bool {
        if self.call.is_some_and(|wanted| wanted != call) {
            return false;
        }
        let now = self.after == 0;
        self.after = self.after.saturating_sub(1);
        now
    }
}

impl Server {
    /// A machine with an empty disk; nothing runs yet.
    ///
    /// # Panics
    /// There is no room for the disk.
    #[must_use]
    pub fn new(
        clock: Arc<SimClock>,
        chance: Chance,
        vault: Vault,
        journal: Journal,
        weather: Weather,
        settings: Settings,
    ) -> Self {
        let server = Self(Arc::new(Inner {
            disk: SimDisk::new().unwrap(),
            clock,
            chance,
            vault,
            journal,
            weather,
            settings,
            state: Mutex::default(),
            changes: Notify::new(),
        }));
        server.watch_disk();
        server
    }

    /// Every call of the database may be the last one.
    fn watch_disk(&self) {
        let weak = Arc::downgrade(&self.0);
        let disk = self.0.disk.clone();
        disk.set_pause(Some(Arc::new(move |call| {
            let server = weak.upgrade().map(Self);
            Box::pin(async move {
                match server {
                    Some(server) => server.on_call(call).await,
                    None => Ok(()),
                }
            })
        })));
    }

    async fn on_call(&self, call: DiskCall) -> vimana_store::Result<()> {
        if self.state().looking > 0 {
            return Ok(());
        }
        if self.dies_at(call) {
            self.crash(&format!("at {call:?} of a transaction"));
            return std::future::pending().await;
        }
        match call {
            DiskCall::Begin | DiskCall::Write | DiskCall::Commit
                if self.0.weather.is_disk_full() =>
            {
                return Err(vimana_store::StoreError::Full);
            }
            DiskCall::Begin
            | DiskCall::Write
            | DiskCall::Commit
            | DiskCall::Read
            | DiskCall::Committed => {}
        }
        // Others get ahead here, as they may at every call of a real database.
        if self.0.weather.now().slow && self.0.chance.one_in(40) {
            tokio::time::sleep(self.0.chance.ms(1..=30)).await;
        }
        Ok(())
    }

    fn dies_at(&self, call: DiskCall) -> bool {
        let mut state = self.state();
        match state.calls.iter_mut().find(|(kind, _)| *kind == call) {
            Some((_, n)) => *n = n.saturating_add(1),
            None => state.calls.push((call, 1)),
        }
        if let Some((at, bell)) = &mut state.bell
            && at.has_come(call)
        {
            bell.notify_one();
            state.bell = None;
        }
        let dies = state.deadly.as_mut().is_some_and(|at| at.has_come(call));
        if dies {
            state.deadly = None;
        }
        dies
    }

    /// The server is to die at a call to come; `None` takes that back.
    pub fn die_at(&self, deadly: Option<At>) {
        self.state().deadly = deadly;
    }

    /// A bell is to be rung at a call to come.
    pub fn ring_at(&self, at: At, bell: Arc<Notify>) {
        self.state().bell = Some((at, bell));
    }

    /// For whoever looks at the records from outside.
    #[must_use]
    pub fn look(&self) -> Looking {
        self.state().looking += 1;
        Looking(self.clone())
    }

    /// How many such calls the database saw so far.
    #[must_use]
    pub fn calls_of(&self, call: DiskCall) -> u32 {
        let state = self.state();
        let found = state.calls.iter().find(|(kind, _)| *kind == call);
        found.map_or(0, |(_, n)| *n)
    }

    pub fn is_running(&self) -> bool {
        self.state().running
    }

    /// The engine, if it serves.
    #[must_use]
    pub fn engine(&self) -> Option<Engine> {
        self.state().engine.clone()
    }

    /// Wakes when it next starts to serve, or ends; counted from this call,
    /// not from when it is awaited.
    pub fn changed(&self) -> Notified<'_> {
        self.0.changes.notified()
    }

    /// A store of its own on the disk, for whoever looks from outside while no
    /// server runs.
    ///
    /// # Panics
    /// A server runs, or the disk cannot be opened.
    #[must_use]
    pub fn offline_store(&self) -> Store {
        let mut state = self.state();
        assert!(!state.running, "the server's disk is in use");
        let store = state
            .store
            .take()
            .unwrap_or_else(|| Store::open_simulated(&self.0.disk).unwrap());
        state.store = Some(store.clone());
        store
    }

    /// Starts the process, if it does not run.
    pub fn start(&self) {
        let mut state = self.state();
        if state.running {
            return;
        }
        let store = state
            .store
            .take()
            .unwrap_or_else(|| Store::open_simulated(&self.0.disk).unwrap());
        state.running = true;
        state.life += 1;
        state.dead = CancellationToken::new();
        let (server, life, dead) = (self.clone(), state.life, state.dead.clone());
        state
            .tasks
            .spawn(async move { Box::pin(server.process(store, life, dead)).await });
        drop(state);
        self.0.journal.say("server", "starts");
    }

    async fn process(&self, store: Store, life: u64, dead: CancellationToken) {
        let inner = &self.0;
        let vault = ServerVault::new(
            inner.vault.clone(),
            inner.chance.fork(),
            inner.weather.clone(),
            dead,
        );
        let config = EngineConfig {
            store,
            authority: authority(),
            repository: Arc::new(Library),
            datastores: Datastores::new(Arc::new(vault), Vec::new()).unwrap(),
            settings: inner.settings.clone(),
            world: World::seeded(inner.clock.clone(), inner.chance.number()),
        };
        match Engine::open(config).await {
            Ok(engine) => {
                {
                    let mut state = self.state();
                    if state.life != life {
                        return;
                    }
                    state.engine = Some(engine.clone());
                }
                inner.journal.say("server", "serves");
                inner.changes.notify_waiters();
                Box::pin(engine.run(CancellationToken::new())).await;
            }
            Err(error) => {
                inner
                    .journal
                    .say("server", format!("cannot start: {error}"));
                self.crash("cannot start");
            }
        }
    }

    /// kill -9, wherever it is. What was not committed is gone.
    pub fn crash(&self, why: &str) {
        let tasks = {
            let mut state = self.state();
            if !state.running {
                return;
            }
            state.running = false;
            state.engine = None;
            state.deadly = None;
            state.dead.cancel();
            // First of all, so that nothing that ends now writes a word.
            state.store = Some(Store::open_simulated(&self.0.disk).unwrap());
            std::mem::take(&mut state.tasks)
        };
        self.0.journal.say("server", format!("is killed {why}"));
        self.0.journal.count("server crashes", 1);
        drop(tasks);
        self.0.changes.notify_waiters();
    }

    /// Part of the process: goes when it goes.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut state = self.state();
        if !state.running {
            return;
        }
        while state.tasks.try_join_next().is_some() {}
        state.tasks.spawn(task);
    }

    /// A call from outside; `None` where the server is away, or went away
    /// before it answered.
    pub async fn call<T, F>(&self, work: impl FnOnce(Engine) -> F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (sender, answer) = oneshot::channel();
        let work = work(self.engine()?);
        self.spawn(async move {
            // The caller may have gone.
            let _ = sender.send(work.await);
        });
        answer.await.ok()
    }

    /// Until the server serves.
    pub async fn until_serving(&self) -> Engine {
        loop {
            let changed = self.changed();
            if let Some(engine) = self.engine() {
                return engine;
            }
            changed.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One for all runs: it certifies nobody here.
pub fn authority() -> Arc<Authority> {
    static AUTHORITY: OnceLock<Arc<Authority>> = OnceLock::new();
    let made = AUTHORITY
        .get_or_init(|| Arc::new(Authority::generate(Serial::from_random([7; _])).unwrap()));
    Arc::clone(made)
}
