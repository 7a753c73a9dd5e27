//! The scheduler against a server that speaks the protocol.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic, and so may its helpers"
)]

use std::io::Write as _;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::routing::any;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vimana_model::host::HostState;
use vimana_model::name::{DatastoreName, HostName, ZoneName};
use vimana_model::unit::{MiB, Resources};
use vimana_model::{HostId, Timestamp, VmId};
use vimana_protocol::dial::{Retry, Server};
use vimana_protocol::scheduler::{FromScheduler, HostFacts, PendingVm, ToScheduler};

const ROOM: Resources = Resources {
    vcpus: 4,
    memory_mib: MiB(4096),
    disk_mib: MiB(4096),
};
const PATIENCE: Duration = Duration::from_secs(10);

/// Accepts sessions and hands them to the test.
struct FakeServer {
    sessions: mpsc::Receiver<WebSocket>,
    scheduler: tokio::task::JoinHandle<()>,
    shutdown: CancellationToken,
    _secret: tempfile::NamedTempFile,
}

impl FakeServer {
    async fn with_scheduler() -> Self {
        let (accepted, sessions) = mpsc::channel(8);
        let accept = move |headers: HeaderMap, upgrade: WebSocketUpgrade| async move {
            assert_eq!(headers["authorization"], "Bearer s3cret");
            upgrade.on_upgrade(move |socket| async move { accepted.send(socket).await.unwrap() })
        };
        let app = Router::new().route("/scheduler/v1/session", any(accept));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });

        let mut secret = tempfile::NamedTempFile::new().unwrap();
        secret.write_all(b"s3cret\n").unwrap();
        let server = Server::new(&address, secret.path(), None).unwrap();
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let retry = Retry {
            first: Duration::from_millis(10),
            cap: Duration::from_millis(50),
        };
        let scheduler = tokio::spawn(async move {
            vimana_scheduler::run(&server, "test", retry, token).await;
        });
        Self {
            sessions,
            scheduler,
            shutdown,
            _secret: secret,
        }
    }

    /// The next session, after its Hello and our snapshot.
    async fn session(&mut self) -> WebSocket {
        let socket = tokio::time::timeout(PATIENCE, self.sessions.recv()).await;
        let mut socket = socket.unwrap().unwrap();
        let hello = receive(&mut socket).await;
        assert!(matches!(hello, FromScheduler::Hello { protocol: 4, name } if name == "test"));
        let snapshot = ToScheduler::Snapshot {
            hosts: vec![host()],
            pending: vec![vm()],
        };
        send(&mut socket, &snapshot).await;
        socket
    }
}

fn host() -> HostFacts {
    HostFacts {
        id: HostId::from_parts(1, [1; 10]),
        name: HostName::new("host-a").unwrap(),
        zone: ZoneName::new("default").unwrap(),
        state: HostState::Enabled,
        connected: true,
        capacity: ROOM,
        used: Resources::default(),
        datastores: Vec::new(),
    }
}

fn vm() -> PendingVm {
    PendingVm {
        id: VmId::from_parts(1, [1; 10]),
        generation: 7,
        resources: ROOM,
        datastore: DatastoreName::local(),
        since: Timestamp::from_ms(0),
    }
}

async fn send(socket: &mut WebSocket, frame: &ToScheduler) {
    let text = serde_json::to_string(frame).unwrap();
    socket.send(Message::Text(text.into())).await.unwrap();
}

/// The next frame that is not a heartbeat.
async fn receive(socket: &mut WebSocket) -> FromScheduler {
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.recv()).await;
        let text = message.unwrap().unwrap().unwrap().into_text().unwrap();
        let frame = serde_json::from_str(&text).unwrap();
        if !matches!(frame, FromScheduler::Heartbeat) {
            return frame;
        }
    }
}

fn is_proposal(frame: &FromScheduler) -> bool {
    matches!(frame, FromScheduler::Proposal { vm_id, generation: 7, host_id, .. }
        if *vm_id == vm().id && *host_id == host().id)
}

#[tokio::test]
async fn a_pending_vm_is_proposed_and_a_lost_session_starts_over() {
    let mut server = FakeServer::with_scheduler().await;
    let mut socket = server.session().await;
    assert!(is_proposal(&receive(&mut socket).await));
    drop(socket);
    let mut socket = server.session().await;
    assert!(is_proposal(&receive(&mut socket).await));
}

#[tokio::test]
async fn the_scheduler_says_goodbye_when_it_stops() {
    let mut server = FakeServer::with_scheduler().await;
    let mut socket = server.session().await;
    assert!(is_proposal(&receive(&mut socket).await));
    server.shutdown.cancel();
    let farewell = tokio::time::timeout(PATIENCE, socket.recv()).await.unwrap();
    assert!(matches!(farewell, Some(Ok(Message::Close(_)))));
    tokio::time::timeout(PATIENCE, server.scheduler)
        .await
        .unwrap()
        .unwrap();
}
