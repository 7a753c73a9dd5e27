//! Images that are asked for anew at their source, over the interface.

use serde_json::{Value, json};
use tokio::time::timeout;
use vimana_model::event::EventKind;
use vimana_model::image::ImageState;
use vimana_model::operation::OperationKind;
use vimana_model::{ImageId, Timestamp};
use vimana_store::image::{self, ImageRecord};
use vimana_store::testing::deface;
use vimana_store::{Store, operation};

use crate::fsck::scene::fsck;
use crate::image::{Site, open, sha256, until, world};
use crate::share::Peer;
use crate::watch::{PATIENCE, Watch};
use crate::world::{World, problem, qcow2};

const DAY: u64 = 86_400;

/// Content that is an image, and another for every number.
fn disk(number: u8) -> Vec<u8> {
    vec![number; 1 << 20]
}

/// An image called `mine` that is refreshed daily.
async fn refreshed(world: &World, token: &str, watch: &mut Watch, url: &str) -> String {
    let form = json!({ "name": "mine", "url": url, "refresh_seconds": DAY });
    let (id, _) = world.importing(token, form).await;
    until(watch, ImageState::Ready).await;
    id
}

impl World {
    async fn refresh(&self, token: &str, id: &str) -> reqwest::Response {
        let request = self.post(&format!("/api/v1/images/{id}/refresh"));
        request.bearer_auth(token).send().await.unwrap()
    }

    async fn set_refresh(&self, token: &str, id: &str, form: Value) -> reqwest::Response {
        let url = self.url(&format!("/api/v1/images/{id}/refresh"));
        let request = self.http.patch(url).bearer_auth(token).json(&form);
        request.send().await.unwrap()
    }

    async fn stop_refresh(&self, token: &str, id: &str) -> reqwest::Response {
        let url = self.url(&format!("/api/v1/images/{id}/refresh"));
        let request = self.http.delete(url).bearer_auth(token);
        request.send().await.unwrap()
    }

    async fn make_vm(&self, token: &str, name: &str) -> Value {
        let form = json!({ "name": name, "image": "mine", "flavor": "small", "hold": true });
        let made = self.post("/api/v1/vms").bearer_auth(token).json(&form);
        made.send().await.unwrap().json().await.unwrap()
    }

    /// As it is recorded.
    async fn record(&self, id: &str) -> ImageRecord {
        let database = self.dir.path().join("data/vimana.db");
        let url = format!("sqlite://{}", database.display());
        let store = Store::open_beside(&url).await.unwrap();
        let id: ImageId = id.parse().unwrap();
        let found = image::find(&store.read(), id).await.unwrap().unwrap();
        store.close().await.unwrap();
        found
    }

    /// The server ends, and another begins after these statements.
    async fn restarted(self, statements: &str) -> Self {
        let Self { running, dir, http } = self;
        running.stop().await.unwrap();
        let database = dir.path().join("data/vimana.db");
        deface(&database, statements).await.unwrap();
        let running = open(dir.path()).await;
        Self { running, dir, http }
    }

    async fn nothing_is_wrong(&self) {
        let told = fsck(&self.dir.path().join("data"), &["--without-hosts"]).await;
        assert_eq!(told.status, 0, "{told:#?}");
    }
}

/// What its source answered: the successor, if there is one.
async fn answered(watch: &mut Watch) -> Option<String> {
    let is = |event: &EventKind| matches!(event, EventKind::ImageRefreshed { .. });
    let item = watch.until(is).await;
    let EventKind::ImageRefreshed { successor } = item.event.event else {
        panic!("{item:?}");
    };
    successor.map(|id| id.to_string())
}

async fn not_answered(watch: &mut Watch) -> String {
    let operation = OperationKind::Refresh;
    let item = watch
        .until(|event| {
            matches!(event, EventKind::OperationFailed { operation: of, .. } if *of == operation)
        })
        .await;
    let EventKind::OperationFailed { reason, .. } = item.event.event else {
        panic!("{item:?}");
    };
    reason
}

fn at(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_is_new_takes_the_name_and_the_image_stays_for_its_vms() {
    let (world, site) = (world().await, Site::new().await);
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    let url = site.serve("disk.img", disk(1));
    let old = refreshed(&world, &token, &mut watch, &url).await;
    let before = world.image(&token, &old).await;
    assert_eq!(before["refresh"]["every_seconds"], DAY);
    assert_eq!(before["refresh"]["failure"], Value::Null);
    let (last, next) = (&before["refresh"]["last_at"], &before["refresh"]["next_at"]);
    assert_eq!(at(next).since_ms(at(last)), 86_400_000);
    let made = world.make_vm(&token, "first").await;
    assert_eq!(made["vm"]["image_id"], old);

    site.serve("disk.img", disk(2));
    assert_eq!(world.refresh(&token, &old).await.status(), 202);
    let new = answered(&mut watch).await.unwrap();
    until(&mut watch, ImageState::Ready).await;
    let (after, successor) = (
        world.image(&token, &old).await,
        world.image(&token, &new).await,
    );
    let day = &after["superseded_at"].as_str().unwrap()[..10];
    assert_eq!(after["name"], format!("mine.{day}"));
    assert_eq!(after["state"], "ready");
    assert_eq!(after["content"], before["content"]);
    assert_eq!(after["refresh"], Value::Null);
    assert_eq!(after["operation"]["kind"], "refresh");
    assert_eq!(after["operation"]["state"], "succeeded");
    assert_eq!(successor["name"], "mine");
    assert_eq!(successor["content"]["sha256"], sha256(&disk(2)));
    assert_eq!(successor["refresh"]["every_seconds"], DAY);
    assert_eq!(successor["owner"], "admin");
    assert_eq!(successor["origin"]["url"], url);
    assert_eq!(
        (world.files_of(&old).len(), world.files_of(&new).len()),
        (1, 1)
    );
    assert!(world.record(&old).await.order.is_none());
    assert!(world.record(&new).await.order.is_some());
    let second = world.make_vm(&token, "second").await;
    assert_eq!(second["vm"]["image_id"], new);
    world.nothing_is_wrong().await;

    // Once more on the same day; the name of the first is taken.
    site.serve("disk.img", disk(1));
    assert_eq!(world.refresh(&token, &new).await.status(), 202);
    let third = answered(&mut watch).await.unwrap();
    until(&mut watch, ImageState::Ready).await;
    let name = world.image(&token, &new).await["name"].clone();
    assert_eq!(name, format!("mine.{day}-2"));
    problem(world.refresh(&token, &old).await, 409).await;
    let form = json!({ "every_seconds": DAY });
    problem(world.set_refresh(&token, &old, form).await, 409).await;

    // The sweep that a server begins with takes what nothing is made from.
    let vm = made["vm"]["id"].as_str().unwrap();
    let gone = world.http.delete(world.url(&format!("/api/v1/vms/{vm}")));
    assert_eq!(gone.bearer_auth(&token).send().await.unwrap().status(), 202);
    let world = world.restarted("").await;
    let swept = async {
        while world.image(&token, &old).await["state"] != "trashed" {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, swept).await.unwrap();
    assert_eq!(world.image(&token, &new).await["state"], "ready");
    assert_eq!(world.image(&token, &third).await["state"], "ready");
    // Whoever restores it wants it for its own sake.
    assert_eq!(world.act(&token, &old, "restore").await.status(), 200);
    assert_eq!(
        world.image(&token, &old).await["superseded_at"],
        Value::Null
    );
    world.nothing_is_wrong().await;
}

#[tokio::test]
async fn what_is_the_same_makes_no_successor_and_is_not_even_fetched() {
    let (world, site) = (world().await, Site::new().await);
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    // Its last KiB never comes.
    site.serve("disk.img", disk(1));
    let url = format!("http://{}/held/disk.img", site.address);
    site.gate.add_permits(1);
    let id = refreshed(&world, &token, &mut watch, &url).await;
    let before = world.image(&token, &id).await;
    assert_eq!(world.refresh(&token, &id).await.status(), 202);
    assert_eq!(answered(&mut watch).await, None);
    let after = world.image(&token, &id).await;
    assert!(at(&after["refresh"]["last_at"]) > at(&before["refresh"]["last_at"]));
    assert_eq!(after["operation"]["kind"], "import");

    // Under another tag it has to be looked at.
    "other".clone_into(&mut site.tag.lock().unwrap());
    site.gate.add_permits(9);
    assert_eq!(world.refresh(&token, &id).await.status(), 202);
    assert_eq!(answered(&mut watch).await, None);
    let after = world.image(&token, &id).await;
    assert_eq!(
        (&after["name"], &after["state"]),
        (&json!("mine"), &json!("ready"))
    );
    assert_eq!(after["operation"]["kind"], "refresh");
    assert_eq!(after["operation"]["state"], "succeeded");
    assert_eq!(after["superseded_at"], Value::Null);
    let images = world.ask(&token, "/api/v1/images").await;
    assert_eq!(images["items"].as_array().unwrap().len(), 2);
    assert_eq!(world.record(&id).await.successor(), None);
    let images = world.dir.path().join("data/images");
    assert_eq!(
        std::fs::read_dir(images.join("staging")).unwrap().count(),
        0
    );
    world.nothing_is_wrong().await;
}

#[tokio::test]
async fn an_image_whose_refresh_fails_serves_on_and_is_refreshed_the_next_time() {
    let (world, site) = (world().await, Site::new().await);
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    let url = site.serve("disk.img", disk(1));
    let id = refreshed(&world, &token, &mut watch, &url).await;
    let before = world.image(&token, &id).await;
    // It is not there; and then it is no image.
    site.files.lock().unwrap().clear();
    assert_eq!(world.refresh(&token, &id).await.status(), 202);
    assert_eq!(not_answered(&mut watch).await, "the source is not there");
    site.serve("disk.img", "<!DOCTYPE html><html></html>");
    assert_eq!(world.refresh(&token, &id).await.status(), 202);
    let why = not_answered(&mut watch).await;
    assert!(why.contains("web page"), "{why}");
    let after = world.image(&token, &id).await;
    assert_eq!(after["refresh"]["failure"], why);
    assert_eq!(after["refresh"]["last_at"], before["refresh"]["last_at"]);
    assert!(at(&after["refresh"]["next_at"]) > at(&before["refresh"]["next_at"]));
    assert_eq!(
        (&after["state"], &after["failure"]),
        (&json!("ready"), &Value::Null)
    );
    assert_eq!(after["operation"]["state"], "failed");
    assert_eq!(world.make_vm(&token, "web").await["vm"]["image_id"], id);
    world.nothing_is_wrong().await;

    site.serve("disk.img", disk(2));
    assert_eq!(world.refresh(&token, &id).await.status(), 202);
    let new = answered(&mut watch).await.unwrap();
    until(&mut watch, ImageState::Ready).await;
    assert_eq!(
        world.image(&token, &new).await["refresh"]["failure"],
        Value::Null
    );
}

#[tokio::test]
async fn what_is_due_is_refreshed_by_itself_and_goes_on_after_a_restart() {
    let (world, site) = (world().await, Site::new().await);
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    site.serve("disk.img", disk(1));
    let url = format!("http://{}/held/disk.img", site.address);
    site.gate.add_permits(1);
    let id = refreshed(&world, &token, &mut watch, &url).await;
    site.serve("disk.img", disk(2));
    drop(watch);
    let world = world
        .restarted("UPDATE images SET refresh_at = 1 WHERE refresh_at > 0")
        .await;
    let begun = async {
        while world.image(&token, &id).await["operation"]["kind"] != "refresh" {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, begun).await.unwrap();
    // One at a time, whoever asks.
    problem(world.refresh(&token, &id).await, 409).await;
    problem(world.stop_refresh(&token, &id).await, 409).await;
    world.nothing_is_wrong().await;
    let operation = world.image(&token, &id).await["operation"]["id"].clone();

    let world = world.restarted("").await;
    site.gate.add_permits(9);
    let ended = async {
        while world.image(&token, &id).await["superseded_at"] == Value::Null {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ended).await.unwrap();
    let after = world.image(&token, &id).await;
    assert_eq!(after["operation"]["id"], operation);
    let images = world.ask(&token, "/api/v1/images").await;
    let named = |image: &&Value| image["name"] == "mine";
    let new = images["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(named)
        .unwrap();
    assert_eq!(new["content"]["sha256"], sha256(&disk(2)));
    world.nothing_is_wrong().await;
}

#[tokio::test]
async fn a_refresh_is_cancelled_or_overtaken_by_a_deletion_and_leaves_nothing() {
    let (world, site) = (world().await, Site::new().await);
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    site.serve("disk.img", disk(1));
    let url = format!("http://{}/held/disk.img", site.address);
    site.gate.add_permits(1);
    let id = refreshed(&world, &token, &mut watch, &url).await;
    for (number, end) in [(2, "cancel"), (3, "delete")] {
        site.serve("disk.img", disk(number));
        assert_eq!(world.refresh(&token, &id).await.status(), 202);
        let fetches = async {
            loop {
                let successor = world.record(&id).await.successor().map(|found| found.id);
                if let Some(successor) = successor.map(|id| id.to_string())
                    && !world.files_of(&successor).is_empty()
                {
                    return successor;
                }
            }
        };
        let successor = timeout(PATIENCE, fetches).await.unwrap();
        let operation = world.image(&token, &id).await["operation"]["id"].clone();
        if end == "cancel" {
            let path = format!("/api/v1/operations/{}/cancel", operation.as_str().unwrap());
            let cancel = world.post(&path).bearer_auth(&token).send().await.unwrap();
            assert_eq!(cancel.status(), 202);
            let image = world.image(&token, &id).await;
            assert_eq!(image["state"], "ready");
            assert_eq!(image["refresh"]["failure"], "it was cancelled by admin");
        } else {
            assert_eq!(world.act(&token, &id, "delete").await.status(), 200);
            let image = world.image(&token, &id).await;
            assert_eq!(
                (&image["state"], &image["refresh"]),
                (&json!("trashed"), &Value::Null)
            );
            assert!(world.record(&id).await.order.is_none());
        }
        let path = format!("/api/v1/operations/{}", operation.as_str().unwrap());
        assert_eq!(world.ask(&token, &path).await["state"], "cancelled");
        world.until_nothing_is_left(&successor).await;
        world.nothing_is_wrong().await;
    }
}

#[tokio::test]
async fn a_password_is_kept_as_long_as_it_is_needed_and_shown_to_nobody() {
    let (world, site) = (world().await, Site::new().await);
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    site.serve("disk.img", disk(1));
    let url = format!("http://ann:hunter2@{}/disk.img", site.address);
    let form = json!({ "name": "mine", "url": url });
    let (id, _) = world.importing(&token, form).await;
    until(&mut watch, ImageState::Ready).await;
    assert!(world.record(&id).await.order.is_none());
    // It is not known any more.
    let form = json!({ "every_seconds": DAY });
    let refused = problem(world.set_refresh(&token, &id, form.clone()).await, 422).await;
    assert_eq!(refused["errors"][0]["field"], "url");
    let with = json!({ "every_seconds": DAY, "url": url });
    let shown = world
        .set_refresh(&token, &id, with)
        .await
        .text()
        .await
        .unwrap();
    assert!(
        !shown.contains("hunter2") && shown.contains("ann:***@"),
        "{shown}"
    );
    assert!(world.record(&id).await.order.is_some());
    // Now it is, and whoever changes how often need not say it again.
    let weekly = json!({ "every_seconds": 7 * DAY });
    assert_eq!(world.set_refresh(&token, &id, weekly).await.status(), 200);
    site.files.lock().unwrap().clear();
    assert_eq!(world.refresh(&token, &id).await.status(), 202);
    not_answered(&mut watch).await;
    for path in ["", "/timeline", "/operations"] {
        let path = format!("/api/v1/images/{id}{path}");
        let shown = world.ask(&token, &path).await;
        assert!(!shown.to_string().contains("hunter2"), "{path}");
    }
    assert_eq!(world.stop_refresh(&token, &id).await.status(), 200);
    let record = world.record(&id).await;
    assert_eq!((record.order, record.refresh), (None, None));
    problem(world.set_refresh(&token, &id, form).await, 422).await;
    problem(world.refresh(&token, &id).await, 409).await;
}

#[tokio::test]
async fn only_managers_of_an_image_say_how_often_and_only_within_bounds() {
    let (world, site) = (world().await, Site::new().await);
    world.tenant("one", "automatic").await;
    let ann = world.member("ann", "one", "operator").await;
    let vic = world.member("vic", "one", "viewer").await;
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    let url = site.serve("disk.img", qcow2());
    for seconds in [0, 3599, 90 * DAY + 1] {
        let form = json!({ "name": "mine", "url": url, "refresh_seconds": seconds });
        let refused = problem(world.import(&token, form).await, 422).await;
        assert_eq!(refused["errors"][0]["field"], "refresh_seconds");
    }
    let file = json!({ "size_bytes": 5, "file_name": "x" });
    let form = json!({ "name": "mine", "upload": file, "refresh_seconds": DAY });
    let refused = problem(world.import(&token, form).await, 422).await;
    assert_eq!(refused["errors"][0]["field"], "refresh_seconds");
    let form = json!({ "name": "mine", "url": url, "public": true });
    let (id, _) = world.importing(&token, form).await;
    until(&mut watch, ImageState::Ready).await;
    let form = json!({ "every_seconds": DAY });
    for member in [&ann, &vic] {
        problem(world.set_refresh(member, &id, form.clone()).await, 403).await;
        problem(world.refresh(member, &id).await, 403).await;
        problem(world.stop_refresh(member, &id).await, 403).await;
    }
    let refused = world
        .set_refresh(&token, &id, json!({ "every_seconds": 1 }))
        .await;
    problem(refused, 422).await;
    let inside = json!({ "every_seconds": DAY, "url": "http://10.0.0.1/x" });
    problem(world.set_refresh(&token, &id, inside).await, 422).await;
    let set = world.set_refresh(&token, &id, form).await;
    assert_eq!(set.status(), 200);
    let set: Value = set.json().await.unwrap();
    let wait = at(&set["refresh"]["next_at"]).since_ms(at(&set["state_since"]));
    assert!((86_400_000..86_460_000).contains(&wait), "{wait}");
}

#[tokio::test]
async fn two_that_ask_at_once_have_one_refresh_made() {
    let (world, site) = (world().await, Site::new().await);
    let token = world.token().await;
    let mut watch = Watch::new(&world).await;
    let url = site.serve("disk.img", disk(1));
    let id = refreshed(&world, &token, &mut watch, &url).await;
    site.serve("disk.img", disk(2));
    // Either may come too late.
    let both = tokio::join!(world.refresh(&token, &id), world.refresh(&token, &id));
    assert!(both.0.status() == 202 || both.1.status() == 202);
    answered(&mut watch).await.unwrap();
    until(&mut watch, ImageState::Ready).await;
    let database = world.dir.path().join("data/vimana.db");
    let url = format!("sqlite://{}", database.display());
    let store = Store::open_beside(&url).await.unwrap();
    let made = operation::for_image(&store.read(), id.parse().unwrap()).await;
    let kinds: Vec<OperationKind> = made.unwrap().iter().map(|found| found.kind).collect();
    assert_eq!(kinds, [OperationKind::Refresh, OperationKind::Import]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn files_of_other_servers_are_asked_for_their_time_and_size() {
    let world = world().await;
    let token = world.token().await;
    let (ftp, nfs) = (Peer::ftp(&[]), Peer::nfs());
    let ftp_url = format!("ftp://127.0.0.1:{}/disk.img", ftp.port);
    let nfs_url = format!("nfs://127.0.0.1{}/disk.img", nfs.files().display());
    for (name, peer, url) in [("of-ftp", &ftp, ftp_url), ("of-nfs", &nfs, nfs_url)] {
        let mut watch = Watch::new(&world).await;
        std::fs::write(peer.file("disk.img"), disk(1)).unwrap();
        let form = json!({ "name": name, "url": url, "refresh_seconds": DAY });
        let (id, _) = world.importing(&token, form).await;
        until(&mut watch, ImageState::Ready).await;
        assert_eq!(world.refresh(&token, &id).await.status(), 202);
        assert_eq!(answered(&mut watch).await, None);
        // It was only asked for.
        assert_eq!(
            world.image(&token, &id).await["operation"]["kind"],
            "import"
        );
        std::fs::write(peer.file("disk.img"), [disk(2), disk(3)].concat()).unwrap();
        assert_eq!(world.refresh(&token, &id).await.status(), 202);
        let new = answered(&mut watch).await.unwrap();
        until(&mut watch, ImageState::Ready).await;
        assert_eq!(world.image(&token, &new).await["content"]["virtual_mib"], 2);
        assert_eq!(world.image(&token, &new).await["name"], name);
    }
}
