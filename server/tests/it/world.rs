//! One server per test.

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use clap::Parser;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use vimana_engine::{Clock, SystemClock};
use vimana_model::Timestamp;
use vimana_pki::JoinToken;
use vimana_server::config::AdminPassword;
use vimana_server::{Config, Running, start, start_in};

pub const PASSWORD: &str = "correct horse";

pub struct World {
    pub running: Running,
    pub dir: TempDir,
    pub http: Client,
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let running = start(config(dir.path())).await.unwrap();
        Self {
            running,
            dir,
            http: client(),
        }
    }

    /// With clocks that the test holds.
    pub async fn clocked() -> (Self, Arc<Clocks>) {
        let dir = tempfile::tempdir().unwrap();
        let clocks = Arc::new(Clocks::default());
        let world = vimana_engine::World::seeded(Arc::clone(&clocks) as Arc<dyn Clock>, 1);
        let running = start_in(config(dir.path()), world).await.unwrap();
        let http = client();
        (Self { running, dir, http }, clocks)
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.running.url())
    }

    pub fn websocket_url(&self, path: &str) -> String {
        self.url(path).replacen("http", "ws", 1)
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(self.url(path))
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(self.url(path))
    }

    /// A fresh token of the administrator.
    pub async fn token(&self) -> String {
        let form = json!({ "user_name": "admin", "password": PASSWORD });
        let answer = self
            .post("/api/v1/tokens")
            .json(&form)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201);
        let token: Value = answer.json().await.unwrap();
        token["token"].as_str().unwrap().to_owned()
    }

    /// A permission for a host to join.
    pub async fn join_token(&self) -> JoinToken {
        self.join_token_of(json!({})).await
    }

    pub async fn join_token_of(&self, form: Value) -> JoinToken {
        let token = self.token().await;
        let request = self.post("/api/v1/hosts/join-tokens").json(&form);
        let answer = request.bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let view: Value = answer.json().await.unwrap();
        view["token"].as_str().unwrap().parse().unwrap()
    }

    /// Signs in as the portal does; the answer carries the cookie.
    pub async fn sign_in(&self, cookie: Option<&str>) -> Response {
        let form = json!({ "user_name": "admin", "password": PASSWORD });
        let mut request = self.post("/portal/api/sign-in").json(&form);
        request = request.header("origin", self.running.url());
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        request.send().await.unwrap()
    }

    /// A held VM and the newest event about it.
    pub async fn held_vm(&self, token: &str, name: &str) -> (String, u64) {
        let form = json!({ "name": name, "image": "demo", "flavor": "tiny", "hold": true });
        let answer = self.post("/api/v1/vms").bearer_auth(token).json(&form);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 202);
        let accepted: Value = answer.json().await.unwrap();
        let id = accepted["vm"]["id"].as_str().unwrap().to_owned();
        let timeline = self.get(&format!("/api/v1/vms/{id}/timeline"));
        let timeline = timeline.bearer_auth(token).send().await.unwrap();
        let timeline: Value = timeline.json().await.unwrap();
        let newest = timeline["items"].as_array().unwrap().last().unwrap()["seq"].as_u64();
        (id, newest.unwrap())
    }
}

/// The machine's clocks, moved by hand.
#[derive(Default)]
pub struct Clocks {
    /// How far off the wall clock is set.
    off_ms: AtomicI64,
    /// How much more time than really has passed.
    passed_ms: AtomicU64,
}

impl Clocks {
    /// Sets the wall clock so far off the right time.
    pub fn set(&self, ms: i64) {
        self.off_ms.store(ms, Ordering::SeqCst);
    }

    /// Lets time pass.
    pub fn pass(&self, ms: u64) {
        self.passed_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for Clocks {
    fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.passed_ms.load(Ordering::SeqCst)).unwrap();
        let off = self.off_ms.load(Ordering::SeqCst);
        SystemClock.now().plus_ms(passed).plus_ms(off)
    }

    fn passed(&self) -> Duration {
        SystemClock.passed() + Duration::from_millis(self.passed_ms.load(Ordering::SeqCst))
    }
}

pub fn client() -> Client {
    static TLS: Once = Once::new();
    TLS.call_once(|| {
        rustls::crypto::ring::default_provider()
            .install_default()
            .unwrap();
    });
    let redirect = reqwest::redirect::Policy::none();
    Client::builder()
        .no_proxy()
        .redirect(redirect)
        .build()
        .unwrap()
}

/// A configuration with an image and a site, both as small as they get.
pub fn config(dir: &Path) -> Config {
    let site = dir.join("site");
    std::fs::create_dir_all(site.join("assets")).unwrap();
    let names = json!({
        "js": "app.0.js", "loader": "loader.0.js", "wasm": "app.0.wasm", "chunks": {},
        "css": "app.0.css",
        "console_js": "console.0.js", "upload_js": "upload.0.js", "icon": "icon.0.svg",
    });
    std::fs::write(
        site.join("manifest.json"),
        json!({ "entry": names }).to_string(),
    )
    .unwrap();
    std::fs::write(site.join("assets/app.0.wasm"), "plain").unwrap();
    std::fs::write(site.join("assets/app.0.wasm.br"), "brotli").unwrap();
    std::fs::write(site.join("assets/app.0.wasm.gz"), "gzip").unwrap();
    let image = dir.join("demo.qcow2");
    std::fs::write(&image, qcow2()).unwrap();
    let import = format!("demo={}", image.display());
    let data = dir.join("data");
    let mut config = Config::parse_from([
        "vimana-server",
        "--listen=127.0.0.1:0",
        "--agent-listen=127.0.0.1:0",
        "--data-dir",
        data.to_str().unwrap(),
        "--site-dir",
        site.to_str().unwrap(),
        "--import-image",
        &import,
    ]);
    config.admin_password = Some(AdminPassword(PASSWORD.to_owned()));
    config
}

/// An empty qcow2 image with a disk of 1 MiB, as far as its header goes.
pub fn qcow2() -> Vec<u8> {
    let mut image = vec![0; 3 << 16];
    image[..8].copy_from_slice(b"QFI\xfb\0\0\0\x02");
    image[20..24].copy_from_slice(&16_u32.to_be_bytes());
    image[24..32].copy_from_slice(&(1_u64 << 20).to_be_bytes());
    image[36..40].copy_from_slice(&1_u32.to_be_bytes());
    image[40..48].copy_from_slice(&(2_u64 << 16).to_be_bytes());
    image[48..56].copy_from_slice(&(1_u64 << 16).to_be_bytes());
    image[56..60].copy_from_slice(&1_u32.to_be_bytes());
    image
}

/// The problem document of a refusal with this status.
pub async fn problem(answer: Response, status: u16) -> Value {
    assert_eq!(answer.status().as_u16(), status);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert!(answer.headers().contains_key("x-request-id"));
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["status"], status);
    problem
}
