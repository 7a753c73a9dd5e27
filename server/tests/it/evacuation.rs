//! What administrators want of hosts.

use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::Agent;
use crate::world::{World, problem};

const NOBODY: &str = "/api/v1/hosts/host_00000000000000000000000000000009";

/// Asks it of the host.
async fn ask(world: &World, agent: &Agent, action: &str, form: Value) -> Value {
    let path = format!("/api/v1/hosts/{}/{action}", agent.id);
    let token = world.token().await;
    let answer = world.post(&path).bearer_auth(token).json(&form);
    let answer = answer.send().await.unwrap();
    assert_eq!(answer.status(), 200, "{action}");
    answer.json().await.unwrap()
}

async fn host(world: &World, agent: &Agent) -> Value {
    let hosts = world.ask(&world.token().await, "/api/v1/hosts").await;
    let mut hosts = hosts["items"].as_array().unwrap().iter();
    let id = json!(agent.id);
    hosts.find(|host| host["id"] == id).unwrap().clone()
}

/// The state that is shown, and the one that is wanted.
fn states(host: &Value) -> (&str, &str) {
    let text = |name: &str| host[name].as_str().unwrap();
    (text("state"), text("desired"))
}

#[tokio::test]
async fn a_host_is_cordoned_drained_and_enabled() {
    let world = World::new().await;
    let mut agent = Agent::joined(&world, 1).await;
    let _session = agent.session().await;
    let evacuation = format!("/api/v1/hosts/{}/evacuation", agent.id);
    let token = world.token().await;
    let none = world.get(&evacuation).bearer_auth(&token).send().await;
    let none = problem(none.unwrap(), 409).await;
    let detail = none["detail"].as_str().unwrap();
    assert!(detail.ends_with("is not being evacuated"), "{detail}");
    for _ in 0..2 {
        let cordoned = ask(&world, &agent, "cordon", json!({})).await;
        assert_eq!(states(&cordoned), ("cordoned", "cordoned"));
    }
    let draining = ask(&world, &agent, "evacuate", json!({ "limit": 4 })).await;
    assert_eq!(states(&draining), ("draining", "draining"));
    // Nothing is on it.
    let empty = async {
        while states(&host(&world, &agent).await).0 != "maintenance" {
            tokio::task::yield_now().await;
        }
    };
    let within = Duration::from_secs(20);
    tokio::time::timeout(within, empty).await.unwrap();
    let view = world.ask(&token, &evacuation).await;
    assert_eq!(
        (&view["over"], &view["limit"], &view["by"]),
        (&json!(true), &json!(4), &json!("admin"))
    );
    let enabled = ask(&world, &agent, "enable", json!({})).await;
    assert_eq!(states(&enabled), ("enabled", "enabled"));
    let path = format!("/api/v1/hosts/{}/events", agent.id);
    let told = world.ask(&token, &path).await;
    let told: Vec<_> = told["items"].as_array().unwrap().iter().collect();
    let by = |kind: &str| {
        let of = told.iter().filter(|told| told["event"]["kind"] == kind);
        of.map(|told| told["actor"]["name"].as_str())
            .collect::<Vec<_>>()
    };
    assert_eq!(by("host_cordoned"), [Some("admin")]);
    assert_eq!(by("host_draining"), [Some("admin")]);
    assert_eq!(by("host_drained"), [None]);
    assert_eq!(by("host_enabled"), [Some("admin")]);
}

#[tokio::test]
async fn a_host_that_joins_anew_is_as_was_wanted() {
    let world = World::new().await;
    let mut agent = Agent::joined(&world, 1).await;
    let session = agent.session().await;
    ask(&world, &agent, "cordon", json!({})).await;
    ask(&world, &agent, "revoke", json!({})).await;
    drop(session);
    let answer = agent.join(&world.join_token().await).await;
    agent.take(answer).await;
    let _session = agent.session().await;
    let back = host(&world, &agent).await;
    assert_eq!(states(&back), ("cordoned", "cordoned"));
}

#[tokio::test]
async fn only_administrators_say_what_is_wanted_of_hosts() {
    let world = World::new().await;
    let agent = Agent::joined(&world, 1).await;
    world.tenant("one", "automatic").await;
    let ann = world.member("ann", "one", "manager").await;
    let own = format!("/api/v1/hosts/{}", agent.id);
    for base in [own.as_str(), NOBODY] {
        for action in ["cordon", "enable", "evacuate"] {
            let path = format!("{base}/{action}");
            problem(world.post(&path).send().await.unwrap(), 401).await;
            let form = json!({ "limit": 0 });
            let refused = world.post(&path).bearer_auth(&ann).json(&form);
            let refused = refused.send().await.unwrap();
            let refused = problem(refused, 403).await;
            assert_eq!(
                refused["detail"],
                "your role does not allow this; ask an administrator"
            );
        }
        let path = format!("{base}/evacuation");
        let refused = world.get(&path).bearer_auth(&ann).send().await.unwrap();
        problem(refused, 403).await;
    }
    assert_eq!(host(&world, &agent).await["desired"], "enabled");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let world = World::new().await;
    let agent = Agent::joined(&world, 1).await;
    let token = world.token().await;
    let path = format!("/api/v1/hosts/{}/evacuate", agent.id);
    for (form, status) in [
        (json!({ "limit": 0 }), 422),
        (json!({ "limit": 17 }), 422),
        (json!({ "limit": 2, "to": "host-2" }), 400),
    ] {
        let refused = world.post(&path).bearer_auth(&token).json(&form);
        let refused = problem(refused.send().await.unwrap(), status).await;
        if status == 422 {
            assert_eq!(refused["errors"][0]["field"], "limit");
        }
    }
    for action in ["cordon", "enable", "evacuate"] {
        let path = format!("{NOBODY}/{action}");
        let answer = world.post(&path).bearer_auth(&token).send().await;
        problem(answer.unwrap(), 404).await;
    }
    assert_eq!(host(&world, &agent).await["desired"], "enabled");
}
