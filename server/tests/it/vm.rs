use serde_json::{Value, json};

use crate::world::{World, problem};

#[tokio::test]
async fn a_vm_lives_through_the_interface() {
    let world = World::new().await;
    let token = world.token().await;
    let (id, _) = world.held_vm(&token, "web-1").await;
    let path = format!("/api/v1/vms/{id}");
    let ask = async |path: &str| -> Value {
        let answer = world.get(path).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    };
    let act = |path: String| world.post(&path).bearer_auth(&token).send();
    assert_eq!(ask(&path).await["state"], "hold");
    assert_eq!(
        ask("/api/v1/vms?name=web-1&state=hold").await["items"][0]["id"],
        id.as_str()
    );
    assert_eq!(
        ask("/api/v1/vms?state=running,failed").await["items"],
        json!([])
    );

    problem(act(format!("{path}/hold")).await.unwrap(), 409).await;
    problem(act(format!("{path}/console")).await.unwrap(), 409).await;
    let released = act(format!("{path}/release")).await.unwrap();
    assert_eq!(released.status(), 200);
    assert_eq!(released.json::<Value>().await.unwrap()["state"], "pending");

    let deleted = world.http.delete(world.url(&path)).bearer_auth(&token);
    let deleted = deleted.send().await.unwrap();
    assert_eq!(deleted.status(), 202);
    let deleted: Value = deleted.json().await.unwrap();
    assert_eq!(deleted["operation"]["kind"], "delete");
    assert_eq!(ask(&path).await["state"], "done");
    let operation = deleted["operation"]["id"].as_str().unwrap();
    assert_eq!(
        ask(&format!("/api/v1/operations/{operation}")).await["state"],
        "succeeded"
    );
    let operations = ask(&format!("{path}/operations")).await;
    assert_eq!(operations["items"][0]["kind"], "delete");
    assert_eq!(operations["items"][1]["kind"], "create");
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let world = World::new().await;
    let token = world.token().await;
    world.held_vm(&token, "only").await;
    let form = json!({ "name": "only", "image": "demo", "flavor": "tiny" });
    let again = world.post("/api/v1/vms").bearer_auth(&token).json(&form);
    problem(again.send().await.unwrap(), 409).await;
}
