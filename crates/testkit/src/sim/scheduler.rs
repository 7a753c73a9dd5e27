//! A scheduler: the real one's decisions, over a network that takes its time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::chance::Chance;
use super::journal::Journal;
use super::server::Server;
use super::weather::{Weather, hop};
use crate::scheduler::{CAPACITY, carry, decide};

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
    let (to_scheduler, incoming) = mpsc::channel(CAPACITY);
    let (outgoing, proposals) = mpsc::channel(CAPACITY);
    let name = name.to_owned();
    server.spawn(async move {
        if let Ok(session) = engine.connect_scheduler(name).await {
            carry(session, to_scheduler, proposals).await;
        }
    });
    let hop = || {
        let long = weather.now().slow.then(|| hop(chance));
        async move {
            if let Some(long) = long {
                tokio::time::sleep(long).await;
            }
        }
    };
    decide(incoming, outgoing, hop).await;
}
