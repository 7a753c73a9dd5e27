//! One key, one effect.

use futures::future::join_all;
use reqwest::Response;
use serde_json::{Value, json};
use vimana_server::start;

use crate::world::{World, config, problem};

async fn create(world: &World, token: &str, key: &str, name: &str) -> Response {
    let form = json!({ "name": name, "image": "demo", "flavor": "tiny", "hold": true });
    let request = world.post("/api/v1/vms").header("idempotency-key", key);
    request.bearer_auth(token).json(&form).send().await.unwrap()
}

async fn operation_of(answer: Response) -> String {
    assert_eq!(answer.status(), 202);
    let accepted: Value = answer.json().await.unwrap();
    accepted["operation"]["id"].as_str().unwrap().to_owned()
}

async fn vms(world: &World, token: &str) -> usize {
    let list = world.ask(token, "/api/v1/vms").await;
    list["items"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_repeated_call_has_one_effect_and_the_same_answer() {
    let world = World::new().await;
    let token = world.token().await;
    let first = operation_of(create(&world, &token, "k", "one").await).await;
    for _ in 0..3 {
        let again = operation_of(create(&world, &token, "k", "one").await).await;
        assert_eq!(again, first);
    }
    assert_eq!(vms(&world, &token).await, 1);
}

#[tokio::test]
async fn twenty_calls_at_once_have_one_effect() {
    let world = World::new().await;
    let token = world.token().await;
    let calls = (0..20).map(|_| async {
        let answer = create(&world, &token, "k", "one").await;
        operation_of(answer).await
    });
    let mut operations = join_all(calls).await;
    operations.dedup();
    assert_eq!(operations.len(), 1);
    assert_eq!(vms(&world, &token).await, 1);
}

#[tokio::test]
async fn a_key_is_good_for_one_call_alone() {
    let world = World::new().await;
    let token = world.token().await;
    let (id, _) = world.held_vm(&token, "other").await;
    operation_of(create(&world, &token, "k", "one").await).await;
    let other_body = create(&world, &token, "k", "two").await;
    let release = world.post(&format!("/api/v1/vms/{id}/release"));
    let release = release.header("idempotency-key", "k").bearer_auth(&token);
    for refused in [other_body, release.send().await.unwrap()] {
        let problem = problem(refused, 422).await;
        assert_eq!(problem["errors"][0]["field"], "Idempotency-Key");
    }
    let vm = world.ask(&token, &format!("/api/v1/vms/{id}")).await;
    assert_eq!(vm["state"], "hold");
    assert_eq!(vms(&world, &token).await, 2);
}

#[tokio::test]
async fn a_refused_call_can_be_tried_again_under_its_key() {
    let world = World::new().await;
    let token = world.token().await;
    let (id, _) = world.held_vm(&token, "one").await;
    problem(create(&world, &token, "k", "one").await, 409).await;
    let delete = world.http.delete(world.url(&format!("/api/v1/vms/{id}")));
    let deleted = delete.bearer_auth(&token).send().await.unwrap();
    assert_eq!(deleted.status(), 202);
    operation_of(create(&world, &token, "k", "one").await).await;
}

#[tokio::test]
async fn keys_outlive_the_server() {
    let world = World::new().await;
    let token = world.token().await;
    let first = operation_of(create(&world, &token, "k", "one").await).await;
    let World { running, dir, http } = world;
    running.stop().await.unwrap();
    let running = start(config(dir.path())).await.unwrap();
    let world = World { running, dir, http };
    let again = operation_of(create(&world, &token, "k", "one").await).await;
    assert_eq!(again, first);
    assert_eq!(vms(&world, &token).await, 1);
}

#[tokio::test]
async fn keys_are_their_users_own() {
    let world = World::new().await;
    let admin = world.token().await;
    let me = world.ask(&admin, "/api/v1/me").await;
    let colleague = world
        .member("ann", me["tenant"].as_str().unwrap(), "operator")
        .await;
    world.tenant("lab", "automatic").await;
    let stranger = world.member("bob", "lab", "operator").await;
    let mut operations = vec![
        operation_of(create(&world, &admin, "k", "one").await).await,
        operation_of(create(&world, &colleague, "k", "two").await).await,
        // Another body, and even so nothing is told of the others' keys.
        operation_of(create(&world, &stranger, "k", "one").await).await,
    ];
    operations.sort();
    operations.dedup();
    assert_eq!(operations.len(), 3);
}

#[tokio::test]
async fn a_password_is_no_part_of_what_is_asked() {
    let world = World::new().await;
    let token = world.token().await;
    world.tenant("lab", "automatic").await;
    let make = async |password: &str, role: &str| {
        let form = json!({ "name": "ann", "password": password, "tenant": "lab", "role": role });
        let request = world.post("/api/v1/users").header("idempotency-key", "k");
        request
            .bearer_auth(&token)
            .json(&form)
            .send()
            .await
            .unwrap()
    };
    let first: Value = make("first password", "viewer").await.json().await.unwrap();
    let again: Value = make("other password", "viewer").await.json().await.unwrap();
    assert_eq!(first, again);
    problem(make("first password", "manager").await, 422).await;
    // The first one counts.
    for (password, status) in [("first password", 201), ("other password", 401)] {
        let form = json!({ "user_name": "ann", "password": password });
        let answer = world.post("/api/v1/tokens").json(&form).send().await;
        assert_eq!(answer.unwrap().status(), status);
    }
}
