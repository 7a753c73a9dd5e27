//! What is on a volume leaves its host: over a real agent on a simulated one.

use reqwest::Response;
use serde_json::{Value, json};
use tokio::time::timeout;
use vimana_driver::{Fault, FaultKind};
use vimana_driver_sim::{Call, Mishap};
use vimana_model::event::EventKind;
use vimana_model::image::ImageState;
use vimana_model::{VmId, VmState, VolumeId};

use crate::fleet;
use crate::image::{sha256, until};
use crate::machine::{Machine, Running};
use crate::watch::{PATIENCE, Watch};
use crate::world::{World, problem};

/// A host with a VM that has a volume on which something was written.
struct Scene {
    world: World,
    machine: Machine,
    agent: Option<Running>,
    watch: Watch,
    token: String,
    volume: String,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new().await;
        let machine = Machine::new("host-a");
        machine.give_token(&world).await;
        let mut watch = Watch::new(&world).await;
        let agent = machine.start(&world);
        let host = watch.until_connected().await;
        let scheduler = fleet::scheduler(&world).await;
        tokio::spawn(fleet::schedule(scheduler, host));
        let token = world.token().await;
        let form = json!({ "name": "web-1", "image": "demo", "flavor": "tiny" });
        let answer = world.post("/api/v1/vms").bearer_auth(&token).json(&form);
        let accepted: Value = answer.send().await.unwrap().json().await.unwrap();
        let vm: VmId = accepted["vm"]["id"].as_str().unwrap().parse().unwrap();
        watch.until_vm(vm, VmState::Running).await;
        let made = world.volume(&token, "data").await;
        let volume = made["id"].as_str().unwrap().to_owned();
        let mut scene = Self {
            world,
            machine,
            agent: Some(agent),
            watch,
            token,
            volume,
        };
        scene.on_volume("attach", json!({ "vm_id": vm })).await;
        scene.until_attached().await;
        scene.machine.sim.scribble(scene.id());
        scene
    }

    async fn stop(&mut self) {
        self.agent.take().unwrap().stop().await;
    }

    fn id(&self) -> VolumeId {
        self.volume.parse().unwrap()
    }

    async fn post(&self, path: String, form: Value) -> Response {
        let request = self.world.post(&path).bearer_auth(&self.token);
        request.json(&form).send().await.unwrap()
    }

    async fn on_volume(&self, action: &str, form: Value) {
        let path = format!("/api/v1/volumes/{}/{action}", self.volume);
        let answer = self.post(path, form).await;
        assert!(answer.status().is_success(), "{action}");
    }

    async fn until_attached(&mut self) {
        let attached = |event: &EventKind| matches!(event, EventKind::VolumeAttached { .. });
        self.watch.until(attached).await;
    }

    async fn import(&self, name: &str) -> (String, String) {
        let form = json!({ "name": name, "volume": "data" });
        self.world.importing(&self.token, form).await
    }

    async fn content(&self, id: &str, range: Option<&str>) -> Response {
        let path = format!("/api/v1/images/{id}/content");
        let mut request = self.world.get(&path).bearer_auth(&self.token);
        if let Some(range) = range {
            request = request.header("range", range);
        }
        request.send().await.unwrap()
    }

    async fn operation(&self, id: &str) -> Value {
        let path = format!("/api/v1/operations/{id}");
        self.world.ask(&self.token, &path).await
    }
}

#[tokio::test]
async fn an_image_is_made_of_a_volume_while_its_vm_runs_and_is_downloaded() {
    let mut scene = Scene::new().await;
    let (id, _) = scene.import("of-data").await;
    let image = until(&mut scene.watch, ImageState::Ready).await;
    assert_eq!(image["origin"]["kind"], "volume");
    assert_eq!(image["origin"]["name"], "data");
    assert_eq!(image["content"]["format"], "qcow2");
    assert_eq!(image["content"]["virtual_mib"], 10);
    assert_eq!(scene.machine.sim.copies().len(), 0, "nothing is left there");

    let answer = scene.content(&id, None).await;
    assert_eq!(answer.status(), 200);
    let headers = answer.headers().clone();
    let digest = image["content"]["sha256"].as_str().unwrap();
    assert_eq!(headers["etag"], format!("\"{digest}\""));
    assert_eq!(headers["accept-ranges"], "bytes");
    assert_eq!(headers["content-type"], "application/octet-stream");
    let disposition = "attachment; filename=\"of-data.qcow2\"";
    assert_eq!(headers["content-disposition"], disposition);
    let whole = answer.bytes().await.unwrap();
    assert_eq!(sha256(&whole), digest);
    let text = String::from_utf8_lossy(&whole);
    assert!(text.ends_with(&format!("{}: written\n", scene.volume)));

    // A download that broke off goes on.
    let from = whole.len() - 10;
    let rest = scene.content(&id, Some(&format!("bytes={from}-"))).await;
    assert_eq!(rest.status(), 206);
    let range = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
    assert_eq!(rest.headers()["content-range"], range);
    assert_eq!(rest.bytes().await.unwrap(), whole[from..]);
    let beyond = format!("bytes={}-", whole.len());
    assert_eq!(scene.content(&id, Some(&beyond)).await.status(), 416);
    let path = format!("/api/v1/images/{id}/content");
    let head = scene.world.http.head(scene.world.url(&path));
    let head = head.bearer_auth(&scene.token).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], whole.len().to_string());

    // It is like any other: a volume begins as a copy of it.
    let form = json!({ "name": "clone", "size_mib": 10, "image": "of-data" });
    let made = scene.world.post("/api/v1/volumes").json(&form);
    let made = made.bearer_auth(&scene.token).send().await.unwrap();
    assert_eq!(made.status(), 201);
    scene.stop().await;
}

#[tokio::test]
async fn a_clone_is_there_at_once_and_attached_once_its_content_is() {
    let mut scene = Scene::new().await;
    let path = format!("/api/v1/volumes/{}", scene.volume);
    let owner = scene.world.ask(&scene.token, &path).await["vm"]["id"].clone();
    let taken = scene
        .post(format!("{path}/clone"), json!({ "name": "data" }))
        .await;
    problem(taken, 409).await;
    scene.machine.sim.delay(Call::CopyVolume, PATIENCE);
    let made = scene
        .post(format!("{path}/clone"), json!({ "name": "twin" }))
        .await;
    assert_eq!(made.status(), 202);
    let made: Value = made.json().await.unwrap();
    assert_eq!(made["volume"]["size_mib"], 10);
    let twin = made["volume"]["id"].as_str().unwrap().to_owned();
    let image = format!("clone-of-data-{}", &twin[twin.len() - 8..]);
    let attach = format!("/api/v1/volumes/{twin}/attach");
    let early = scene.post(attach.clone(), json!({ "vm_id": owner })).await;
    let told = format!("volume `twin` is to begin as image `{image}`, which is still on its way");
    assert_eq!(problem(early, 409).await["detail"], told);
    let shown = format!("/api/v1/volumes/{twin}");
    let shown = scene.world.ask(&scene.token, &shown).await;
    assert_eq!(shown["content"], json!({ "state": "coming" }));
    // The agent starts anew, and is asked anew.
    scene
        .machine
        .sim
        .delay(Call::CopyVolume, std::time::Duration::ZERO);
    scene.stop().await;
    let agent = scene.machine.start(&scene.world);
    let whole = until(&mut scene.watch, ImageState::Trashed).await;
    assert_eq!(whole["name"], json!(image));
    assert_eq!(whole["origin"]["clone"], "twin");
    let attached = scene.post(attach, json!({ "vm_id": owner })).await;
    assert_eq!(attached.status(), 202);
    scene.until_attached().await;
    let twin: VolumeId = twin.parse().unwrap();
    assert_eq!(scene.machine.sim.reads_zeros(twin), Some(false));
    agent.stop().await;
}

#[tokio::test]
async fn a_clone_whose_content_does_not_come_says_so() {
    let mut scene = Scene::new().await;
    let full = Fault::new(FaultKind::NoSpace, "the host's disk is full");
    scene
        .machine
        .sim
        .mishap(Call::CopyVolume, Mishap::Fail(full));
    let path = format!("/api/v1/volumes/{}", scene.volume);
    let made = scene
        .post(format!("{path}/clone"), json!({ "name": "twin" }))
        .await;
    let made: Value = made.json().await.unwrap();
    let twin = made["volume"]["id"].as_str().unwrap().to_owned();
    let image = until(&mut scene.watch, ImageState::Failed).await;
    let path = format!("/api/v1/volumes/{twin}");
    let reason = "did not come: the source could not be read: the host's disk is full; \
                  import that image again, or delete the volume";
    let missing = json!({ "state": "missing", "reason": reason });
    for shown in [
        scene.world.ask(&scene.token, &path).await,
        scene.world.ask(&scene.token, "/api/v1/volumes").await["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|volume| volume["id"] == json!(twin))
            .unwrap()
            .clone(),
    ] {
        assert_eq!(shown["content"], missing);
    }
    let timeline = format!("{path}/timeline");
    let timeline = scene.world.ask(&scene.token, &timeline).await;
    let told = |event: &Value| event["event"]["kind"] == "operation_failed";
    assert!(
        timeline["items"].as_array().unwrap().iter().any(told),
        "{timeline}"
    );
    let id = image["id"].as_str().unwrap();
    let again = scene.world.act(&scene.token, id, "retry").await;
    assert_eq!(again.status(), 200);
    until(&mut scene.watch, ImageState::Trashed).await;
    let shown = scene.world.ask(&scene.token, &path).await;
    assert_eq!(shown["content"], json!({ "state": "at_hand" }));
    scene.stop().await;
}

#[tokio::test]
async fn an_import_waits_for_a_host_that_is_away_and_can_be_cancelled() {
    let mut scene = Scene::new().await;
    scene.stop().await;
    let gone = |event: &EventKind| *event == EventKind::HostDisconnected;
    scene.watch.until(gone).await;
    let form = json!({ "name": "of-data", "volume": scene.volume });
    let (id, operation) = scene.world.importing(&scene.token, form).await;
    let (_, unwanted) = {
        let form = json!({ "name": "unwanted", "volume": "data" });
        scene.world.importing(&scene.token, form).await
    };
    let waits = async {
        while scene
            .world
            .ask(&scene.token, &format!("/api/v1/operations/{operation}"))
            .await["waits_for"]
            != "host `host-a`, which is away"
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waits).await.unwrap();
    let cancel = format!("/api/v1/operations/{unwanted}/cancel");
    let cancel = scene.world.post(&cancel).bearer_auth(&scene.token);
    assert_eq!(cancel.send().await.unwrap().status(), 202);
    let agent = scene.machine.start(&scene.world);
    let image = until(&mut scene.watch, ImageState::Ready).await;
    assert_eq!(image["id"], id);
    let now: Value = {
        let path = format!("/api/v1/operations/{unwanted}");
        scene.world.ask(&scene.token, &path).await
    };
    assert_eq!(now["state"], "cancelled");
    let now = {
        let path = format!("/api/v1/operations/{operation}");
        scene.world.ask(&scene.token, &path).await
    };
    assert_eq!(now["waits_for"], json!(null));
    agent.stop().await;
}

#[tokio::test]
async fn a_copy_that_fails_is_told_and_can_be_tried_again() {
    let mut scene = Scene::new().await;
    let full = Fault::new(FaultKind::NoSpace, "the host's disk is full");
    scene
        .machine
        .sim
        .mishap(Call::CopyVolume, Mishap::Fail(full));
    let (id, operation) = scene.import("of-data").await;
    let image = until(&mut scene.watch, ImageState::Failed).await;
    let why = "the source could not be read: the host's disk is full";
    assert_eq!(image["failure"], why);
    assert_eq!(scene.operation(&operation).await["error"], why);
    // Something else was to be done with it first: that is no failure.
    let late = Fault::new(FaultKind::Cancelled, "a later call overtook this one");
    scene
        .machine
        .sim
        .mishap(Call::CopyVolume, Mishap::Fail(late));
    let again = scene.world.act(&scene.token, &id, "retry").await;
    assert_eq!(again.status(), 200);
    let image = until(&mut scene.watch, ImageState::Ready).await;
    assert_eq!(image["id"], id);
    assert_eq!(scene.machine.sim.copies().len(), 0);
    scene.stop().await;
}

#[tokio::test]
async fn a_volume_that_is_read_is_not_deleted() {
    let mut scene = Scene::new().await;
    scene.on_volume("detach", json!(null)).await;
    let free = |event: &EventKind| matches!(event, EventKind::VolumeDetached { .. });
    scene.watch.until(free).await;
    scene.stop().await;
    let gone = |event: &EventKind| *event == EventKind::HostDisconnected;
    scene.watch.until(gone).await;
    let form = json!({ "name": "of-data", "volume": "data" });
    let (_, operation) = scene.world.importing(&scene.token, form).await;
    let path = format!("/api/v1/volumes/{}", scene.volume);
    let delete = async || {
        let request = scene.world.http.delete(scene.world.url(&path));
        request.bearer_auth(&scene.token).send().await.unwrap()
    };
    let refused = problem(delete().await, 409).await;
    let told = "volume `data` is just read for image `of-data`; wait for that, or cancel it";
    assert_eq!(refused["detail"], told);
    let cancel = format!("/api/v1/operations/{operation}/cancel");
    let cancel = scene.world.post(&cancel).bearer_auth(&scene.token);
    assert_eq!(cancel.send().await.unwrap().status(), 202);
    assert_eq!(delete().await.status(), 200);
}

#[tokio::test]
async fn what_there_is_no_image_of_is_refused_in_words() {
    let mut scene = Scene::new().await;
    let import = async |token: &str, form: Value| scene.world.import(token, form).await;
    let form = |volume: &str| json!({ "name": "of-data", "volume": volume });
    let refused = problem(import(&scene.token, form("nothing")).await, 422).await;
    assert_eq!(refused["errors"][0]["field"], "volume");
    let with_sum = json!({ "name": "x", "volume": "data", "checksum": "0".repeat(64) });
    let refused = problem(import(&scene.token, with_sum).await, 422).await;
    assert_eq!(refused["errors"][0]["field"], "checksum");
    let fresh = scene.world.volume(&scene.token, "fresh").await;
    let refused = problem(import(&scene.token, form("fresh")).await, 409).await;
    let told = "volume `fresh` was never attached: there is nothing on it yet";
    assert_eq!(refused["detail"], told);
    let path = format!("/api/v1/volumes/{}", fresh["id"].as_str().unwrap());
    let request = scene.world.http.delete(scene.world.url(&path));
    request.bearer_auth(&scene.token).send().await.unwrap();
    let id = fresh["id"].as_str().unwrap();
    let refused = problem(import(&scene.token, form(id)).await, 409).await;
    assert_eq!(refused["detail"], "volume `fresh` is deleted");

    // Another tenant's is not there, in the same words.
    scene.world.make_tenant("lab").await;
    let bob = scene.world.member("bob", "lab", "manager").await;
    let nothing = format!("vol_{}", "0".repeat(32));
    let mut told = Vec::new();
    for id in [&scene.volume, &nothing] {
        let refused = problem(import(&bob, form(id)).await, 404).await;
        told.push(refused["detail"].to_string().replace(id.as_str(), "it"));
    }
    assert_eq!(told[0], told[1]);
    let refused = problem(import(&bob, form("data")).await, 422).await;
    assert_eq!(refused["errors"][0]["field"], "volume");
    let (image, _) = scene.import("of-data").await;
    let path = format!("/api/v1/images/{image}/content");
    let theirs = scene.world.get(&path).bearer_auth(&bob).send().await;
    problem(theirs.unwrap(), 404).await;
    // Nor does a viewer make one.
    let viewer = scene.world.member("eve", "default", "viewer").await;
    problem(import(&viewer, form("data")).await, 403).await;
    scene.stop().await;
}
