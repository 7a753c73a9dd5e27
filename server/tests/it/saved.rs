//! Saved machines come from their host and go to it, in pieces where the
//! connection broke.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::time::timeout;
use vimana_model::{VmId, VmState};
use vimana_server::start;

use crate::agent::Agent;
use crate::clock::{command, end};
use crate::fleet::Socket;
use crate::image::sha256;
use crate::strange::Scene;
use crate::watch::PATIENCE;
use crate::world::{World, client, config, problem};

const SIZE: usize = 200_000;

/// A host that is asked to copy a machine of it to the datastore.
struct Host {
    scene: Scene,
    session: Socket,
    asked: Value,
    place: String,
}

impl Host {
    async fn new() -> Self {
        let mut scene = Scene::new().await;
        let hello = scene.hello();
        let mut session = scene.session(hello).await;
        let id = scene.vm.id;
        scene.watch.client.stop_vm(id).await.unwrap();
        let save = command(&mut session).await;
        let fine = json!({ "outcome": "ok" });
        assert_eq!(end(&mut session, &save, fine).await, "save");
        let asked = command(&mut session).await;
        assert_eq!(asked["work"]["work"], "upload");
        Self {
            place: format!("/agent/v1/saved/{id}/1"),
            scene,
            session,
            asked,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let path = format!("{}/{path}", self.place);
        self.scene.agent.request(method, &path)
    }

    async fn received(&self, part: &str) -> Value {
        let request = self.request(Method::GET, &format!("{part}/received"));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    async fn put(&self, part: &str, offset: Option<String>, bytes: &[u8]) -> Response {
        let mut request = self.request(Method::PUT, part);
        if let Some(offset) = offset {
            request = request.header("upload-offset", offset);
        }
        request.body(bytes.to_vec()).send().await.unwrap()
    }

    /// Sends so much of what was announced, and hangs up; returns when that is
    /// on the server's disk.
    async fn break_off(&self, part: &str, offset: Option<usize>, bytes: &[u8]) {
        let before = self.staged(part);
        let going = self.begin(part, offset, bytes);
        let here = before + bytes.len() as u64;
        let arrives = async {
            while self.staged(part) != here {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            answer = going.send() => panic!("{answer:?}"),
            arrived = timeout(PATIENCE, arrives) => arrived.unwrap(),
        }
    }

    /// A body that gets stuck after these bytes.
    fn begin(&self, part: &str, offset: Option<usize>, bytes: &[u8]) -> RequestBuilder {
        let first = stream::iter([Ok::<_, std::io::Error>(Bytes::copy_from_slice(bytes))]);
        let body = reqwest::Body::wrap_stream(first.chain(stream::pending()));
        let mut request = self.request(Method::PUT, part).body(body);
        if let Some(offset) = offset {
            request = request.header("upload-offset", offset);
        }
        request.header("content-length", SIZE - offset.unwrap_or(0))
    }

    fn datastore(&self) -> PathBuf {
        self.scene.world.dir.path().join("data/saved")
    }

    fn staged(&self, part: &str) -> u64 {
        let name = format!(".staged/{}.1.{part}", self.scene.vm.id);
        let file = std::fs::metadata(self.datastore().join(name));
        file.map_or(0, |file| file.len())
    }

    fn whole(&self, part: &str) -> PathBuf {
        let name = format!("{}/1/{part}", self.scene.vm.id);
        self.datastore().join(name)
    }

    /// All of it has come: the machine is stopped, and then asked for.
    async fn resume(&mut self, parts: Value) {
        let copy = json!({ "run_epoch": 1, "hypervisor": "none", "parts": parts });
        let saved = json!({ "outcome": "ok", "saved": copy });
        end(&mut self.session, &self.asked, saved).await;
        let clean = command(&mut self.session).await;
        let fine = json!({ "outcome": "ok" });
        assert_eq!(end(&mut self.session, &clean, fine).await, "clean");
        let id = self.scene.vm.id;
        self.scene.watch.until_vm(id, VmState::Stopped).await;
        self.scene.watch.client.resume_vm(id).await.unwrap();
        let stopped = self.scene.watch.client.vm(id).await.unwrap();
        crate::strange::proposed(&self.scene.world, stopped.id, &self.scene.agent).await;
        self.asked = command(&mut self.session).await;
        assert_eq!(self.asked["work"]["work"], "download");
    }
}

fn bytes() -> Vec<u8> {
    (0..=250).cycle().take(SIZE).collect()
}

fn received(bytes: &[u8], whole: bool) -> Value {
    json!({ "size_bytes": bytes.len(), "sha256": sha256(bytes), "whole": whole })
}

#[tokio::test]
async fn an_upload_that_broke_off_goes_on_and_appears_as_a_whole() {
    let host = Box::pin(Host::new()).await;
    let bytes = bytes();
    assert_eq!(host.received("memory").await, received(b"", false));
    let mut at = 0;
    for cut in [1, 70_000, SIZE - 1] {
        let offset = (at > 0).then_some(at);
        host.break_off("memory", offset, &bytes[at..cut]).await;
        assert_eq!(
            host.received("memory").await,
            received(&bytes[..cut], false)
        );
        assert!(!host.whole("memory").exists());
        at = cut;
    }
    let wrong = [0, at - 1, at + 1, SIZE];
    for wrong in wrong {
        let answer = host.put("memory", Some(wrong.to_string()), b"?").await;
        assert_eq!(answer.headers()["upload-offset"], at.to_string());
        let says = problem(answer, 409).await["detail"].clone();
        assert_eq!(says, format!("the memory goes on at byte {at}"));
    }
    for strange in [
        "",
        "-1",
        "+1",
        "1.0",
        "0x1",
        " ",
        "99999999999999999999",
        "1, 2",
    ] {
        let answer = host.put("memory", Some(strange.to_owned()), b"?").await;
        problem(answer, 400).await;
    }
    let answer = host.put("memory", Some(at.to_string()), &bytes[at..]).await;
    assert_eq!(answer.status(), 200);
    let stored: Value = answer.json().await.unwrap();
    let expected = json!({ "size_bytes": SIZE, "sha256": sha256(&bytes) });
    assert_eq!(stored, expected, "of the whole");
    assert_eq!(std::fs::read(host.whole("memory")).unwrap(), bytes);
    assert_eq!(host.staged("memory"), 0);
    assert_eq!(host.received("memory").await, received(&bytes, true));
    // Whoever knows nothing of offsets sends it anew.
    assert_eq!(host.put("memory", None, b"anew").await.status(), 200);
    assert_eq!(std::fs::read(host.whole("memory")).unwrap(), b"anew");
}

#[tokio::test]
async fn a_later_upload_takes_over_from_one_that_is_stuck() {
    let host = Box::pin(Host::new()).await;
    let bytes = bytes();
    let stuck = tokio::spawn(host.begin("disk", None, &bytes[..50_000]).send());
    let arrives = async {
        while host.staged("disk") != 50_000 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, arrives).await.unwrap();
    // Well before the first one would be given up.
    let asked = timeout(PATIENCE, host.received("disk")).await.unwrap();
    assert_eq!(asked, received(&bytes[..50_000], false));
    let rest = host.put("disk", Some("50000".to_owned()), &bytes[50_000..]);
    assert_eq!(timeout(PATIENCE, rest).await.unwrap().status(), 200);
    assert_eq!(std::fs::read(host.whole("disk")).unwrap(), bytes);
    if let Ok(answer) = timeout(PATIENCE, stuck).await.unwrap().unwrap() {
        problem(answer, 503).await;
    }
}

#[tokio::test]
async fn what_is_staged_is_its_hosts_alone() {
    let host = Box::pin(Host::new()).await;
    host.break_off("disk", None, b"half").await;
    let stranger = Agent::joined(&host.scene.world, 2).await;
    let path = |rest: &str| format!("{}/{rest}", host.place);
    for path in [
        path("disk/received"),
        path("disk"),
        path("disk/received").replace("/1/disk", "/2/disk"),
        path("disk/received").replace("/disk/", "/%2e%2e/"),
        path("disk/received").replace("/1/disk", "/-1/disk"),
    ] {
        let answer = stranger.get(&path).await.unwrap();
        let status = answer.status().as_u16();
        assert!([400, 404].contains(&status), "{path}: {status}");
    }
    let refused = stranger.request(Method::PUT, &path("disk"));
    let refused = refused.header("upload-offset", 4).body("!").send().await;
    problem(refused.unwrap(), 404).await;
    assert_eq!(host.received("disk").await, received(b"half", false));
}

#[tokio::test]
async fn a_download_goes_on_where_it_is_asked_to() {
    let mut host = Box::pin(Host::new()).await;
    let bytes = bytes();
    let mut parts = Vec::new();
    for part in ["disk", "memory"] {
        assert_eq!(host.put(part, None, &bytes).await.status(), 200);
        parts.push(json!({ "part": part, "size_bytes": SIZE, "sha256": sha256(&bytes) }));
    }
    host.resume(json!(parts)).await;
    let get = async |range: Option<&str>| {
        let mut request = host.request(Method::GET, "memory");
        if let Some(range) = range {
            request = request.header("range", range);
        }
        request.send().await.unwrap()
    };
    let all = get(None).await;
    assert_eq!(all.status(), 200);
    assert_eq!(all.headers()["content-length"], SIZE.to_string());
    assert_eq!(all.bytes().await.unwrap(), bytes);
    for from in [0, 1, 4096, SIZE - 1] {
        let rest = get(Some(&format!("bytes={from}-"))).await;
        assert_eq!(rest.status(), 206);
        let range = format!("bytes {from}-{}/{SIZE}", SIZE - 1);
        assert_eq!(rest.headers()["content-range"], range);
        assert_eq!(rest.headers()["content-length"], (SIZE - from).to_string());
        assert_eq!(rest.bytes().await.unwrap(), bytes[from..]);
    }
    for beyond in [SIZE, SIZE + 1] {
        let answer = get(Some(&format!("bytes={beyond}-"))).await;
        assert_eq!(answer.status(), 416);
        assert_eq!(answer.headers()["content-range"], format!("bytes */{SIZE}"));
    }
    for strange in [
        "bytes=",
        "bytes=-5",
        "bytes=0-5",
        "bytes=0-,7-",
        "0-",
        "bytes=+1-",
    ] {
        problem(get(Some(strange)).await, 400).await;
    }
}

#[tokio::test]
async fn what_came_of_uploads_that_are_over_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let staging = dir.path().join("data/saved/.staged");
    std::fs::create_dir_all(&staging).unwrap();
    let left = staging.join(format!("{}.1.disk", VmId::from_parts(1, [9; 10])));
    let theirs = staging.join("notes.txt");
    for file in [&left, &theirs] {
        std::fs::write(file, b"half").unwrap();
    }
    let running = start(config(dir.path())).await.unwrap();
    let http = client();
    let _world = World { running, dir, http };
    let goes = async {
        while left.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, goes).await.unwrap();
    assert!(theirs.exists());
}
