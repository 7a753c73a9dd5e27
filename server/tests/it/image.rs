//! Images from a server of somebody else's, over the interface.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use futures::StreamExt as _;
use futures::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Duration, timeout};
use vimana_model::event::EventKind;
use vimana_model::image::ImageState;
use vimana_server::start;

use crate::share::Peer;
use crate::watch::{PATIENCE, Watch};
use crate::world::{World, client, config, problem, qcow2};

/// Somebody else's web server.
#[derive(Clone)]
pub struct Site {
    pub address: SocketAddr,
    pub files: Arc<Mutex<BTreeMap<String, Bytes>>>,
    /// What came after `bytes=` in each call, or nothing.
    pub calls: Arc<Mutex<Vec<Option<String>>>>,
    /// `held/…` stops half-way until there is a permit.
    pub gate: Arc<Semaphore>,
    /// What every tag begins with.
    pub tag: Arc<Mutex<String>>,
}

impl Site {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = Self {
            address: listener.local_addr().unwrap(),
            files: Arc::default(),
            calls: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            tag: Arc::default(),
        };
        let router = Router::new()
            .route(
                "/away",
                get(|| async { Redirect::to("http://127.1.2.3:9/x") }),
            )
            .route("/held/{name}", get(held))
            .route("/steps/{name}", get(steps))
            .route("/{name}", get(whole))
            .with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        site
    }

    pub fn serve(&self, name: &str, bytes: impl Into<Bytes>) -> String {
        let mut files = self.files.lock().unwrap();
        files.insert(name.to_owned(), bytes.into());
        format!("http://{}/{name}", self.address)
    }

    fn answer(&self, name: &str, headers: &HeaderMap) -> Result<(Bytes, usize), StatusCode> {
        let range = headers.get(header::RANGE).map(|range| {
            let range = range.to_str().unwrap();
            range.strip_prefix("bytes=").unwrap().to_owned()
        });
        self.calls.lock().unwrap().push(range.clone());
        let files = self.files.lock().unwrap();
        let file = files.get(name).cloned().ok_or(StatusCode::NOT_FOUND)?;
        let begin = range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
        Ok((file, begin))
    }
}

fn parts(site: &Site, file: &Bytes, begin: usize, body: Body) -> Response {
    let length = file.len();
    let mut headers = HeaderMap::new();
    let mut put = |name, value: String| headers.insert(name, value.parse().unwrap());
    let tag = format!("\"{}{}\"", site.tag.lock().unwrap(), sha256(file));
    put(header::ETAG, tag);
    put(header::ACCEPT_RANGES, "bytes".to_owned());
    put(header::CONTENT_LENGTH, (length - begin).to_string());
    if begin == 0 {
        return (headers, body).into_response();
    }
    let range = format!("bytes {begin}-{}/{length}", length - 1);
    put(header::CONTENT_RANGE, range);
    (StatusCode::PARTIAL_CONTENT, headers, body).into_response()
}

async fn whole(
    State(site): State<Site>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, StatusCode> {
    let (file, begin) = site.answer(&name, &headers)?;
    let body = Body::from(file.slice(begin..));
    Ok(parts(&site, &file, begin, body))
}

/// The last KiB only when the gate opens.
async fn held(
    State(site): State<Site>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, StatusCode> {
    let (file, begin) = site.answer(&name, &headers)?;
    let end = file.len() - 1024;
    let first = stream::iter([Ok::<_, std::io::Error>(file.slice(begin..end.max(begin)))]);
    let (gate, rest) = (Arc::clone(&site.gate), file.slice(end.max(begin)..));
    let last = stream::once(async move {
        gate.acquire().await.unwrap().forget();
        Ok(rest)
    });
    Ok(parts(
        &site,
        &file,
        begin,
        Body::from_stream(first.chain(last)),
    ))
}

/// One tenth of the file more for each call, as far as the last; what follows
/// never comes.
async fn steps(
    State(site): State<Site>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, StatusCode> {
    let (file, begin) = site.answer(&name, &headers)?;
    let calls = site.calls.lock().unwrap().len();
    let end = file.len() * calls.min(10) / 10;
    let first = stream::iter([Ok::<_, std::io::Error>(file.slice(begin..end.max(begin)))]);
    let body = if calls < 10 {
        Body::from_stream(first.chain(stream::pending()))
    } else {
        Body::from_stream(first)
    };
    Ok(parts(&site, &file, begin, body))
}

/// With loopback as a place to fetch from.
pub async fn open(dir: &std::path::Path) -> vimana_server::Running {
    let mut config = config(dir);
    config.import_allow = vec!["127.0.0.1/32".parse().unwrap()];
    start(config).await.unwrap()
}

pub async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let running = open(dir.path()).await;
    World {
        running,
        dir,
        http: client(),
    }
}

impl World {
    pub async fn import(&self, token: &str, form: Value) -> reqwest::Response {
        let request = self.post("/api/v1/images").bearer_auth(token).json(&form);
        request.send().await.unwrap()
    }

    /// The id of the image and of its import.
    pub async fn importing(&self, token: &str, form: Value) -> (String, String) {
        let answer = self.import(token, form).await;
        assert_eq!(answer.status(), 202);
        let accepted: Value = answer.json().await.unwrap();
        assert_eq!(accepted["image"]["state"], "importing");
        let id = |of: &str| accepted[of]["id"].as_str().unwrap().to_owned();
        (id("image"), id("operation"))
    }

    pub async fn image(&self, token: &str, id: &str) -> Value {
        self.ask(token, &format!("/api/v1/images/{id}")).await
    }

    pub async fn act(&self, token: &str, id: &str, action: &str) -> reqwest::Response {
        let request = match action {
            "delete" => self.http.delete(self.url(&format!("/api/v1/images/{id}"))),
            action => self.post(&format!("/api/v1/images/{id}/{action}")),
        };
        request.bearer_auth(token).send().await.unwrap()
    }

    /// What of this image is on the server's disk.
    pub fn files_of(&self, id: &str) -> Vec<PathBuf> {
        let images = self.dir.path().join("data/images");
        let staging = images.join("staging").join(id);
        let mut found: Vec<PathBuf> = std::fs::read_dir(&images)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().contains(id))
            .collect();
        found.extend(staging.exists().then_some(staging));
        found
    }

    /// What is no longer wanted goes right after that is known.
    pub async fn until_nothing_is_left(&self, id: &str) {
        let nothing = async {
            while !self.files_of(id).is_empty() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, nothing).await.unwrap();
    }
}

pub async fn until(watch: &mut Watch, state: ImageState) -> Value {
    let item = watch
        .until(|event| matches!(event, EventKind::Image { to, .. } if *to == state))
        .await;
    serde_json::to_value(item.image.unwrap()).unwrap()
}

/// Of every failed import: why, and that nothing of it is left.
async fn failure(world: &World, token: &str, form: Value) -> String {
    let mut watch = Watch::new(world).await;
    let (id, operation) = world.importing(token, form).await;
    failed(world, &mut watch, token, (&id, &operation)).await
}

/// The same of one that was asked for.
pub async fn failed(
    world: &World,
    watch: &mut Watch,
    token: &str,
    (id, operation): (&str, &str),
) -> String {
    let image = until(watch, ImageState::Failed).await;
    assert_eq!(image["id"], id);
    let path = format!("/api/v1/operations/{operation}");
    let operation = world.ask(token, &path).await;
    assert_eq!(operation["state"], "failed");
    assert_eq!(operation["error"], image["failure"]);
    world.until_nothing_is_left(id).await;
    assert_eq!(world.act(token, id, "delete").await.status(), 200);
    image["failure"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_image_comes_with_its_provenance_and_vms_are_made_from_it() {
    let (world, site) = (world().await, Site::new().await);
    let token = world.token().await;
    let url = site.serve("disk.qcow2", qcow2());
    let sha256 = sha256(&qcow2());
    let mut watch = Watch::new(&world).await;
    let form = json!({ "name": "mine", "url": url, "checksum": sha256.to_uppercase() });
    let (id, operation) = world.importing(&token, form).await;
    until(&mut watch, ImageState::Ready).await;
    let image = world.image(&token, &id).await;
    assert_eq!(image["content"]["format"], "qcow2");
    assert_eq!(image["content"]["virtual_mib"], 1);
    assert_eq!(image["content"]["sha256"], sha256);
    assert_eq!(image["origin"]["url"], url);
    assert_eq!(image["origin"]["fetched"]["verified"], true);
    assert_eq!(image["owner"], "admin");
    assert_eq!(image["used_by"], 0);
    assert_eq!(image["operation"]["id"], operation);
    assert_eq!(image["operation"]["state"], "succeeded");
    let path = format!("/api/v1/images/{id}/timeline");
    let timeline = world.ask(&token, &path).await;
    let kinds: Vec<&str> = timeline["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["event"]["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["requested", "step", "step", "image"]);

    let form = json!({ "name": "web", "image": "mine", "flavor": "tiny", "hold": true });
    let made = world.post("/api/v1/vms").bearer_auth(&token).json(&form);
    let made: Value = made.send().await.unwrap().json().await.unwrap();
    assert_eq!(made["vm"]["image_id"], id);
    assert_eq!(world.image(&token, &id).await["used_by"], 1);
    // In the trash it serves those that are made from it, and nobody else.
    assert_eq!(world.act(&token, &id, "delete").await.status(), 200);
    let refused = problem(world.act(&token, &id, "purge").await, 409).await;
    assert!(refused["detail"].as_str().unwrap().contains("1 VMs"));
    let form = json!({ "name": "db", "image": "mine", "flavor": "tiny" });
    let refused = world.post("/api/v1/vms").bearer_auth(&token).json(&form);
    problem(refused.send().await.unwrap(), 422).await;
    assert_eq!(world.files_of(&id).len(), 1);
    let restored = world.act(&token, &id, "restore").await;
    assert_eq!(restored.json::<Value>().await.unwrap()["state"], "ready");
    let vm = made["vm"]["id"].as_str().unwrap();
    let gone = world.http.delete(world.url(&format!("/api/v1/vms/{vm}")));
    assert_eq!(gone.bearer_auth(&token).send().await.unwrap().status(), 202);
    for action in ["delete", "purge"] {
        assert_eq!(world.act(&token, &id, action).await.status(), 200);
    }
    assert_eq!(world.files_of(&id), [] as [PathBuf; 0]);
    problem(world.act(&token, &id, "restore").await, 409).await;
}

#[tokio::test]
async fn what_is_packed_is_unpacked_and_what_is_raw_stays_so() {
    let (world, site) = (world().await, Site::new().await);
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    let disk = vec![7; 3 << 20];
    let packed = zstd(&disk);
    let form = json!({ "name": "raw", "url": site.serve("raw.zst", packed.clone()) });
    world.importing(&token, form).await;
    let image = until(&mut watch, ImageState::Ready).await;
    assert_eq!(image["content"]["format"], "raw");
    assert_eq!(image["content"]["virtual_mib"], 3);
    assert_eq!(image["content"]["sha256"], sha256(&disk));
    assert_eq!(image["origin"]["fetched"]["size_bytes"], packed.len());
    assert_eq!(image["origin"]["fetched"]["verified"], false);
}

#[tokio::test]
async fn an_image_comes_from_a_share() {
    let (world, nfs) = (world().await, Peer::nfs());
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    let disk: Vec<u8> = (0..20_u32 << 20).map(|n| (n % 251) as u8).collect();
    let packed = zstd(&disk);
    std::fs::create_dir(nfs.file("sub")).unwrap();
    std::fs::write(nfs.file("sub/disk.img"), &disk).unwrap();
    std::fs::write(nfs.file("disk.img.zst"), &packed).unwrap();
    let base = format!("nfs://127.0.0.1{}", nfs.files().display());
    for (name, came) in [("sub/disk.img", &disk), ("disk.img.zst", &packed)] {
        let url = format!("{base}/{name}");
        let form = json!({ "name": name.replace('/', "-"), "url": url, "checksum": sha256(came) });
        let (id, _) = world.importing(&token, form).await;
        let image = until(&mut watch, ImageState::Ready).await;
        assert_eq!(image["id"], id);
        assert_eq!(image["content"]["sha256"], sha256(&disk));
        assert_eq!(image["origin"]["url"], url);
        assert_eq!(image["origin"]["fetched"]["size_bytes"], came.len());
        assert_eq!(image["origin"]["fetched"]["verified"], true);
    }
    let form = json!({ "name": "none", "url": format!("{base}/none.img") });
    assert_eq!(
        failure(&world, &token, form).await,
        "the source is not there"
    );
}

#[tokio::test]
async fn what_is_no_honest_image_is_refused_and_leaves_nothing() {
    let (world, site) = (world().await, Site::new().await);
    let token = world.token().await;
    let changed = |at: usize, bytes: &[u8]| {
        let mut image = qcow2();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        image
    };
    let mut backed = changed(8, &72_u64.to_be_bytes());
    backed[16..20].copy_from_slice(&11_u32.to_be_bytes());
    backed[72..83].copy_from_slice(b"/etc/shadow");
    let mut data_file = changed(4, &3_u32.to_be_bytes());
    data_file[72..80].copy_from_slice(&4_u64.to_be_bytes());
    data_file[96..100].copy_from_slice(&4_u32.to_be_bytes());
    data_file[100..104].copy_from_slice(&104_u32.to_be_bytes());
    let vmdk = b"# Disk DescriptorFile\nversion=1\nRW 63 FLAT \"/etc/shadow\" 0\n".to_vec();
    let mut extents = b"# Disk DescriptorFile\nversion=1\n".to_vec();
    for _ in 0..1_000_000 {
        extents.extend(b"RW 1 SPARSE \"x\"\n");
    }
    let cases = [
        ("A01", backed.clone(), "backing file"),
        ("A02", data_file, "data file"),
        ("A03", vmdk, "vmdk"),
        ("A06", changed(24, &(1_u64 << 63).to_be_bytes()), "L1 table"),
        ("A08", changed(36, &[0xff; 4]), "L1 table"),
        ("A08-refcounts", changed(56, &[0xff; 4]), "reference count"),
        ("A08-extents", extents, "vmdk"),
        ("A20", changed(32, &1_u32.to_be_bytes()), "encrypted"),
        ("page", b"<!DOCTYPE html><html></html>".to_vec(), "web page"),
        ("empty", Vec::new(), "no size"),
    ];
    for (name, bytes, expected) in cases {
        let form = json!({ "name": "bad", "url": site.serve(name, bytes) });
        let why = failure(&world, &token, form).await;
        assert!(why.contains(expected), "{name}: {why}");
    }
    // A04: said to be raw, it is a qcow2 image with a backing file.
    let form = json!({ "name": "bad", "url": site.serve("A04", backed), "format": "raw" });
    let why = failure(&world, &token, form).await;
    assert!(why.contains("not a raw image as was said"), "{why}");
    // A15: another checksum than was said.
    let url = site.serve("A15", qcow2());
    let form = json!({ "name": "bad", "url": url, "checksum": "0".repeat(64) });
    let why = failure(&world, &token, form).await;
    assert!(why.contains(&sha256(&qcow2())), "{why}");
    // A07: one bomb in another.
    let bomb = zstd(&zstd(&vec![0; 1 << 20]));
    let form = json!({ "name": "bad", "url": site.serve("A07", bomb) });
    let why = failure(&world, &token, form).await;
    assert!(why.contains("zstd"), "nested: {why}");
    let form = json!({ "name": "bad", "url": format!("http://{}/none", site.address) });
    assert_eq!(
        failure(&world, &token, form).await,
        "the source is not there"
    );
}

#[tokio::test]
async fn addresses_that_are_not_public_are_never_connected_to() {
    let world = World::new().await;
    let token = world.token().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in [
        "127.0.0.1",
        "localhost",
        "0x7f.1",
        "2130706433",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "[fe80::1]",
        "10.1.2.3",
        "0.0.0.0",
    ] {
        for scheme in ["http", "ftp", "nfs"] {
            let form = json!({ "name": "x", "url": format!("{scheme}://{host}:{port}/a/x") });
            let refused = problem(world.import(&token, form).await, 422).await;
            assert_eq!(refused["errors"][0]["field"], "url", "{scheme}://{host}");
        }
    }
    for url in ["file:///etc/shadow", "gopher://x/1", "javascript:alert(1)"] {
        let form = json!({ "name": "x", "url": url });
        problem(world.import(&token, form).await, 422).await;
    }
    let accepted = timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(accepted.is_err(), "somebody connected");
    let images = world.ask(&token, "/api/v1/images").await;
    assert_eq!(images["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_redirect_to_where_nobody_may_go_is_not_followed() {
    let (world, site) = (world().await, Site::new().await);
    let token = world.token().await;
    let form = json!({ "name": "bad", "url": format!("http://{}/away", site.address) });
    let why = failure(&world, &token, form).await;
    assert!(why.contains("127.1.2.3"), "{why}");
}

/// Waits until so many bytes of it have come.
async fn come(world: &World, token: &str, id: &str, bytes: u64) -> Value {
    let far = async {
        loop {
            let image = world.image(token, id).await;
            let done = image["operation"]["progress"]["done_bytes"].as_u64();
            if done.unwrap_or(0) >= bytes {
                return image;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, far).await.unwrap()
}

async fn ready(world: &World, token: &str, id: &str) -> Value {
    let ready = async {
        loop {
            let image = world.image(token, id).await;
            if image["state"] == "ready" {
                return image;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, ready).await.unwrap()
}

/// The server is stopped, and started again on the same data.
async fn restarted(world: World, meanwhile: impl FnOnce()) -> World {
    let World { running, dir, http } = world;
    running.stop().await.unwrap();
    meanwhile();
    let running = open(dir.path()).await;
    World { running, dir, http }
}

#[tokio::test]
async fn an_import_that_was_interrupted_goes_on_where_it_was() {
    let (world, site) = (world().await, Site::new().await);
    let token = world.token().await;
    let disk: Vec<u8> = (0..40_u32 << 20).map(|n| (n % 251) as u8).collect();
    let url = site.serve("disk.img", disk.clone());
    let url = url.replace("/disk.img", "/held/disk.img");
    let form = json!({ "name": "long", "url": url });
    let (id, _) = world.importing(&token, form).await;
    let image = come(&world, &token, &id, 39 << 20).await;
    assert_eq!(image["state"], "importing");
    assert_eq!(image["operation"]["progress"]["total_bytes"], 40 << 20);
    let world = restarted(world, || site.gate.add_permits(9)).await;
    let image = ready(&world, &token, &id).await;
    assert_eq!(image["content"]["sha256"], sha256(&disk));
    let calls = site.calls.lock().unwrap().clone();
    let [None, Some(again)] = calls.as_slice() else {
        panic!("{calls:?}");
    };
    let again: u64 = again.trim_end_matches('-').parse().unwrap();
    assert!(again >= 16 << 20, "began again at {again}");
}

/// A source of ten steps; the server is stopped after each of them.
#[tokio::test]
async fn an_import_that_is_interrupted_at_every_step_goes_on() {
    let (mut world, site) = (world().await, Site::new().await);
    let token = world.token().await;
    let disk: Vec<u8> = (0..80_u32 << 20).map(|n| (n % 249) as u8).collect();
    let url = site.serve("disk.img", disk.clone());
    let url = url.replace("/disk.img", "/steps/disk.img");
    let checksum = sha256(&disk);
    let form = json!({ "name": "long", "url": url, "checksum": checksum });
    let (id, _) = world.importing(&token, form).await;
    for step in 1..10_u64 {
        let image = come(&world, &token, &id, step * (8 << 20)).await;
        assert_eq!(image["state"], "importing", "step {step}");
        world = restarted(world, || ()).await;
    }
    let image = ready(&world, &token, &id).await;
    assert_eq!(image["content"]["sha256"], sha256(&disk));
    assert_eq!(image["origin"]["fetched"]["verified"], true);
    // What is here is not fetched again, up to what was not on the disk yet.
    let calls = site.calls.lock().unwrap().clone();
    let begun = calls.iter().map(|call| match call {
        Some(from) => from.trim_end_matches('-').parse().unwrap(),
        None => 0,
    });
    let begun: Vec<u64> = begun.collect();
    assert_eq!(begun.len(), 10, "{begun:?}");
    assert!(begun.is_sorted(), "{begun:?}");
    for (step, begun) in (0..).zip(&begun) {
        assert!(begun + (32 << 20) >= step * (8 << 20), "{step}: {begun}");
    }
}

#[tokio::test]
async fn an_import_can_be_cancelled_and_tried_again_and_deleted() {
    let (world, site) = (world().await, Site::new().await);
    let token = world.token().await;
    site.serve("disk.qcow2", qcow2());
    let url = format!("http://{}/held/disk.qcow2", site.address);
    let mut watch = Watch::new(&world).await;
    let form = json!({ "name": "mine", "url": url });
    let (id, operation) = world.importing(&token, form.clone()).await;
    problem(world.import(&token, form.clone()).await, 409).await;
    problem(world.act(&token, &id, "retry").await, 409).await;
    let cancel = world.post(&format!("/api/v1/operations/{operation}/cancel"));
    let cancelled = cancel.bearer_auth(&token).send().await.unwrap();
    assert_eq!(cancelled.status(), 202);
    let cancelled: Value = cancelled.json().await.unwrap();
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(cancelled["cancelled_by"], "admin");
    until(&mut watch, ImageState::Failed).await;
    assert_eq!(world.image(&token, &id).await["state"], "failed");

    site.gate.add_permits(1);
    assert_eq!(world.act(&token, &id, "retry").await.status(), 200);
    until(&mut watch, ImageState::Ready).await;
    assert_eq!(world.image(&token, &id).await["failure"], Value::Null);

    let form = json!({ "name": "other", "url": url });
    let (id, operation) = world.importing(&token, form).await;
    assert_eq!(world.act(&token, &id, "delete").await.status(), 200);
    assert_eq!(world.image(&token, &id).await["state"], "removed");
    let path = format!("/api/v1/operations/{operation}");
    assert_eq!(world.ask(&token, &path).await["state"], "cancelled");
}

#[tokio::test]
async fn another_tenants_images_do_not_exist() {
    let (world, site) = (world().await, Site::new().await);
    for tenant in ["one", "two"] {
        world.tenant(tenant, "automatic").await;
    }
    let ann = world.member("ann", "one", "operator").await;
    let bob = world.member("bob", "two", "manager").await;
    let vic = world.member("vic", "one", "viewer").await;
    let form = json!({ "name": "mine", "url": site.serve("disk.qcow2", qcow2()) });
    let mut public = form.clone();
    public["public"] = true.into();
    problem(world.import(&vic, form.clone()).await, 403).await;
    problem(world.import(&ann, public.clone()).await, 403).await;
    let (id, operation) = world.importing(&ann, form.clone()).await;
    for path in [
        format!("/api/v1/images/{id}"),
        format!("/api/v1/images/{id}/timeline"),
        format!("/api/v1/images/{id}/operations"),
        format!("/api/v1/operations/{operation}"),
    ] {
        assert!(world.ask(&vic, &path).await.is_object());
        let refused = world.get(&path).bearer_auth(&bob).send().await.unwrap();
        problem(refused, 404).await;
    }
    for action in ["delete", "restore", "purge", "retry"] {
        problem(world.act(&bob, &id, action).await, 404).await;
        problem(world.act(&vic, &id, action).await, 403).await;
    }
    // The same name is another image for somebody else.
    let (other, _) = world.importing(&bob, form).await;
    assert_ne!(other, id);
    let admin = world.token().await;
    let mut watch = Watch::new(&world).await;
    let (for_all, _) = world.importing(&admin, public).await;
    until(&mut watch, ImageState::Ready).await;
    assert_eq!(world.image(&bob, &for_all).await["tenant_id"], Value::Null);
    problem(world.act(&bob, &for_all, "delete").await, 403).await;
    let seen = world.ask(&bob, "/api/v1/images").await;
    let seen: Vec<&str> = seen["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["id"].as_str().unwrap())
        .collect();
    assert!(!seen.contains(&id.as_str()));
    assert!(seen.contains(&for_all.as_str()) && seen.contains(&other.as_str()));
}

#[tokio::test]
async fn a_password_in_a_url_is_never_shown() {
    let (world, site) = (world().await, Site::new().await);
    let token = world.token().await;
    site.serve("disk.qcow2", qcow2());
    let url = format!("http://ann:hunter2@{}/disk.qcow2?sig=hunter2", site.address);
    let mut watch = Watch::new(&world).await;
    let form = json!({ "name": "mine", "url": url });
    let answer = world.import(&token, form).await.text().await.unwrap();
    assert!(!answer.contains("hunter2"), "{answer}");
    let image = until(&mut watch, ImageState::Ready).await;
    assert!(!image.to_string().contains("hunter2"));
    let id = image["id"].as_str().unwrap();
    for path in ["", "/timeline", "/operations"] {
        let path = format!("/api/v1/images/{id}{path}");
        let shown = world.ask(&token, &path).await;
        assert!(!shown.to_string().contains("hunter2"), "{path}");
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}
