//! The network between agents and the server: frames are late, connections
//! stall, break off, and bring up old frames again. Within one connection
//! nothing is reordered, as TCP has it; between two everything may be: a
//! connection that broke at its host's end may still deliver to the server what
//! was on its way, while the host has dialled anew.
//!
//! No network brings up a frame within its own session again: TLS would notice.
//! A peer might, or its disk of yesterday; so frames come up again that say
//! themselves that they are out of date: commands and their outcomes, which
//! have their claim, and what was seen of a run that is not the latest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use vimana_engine::Engine;
use vimana_model::VmId;
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
    old: BTreeMap<Way, VecDeque<Old>>,
    /// The latest run of each machine, as far as it was spoken of.
    runs: BTreeMap<VmId, u64>,
    /// Comes up with the next frame that way.
    slipped_in: BTreeMap<Way, Vec<String>>,
}

/// A frame that may come up again.
#[derive(Clone)]
struct Old {
    text: String,
    /// The run it tells of, where that is what shows its age.
    seen: Option<(VmId, u64)>,
}

impl Road {
    /// Takes note of a frame that passes.
    fn note(&mut self, way: Way, text: &str) {
        let seen = match way {
            Way::ToServer => match read(text) {
                Some(FromAgent::Observed(observed)) => Some((observed.vm_id, observed.run_epoch)),
                Some(FromAgent::Done { .. } | FromAgent::Progress { .. }) => None,
                Some(
                    FromAgent::Hello(_)
                    | FromAgent::Ready { .. }
                    | FromAgent::Inventory { .. }
                    | FromAgent::Discarded { .. }
                    | FromAgent::VolumeRemoved { .. }
                    | FromAgent::VolumeNotSent { .. }
                    | FromAgent::Heartbeat
                    | FromAgent::Unknown,
                )
                | None => return,
            },
            Way::ToAgent => match serde_json::from_str(text) {
                Ok(ToAgent::Command(command)) => {
                    self.learn(command.vm_id, command.run_epoch);
                    None
                }
                Ok(
                    ToAgent::Welcome { .. }
                    | ToAgent::Refused { .. }
                    | ToAgent::OpenConsole { .. }
                    | ToAgent::Discard { .. }
                    | ToAgent::RemoveVolume { .. }
                    | ToAgent::SendVolume(_)
                    | ToAgent::TakeInventory
                    | ToAgent::Heartbeat { .. }
                    | ToAgent::Unknown,
                )
                | Err(_) => return,
            },
        };
        if let Some((vm_id, run_epoch)) = seen {
            self.learn(vm_id, run_epoch);
        }
        let text = text.to_owned();
        let old = self.old.entry(way).or_default();
        old.push_back(Old { text, seen });
        if old.len() > REMEMBERED {
            old.pop_front();
        }
    }

    fn learn(&mut self, vm_id: VmId, run_epoch: u64) {
        let latest = self.runs.entry(vm_id).or_default();
        *latest = run_epoch.max(*latest);
    }

    /// What may come up again that way, the newest last.
    fn outdated(&self, way: Way) -> Vec<String> {
        let is_old = |old: &&Old| {
            let latest = |id| self.runs.get(&id).copied().unwrap_or_default();
            old.seen.is_none_or(|(id, run)| run < latest(id))
        };
        let old = self.old.get(&way).into_iter().flatten();
        old.filter(is_old).map(|old| old.text.clone()).collect()
    }
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
        let old = roads.get(host).map(|road| road.outdated(way));
        old.unwrap_or_default()
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
        let mut roads = self.roads();
        let road = roads.entry(passage.host.clone()).or_default();
        let sky = self.0.weather.now();
        // Never before the introductions are over.
        let replay = passage.passed > 2 && self.0.chance.one_in(sky.replays);
        let again = if replay {
            let old = road.outdated(passage.way);
            self.0.chance.pick(&old).cloned()
        } else {
            None
        };
        road.note(passage.way, text);
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

    /// Somebody in between goes on for a while: what the host says is held up,
    /// and comes when the host has long found its line cut.
    async fn linger(&self, there: impl Future<Output = ()>, back: impl Future<Output = ()>) {
        let held = self.0.chance.ms(0..=3000);
        // Where the server ends first, nobody waits for what is held.
        if timeout(held, back).await.is_ok() {
            return;
        }
        self.0.journal.count("late ends of connections", 1);
        tokio::time::sleep(self.0.chance.ms(0..=2000)).await;
        there.await;
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
            let mut there = Box::pin(net.pump(receiver, to_server, there));
            let mut back = Box::pin(net.pump(from_server, sender, back));
            tokio::select! {
                biased;
                () = cut.cancelled() => {}
                () = &mut there => return,
                () = &mut back => return,
            }
            if net.0.weather.now().late_frames > 0 {
                net.linger(there, back).await;
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
            // What is not understood is passed over.
            if let Some(frame) = read(&text) {
                handle.receive(frame);
            }
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
