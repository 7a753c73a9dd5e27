//! The network between agents and the server: frames are late, connections
//! stall, break off, and bring up old frames again. Within one connection
//! nothing is reordered, as TCP has it; between two everything may be.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use vimana_engine::Engine;
use vimana_protocol::agent::{FromAgent, ToAgent};
use vimana_protocol::dial::{Dial, DialError, FarEnd, Wire};
use vimana_protocol::limits::{HEARTBEAT_EVERY, HEARTBEAT_TIMEOUT, HELLO_TIMEOUT};

use super::chance::Chance;
use super::journal::Journal;
use super::server::Server;
use super::weather::{Weather, hop};

/// Frames a connection holds each way.
const CAPACITY: usize = 1024;
/// Old frames that may come up again, for each host and direction.
const REMEMBERED: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    ToServer,
    ToAgent,
}

/// Clones are the same network.
#[derive(Clone)]
pub struct Net(Arc<Inner>);

struct Inner {
    server: Server,
    chance: Chance,
    weather: Weather,
    journal: Journal,
    roads: Mutex<BTreeMap<String, Road>>,
}

/// The way between one host and the server.
#[derive(Default)]
struct Road {
    /// Cut all at once, those of before too.
    cables: Vec<CancellationToken>,
    stalled: BTreeMap<Way, Instant>,
    old: BTreeMap<Way, VecDeque<String>>,
    /// Comes up with the next frame that way.
    slipped_in: BTreeMap<Way, Vec<String>>,
}

/// What happened on its way so far.
struct Passage {
    host: String,
    way: Way,
    passed: u32,
}

impl Net {
    #[must_use]
    pub fn new(server: Server, chance: Chance, weather: Weather, journal: Journal) -> Self {
        Self(Arc::new(Inner {
            server,
            chance,
            weather,
            journal,
            roads: Mutex::default(),
        }))
    }

    /// How `host` dials.
    #[must_use]
    pub fn dialler(&self, host: &str) -> Dialler {
        Dialler {
            net: self.clone(),
            host: host.to_owned(),
        }
    }

    /// Cuts all connections of a host, whatever is on its way.
    pub fn cut(&self, host: &str) {
        let cables = std::mem::take(&mut self.roads().entry(host.to_owned()).or_default().cables);
        for cable in cables {
            cable.cancel();
        }
    }

    /// Nothing gets through that way for so long; then it all does.
    pub fn stall(&self, host: &str, way: Way, long: Duration) {
        let mut roads = self.roads();
        let road = roads.entry(host.to_owned()).or_default();
        road.stalled.insert(way, Instant::now() + long);
    }

    /// All stalls are over.
    pub fn heal(&self) {
        for road in self.roads().values_mut() {
            road.stalled.clear();
        }
    }

    /// What was sent that way, the newest last.
    #[must_use]
    pub fn old_frames(&self, host: &str, way: Way) -> Vec<String> {
        let roads = self.roads();
        let old = roads.get(host).and_then(|road| road.old.get(&way));
        old.map(|old| old.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// These frames come along with the next one that way.
    pub fn slip_in(&self, host: &str, way: Way, frames: Vec<String>) {
        let mut roads = self.roads();
        let road = roads.entry(host.to_owned()).or_default();
        road.slipped_in.entry(way).or_default().extend(frames);
    }

    async fn passable(&self, host: &str, way: Way) {
        loop {
            let until = self
                .roads()
                .get(host)
                .and_then(|road| road.stalled.get(&way).copied());
            match until.filter(|until| *until > Instant::now()) {
                // Looked at again, since it may be healed meanwhile.
                Some(until) => {
                    let soon = Instant::now() + Duration::from_millis(500);
                    sleep_until(until.min(soon)).await;
                }
                None => return,
            }
        }
    }

    async fn delay(&self, passage: &Passage) {
        let sky = self.0.weather.now();
        if sky.slow {
            tokio::time::sleep(hop(&self.0.chance)).await;
        }
        if self.0.chance.one_in(sky.late_frames) {
            tokio::time::sleep(self.0.chance.ms(100..=3000)).await;
        }
        self.passable(&passage.host, passage.way).await;
    }

    /// An old frame that comes up again.
    fn replayed(&self, passage: &Passage, text: &str) -> Vec<String> {
        let worth = match passage.way {
            Way::ToServer => text.contains("\"frame\":\"done\"") || text.contains("progress"),
            Way::ToAgent => text.contains("\"frame\":\"command\""),
        };
        let mut roads = self.roads();
        let road = roads.entry(passage.host.clone()).or_default();
        let old = road.old.entry(passage.way).or_default();
        let sky = self.0.weather.now();
        // Never before the introductions are over.
        let replay = passage.passed > 2 && self.0.chance.one_in(sky.replays);
        let again = if replay {
            old.get(self.0.chance.below(old.len())).cloned()
        } else {
            None
        };
        if worth {
            old.push_back(text.to_owned());
            if old.len() > REMEMBERED {
                old.pop_front();
            }
        }
        let slipped_in = if passage.passed > 2 {
            road.slipped_in.remove(&passage.way).unwrap_or_default()
        } else {
            Vec::new()
        };
        again.into_iter().chain(slipped_in).collect()
    }

    async fn pump(
        &self,
        mut from: mpsc::Receiver<String>,
        to: mpsc::Sender<String>,
        mut passage: Passage,
    ) {
        while let Some(text) = from.recv().await {
            passage.passed += 1;
            self.delay(&passage).await;
            let old = self.replayed(&passage, &text);
            self.0.journal.count(
                "replayed frames",
                u64::try_from(old.len()).unwrap_or_default(),
            );
            for text in old.into_iter().chain([text]) {
                if to.send(text).await.is_err() {
                    return;
                }
            }
        }
    }

    fn roads(&self) -> MutexGuard<'_, BTreeMap<String, Road>> {
        self.0.roads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A host's way to open connections.
pub struct Dialler {
    net: Net,
    host: String,
}

#[async_trait]
impl Dial for Dialler {
    async fn dial(&self, _path: &str) -> Result<Wire, DialError> {
        let net = &self.net;
        if net.0.weather.now().slow {
            tokio::time::sleep(hop(&net.0.chance)).await;
        }
        for way in [Way::ToServer, Way::ToAgent] {
            let passable = net.passable(&self.host, way);
            if timeout(HELLO_TIMEOUT, passable).await.is_err() {
                return Err(DialError::TimedOut(HELLO_TIMEOUT));
            }
        }
        let Some(engine) = net.0.server.engine() else {
            return Err(DialError::Unreachable("nobody listens".to_owned()));
        };
        let (wire, FarEnd { sender, receiver }) = Wire::in_memory(CAPACITY);
        let (to_server, from_agent) = mpsc::channel(CAPACITY);
        let (to_agent, from_server) = mpsc::channel(CAPACITY);
        net.0.server.spawn(serve(engine, from_agent, to_agent));
        let cut = CancellationToken::new();
        {
            let mut roads = net.roads();
            let road = roads.entry(self.host.clone()).or_default();
            road.cables.push(cut.clone());
        }
        let passage = |way| Passage {
            host: self.host.clone(),
            way,
            passed: 0,
        };
        let (there, back) = (passage(Way::ToServer), passage(Way::ToAgent));
        let net = net.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = cut.cancelled() => {}
                () = net.pump(receiver, to_server, there) => {}
                () = net.pump(from_server, sender, back) => {}
            }
        });
        Ok(wire)
    }
}

/// The server's end of an agent's connection, as the real one does it.
async fn serve(
    engine: Engine,
    mut incoming: mpsc::Receiver<String>,
    to_agent: mpsc::Sender<String>,
) {
    let first = timeout(HELLO_TIMEOUT, incoming.recv()).await;
    let Ok(Some(Some(FromAgent::Hello(hello)))) = first.map(|text| text.map(|text| read(&text)))
    else {
        return;
    };
    let session = match engine.connect_agent(hello).await {
        Ok(session) => session,
        Err(reason) => {
            // The agent may have gone.
            let _ = to_agent.send(write(&ToAgent::Refused { reason })).await;
            return;
        }
    };
    let (mut outgoing, handle) = session.split();
    let listen = async {
        while let Ok(Some(text)) = timeout(HEARTBEAT_TIMEOUT, incoming.recv()).await {
            let Some(frame) = read(&text) else { return };
            handle.receive(frame);
        }
    };
    let tell = async {
        loop {
            let frame = match timeout(HEARTBEAT_EVERY, outgoing.recv()).await {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(_) => ToAgent::Heartbeat { lease_ms: None },
            };
            if to_agent.send(write(&frame)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = tell => {}
        () = listen => {}
    }
}

fn read(text: &str) -> Option<FromAgent> {
    serde_json::from_str(text).ok()
}

fn write(frame: &ToAgent) -> String {
    serde_json::to_string(frame).unwrap()
}
