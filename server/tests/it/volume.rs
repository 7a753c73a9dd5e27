//! Volumes and snapshots over the interface: names, tenants, and what is not
//! there.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, problem};

impl World {
    pub async fn make_tenant(&self, name: &str) {
        let form = json!({ "name": name });
        let answer = self.post("/api/v1/tenants").json(&form);
        let answer = answer.bearer_auth(self.token().await).send().await.unwrap();
        assert_eq!(answer.status(), 201);
    }

    async fn make_volume(&self, token: &str, form: &Value) -> reqwest::Response {
        let answer = self.post("/api/v1/volumes").json(form);
        answer.bearer_auth(token).send().await.unwrap()
    }

    pub async fn volume(&self, token: &str, name: &str) -> Value {
        let form = json!({ "name": name, "size_mib": 10 });
        let answer = self.make_volume(token, &form).await;
        assert_eq!(answer.status(), 201);
        answer.json().await.unwrap()
    }
}

#[tokio::test]
async fn a_volume_is_made_changed_grown_and_deleted() {
    let world = World::new().await;
    let token = world.token().await;
    let made = world.volume(&token, "data").await;
    let path = format!("/api/v1/volumes/{}", made["id"].as_str().unwrap());
    assert_eq!(
        (&made["state"], &made["host"]),
        (&json!("ready"), &json!(null))
    );

    let request = world.http.patch(world.url(&path)).bearer_auth(&token);
    let form = json!({ "delete_with_vm": true });
    let changed: Value = request
        .json(&form)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(changed["delete_with_vm"], true);

    let grow = world.post(&format!("{path}/grow")).bearer_auth(&token);
    let answer = grow.json(&json!({ "size_mib": 20 })).send().await.unwrap();
    assert_eq!(answer.status(), 200, "nobody has to do anything yet");
    let grown: Value = answer.json().await.unwrap();
    assert_eq!(grown["volume"]["size_mib"], 20);

    let told = world.ask(&token, &format!("{path}/timeline")).await;
    let kinds = told["items"].as_array().unwrap().iter();
    let kinds: Vec<_> = kinds.map(|item| item["event"]["kind"].clone()).collect();
    assert_eq!(kinds, ["volume_created", "note", "volume_grown"]);

    let request = world.http.delete(world.url(&path)).bearer_auth(&token);
    let gone: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(gone["state"], "removed", "no host ever had it");
    let listed = world.ask(&token, "/api/v1/volumes").await;
    assert_eq!(listed["items"], json!([]));
    // Its name is free again.
    world.volume(&token, "data").await;
}

/// B02, B03 and A13: what a name or an amount can be used for elsewhere.
#[tokio::test]
async fn what_is_no_name_or_size_is_refused_at_its_field() {
    let world = World::new().await;
    let token = world.token().await;
    for name in [
        "x,readonly=off,file=/etc/passwd",
        "a,,b",
        "a\nb",
        "../../etc/cron.d/x",
        "/etc/passwd",
        "..%2f",
        "-o",
        "gzip; id",
        "--checkpoint-action=exec",
        "a\0b",
        &"x".repeat(300),
        "",
    ] {
        let form = json!({ "name": name, "size_mib": 10 });
        let refused = problem(world.make_volume(&token, &form).await, 422).await;
        assert_eq!(refused["errors"][0]["field"], "name", "{name:?}: {refused}");
    }
    for size in [json!(0), json!(1_u64 << 60)] {
        let form = json!({ "name": "data", "size_mib": size });
        let refused = problem(world.make_volume(&token, &form).await, 422).await;
        assert_eq!(refused["errors"][0]["field"], "size_mib", "{refused}");
    }
    let form = json!({ "name": "data", "size_mib": 10, "image": "nothing" });
    let refused = problem(world.make_volume(&token, &form).await, 422).await;
    assert_eq!(refused["errors"][0]["field"], "image");
    let form = json!({ "name": "data", "size_mib": 10, "host_id": "x" });
    let refused = problem(world.make_volume(&token, &form).await, 400).await;
    assert!(refused.to_string().contains("unknown field"), "{refused}");
    let (vm, _) = world.held_vm(&token, "web-1").await;
    let path = format!("/api/v1/vms/{vm}/snapshots");
    let form = json!({ "name": "../x" });
    let take = world.post(&path).json(&form).bearer_auth(&token);
    let refused = problem(take.send().await.unwrap(), 422).await;
    assert_eq!(refused["errors"][0]["field"], "name");
}

/// A17.
#[tokio::test]
async fn what_is_another_tenants_is_not_there() {
    let world = World::new().await;
    let token = world.token().await;
    world.make_tenant("lab").await;
    let bob = world.member("bob", "lab", "manager").await;
    let made = world.volume(&token, "data").await;
    let (vm, _) = world.held_vm(&token, "web-1").await;
    let volume = made["id"].as_str().unwrap();
    let nothing = format!("vol_{}", "0".repeat(32));
    let of_volume = [
        (Method::GET, "", json!(null)),
        (Method::GET, "/timeline", json!(null)),
        (Method::PATCH, "", json!({ "delete_with_vm": true })),
        (Method::POST, "/grow", json!({ "size_mib": 20 })),
        (Method::POST, "/attach", json!({ "vm_id": vm })),
        (Method::POST, "/detach", json!(null)),
        (Method::DELETE, "", json!(null)),
    ];
    for (method, rest, form) in &of_volume {
        let mut told = Vec::new();
        for id in [volume, &nothing] {
            let url = world.url(&format!("/api/v1/volumes/{id}{rest}"));
            let mut request = world.http.request(method.clone(), url).bearer_auth(&bob);
            if !form.is_null() {
                request = request.json(form);
            }
            let refused = problem(request.send().await.unwrap(), 404).await;
            told.push(refused.to_string().replace(id, "it"));
        }
        assert_eq!(told[0], told[1], "{method} {rest}");
    }
    let listed = world.ask(&bob, "/api/v1/volumes").await;
    assert_eq!(listed["items"], json!([]));

    // Nor is one's own volume given to another's VM.
    let own = world.volume(&bob, "data").await;
    let attach = format!("/api/v1/volumes/{}/attach", own["id"].as_str().unwrap());
    let request = world.post(&attach).json(&json!({ "vm_id": vm }));
    problem(request.bearer_auth(&bob).send().await.unwrap(), 404).await;
    let snapshot = format!("snap_{}", "0".repeat(32));
    for (method, path) in [
        (Method::GET, format!("/api/v1/vms/{vm}/snapshots")),
        (
            Method::POST,
            format!("/api/v1/vms/{vm}/snapshots/{snapshot}/revert"),
        ),
        (
            Method::DELETE,
            format!("/api/v1/vms/{vm}/snapshots/{snapshot}"),
        ),
    ] {
        let request = world.http.request(method, world.url(&path));
        problem(request.bearer_auth(&bob).send().await.unwrap(), 404).await;
    }
}

#[tokio::test]
async fn a_vm_without_a_disk_at_hand_has_nothing_to_keep_or_attach() {
    let world = World::new().await;
    let token = world.token().await;
    let (vm, _) = world.held_vm(&token, "web-1").await;
    let made = world.volume(&token, "data").await;
    let attach = format!("/api/v1/volumes/{}/attach", made["id"].as_str().unwrap());
    for (path, form) in [
        (attach, json!({ "vm_id": vm })),
        (
            format!("/api/v1/vms/{vm}/snapshots"),
            json!({ "name": "now" }),
        ),
    ] {
        let request = world.post(&path).json(&form).bearer_auth(&token);
        let refused = problem(request.send().await.unwrap(), 409).await;
        assert_eq!(refused["detail"], "`web-1` has not started");
    }
}
