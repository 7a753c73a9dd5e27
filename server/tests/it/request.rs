//! The manual life-cycle through the interface.

use reqwest::Response;
use serde_json::{Value, json};

use crate::world::{World, problem};

struct Lab {
    world: World,
    requester: String,
    manager: String,
}

impl Lab {
    async fn new() -> Self {
        let world = World::new().await;
        world.tenant("lab", "manual").await;
        let requester = world.member("ann", "lab", "operator").await;
        let manager = world.member("mia", "lab", "manager").await;
        Self {
            world,
            requester,
            manager,
        }
    }

    async fn post(&self, token: &str, path: &str, body: &Value) -> Response {
        let request = self.world.post(path).bearer_auth(token).json(body);
        request.send().await.unwrap()
    }

    async fn done(&self, token: &str, path: &str, body: &Value) -> Value {
        let answer = self.post(token, path, body).await;
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.unwrap()
    }

    async fn filed(&self) -> String {
        let form = json!({
            "terms": { "name": "web-1", "image": "demo", "flavor": "tiny" },
            "purpose": "the shop",
        });
        let answer = self.post(&self.requester, "/api/v1/requests", &form).await;
        assert_eq!(answer.status(), 201);
        let request: Value = answer.json().await.unwrap();
        assert_eq!(request["state"], "request");
        format!("/api/v1/requests/{}", request["id"].as_str().unwrap())
    }
}

#[tokio::test]
async fn a_request_goes_from_the_question_to_the_machine() {
    let lab = Lab::new().await;
    let path = lab.filed().await;
    let list = lab
        .world
        .ask(&lab.manager, "/api/v1/requests?state=request,returned")
        .await;
    assert_eq!(list["items"][0]["remarks"][0]["text"], "the shop");
    let mine = lab
        .world
        .ask(&lab.manager, "/api/v1/requests?mine=true")
        .await;
    assert_eq!(mine["items"], json!([]));

    let question = json!({ "remark": "for how long?" });
    let ask_back = format!("{path}/ask-back");
    let asked = lab.done(&lab.manager, &ask_back, &question).await;
    assert_eq!(asked["state"], "returned");
    let answer = json!({ "remark": "a week" });
    let answered = lab
        .done(&lab.requester, &format!("{path}/answer"), &answer)
        .await;
    let generation = answered["generation"].clone();
    let changed = json!({
        "generation": generation,
        "terms": { "name": "web-2", "image": "demo", "flavor": "tiny", "hold": true },
    });
    let approved = lab
        .done(&lab.manager, &format!("{path}/approve"), &changed)
        .await;
    assert_eq!(approved["state"], "provision");
    assert_eq!(approved["vm"]["state"], "hold");

    let id = approved["vm"]["id"].as_str().unwrap();
    let vm = lab
        .world
        .ask(&lab.requester, &format!("/api/v1/vms/{id}"))
        .await;
    assert_eq!(
        (&vm["name"], &vm["owner"]),
        (&json!("web-2"), &json!("ann"))
    );
    assert_eq!(vm["request_id"], approved["id"]);
    let events = lab
        .world
        .ask(&lab.requester, &format!("{path}/events"))
        .await;
    let actions: Vec<&Value> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["event"]["action"])
        .collect();
    assert_eq!(
        actions,
        [
            &json!(null),
            &json!("ask_back"),
            &json!("answer"),
            &json!("approve")
        ]
    );
}

#[tokio::test]
async fn what_cannot_be_done_with_a_request_is_refused() {
    let lab = Lab::new().await;
    let path = lab.filed().await;
    let nothing = json!({});
    let reason = json!({ "remark": "no" });
    let ask = |token, action: &str, body| {
        let path = format!("{path}/{action}");
        let lab = &lab;
        async move { lab.post(token, &path, body).await }
    };
    problem(ask(&lab.requester, "approve", &nothing).await, 403).await;
    problem(ask(&lab.manager, "reject", &nothing).await, 422).await;
    problem(ask(&lab.manager, "bless", &nothing).await, 404).await;
    problem(ask(&lab.manager, "keep", &nothing).await, 409).await;
    let stale = json!({ "generation": 99 });
    problem(ask(&lab.manager, "approve", &stale).await, 412).await;
    let unknown = json!({ "because": "x" });
    problem(ask(&lab.manager, "approve", &unknown).await, 400).await;
    // A VM without a request, and a request where nobody decides.
    let form = json!({ "name": "web-1", "image": "demo", "flavor": "tiny" });
    problem(lab.post(&lab.requester, "/api/v1/vms", &form).await, 409).await;
    let form = json!({ "terms": form, "purpose": "x" });
    let admin = lab.world.token().await;
    problem(lab.post(&admin, "/api/v1/requests", &form).await, 409).await;
    let rejected = ask(&lab.manager, "reject", &reason).await;
    assert_eq!(rejected.status(), 200);
    problem(ask(&lab.manager, "approve", &nothing).await, 409).await;
}

#[tokio::test]
async fn another_tenants_request_does_not_exist() {
    let lab = Lab::new().await;
    let path = lab.filed().await;
    lab.world.tenant("shop", "manual").await;
    let stranger = lab.world.member("bob", "shop", "manager").await;
    for path in [path.clone(), format!("{path}/events")] {
        let answer = lab.world.get(&path).bearer_auth(&stranger).send().await;
        problem(answer.unwrap(), 404).await;
    }
    let approve = format!("{path}/approve");
    problem(lab.post(&stranger, &approve, &json!({})).await, 404).await;
    let list = lab.world.ask(&stranger, "/api/v1/requests").await;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn a_repeated_decision_is_one_decision() {
    let lab = Lab::new().await;
    let path = lab.filed().await;
    let reject = async || {
        let request = lab.world.post(&format!("{path}/reject"));
        let request = request.header("idempotency-key", "k");
        let request = request.bearer_auth(&lab.manager);
        let answer = request.json(&json!({ "remark": "no" })).send().await;
        answer.unwrap().json::<Value>().await.unwrap()
    };
    let first = reject().await;
    assert_eq!(first["state"], "rejected");
    assert_eq!(reject().await, first);
}
