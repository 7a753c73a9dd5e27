//! A server that says what a test tells it to.

use std::collections::{BTreeMap, VecDeque};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, head, patch, post};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::broadcast;

const AT: &str = "2026-11-22T18:00:00Z";
const LATER: &str = "2026-11-22T18:00:01Z";

/// How the command ended.
pub struct Ran {
    pub status: i32,
    pub out: String,
    pub err: String,
}

#[derive(Clone)]
pub struct Server {
    url: String,
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<String>,
}

#[derive(Default)]
struct Inner {
    vms: BTreeMap<String, Value>,
    requests: BTreeMap<String, Value>,
    /// The one image, of which so much was sent.
    image: Option<Value>,
    sent: Vec<u8>,
    /// What goes wrong with the next parts.
    faults: VecDeque<Fault>,
    refusals: BTreeMap<String, String>,
    /// How the evacuation of the one host looks, one look after the other.
    evacuation: VecDeque<Value>,
    /// What becomes of every operation: the VM's state, its own, why.
    end: Option<(String, String, Option<String>)>,
    asked: Vec<String>,
    seq: u64,
}

/// What may become of a part.
#[derive(Clone, Copy)]
pub enum Fault {
    /// Half of it comes.
    Cut,
    /// It comes, and the answer does not.
    Unanswered,
    /// An earlier one is not through.
    Busy,
    /// Somebody deletes the image.
    Deleted,
}

/// VMs that were moved, those on their way, and those that stay with the reason.
pub type Evacuation<'a> = (u32, &'a [&'a str], &'a [(&'a str, &'a str)]);

/// The id of the VM of that name.
pub fn id_of(name: &str) -> String {
    format!("vm_{:032x}", name.bytes().map(u64::from).sum::<u64>())
}

fn operation(vm: &str, kind: &str, state: &str, error: Option<&str>) -> Value {
    json!({
        "id": vm.replace("vm_", "op_"), "vm_id": vm, "kind": kind, "state": state, "steps": [],
        "requested_by": "ann", "cancelled_by": null, "error": error, "progress": null,
        "created_at": LATER, "ended_at": null,
    })
}

impl Server {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            inner: Arc::default(),
            events: broadcast::Sender::new(64),
        };
        let v1 = Router::new()
            .route("/events", get(events))
            .route("/vms", get(vms).post(create))
            .route("/vms/{id}", delete(remove))
            .route("/vms/{id}/{action}", post(act))
            .route("/requests", get(requests))
            .route("/requests/{id}", get(request))
            .route("/requests/{id}/{action}", post(decide))
            .route("/hosts", get(hosts))
            .route("/hosts/{id}/{action}", post(act_on_host).get(evacuation))
            .route("/users", post(create_user))
            .route("/flavors", post(create_flavor))
            .route("/flavors/{name}", patch(flavor).delete(flavor))
            .route("/templates", get(templates).post(create_template))
            .route("/templates/{id}", delete(template).patch(template))
            .route("/images", get(images).post(import))
            .route("/images/{id}", get(image))
            .route("/images/{id}/content", head(reach).patch(take))
            .layer(DefaultBodyLimit::disable())
            .with_state(server.clone());
        let router = Router::new().nest("/api/v1", v1);
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn has_vm(&self, name: &str, state: &str) {
        let id = id_of(name);
        let vm = json!({
            "id": id, "name": name, "owner": "ann", "state": state, "state_since": AT,
            "tenant_id": format!("tenant_{:032x}", 1), "failure": null, "pending": null,
            "flavor": "tiny", "image": "demo", "image_id": format!("image_{:032x}", 1),
            "resources": { "vcpus": 1, "memory_mib": 128, "disk_mib": 1024 }, "host": null,
            "request_id": null, "run_epoch": 1, "generation": 1, "ssh_key": null,
            "has_user_data": false, "operation": null, "created_at": AT,
        });
        self.lock().vms.insert(id, vm);
    }

    pub fn has_request(&self, name: &str, state: &str) {
        let id = format!("req_{:032x}", 1);
        let request = json!({
            "id": id, "tenant_id": format!("tenant_{:032x}", 1), "requester": "ann",
            "state": state, "state_since": AT, "vm": null, "generation": 3, "created_at": AT,
            "terms": { "name": name, "image": "demo", "flavor": "large" },
            "remarks": [{ "at": AT, "by": "mia", "action": "reject", "text": "no budget",
                          "changes": [] }],
        });
        self.lock().requests.insert(id, request);
    }

    /// An image waits for a file of that name and size, and has the beginning.
    pub fn waits_for(&self, name: &str, file_name: &str, size_bytes: usize, sent: &[u8]) {
        let upload = json!({ "file_name": file_name, "size_bytes": size_bytes });
        let form = json!({ "name": name, "upload": upload, "public": false });
        let mut inner = self.lock();
        inner.image = Some(image_of(&form));
        inner.sent = sent.to_vec();
    }

    /// What goes wrong with the parts of an upload, one after the other.
    pub fn breaks(&self, faults: &[Fault]) {
        self.lock().faults.extend(faults);
    }

    pub fn sent(&self) -> Vec<u8> {
        self.lock().sent.clone()
    }

    /// How far the evacuation of host `a` is, one look after the other.
    pub fn evacuates(&self, looks: &[Evacuation]) {
        let vm = |name: &str| json!({ "id": id_of(name), "name": name });
        let to = json!({ "id": format!("host_{:032x}", 2), "name": "b", "zone": "default" });
        let looks = looks.iter().map(|(moved, moving, stuck)| {
            let moving: Vec<_> = moving
                .iter()
                .map(|name| {
                    let operation = id_of(name).replace("vm_", "op_");
                    json!({ "vm": vm(name), "to": to, "operation_id": operation })
                })
                .collect();
            let stuck: Vec<_> = stuck
                .iter()
                .map(|(name, reason)| json!({ "vm": vm(name), "reason": reason }))
                .collect();
            let over = moving.is_empty() && stuck.is_empty();
            json!({
                "host_id": host_id(), "host": "a", "state": "draining", "begun_at": AT,
                "by": "ann", "limit": 2, "over": over, "moved": moved, "orphans": 0,
                "moving": moving, "waiting": [], "stuck": stuck,
            })
        });
        self.lock().evacuation.extend(looks);
    }

    pub fn refuses(&self, name: &str, sentence: &str) {
        let refusal = (id_of(name), sentence.to_owned());
        self.lock().refusals.extend([refusal]);
    }

    /// Whatever is asked of a VM, this is how it ends.
    pub fn ends(&self, state: &str, operation: &str, error: Option<&str>) {
        let error = error.map(str::to_owned);
        self.lock().end = Some((state.to_owned(), operation.to_owned(), error));
    }

    /// The changes that were asked for.
    pub fn asked(&self) -> Vec<String> {
        self.lock().asked.clone()
    }

    pub async fn run(&self, line: &str) -> Ran {
        self.run_with(line, "").await
    }

    pub async fn run_with(&self, line: &str, input: &str) -> Ran {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vimana"))
            .args(line.split(' '))
            .env_clear()
            .env("VIMANA_URL", &self.url)
            .env("VIMANA_TOKEN", "secret")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that reads nothing may have hung up.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        Ran {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn accept(&self, id: &str, kind: &str) -> Response {
        let mut inner = self.lock();
        if let Some(sentence) = inner.refusals.get(id) {
            return refusal(StatusCode::CONFLICT, "conflict", sentence);
        }
        let mut vm = inner.vms[id].clone();
        let begun = operation(id, kind, "running", None);
        vm["operation"] = begun.clone();
        let answer = json!({ "vm": vm, "operation": begun });
        if let Some((state, ended, error)) = inner.end.clone() {
            vm["state"] = json!(state);
            vm["state_since"] = json!(LATER);
            vm["operation"] = operation(id, kind, &ended, error.as_deref());
            inner.seq += 1;
            let seq = inner.seq;
            let event = json!({ "seq": seq, "at": AT, "actor": { "kind": "system" },
                                "vm_id": id, "host_id": null, "request_id": null,
                                "event": { "kind": "note", "text": "x" } });
            let item = json!({ "event": event, "vm": vm, "host": null, "request": null });
            let frame = format!("id: {seq}\nevent: item\ndata: {item}\n\n");
            let _ = self.events.send(frame);
        }
        (StatusCode::ACCEPTED, Json(answer)).into_response()
    }
}

async fn events(State(server): State<Server>) -> Response {
    let items = futures::stream::unfold(server.events.subscribe(), |mut items| async {
        let item = items.recv().await.ok()?;
        Some((item, items))
    });
    let hello = futures::stream::iter([": connected\n\n".to_owned()]);
    let body = hello.chain(items).map(Ok::<_, std::io::Error>);
    let kind = [("content-type", "text/event-stream")];
    (kind, Body::from_stream(body)).into_response()
}

async fn vms(
    State(server): State<Server>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Json<Value> {
    let inner = server.lock();
    let wanted = query.get("name");
    let items: Vec<&Value> = inner
        .vms
        .values()
        .filter(|vm| wanted.is_none_or(|name| vm["name"] == name.as_str()))
        .collect();
    Json(json!({ "items": items }))
}

async fn create(State(server): State<Server>, body: String) -> Response {
    let form: Value = serde_json::from_str(&body).unwrap();
    server.lock().asked.push(format!("POST /vms {body}"));
    let name = form["name"].as_str().unwrap();
    server.has_vm(name, "pending");
    server.accept(&id_of(name), "create")
}

fn flavor_of(name: &str) -> Json<Value> {
    let size = json!({ "vcpus": 2, "memory_mib": 1024, "disk_mib": 4096 });
    let id = format!("flavor_{:032x}", 1);
    Json(json!({ "id": id, "name": name, "resources": size }))
}

async fn create_flavor(State(server): State<Server>, body: String) -> Json<Value> {
    let form: Value = serde_json::from_str(&body).unwrap();
    server.lock().asked.push(format!("POST /flavors {body}"));
    flavor_of(form["name"].as_str().unwrap())
}

async fn flavor(
    State(server): State<Server>,
    method: Method,
    Path(name): Path<String>,
    body: String,
) -> Json<Value> {
    let asked = format!("{method} /flavors/{name} {body}");
    server.lock().asked.push(asked.trim_end().to_owned());
    flavor_of(&name)
}

/// One for all, and one of the tenant's own with the same name.
fn template_of(id: u32) -> Value {
    let tenant = (id == 2).then(|| format!("tenant_{:032x}", 1));
    json!({
        "id": format!("template_{id:032x}"), "name": "web", "tenant_id": tenant, "owner": "mia",
        "description": "a web server", "image": "demo", "flavor": null,
        "user_data": "#cloud-config\nhostname: {input: host}\n", "generation": 1,
        "inputs": [{ "name": "host", "label": "Host", "kind": "text", "required": true }],
        "created_at": AT,
    })
}

async fn templates() -> Json<Value> {
    Json(json!({ "items": [template_of(1), template_of(2)] }))
}

async fn create_template(State(server): State<Server>, body: String) -> Json<Value> {
    server.lock().asked.push(format!("POST /templates {body}"));
    Json(template_of(2))
}

async fn template(
    State(server): State<Server>,
    method: Method,
    Path(id): Path<String>,
    body: String,
) -> Json<Value> {
    let asked = format!("{method} /templates/{id} {body}");
    server.lock().asked.push(asked.trim_end().to_owned());
    Json(template_of(2))
}

async fn act(
    State(server): State<Server>,
    Path((id, action)): Path<(String, String)>,
    body: String,
) -> Response {
    let asked = format!("POST /vms/{id}/{action} {body}");
    server.lock().asked.push(asked);
    server.accept(&id, &action)
}

async fn remove(State(server): State<Server>, Path(id): Path<String>) -> Response {
    server.lock().asked.push(format!("DELETE /vms/{id}"));
    server.accept(&id, "delete")
}

fn host_id() -> String {
    format!("host_{:032x}", 1)
}

fn host_of(state: &str) -> Value {
    let room = json!({ "vcpus": 8, "memory_mib": 4096, "disk_mib": 4096 });
    json!({
        "id": host_id(), "name": "a", "zone": "default", "state": state, "desired": state,
        "connected": true, "hypervisor": "QEMU", "accelerator": "tcg", "accelerator_note": "",
        "capacity": room, "used": room, "vms": 2, "agent_version": "1", "hot_resize": false,
        "connected_since": AT, "certificate_expires_at": null, "revoked": false, "orphans": 0,
    })
}

async fn hosts() -> Json<Value> {
    Json(json!({ "items": [host_of("enabled")] }))
}

async fn act_on_host(
    State(server): State<Server>,
    Path((id, action)): Path<(String, String)>,
    body: String,
) -> Json<Value> {
    let asked = format!("POST /hosts/{id}/{action} {body}");
    server.lock().asked.push(asked.trim_end().to_owned());
    Json(host_of(match action.as_str() {
        "cordon" => "cordoned",
        "enable" => "enabled",
        _ => "draining",
    }))
}

/// Each look is followed by something that happens to the host.
async fn evacuation(State(server): State<Server>) -> Json<Value> {
    let mut inner = server.lock();
    let look = inner.evacuation.pop_front().unwrap();
    inner.seq += 1;
    let seq = inner.seq;
    let event = json!({ "seq": seq, "at": AT, "actor": { "kind": "system" }, "vm_id": null,
                        "host_id": host_id(), "request_id": null, "event": { "kind": "cleared" } });
    let item = json!({ "event": event, "vm": null, "host": null, "request": null });
    let _ = server
        .events
        .send(format!("id: {seq}\nevent: item\ndata: {item}\n\n"));
    Json(look)
}

async fn requests(State(server): State<Server>) -> Json<Value> {
    let items: Vec<Value> = server.lock().requests.values().cloned().collect();
    Json(json!({ "items": items }))
}

async fn request(State(server): State<Server>, Path(id): Path<String>) -> Json<Value> {
    Json(server.lock().requests[&id].clone())
}

async fn decide(
    State(server): State<Server>,
    Path((id, action)): Path<(String, String)>,
    body: String,
) -> Json<Value> {
    let asked = format!("POST /requests/{id}/{action} {body}");
    server.lock().asked.push(asked);
    Json(server.lock().requests[&id].clone())
}

async fn create_user(State(server): State<Server>, body: String) -> Json<Value> {
    server.lock().asked.push(format!("POST /users {body}"));
    Json(
        json!({ "id": format!("user_{:032x}", 1), "name": "ann", "role": "viewer",
                 "tenant_id": format!("tenant_{:032x}", 1), "created_at": AT }),
    )
}

fn refusal(status: StatusCode, code: &str, sentence: &str) -> Response {
    let problem = json!({ "type": "about:blank", "title": "not possible now",
                          "status": status.as_u16(), "code": code, "detail": sentence });
    let kind = [("content-type", "application/problem+json")];
    (status, kind, problem.to_string()).into_response()
}

fn image_of(form: &Value) -> Value {
    let upload = &form["upload"];
    json!({
        "id": format!("image_{:032x}", 1), "name": form["name"], "owner": "ann",
        "tenant_id": format!("tenant_{:032x}", 1), "state": "importing", "state_since": AT,
        "failure": null, "content": null, "used_by": 0, "purge_at": null, "created_at": AT,
        "origin": { "kind": "upload", "file_name": upload["file_name"],
                    "size_bytes": upload["size_bytes"] },
        "operation": null,
    })
}

async fn images(State(server): State<Server>) -> Json<Value> {
    let items: Vec<Value> = server.lock().image.iter().cloned().collect();
    Json(json!({ "items": items }))
}

async fn image(State(server): State<Server>, Path(_): Path<String>) -> Json<Value> {
    Json(server.lock().image.clone().unwrap())
}

async fn import(State(server): State<Server>, body: String) -> Response {
    let mut inner = server.lock();
    inner.asked.push(format!("POST /images {body}"));
    let image = image_of(&serde_json::from_str(&body).unwrap());
    inner.image = Some(image.clone());
    let mut begun = operation("vm_x", "import", "running", None);
    begun["id"] = json!(format!("op_{:032x}", 1));
    begun["vm_id"].take();
    begun["image_id"] = image["id"].clone();
    let answer = json!({ "image": image, "operation": begun });
    (StatusCode::ACCEPTED, Json(answer)).into_response()
}

fn reach_of(inner: &Inner) -> Response {
    let image = inner.image.as_ref().unwrap();
    if image["state"] != "importing" {
        return StatusCode::CONFLICT.into_response();
    }
    let headers = [
        ("upload-offset", inner.sent.len().to_string()),
        ("upload-length", image["origin"]["size_bytes"].to_string()),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

async fn reach(State(server): State<Server>) -> Response {
    reach_of(&server.lock())
}

async fn take(State(server): State<Server>, headers: HeaderMap, body: Bytes) -> Response {
    let mut inner = server.lock();
    let fault = inner.faults.pop_front();
    if headers["upload-offset"] != inner.sent.len().to_string() {
        return refusal(StatusCode::CONFLICT, "conflict", "elsewhere");
    }
    assert_eq!(headers["content-type"], "application/offset+octet-stream");
    let away = || refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "away");
    match fault {
        None => inner.sent.extend(&body),
        Some(Fault::Busy) => return refusal(StatusCode::CONFLICT, "conflict", "busy"),
        Some(Fault::Deleted) => {
            inner.image.as_mut().unwrap()["state"] = json!("removed");
            return refusal(StatusCode::CONFLICT, "conflict", "gone");
        }
        Some(Fault::Cut) => {
            inner.sent.extend(&body[..body.len() / 2]);
            return away();
        }
        Some(Fault::Unanswered) => {
            inner.sent.extend(&body);
            return away();
        }
    }
    reach_of(&inner)
}
