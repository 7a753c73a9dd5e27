//! A server's agent-facing half, and an agent on a simulated host.

#[path = "world/saved.rs"]
mod saved;

use std::collections::HashMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vimana_agent::{Agent, Config, DataDir, Parts, Timing};
use vimana_driver::{HostDriver, ImageRef};
use vimana_driver_sim::{SimDriver, SimHost};
use vimana_model::name::{HostName, ZoneName};
use vimana_model::unit::{MiB, Resources};
use vimana_protocol::agent::{
    Command, CommandRef, FromAgent, Hello, Outcome, PROTOCOL_VERSIONS, ToAgent, Work,
};
use vimana_protocol::dial::{Random, Retry, Server};

use crate::orders::{OK, command, image_of, vm};

pub const PATIENCE: Duration = Duration::from_secs(10);
const CAPACITY: Resources = Resources {
    vcpus: 8,
    memory_mib: MiB(8192),
    disk_mib: MiB(8192),
};

pub use saved::Saved;

/// What the fake server is told and shows.
pub struct Shared {
    sessions: mpsc::Sender<WebSocket>,
    consoles: mpsc::Sender<WebSocket>,
    images: Mutex<HashMap<String, (StatusCode, Vec<u8>)>>,
    downloads: watch::Sender<u32>,
    pub saved: Mutex<Saved>,
    /// A download ends only with a permit from here.
    gate: Semaphore,
}

pub struct World {
    shared: Arc<Shared>,
    sessions: mpsc::Receiver<WebSocket>,
    consoles: mpsc::Receiver<WebSocket>,
    address: String,
    secret: tempfile::NamedTempFile,
    pub dir: tempfile::TempDir,
    pub host: Arc<SimHost>,
    /// How large the next agent's image cache may grow.
    pub image_cache: Option<MiB>,
    /// How often the next agent asks which images are gone.
    pub images_every: Duration,
    agent: Option<(JoinHandle<()>, CancellationToken)>,
}

impl World {
    /// A server, and an agent that dials it.
    pub async fn new() -> Self {
        let mut world = Self::without_agent().await;
        world.start_agent();
        world
    }

    pub async fn without_agent() -> Self {
        // Err: another test was quicker.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (session_sender, sessions) = mpsc::channel(8);
        let (console_sender, consoles) = mpsc::channel(8);
        let shared = Arc::new(Shared {
            sessions: session_sender,
            consoles: console_sender,
            images: Mutex::default(),
            downloads: watch::Sender::new(0),
            saved: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        });
        let app = Router::new()
            .route("/agent/v1/session", any(session))
            .route("/agent/v1/console/{id}", any(console))
            .route("/agent/v1/images/{id}", get(image).head(has_image))
            .route(
                "/agent/v1/saved/{vm}/{epoch}/{part}",
                get(saved::download).put(saved::upload),
            )
            .route(
                "/agent/v1/saved/{vm}/{epoch}/{part}/received",
                get(saved::received),
            )
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let mut secret = tempfile::NamedTempFile::new().unwrap();
        secret.write_all(b"s3cret\n").unwrap();
        Self {
            shared,
            sessions,
            consoles,
            address,
            secret,
            dir: tempfile::tempdir().unwrap(),
            host: SimHost::new(),
            image_cache: None,
            images_every: Timing::default().images,
            agent: None,
        }
    }

    pub fn start_agent(&mut self) {
        let driver = SimDriver::new(Arc::clone(&self.host));
        self.start_agent_with(Arc::new(driver));
    }

    pub fn start_agent_with(&mut self, driver: Arc<dyn HostDriver>) {
        let config = Config {
            name: HostName::new("host-a").unwrap(),
            zone: ZoneName::new("default").unwrap(),
            capacity: CAPACITY,
            datastores: Vec::new(),
            timing: Timing {
                retry: Retry {
                    first: Duration::from_millis(10),
                    cap: Duration::from_millis(50),
                },
                refused: Duration::from_millis(50),
                images: self.images_every,
            },
            random: Random::from_seed(1),
        };
        let server = Server::new(&self.address, self.secret.path(), None).unwrap();
        let data_dir = DataDir::open(self.dir.path()).unwrap();
        let parts = Parts::of_host(config, server, data_dir, driver, self.image_cache);
        let agent = Agent::new(parts.unwrap());
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let task = tokio::spawn(async move { agent.run(token).await.unwrap() });
        self.agent = Some((task, shutdown));
    }

    pub async fn stop_agent(&mut self) {
        let (task, shutdown) = self.agent.take().unwrap();
        shutdown.cancel();
        timeout(PATIENCE, task).await.unwrap().unwrap();
    }

    /// As kill -9 does it; returns when nothing of the agent holds the
    /// directory any more.
    pub async fn kill_agent(&mut self) {
        let (task, _) = self.agent.take().unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        let freed = async {
            while DataDir::open(self.dir.path()).is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, freed).await.unwrap();
    }

    /// The host's machines stay where they are; a new and empty one takes its
    /// place.
    pub fn move_to_another_host(&mut self) {
        self.host = SimHost::new();
        self.dir = tempfile::tempdir().unwrap();
    }

    /// Saved machines that are on their way from the datastore.
    pub fn on_the_way(&self) -> usize {
        let entries = std::fs::read_dir(self.dir.path().join("saved")).unwrap();
        entries.count()
    }

    /// The next session, with its Hello read and not answered.
    pub async fn hello(&mut self) -> (Session, Hello) {
        let socket = timeout(PATIENCE, self.sessions.recv()).await;
        let mut session = Session(socket.unwrap().unwrap());
        let first = session.next().await;
        let FromAgent::Hello(hello) = first else {
            panic!("{first:?}")
        };
        (session, hello)
    }

    /// The next session, welcomed.
    pub async fn session(&mut self) -> Session {
        let (mut session, _) = self.hello().await;
        session.welcome().await;
        session
    }

    pub async fn console(&mut self) -> WebSocket {
        let socket = timeout(PATIENCE, self.consoles.recv()).await;
        socket.unwrap().unwrap()
    }

    /// The server has this image from now on, and keeps its promises.
    pub fn add_image(&self, bytes: &[u8]) -> ImageRef {
        let image = image_of(bytes);
        self.answer_image(&image, StatusCode::OK, bytes);
        image
    }

    /// The server answers so when asked for the image.
    pub fn answer_image(&self, image: &ImageRef, status: StatusCode, bytes: &[u8]) {
        let mut images = self.shared.images.lock().unwrap();
        images.insert(image.id.to_string(), (status, bytes.to_vec()));
    }

    /// Downloads begin and do not end, until [`World::open_gate`].
    /// The server has it no longer.
    pub fn remove_image(&self, image: &ImageRef) {
        let mut images = self.shared.images.lock().unwrap();
        images.remove(&image.id.to_string()).unwrap();
    }

    pub fn close_gate(&self) {
        self.shared.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn open_gate(&self) {
        self.shared.gate.add_permits(100);
    }

    pub fn saved(&self) -> MutexGuard<'_, Saved> {
        self.shared.saved.lock().unwrap()
    }

    pub fn downloads(&self) -> u32 {
        *self.shared.downloads.borrow()
    }

    pub async fn downloads_reach(&self, n: u32) {
        let mut downloads = self.shared.downloads.subscribe();
        let reached = downloads.wait_for(|so_far| *so_far >= n);
        timeout(PATIENCE, reached).await.unwrap().unwrap();
    }

    /// File names in the image cache, in order.
    pub fn cached_names(&self) -> Vec<String> {
        let cached = self.cached();
        let names = cached.iter().filter_map(|path| path.file_name());
        let mut names: Vec<_> = names
            .map(|name| name.to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    /// Files in the image cache.
    pub fn cached(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.path().join("images")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

/// The server's end of one session.
pub struct Session(WebSocket);

impl Session {
    /// Opens the session, and sees that the agent is ready for it.
    pub async fn welcome(&mut self) {
        let session_number = 1;
        let welcome = ToAgent::Welcome {
            protocol: PROTOCOL_VERSIONS.max,
            session_number,
            lease_ms: None,
        };
        self.send(welcome).await;
        assert_eq!(self.next().await, FromAgent::Ready { session_number });
    }

    pub async fn send(&mut self, frame: ToAgent) {
        let text = serde_json::to_string(&frame).unwrap();
        self.0.send(Message::Text(text.into())).await.unwrap();
    }

    /// The next frame that is not a heartbeat.
    pub async fn next(&mut self) -> FromAgent {
        loop {
            let message = timeout(PATIENCE, self.0.recv()).await.unwrap();
            let text = message.unwrap().unwrap().into_text().unwrap();
            let frame = serde_json::from_str(&text).unwrap();
            if frame != FromAgent::Heartbeat {
                return frame;
            }
        }
    }

    /// The next outcome; what else comes on the way is passed over.
    pub async fn outcome(&mut self) -> (CommandRef, Outcome) {
        loop {
            if let FromAgent::Done {
                command, outcome, ..
            } = self.next().await
            {
                return (command, outcome);
            }
        }
    }

    pub async fn order(&mut self, command: &Command) {
        self.send(ToAgent::Command(command.clone())).await;
    }

    /// Orders and waits for the outcome.
    pub async fn carry_out(&mut self, command: &Command) -> Outcome {
        self.order(command).await;
        let (done, outcome) = self.outcome().await;
        assert_eq!(done, command.command);
        outcome
    }

    /// Everything ordered so far was answered: another VM's command is the
    /// next to end.
    pub async fn is_silent(&mut self) {
        let probe = command(vm(255), 0, Work::Kill);
        assert_eq!(self.carry_out(&probe).await, OK);
    }
}

async fn session(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    assert_eq!(headers["authorization"], "Bearer s3cret");
    upgrade.on_upgrade(|socket| async move { shared.sessions.send(socket).await.unwrap() })
}

async fn console(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    assert_eq!(headers["authorization"], "Bearer s3cret");
    upgrade.on_upgrade(|socket| async move { shared.consoles.send(socket).await.unwrap() })
}

async fn image(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    shared.downloads.send_modify(|so_far| *so_far += 1);
    let _permit = shared.gate.acquire().await.unwrap();
    let found = shared.images.lock().unwrap().get(&id).cloned();
    found
        .unwrap_or((StatusCode::NOT_FOUND, Vec::new()))
        .into_response()
}

/// Asking is no download.
async fn has_image(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> StatusCode {
    let found = shared.images.lock().unwrap().get(&id).cloned();
    found.map_or(StatusCode::NOT_FOUND, |(status, _)| status)
}
