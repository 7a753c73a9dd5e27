//! Images that people send, in parts and in pieces of parts, and images from
//! the server's own machine.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};
use vimana_model::image::ImageState;
use vimana_server::start;

use crate::image::{failed, sha256, until, zstd};
use crate::watch::{PATIENCE, Watch};
use crate::world::{PASSWORD, World, client, config, problem, qcow2};

const PART: &str = "application/offset+octet-stream";

fn form(name: &str, bytes: &[u8]) -> Value {
    json!({ "name": name, "upload": { "size_bytes": bytes.len(), "file_name": "disk.img" } })
}

fn path(id: &str) -> String {
    format!("/api/v1/images/{id}/content")
}

fn offset(answer: &Response) -> (u64, u64) {
    let header = |name: &str| answer.headers()[name].to_str().unwrap().parse().unwrap();
    (header("upload-offset"), header("upload-length"))
}

/// Bytes that do not pack, and that differ everywhere.
fn noise(length: u32) -> Vec<u8> {
    let mixed = |n: u32| n.wrapping_mul(2_654_435_761).rotate_left(n % 29);
    (0..length).map(|n| mixed(n).to_le_bytes()[1]).collect()
}

impl World {
    async fn part(&self, token: &str, id: &str, at: u64, bytes: &[u8]) -> Response {
        send(&self.http, &self.url(&path(id)), token, at, bytes).await
    }

    async fn reach(&self, token: &str, id: &str) -> Response {
        let request = self.http.head(self.url(&path(id)));
        request.bearer_auth(token).send().await.unwrap()
    }

    /// A part of which only the beginning is sent, so far.
    async fn begun_part(&self, token: &str, id: &str, of: usize, bytes: &[u8]) -> TcpStream {
        let head = format!(
            "PATCH {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             upload-offset: 0\r\ncontent-type: {PART}\r\ncontent-length: {of}\r\n\r\n",
            path(id)
        );
        let mut socket = TcpStream::connect(self.running.address()).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let taken = async {
            loop {
                let image = self.image(token, id).await;
                let done = image["operation"]["progress"]["done_bytes"].as_u64();
                if done == Some(bytes.len() as u64) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, taken).await.unwrap();
        socket
    }

    /// Waits until so much is here for good.
    async fn until_here(&self, token: &str, id: &str, bytes: u64) {
        let here = async {
            while offset(&self.reach(token, id).await).0 != bytes {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, here).await.unwrap();
    }
}

/// Where an image has 1 GiB at most.
async fn bounded() -> World {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.import_max_gib = 1;
    let running = start(config).await.unwrap();
    let http = client();
    World { running, dir, http }
}

async fn send(http: &Client, url: &str, token: &str, at: u64, bytes: &[u8]) -> Response {
    let request = http.patch(url).bearer_auth(token);
    let request = request.header("upload-offset", at);
    let request = request.header("content-type", PART).body(bytes.to_vec());
    request.send().await.unwrap()
}

#[tokio::test]
async fn an_image_is_sent_in_parts_and_taken_in_like_any_other() {
    let world = World::new().await;
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    let bytes = qcow2();
    let mut form = form("mine", &bytes);
    form["checksum"] = sha256(&bytes).into();
    let (id, operation) = world.importing(&token, form).await;
    let length = bytes.len() as u64;
    let mut at = 0;
    for part in bytes.chunks(70_000) {
        let image = world.image(&token, &id).await;
        assert_eq!(image["state"], "importing");
        assert_eq!(image["operation"]["steps"][0]["state"], "running");
        let reach = world.reach(&token, &id).await;
        assert_eq!(reach.status(), 204);
        assert_eq!(offset(&reach), (at, length));
        let answer = world.part(&token, &id, at, part).await;
        assert_eq!(answer.status(), 204);
        at += part.len() as u64;
        assert_eq!(offset(&answer), (at, length));
    }
    let image = until(&mut watch, ImageState::Ready).await;
    assert_eq!(image["id"], id);
    assert_eq!(image["content"]["format"], "qcow2");
    assert_eq!(image["content"]["sha256"], sha256(&bytes));
    let checksum = format!("SHA-256 {}", sha256(&bytes));
    assert_eq!(
        image["origin"],
        json!({
            "kind": "upload", "file_name": "disk.img", "size_bytes": length,
            "fetched": { "size_bytes": length, "checksum": checksum, "verified": true },
        })
    );
    let path = format!("/api/v1/operations/{operation}");
    assert_eq!(world.ask(&token, &path).await["state"], "succeeded");
    assert_eq!(world.files_of(&id).len(), 1);
    // Whoever missed the last answer learns that all is there.
    assert_eq!(offset(&world.reach(&token, &id).await), (length, length));
    let late = problem(world.part(&token, &id, length, b"x").await, 409).await;
    assert_eq!(late["detail"], "image `mine` was uploaded already");
    assert_eq!(world.files_of(&id).len(), 1);
}

#[tokio::test]
async fn what_is_packed_is_unpacked_and_empty_room_stays_empty() {
    let world = World::new().await;
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    let disk = vec![7; 3 << 20];
    let packed = zstd(&disk);
    let (id, _) = world.importing(&token, form("raw", &packed)).await;
    assert_eq!(world.part(&token, &id, 0, &packed).await.status(), 204);
    let image = until(&mut watch, ImageState::Ready).await;
    assert_eq!(image["content"]["format"], "raw");
    assert_eq!(image["content"]["sha256"], sha256(&disk));
    assert_eq!(image["origin"]["fetched"]["verified"], false);
}

#[tokio::test]
async fn of_a_part_that_is_cut_what_came_is_kept() {
    let world = World::new().await;
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    let bytes = noise(3 << 20);
    let (id, _) = world.importing(&token, form("mine", &bytes)).await;
    for abrupt in [false, true] {
        let (id, _) = match abrupt {
            false => (id.clone(), String::new()),
            true => world.importing(&token, form("other", &bytes)).await,
        };
        let socket = world.begun_part(&token, &id, 2 << 20, &bytes[..1_500_000]);
        let socket = socket.await;
        if abrupt {
            socket.set_zero_linger().unwrap();
        }
        drop(socket);
        world.until_here(&token, &id, 1_500_000).await;
        let rest = world.part(&token, &id, 1_500_000, &bytes[1_500_000..]);
        assert_eq!(rest.await.status(), 204);
        let image = until(&mut watch, ImageState::Ready).await;
        assert_eq!(image["content"]["sha256"], sha256(&bytes));
    }
}

#[tokio::test]
async fn of_two_parts_at_once_one_wins() {
    let world = World::new().await;
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    let bytes = noise(300_000);
    let (id, _) = world.importing(&token, form("mine", &bytes)).await;
    let mut first = world
        .begun_part(&token, &id, bytes.len(), &bytes[..100_000])
        .await;
    let second = problem(world.part(&token, &id, 0, &bytes).await, 409).await;
    let told = second["detail"].as_str().unwrap();
    assert!(told.contains("by another request"), "{told}");
    assert_eq!(offset(&world.reach(&token, &id).await).0, 0);
    first.write_all(&bytes[100_000..]).await.unwrap();
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 204");
    let image = until(&mut watch, ImageState::Ready).await;
    assert_eq!(image["content"]["sha256"], sha256(&bytes));
}

#[tokio::test]
async fn the_offset_is_the_key_of_a_part() {
    let world = World::new().await;
    let token = world.token().await;
    let bytes = noise(300_000);
    let (id, _) = world.importing(&token, form("mine", &bytes)).await;
    let ahead = problem(world.part(&token, &id, 5, &bytes).await, 409).await;
    assert_eq!(ahead["detail"], "image `mine` goes on at byte 0, not at 5");
    let part = &bytes[..100_000];
    assert_eq!(world.part(&token, &id, 0, part).await.status(), 204);
    // Sent again, as by somebody who missed the answer.
    let again = problem(world.part(&token, &id, 0, part).await, 409).await;
    assert_eq!(
        again["detail"],
        "image `mine` goes on at byte 100000, not at 0"
    );
    assert_eq!(offset(&world.reach(&token, &id).await).0, 100_000);
}

#[tokio::test]
async fn what_is_no_part_is_refused_in_words_and_changes_nothing() {
    let world = bounded().await;
    let token = world.token().await;
    let bytes = noise(300_000);
    let (id, _) = world.importing(&token, form("mine", &bytes)).await;
    assert_eq!(
        world.part(&token, &id, 0, &bytes[..1000]).await.status(),
        204
    );
    let url = world.url(&path(&id));
    let patch = |offset: &str, kind: &str| {
        let request = world.http.patch(&url).bearer_auth(&token);
        let request = request.header("content-type", kind.to_owned());
        request.header("upload-offset", offset.to_owned())
    };
    // More than it was said to have, announced or not, and far more than a part.
    let longer = noise(300_001);
    let many = || {
        let chunks = (0..17).map(|_| Ok::<_, std::io::Error>(vec![1; 1 << 20]));
        reqwest::Body::wrap_stream(futures::stream::iter(chunks))
    };
    let told = problem(world.part(&token, &id, 1000, &longer).await, 422).await;
    let told = told["detail"].as_str().unwrap();
    assert!(told.contains("300000 bytes"), "{told}");
    let unannounced = patch("1000", PART).body(many()).send().await.unwrap();
    problem(unannounced, 422).await;
    let announced = patch("1000", PART).header("content-length", 17 << 20);
    let announced = announced.body(many()).send().await.unwrap();
    let told = problem(announced, 413).await;
    assert_eq!(told["detail"], "the part is larger than 16 MiB");
    for wrong in ["", "-1", "+1000", "1e3", "99999999999999999999"] {
        problem(patch(wrong, PART).send().await.unwrap(), 400).await;
    }
    for wrong in ["application/json", "application/octet-stream"] {
        let refused = patch("1000", wrong).body(vec![1]).send().await.unwrap();
        problem(refused, 415).await;
    }
    let foreign = patch("1000", PART).header("origin", "http://evil");
    problem(foreign.body(vec![1]).send().await.unwrap(), 403).await;
    assert_eq!(offset(&world.reach(&token, &id).await).0, 1000);
    // An image that nobody uploads, and one that nobody made.
    let images = world.ask(&token, "/api/v1/images").await;
    let demo = images["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|image| image["name"] == "demo");
    let demo = demo.unwrap()["id"].as_str().unwrap();
    let refused = problem(world.part(&token, demo, 0, &bytes).await, 409).await;
    assert_eq!(refused["detail"], "image `demo` is not uploaded");
    let there = world.reach(&token, demo).await;
    assert_eq!(there.status(), 200, "it can be downloaded");
    assert!(!there.headers().contains_key("upload-offset"));
    let none = format!("image_{}", "0".repeat(32));
    problem(world.part(&token, &none, 0, &bytes).await, 404).await;
    assert_eq!(world.reach(&token, &none).await.status(), 404);

    for (upload, field) in [
        (
            json!({ "size_bytes": 0, "file_name": "x" }),
            "upload.size_bytes",
        ),
        (
            json!({ "size_bytes": (1_u64 << 30) + 1, "file_name": "x" }),
            "upload.size_bytes",
        ),
        (
            json!({ "size_bytes": 1, "file_name": "" }),
            "upload.file_name",
        ),
        (
            json!({ "size_bytes": 1, "file_name": "../../../etc/cron.d/x" }),
            "upload.file_name",
        ),
        (
            json!({ "size_bytes": 1, "file_name": "/etc/passwd" }),
            "upload.file_name",
        ),
        (
            json!({ "size_bytes": 1, "file_name": "a\u{0}b" }),
            "upload.file_name",
        ),
        (
            json!({ "size_bytes": 1, "file_name": "x".repeat(256) }),
            "upload.file_name",
        ),
    ] {
        let form = json!({ "name": "bad", "upload": upload });
        let refused = problem(world.import(&token, form).await, 422).await;
        assert_eq!(refused["errors"][0]["field"], field, "{upload}");
    }
    let two = json!({ "name": "bad", "url": "http://198.41.0.4/x", "path": "/x" });
    let refused = problem(world.import(&token, two).await, 422).await;
    assert_eq!(refused["errors"][0]["field"], "path");
    let none = problem(world.import(&token, json!({ "name": "bad" })).await, 422).await;
    assert_eq!(none["errors"][0]["field"], "url");
    let unknown =
        json!({ "name": "bad", "upload": { "size_bytes": 1, "file_name": "x", "to": 1 } });
    problem(world.import(&token, unknown).await, 400).await;
}

#[tokio::test]
async fn a_file_is_called_what_it_likes_and_that_leads_nowhere() {
    let world = World::new().await;
    let token = world.token().await;
    let bytes = noise(1000);
    for (n, name) in [
        "..",
        "..\\..\\x",
        "%2e%2e%2fx",
        "$(id)",
        "-rf",
        "né \u{202e}.img",
    ]
    .into_iter()
    .enumerate()
    {
        let mut form = form(&format!("mine-{n}"), &bytes);
        form["upload"]["file_name"] = name.into();
        let (id, _) = world.importing(&token, form).await;
        assert_eq!(world.part(&token, &id, 0, &bytes[..10]).await.status(), 204);
        assert_eq!(world.image(&token, &id).await["origin"]["file_name"], name);
        let staging = world.files_of(&id).remove(0);
        let mut files: Vec<_> = std::fs::read_dir(staging)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, ["download", "lock", "source.json"]);
    }
}

#[tokio::test]
async fn another_tenants_upload_does_not_exist() {
    let world = World::new().await;
    for tenant in ["one", "two"] {
        world.tenant(tenant, "automatic").await;
    }
    let ann = world.member("ann", "one", "operator").await;
    let bob = world.member("bob", "two", "manager").await;
    let vic = world.member("vic", "one", "viewer").await;
    let bytes = noise(1000);
    let (id, _) = world.importing(&ann, form("mine", &bytes)).await;
    problem(world.part(&bob, &id, 0, &bytes).await, 404).await;
    assert_eq!(world.reach(&bob, &id).await.status(), 404);
    problem(world.part(&vic, &id, 0, &bytes).await, 403).await;
    assert_eq!(offset(&world.reach(&vic, &id).await), (0, 1000));
    assert_eq!(world.part(&ann, &id, 0, &bytes).await.status(), 204);
}

#[tokio::test]
async fn what_is_no_honest_image_fails_once_it_has_come_and_leaves_nothing() {
    let world = bounded().await;
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    let mut backed = qcow2();
    backed[8..16].copy_from_slice(&72_u64.to_be_bytes());
    backed[16..20].copy_from_slice(&11_u32.to_be_bytes());
    backed[72..83].copy_from_slice(b"/etc/shadow");
    let with = |bytes: &[u8], key: &str, value: &str| {
        let mut form = form("bad", bytes);
        form[key] = value.into();
        (form, bytes.to_vec())
    };
    let nested = zstd(&zstd(&vec![0; 1 << 20]));
    let bomb = zstd(&vec![0; (1 << 30) + 1]);
    let cases = [
        ("backing file", with(&backed, "name", "bad")),
        (
            "not a raw image as was said",
            with(&backed, "format", "raw"),
        ),
        (
            "another SHA-256",
            with(&qcow2(), "checksum", &"0".repeat(64)),
        ),
        ("zstd", with(&nested, "name", "bad")),
        (
            "larger than the 1073741824 bytes",
            with(&bomb, "name", "bad"),
        ),
        (
            "web page",
            with(b"<!DOCTYPE html><html></html>", "name", "bad"),
        ),
    ];
    for (expected, (form, bytes)) in cases {
        let (id, operation) = world.importing(&token, form).await;
        assert_eq!(world.part(&token, &id, 0, &bytes).await.status(), 204);
        let ids = (id.as_str(), operation.as_str());
        let why = failed(&world, &mut watch, &token, ids).await;
        assert!(why.contains(expected), "{expected}: {why}");
    }
}

#[tokio::test]
async fn what_is_cancelled_or_deleted_is_gone_and_begins_anew() {
    let world = World::new().await;
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    let bytes = noise(300_000);
    let (id, operation) = world.importing(&token, form("mine", &bytes)).await;
    assert_eq!(
        world.part(&token, &id, 0, &bytes[..1000]).await.status(),
        204
    );
    let cancel = world.post(&format!("/api/v1/operations/{operation}/cancel"));
    let cancelled = cancel.bearer_auth(&token).send().await.unwrap();
    assert_eq!(cancelled.status(), 202);
    assert_eq!(world.files_of(&id), [] as [&Path; 0]);
    let refused = problem(world.part(&token, &id, 1000, &bytes[1000..]).await, 409).await;
    let told = refused["detail"].as_str().unwrap();
    assert!(told.contains("import it again first"), "{told}");
    assert_eq!(world.reach(&token, &id).await.status(), 409);
    assert_eq!(world.files_of(&id), [] as [&Path; 0]);

    assert_eq!(world.act(&token, &id, "retry").await.status(), 200);
    assert_eq!(offset(&world.reach(&token, &id).await), (0, 300_000));
    assert_eq!(world.part(&token, &id, 0, &bytes).await.status(), 204);
    let image = until(&mut watch, ImageState::Ready).await;
    assert_eq!(image["content"]["sha256"], sha256(&bytes));

    // While a part of it comes.
    let (id, _) = world.importing(&token, form("other", &bytes)).await;
    let mut part = world.begun_part(&token, &id, 300_000, &bytes[..1000]).await;
    assert_eq!(world.act(&token, &id, "delete").await.status(), 200);
    let mut answer = [0; 12];
    part.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 409");
    world.until_nothing_is_left(&id).await;
    problem(world.part(&token, &id, 0, &bytes).await, 409).await;
    assert_eq!(world.files_of(&id), [] as [&Path; 0]);
}

#[tokio::test]
async fn an_upload_that_nobody_goes_on_with_fails_after_a_day() {
    let (world, clocks) = World::clocked().await;
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    let bytes = noise(1000);
    let (id, operation) = world.importing(&token, form("mine", &bytes)).await;
    let hour = 3600 * 1000;
    // The clock that people set does not count.
    clocks.set(30 * 24 * i64::try_from(hour).unwrap());
    clocks.pass(23 * hour);
    let token = world.token().await;
    assert_eq!(world.part(&token, &id, 0, &bytes[..10]).await.status(), 204);
    clocks.pass(23 * hour);
    let token = world.token().await;
    assert_eq!(world.image(&token, &id).await["state"], "importing");
    clocks.pass(2 * hour);
    let token = world.token().await;
    let ids = (id.as_str(), operation.as_str());
    let why = failed(&world, &mut watch, &token, ids).await;
    assert_eq!(
        why,
        "the source was not sent to its end: nothing came for 24 hours"
    );
}

#[tokio::test]
async fn a_part_that_stops_coming_is_given_up_and_what_came_is_kept() {
    let world = World::new().await;
    let token = world.token().await;
    let bytes = noise(300_000);
    let (id, _) = world.importing(&token, form("mine", &bytes)).await;
    let mut part = world.begun_part(&token, &id, 300_000, &bytes[..1000]).await;
    let mut answer = vec![0; 12];
    let told = timeout(PATIENCE, part.read_exact(&mut answer)).await;
    told.unwrap().unwrap();
    assert_eq!(answer, b"HTTP/1.1 400");
    world.until_here(&token, &id, 1000).await;
    let rest = world.part(&token, &id, 1000, &bytes[1000..]).await;
    assert_eq!(rest.status(), 204);
}

/// The server as a process of its own, to be killed.
struct Killable {
    child: Child,
    url: String,
}

impl Killable {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vimana-server"))
            .args(["--listen=127.0.0.1:0", "--agent-listen=127.0.0.1:0"])
            .arg("--data-dir")
            .arg(dir.join("data"))
            .env_clear()
            .env("VIMANA_ADMIN_PASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = || told.next().unwrap().unwrap();
        let url = told().replace("Vimana listens on ", "");
        let _of_agents = told();
        Self { child, url }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn an_upload_outlives_the_servers_death() {
    let dir = tempfile::tempdir().unwrap();
    let http = client();
    let server = Killable::start(dir.path());
    let form = json!({ "user_name": "admin", "password": PASSWORD });
    let token = http.post(format!("{}/api/v1/tokens", server.url));
    let token: Value = token
        .json(&form)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let token = token["token"].as_str().unwrap();
    let bytes = noise(20 << 20);
    let asked = http.post(format!("{}/api/v1/images", server.url));
    let asked = asked.bearer_auth(token).json(&self::form("mine", &bytes));
    let asked: Value = asked.send().await.unwrap().json().await.unwrap();
    let id = asked["image"]["id"].as_str().unwrap();
    let url = |server: &Killable| format!("{}{}", server.url, path(id));
    let first = send(&http, &url(&server), token, 0, &bytes[..8 << 20]).await;
    assert_eq!(offset(&first).0, 8 << 20);
    // The next part is on its way when the server dies, some of it taken in.
    let (rest, mut sent) = (bytes[8 << 20..16 << 20].to_vec(), Vec::new());
    for piece in rest.chunks(1 << 20) {
        sent.push(Ok::<_, std::io::Error>(piece.to_vec()));
    }
    let (go, hold) = tokio::sync::oneshot::channel::<()>();
    let body =
        futures::stream::unfold(
            (sent.into_iter(), Some(go)),
            async |(mut rest, mut go)| match rest.next() {
                Some(piece) if rest.len() > 2 => Some((piece, (rest, go))),
                Some(_) | None => {
                    drop(go.take());
                    std::future::pending().await
                }
            },
        );
    let part = http.patch(url(&server)).bearer_auth(token);
    let part = part.header("upload-offset", 8 << 20);
    let part = part.header("content-type", PART);
    let part = part.body(reqwest::Body::wrap_stream(body));
    let part = tokio::spawn(part.send());
    let _dropped = timeout(PATIENCE, hold).await.unwrap();
    server.kill();
    assert!(part.await.unwrap().is_err());

    let server = Killable::start(dir.path());
    let reach = http.head(url(&server)).bearer_auth(token);
    let reach = offset(&reach.send().await.unwrap());
    assert_eq!(reach, (8 << 20, 20 << 20));
    for at in [8 << 20, 16 << 20] {
        let part = &bytes[at..bytes.len().min(at + (8 << 20))];
        let answer = send(&http, &url(&server), token, at as u64, part).await;
        assert_eq!(answer.status(), 204);
    }
    // All has come; killed now, the server checks it when it is back.
    server.kill();
    let server = Killable::start(dir.path());
    let ready = async {
        loop {
            let image = http.get(format!("{}/api/v1/images/{id}", server.url));
            let image = image.bearer_auth(token).send().await.unwrap();
            let image: Value = image.json().await.unwrap();
            if image["state"] == "ready" {
                return image;
            }
            assert_eq!(image["state"], "importing");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let image = timeout(PATIENCE, ready).await.unwrap();
    assert_eq!(image["content"]["sha256"], sha256(&bytes));
    server.kill();
}

#[tokio::test]
async fn files_of_the_servers_machine_are_an_administrators_alone_and_below_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let (shared, private) = (dir.path().join("shared"), dir.path().join("private"));
    for made in [&shared, &private, &shared.join("sub")] {
        std::fs::create_dir(made).unwrap();
    }
    let packed = zstd(&qcow2());
    std::fs::write(shared.join("sub/disk.qcow2.zst"), &packed).unwrap();
    std::fs::write(private.join("disk.img"), qcow2()).unwrap();
    symlink(private.join("disk.img"), shared.join("away")).unwrap();
    symlink("../private/disk.img", shared.join("up")).unwrap();
    symlink(&private, shared.join("aside")).unwrap();
    symlink("/dev/zero", shared.join("zero")).unwrap();
    let made = Command::new("mkfifo").arg(shared.join("pipe")).status();
    assert!(made.unwrap().success());
    let mut config = config(dir.path());
    config.import_path = vec![shared.clone()];
    let world = World {
        running: start(config).await.unwrap(),
        dir,
        http: client(),
    };
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    let form = |path: &Path| json!({ "name": "kept", "path": path.to_str().unwrap() });
    for (path, expected) in [
        (shared.join("away"), "leads out"),
        (shared.join("up"), "leads out"),
        (shared.join("aside/disk.img"), "leads out"),
        (shared.join("zero"), "leads out"),
        (shared.join("pipe"), "is no regular file"),
        (shared.join("sub"), "is no regular file"),
        (shared.clone(), "is no regular file"),
        (shared.join("none"), "is not there"),
        (private.join("disk.img"), "is in no directory"),
        ("/etc/shadow".into(), "is in no directory"),
        ("/proc/self/environ".into(), "is in no directory"),
        (shared.join("../private/disk.img"), "has `..` in it"),
        ("sub/disk.qcow2.zst".into(), "from / on"),
    ] {
        let asked = timeout(PATIENCE, world.import(&token, form(&path))).await;
        let refused = problem(asked.unwrap(), 422).await;
        assert_eq!(refused["errors"][0]["field"], "path", "{path:?}");
        let told = refused["detail"].as_str().unwrap();
        assert!(told.contains(expected), "{path:?}: {told}");
    }
    let good = shared.join("sub/disk.qcow2.zst");
    world.tenant("one", "automatic").await;
    for role in ["operator", "manager"] {
        let other = world.member(role, "one", role).await;
        problem(world.import(&other, form(&good)).await, 403).await;
        problem(world.import(&other, form(&private)).await, 403).await;
    }
    let (id, _) = world.importing(&token, form(&good)).await;
    let image = until(&mut watch, ImageState::Ready).await;
    assert_eq!(image["id"], id);
    assert_eq!(image["content"]["sha256"], sha256(&qcow2()));
    assert_eq!(image["origin"]["kind"], "file");
    assert_eq!(image["origin"]["path"], good.to_str().unwrap());
    let checksum = format!("SHA-256 {}", sha256(&packed));
    assert_eq!(image["origin"]["fetched"]["checksum"], checksum);
    assert_eq!(std::fs::read(&good).unwrap(), packed);
    assert_eq!(world.files_of(&id).len(), 1);
    // Nothing is done to one that is no image, either.
    std::fs::write(shared.join("bad"), b"<!DOCTYPE html>").unwrap();
    let mut bad = form(&shared.join("bad"));
    bad["name"] = "bad".into();
    let (id, operation) = world.importing(&token, bad).await;
    let ids = (id.as_str(), operation.as_str());
    let why = failed(&world, &mut watch, &token, ids).await;
    assert!(why.contains("web page"), "{why}");
}
