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

#[tokio::test]
async fn what_the_table_refuses_is_refused_with_its_sentence() {
    let world = World::new().await;
    let token = world.token().await;
    let (id, _) = world.held_vm(&token, "web-1").await;
    for (action, sentence) in [
        ("suspend", "`web-1` has not started"),
        ("stop", "`web-1` has not started"),
        ("resume", "`web-1` is held; release it instead"),
        ("poweroff", "`web-1` has not started"),
        ("start", "`web-1` is held; release it instead"),
        ("reboot", "`web-1` has not started"),
        ("reset", "`web-1` has not started"),
        ("retry", "`web-1` has not failed"),
        ("shutdown", "`web-1` has not started; delete it instead"),
        ("hold", "`web-1` is already held"),
    ] {
        let request = world.post(&format!("/api/v1/vms/{id}/{action}"));
        let answer = request.bearer_auth(&token).send().await.unwrap();
        let problem = problem(answer, 409).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with(sentence), "{action}: {detail}");
    }
    let migrate = json!({ "host": "host-b", "mode": "live" });
    let request = world.post(&format!("/api/v1/vms/{id}/migrate"));
    let request = request.bearer_auth(&token).json(&migrate);
    let problem_of_migrate = problem(request.send().await.unwrap(), 409).await;
    let detail = problem_of_migrate["detail"].as_str().unwrap();
    assert!(detail.starts_with("`web-1` has not started"), "{detail}");
    let request = world.post(&format!("/api/v1/vms/{id}/dance"));
    let answer = request.bearer_auth(&token).send().await.unwrap();
    problem(answer, 404).await;
}

#[tokio::test]
async fn what_comes_with_an_action_is_checked() {
    let world = World::new().await;
    let token = world.token().await;
    let (id, _) = world.held_vm(&token, "web-1").await;
    let ask = async |action: &str, body: Value| {
        let request = world.post(&format!("/api/v1/vms/{id}/{action}"));
        request
            .bearer_auth(&token)
            .json(&body)
            .send()
            .await
            .unwrap()
    };
    problem(ask("poweroff", json!({ "force": "yes" })).await, 400).await;
    problem(ask("poweroff", json!({ "delay": 1 })).await, 400).await;
    problem(ask("resize", json!({})).await, 422).await;
    problem(ask("resize", json!({ "vcpus": -1 })).await, 400).await;
    let both = json!({ "flavor": "small", "vcpus": 1 });
    problem(ask("resize", both).await, 422).await;
    let much = json!({ "vcpus": 1_000_000, "memory_mib": 1 });
    let refused = problem(ask("resize", much).await, 422).await;
    assert_eq!(refused["errors"][1]["field"], "memory_mib");
}

#[tokio::test]
async fn an_operation_is_cancelled_once() {
    let world = World::new().await;
    let token = world.token().await;
    let (id, _) = world.held_vm(&token, "web-1").await;
    let vm = world.ask(&token, &format!("/api/v1/vms/{id}")).await;
    let operation = vm["operation"]["id"].as_str().unwrap().to_owned();
    let cancel = async || {
        let request = world.post(&format!("/api/v1/operations/{operation}/cancel"));
        request.bearer_auth(&token).send().await.unwrap()
    };
    let answer = cancel().await;
    assert_eq!(answer.status(), 202);
    let cancelled: Value = answer.json().await.unwrap();
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(cancelled["cancelled_by"], "admin");
    problem(cancel().await, 409).await;
}
