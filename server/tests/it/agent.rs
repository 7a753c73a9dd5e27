//! An agent as the server meets it: it joins, shows its certificate, and
//! speaks in frames.

use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use reqwest::{Method, RequestBuilder, Response};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, connect_async_tls_with_config};
use vimana_model::HostId;
use vimana_pki::{CurrentIdentity, HostKey, Identity, JoinToken, first_contact};

use crate::fleet::{Socket, heard, say};
use crate::world::World;

/// One host. It keeps its number of sessions as an agent does.
pub struct Agent {
    pub id: HostId,
    pub name: String,
    pub key: HostKey,
    pub session_number: u64,
    base: String,
    current: Arc<CurrentIdentity>,
}

impl Agent {
    /// Has not joined yet.
    pub fn new(world: &World, n: u8) -> Self {
        Self {
            id: HostId::from_parts(u64::from(n), [n; 10]),
            name: format!("host-{n}"),
            key: HostKey::generate().unwrap(),
            session_number: 0,
            base: world.running.agent_url(),
            current: Arc::default(),
        }
    }

    /// Has joined with a token of its own.
    pub async fn joined(world: &World, n: u8) -> Self {
        let mut agent = Self::new(world, n);
        let token = world.join_token().await;
        let answer = agent.join(&token).await;
        assert_eq!(answer.status(), 200);
        agent.take(answer).await;
        agent
    }

    /// A machine with a copy of everything this one has.
    pub fn copy(&self) -> Self {
        Self {
            id: self.id,
            name: self.name.clone(),
            key: HostKey::from_pem(&self.key.to_pem()).unwrap(),
            session_number: self.session_number,
            base: self.base.clone(),
            current: Arc::clone(&self.current),
        }
    }

    /// Asks to join, believing only the token's authority.
    pub async fn join(&self, token: &JoinToken) -> Response {
        let form = json!({
            "secret": token.secret(), "host_id": self.id, "name": self.name, "zone": "default",
            "request": self.key.request().unwrap(), "session_number": self.session_number,
        });
        let http = http(first_contact(token.authority()).unwrap());
        let url = format!("{}/agent/v1/join", self.base);
        http.post(url).json(&form).send().await.unwrap()
    }

    /// Shows the certificate in the answer from now on.
    pub async fn take(&mut self, answer: Response) {
        let answer: Value = answer.json().await.unwrap();
        let text = |name: &str| answer[name].as_str().unwrap();
        let identity = Identity::new(&self.key, text("certificate"), text("authority"));
        // A slot of its own: a copy goes on showing what it has.
        self.current = Arc::default();
        self.current.set(identity.unwrap());
    }

    /// Asks for the next certificate, for the same key.
    pub async fn renew(&self) -> reqwest::Result<Response> {
        let form = json!({ "request": self.key.request().unwrap() });
        let url = format!("{}/agent/v1/renew", self.base);
        http(self.tls()).post(url).json(&form).send().await
    }

    /// The server has another address now.
    pub fn moved_to(&mut self, world: &World) {
        self.base = world.running.agent_url();
    }

    pub async fn get(&self, path: &str) -> reqwest::Result<Response> {
        let url = format!("{}{path}", self.base);
        http(self.tls()).get(url).send().await
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.base);
        http(self.tls()).request(method, url)
    }

    /// Shows a certificate of another installation, or another host's.
    pub fn show(&mut self, identity: Identity) {
        self.current = Arc::default();
        self.current.set(identity);
    }

    fn tls(&self) -> ClientConfig {
        self.current.client_config().unwrap()
    }

    pub async fn dial(&self, path: &str) -> Result<Socket, tungstenite::Error> {
        let url = format!("{}{path}", self.base).replacen("http", "ws", 1);
        let connector = Connector::Rustls(Arc::new(self.tls()));
        let dialled = connect_async_tls_with_config(url, None, false, Some(connector)).await;
        dialled.map(|(socket, _)| socket)
    }

    /// The first frame of a session.
    pub fn hello(&self) -> Value {
        let room = json!({ "vcpus": 4, "memory_mib": 4096, "disk_mib": 40_960 });
        let capabilities = json!({
            "hypervisor": "none", "accelerator": "simulated", "accelerator_note": "",
            "hot_resize": false,
        });
        json!({
            "frame": "hello", "protocol": { "min": 3, "max": 3 }, "agent_version": "0",
            "host_id": self.id, "name": self.name, "zone": "default", "capacity": room,
            "inventory": [], "session_number": self.session_number, "capabilities": capabilities,
        })
    }

    /// Says hello; what the server answers.
    pub async fn knock(&self) -> (Socket, Value) {
        self.knock_with(self.hello().to_string()).await
    }

    /// Says this first; what the server answers.
    pub async fn knock_with(&self, first: String) -> (Socket, Value) {
        let mut socket = self.dial("/agent/v1/session").await.unwrap();
        socket.send(Message::text(first)).await.unwrap();
        let answer = heard(&mut socket).await.unwrap();
        (socket, answer)
    }

    /// A session that is open, with its number on the disk.
    pub async fn session(&mut self) -> Socket {
        self.session_with(self.hello()).await
    }

    /// The same, after this hello.
    pub async fn session_with(&mut self, hello: Value) -> Socket {
        let (mut socket, welcome) = self.knock_with(hello.to_string()).await;
        assert_eq!(welcome["frame"], "welcome", "{welcome}");
        self.session_number = welcome["session_number"].as_u64().unwrap();
        let ready = json!({ "frame": "ready", "session_number": self.session_number });
        say(&mut socket, ready).await;
        socket
    }
}

/// The reason why the server closed.
pub async fn closed(socket: &mut Socket) -> String {
    let waited = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame.reason.to_string(),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    waited.await.unwrap()
}

/// The session is alive: a heartbeat is answered.
pub async fn is_alive(socket: &mut Socket) -> bool {
    let beat = json!({ "frame": "heartbeat" }).to_string();
    if socket.send(Message::text(beat)).await.is_err() {
        return false;
    }
    while let Some(frame) = heard(socket).await {
        if frame["frame"] == "heartbeat" {
            return true;
        }
    }
    false
}

fn http(tls: ClientConfig) -> reqwest::Client {
    reqwest::Client::builder()
        .use_preconfigured_tls(tls)
        .no_proxy()
        .build()
        .unwrap()
}
