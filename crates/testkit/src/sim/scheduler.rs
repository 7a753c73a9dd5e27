//! A scheduler: the real one's decisions, over a network that takes its time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use vimana_protocol::scheduler::{FromScheduler, ToScheduler};
use vimana_scheduler::State;

use super::chance::Chance;
use super::journal::Journal;
use super::server::Server;
use super::weather::{Weather, hop};

const CAPACITY: usize = 1024;
/// Wait before it connects anew.
const RETRY: Duration = Duration::from_millis(300);

pub struct Scheduler {
    name: String,
    server: Server,
    chance: Chance,
    weather: Weather,
    journal: Journal,
    running: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Scheduler {
    #[must_use]
    pub fn new(
        name: &str,
        server: Server,
        chance: Chance,
        weather: Weather,
        journal: Journal,
    ) -> Self {
        Self {
            name: name.to_owned(),
            server,
            chance,
            weather,
            journal,
            running: Mutex::default(),
        }
    }

    pub fn start(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_some() {
            return;
        }
        let (name, server) = (self.name.clone(), self.server.clone());
        let (chance, weather) = (self.chance.fork(), self.weather.clone());
        let task = tokio::spawn(async move {
            loop {
                server.until_serving().await;
                session(&name, &server, &chance, &weather).await;
                tokio::time::sleep(RETRY).await;
            }
        });
        *running = Some(AbortOnDropHandle::new(task));
    }

    pub fn kill(&self) {
        let task = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if task.is_some() {
            self.journal.say(&self.name, "is killed");
            self.journal.count("scheduler kills", 1);
        }
    }
}

async fn session(name: &str, server: &Server, chance: &Chance, weather: &Weather) {
    let Some(engine) = server.engine() else {
        return;
    };
    let (to_scheduler, mut incoming) = mpsc::channel::<ToScheduler>(CAPACITY);
    let (outgoing, mut proposals) = mpsc::channel::<FromScheduler>(CAPACITY);
    let name = name.to_owned();
    server.spawn(async move {
        let Ok(session) = engine.connect_scheduler(name).await else {
            return;
        };
        let (mut frames, handle) = session.split();
        let tell = async {
            while let Some(frame) = frames.recv().await {
                if to_scheduler.send(frame).await.is_err() {
                    return;
                }
            }
        };
        let listen = async {
            while let Some(frame) = proposals.recv().await {
                handle.receive(frame).await;
            }
        };
        tokio::select! {
            biased;
            () = tell => {}
            () = listen => {}
        }
    });
    let mut state = State::default();
    loop {
        let expiry = state.next_expiry();
        let frame = tokio::select! {
            biased;
            frame = incoming.recv() => match frame {
                Some(frame) => Some(frame),
                None => return,
            },
            () = until(expiry) => None,
        };
        if weather.now().slow {
            tokio::time::sleep(hop(chance)).await;
        }
        let now = Instant::now();
        if let Some(frame) = frame {
            state.apply(frame, now);
        }
        state.expire(now);
        while state.is_dirty() {
            for proposal in state.decide(now) {
                if outgoing.send(proposal).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn until(expiry: Option<Instant>) {
    match expiry {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
