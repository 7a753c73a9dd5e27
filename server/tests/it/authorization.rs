//! Every route of the interface's own description, asked for by those who may not: a
//! route that is added must be added here, too.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::World;

/// What one tenant has.
struct Belongings {
    /// Names in paths, and what stands for them.
    places: Vec<(&'static str, String)>,
}

/// A stream that is new here would never end.
const PATIENCE: Duration = Duration::from_secs(30);

const NOTHING: &str = "00000000000000000000000000000000";

impl Belongings {
    /// The same paths with ids of the same kinds that nothing has.
    fn absent(&self) -> Self {
        let absent = |(name, value): &(&'static str, String)| {
            let value = match value.split_once('_') {
                Some((kind, _)) => format!("{kind}_{NOTHING}"),
                // Names are the tenant's own, or words.
                None => value.clone(),
            };
            (*name, value)
        };
        let places = self.places.iter().map(absent);
        Self {
            places: places.collect(),
        }
    }

    fn fill(&self, path: &str) -> String {
        let filled = self.places.iter().fold(path.to_owned(), |path, place| {
            path.replace(&format!("{{{}}}", place.0), &place.1)
        });
        assert!(!filled.contains('{'), "a new place in {path}");
        filled
    }

    /// What was answered, with every id of it in the place of one that nothing has.
    fn hide(&self, text: &str) -> String {
        self.absent()
            .places
            .iter()
            .zip(&self.places)
            .filter(|((_, absent), (_, value))| absent != value)
            .fold(text.to_owned(), |text, ((_, absent), (_, value))| {
                text.replace(value.as_str(), absent)
            })
    }
}

struct Scene {
    world: World,
    acme: Belongings,
    /// Reads in the tenant that has them.
    viewer: String,
    /// Manages another tenant.
    stranger: String,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new().await;
        let tenant = world.tenant("acme", "automatic").await;
        world.tenant("other", "automatic").await;
        let manager = world.member("mia", "acme", "manager").await;
        let viewer = world.member("vic", "acme", "viewer").await;
        let stranger = world.member("sam", "other", "manager").await;
        let (vm, _) = world.held_vm(&manager, "secret-vm").await;
        let of_vm = format!("/api/v1/vms/{vm}/operations");
        let operation = world.ask(&manager, &of_vm).await["items"][0]["id"].clone();
        let make = async |path: &str, form: Value| -> Value {
            let request = world.post(&format!("/api/v1/{path}")).bearer_auth(&manager);
            let answer = request.json(&form).send().await.unwrap();
            assert!(answer.status().is_success(), "{path}");
            answer.json().await.unwrap()
        };
        let volume = make("volumes", json!({ "name": "secret-volume", "size_mib": 1 })).await;
        let template = make("templates", json!({ "name": "secret-template" })).await;
        let upload = json!({ "size_bytes": 1, "file_name": "secret.img" });
        let image = make(
            "images",
            json!({ "name": "secret-image", "upload": upload }),
        )
        .await;
        // From here on people ask, and somebody decides.
        let id = tenant["id"].as_str().unwrap();
        let admin = world.token().await;
        let change = world
            .http
            .patch(world.url(&format!("/api/v1/tenants/{id}")));
        let change = change.bearer_auth(admin).json(&json!({ "kind": "manual" }));
        assert_eq!(change.send().await.unwrap().status(), 200);
        let terms = json!({ "name": "secret-wish", "image": "demo", "flavor": "tiny" });
        let wish = json!({ "terms": terms, "purpose": "secret-purpose" });
        let request = make("requests", wish).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let nothing = |kind: &str| format!("{kind}_{NOTHING}");
        let acme = Belongings {
            places: vec![
                ("vm_id", vm),
                ("operation_id", text(&operation)),
                ("volume_id", text(&volume["id"])),
                ("template_id", text(&template["id"])),
                ("image_id", text(&image["image"]["id"])),
                ("request_id", text(&request["id"])),
                ("tenant_id", id.to_owned()),
                // Of these there is none: they are asked about with the others.
                ("snapshot_id", nothing("snap")),
                ("backup_id", nothing("bak")),
                ("host_id", nothing("host")),
                ("user_name", "mia".to_owned()),
                ("name", "tiny".to_owned()),
                ("kind", "backup".to_owned()),
                ("action", "withdraw".to_owned()),
            ],
        };
        Self {
            world,
            acme,
            viewer,
            stranger,
        }
    }

    /// `(method, path, operation)` of everything.
    async fn routes(&self) -> Vec<(Method, String, Value)> {
        let document = self.world.ask(&self.viewer, "/api/v1/openapi.json").await;
        let mut routes = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let method: Method = method.to_uppercase().parse().unwrap();
                routes.push((method, path.clone(), operation.clone()));
            }
        }
        routes
    }

    async fn ask(
        &self,
        token: &str,
        (method, path, operation): &(Method, String, Value),
        of: &Belongings,
    ) -> (u16, String) {
        let url = self.world.url(&of.fill(path));
        let mut request = self.world.http.request(method.clone(), url);
        request = request.bearer_auth(token).timeout(PATIENCE);
        if operation["requestBody"].is_object() {
            let name = operation["operationId"].as_str().unwrap();
            request = match body(name, of) {
                Some(form) => request.json(&form),
                None => request
                    .header("content-type", "application/offset+octet-stream")
                    .header("upload-offset", "0")
                    .body("x"),
            };
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.text().await.unwrap())
    }
}

/// A form that would be taken, by the name of the operation.
fn body(operation: &str, of: &Belongings) -> Option<Value> {
    let limits = json!({ "limits": [{ "measure": "vms", "hard": 1000 }] });
    let vm = of.fill("{vm_id}");
    Some(match operation {
        "create_vm" => json!({ "name": "x", "image": "demo", "flavor": "tiny" }),
        "resize_vm" => json!({ "flavor": "small" }),
        "migrate_vm" => json!({ "host": "somewhere" }),
        "power_off_vm" => json!({ "force": true }),
        "take_snapshot" | "back_up_vm" => json!({ "name": "x" }),
        "restore_backup" => json!({ "name": "x" }),
        "set_schedule" => json!({ "every_s": 86400, "keep": 1 }),
        "create_volume" => json!({ "name": "x", "size_mib": 1 }),
        "change_volume" => json!({ "delete_with_vm": true }),
        "attach_volume" => json!({ "vm_id": vm }),
        "clone_volume" => json!({ "name": "x" }),
        "grow_volume" => json!({ "size_mib": 2 }),
        "move_volume" => json!({ "datastore": "local" }),
        "import_image" => json!({ "name": "x", "url": "https://images.example/x" }),
        "set_image_refresh" => json!({ "every_seconds": 86400 }),
        "create_request" => json!({
            "terms": { "name": "x", "image": "demo", "flavor": "tiny" }, "purpose": "x"
        }),
        "act_on_request" => json!({}),
        "create_template" | "change_template" => json!({ "name": "x" }),
        "create_flavor" => json!({ "name": "x", "vcpus": 1, "memory_mib": 64, "disk_mib": 64 }),
        "change_flavor" => json!({ "vcpus": 2 }),
        "create_join_token" | "evacuate_host" => json!({}),
        "create_tenant" => json!({ "name": "x" }),
        "update_tenant" => json!({ "kind": "automatic" }),
        "create_user" => json!({
            "name": "x", "password": "a long enough password", "tenant": "acme", "role": "viewer"
        }),
        "create_token" => json!({ "user_name": "nobody", "password": "wrong" }),
        "set_default_quota" | "set_tenant_quota" | "set_default_user_quota" | "set_user_quota" => {
            limits
        }
        "upload_image" => return None,
        _ => panic!("{operation} is new: say with which form it is asked for"),
    })
}

/// What anybody does who is signed in, whatever their role.
const ANYBODY: [&str; 2] = ["create_token", "delete_current_token"];

/// What a viewer does not even see: there is no backup, and the request is another's.
const UNSEEN: [&str; 3] = ["delete_backup", "restore_backup", "act_on_request"];

#[tokio::test]
async fn who_only_reads_changes_nothing() {
    let scene = Scene::new().await;
    let mut wrong = Vec::new();
    for route in scene.routes().await {
        let (method, path, operation) = &route;
        let name = operation["operationId"].as_str().unwrap();
        if [Method::GET, Method::HEAD].contains(method) || ANYBODY.contains(&name) {
            continue;
        }
        let (status, said) = scene.ask(&scene.viewer, &route, &scene.acme).await;
        let wanted = if UNSEEN.contains(&name) { 404 } else { 403 };
        if status != wanted {
            wrong.push(format!("{name} ({method} {path}): {status} {said}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn what_is_anothers_is_as_what_does_not_exist() {
    let scene = Scene::new().await;
    let absent = scene.acme.absent();
    let mut wrong = Vec::new();
    for route in scene.routes().await {
        let (method, path, operation) = &route;
        let name = operation["operationId"].as_str().unwrap();
        // Ends the session, or is one that never ends.
        if ["delete_current_token", "events", "open_console"].contains(&name) {
            continue;
        }
        let (status, theirs) = scene.ask(&scene.stranger, &route, &scene.acme).await;
        let (of_nothing, nothing) = scene.ask(&scene.stranger, &route, &absent).await;
        let told = theirs.contains("secret") || theirs.contains("acme");
        let differs = path.contains("_id}")
            && ((status, scene.acme.hide(&theirs)) != (of_nothing, nothing.clone())
                || (200..300).contains(&status));
        if told || differs {
            wrong.push(format!(
                "{name} ({method} {path}): {status} {theirs}, of nothing {of_nothing} {nothing}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
