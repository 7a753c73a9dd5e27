use reqwest::Method;
use serde_json::Value;

use crate::world::{World, problem};

/// Routes that need nobody signed in.
const PUBLIC: [&str; 2] = ["get /api/v1/console", "post /api/v1/tokens"];

/// The path with something in every place.
fn filled(path: &str) -> String {
    let zeros = "0".repeat(32);
    let url = path
        .replace("{vm_id}", &format!("vm_{zeros}"))
        .replace("{operation_id}", &format!("op_{zeros}"))
        .replace("{request_id}", &format!("req_{zeros}"))
        .replace("{volume_id}", &format!("vol_{zeros}"))
        .replace("{snapshot_id}", &format!("snap_{zeros}"))
        .replace("{image_id}", &format!("image_{zeros}"))
        .replace("{host_id}", &format!("host_{zeros}"))
        .replace("{tenant_id}", &format!("tenant_{zeros}"))
        .replace("{backup_id}", &format!("backup_{zeros}"))
        .replace("{kind}", "backup")
        .replace("{template_id}", &format!("template_{zeros}"))
        .replace("{user_name}", "none")
        .replace("{name}", "none")
        .replace("{action}", "approve");
    assert!(!url.contains('{'), "{url}");
    url
}

#[tokio::test]
async fn every_change_takes_an_idempotency_key() {
    let world = World::new().await;
    let token = world.token().await;
    let document = world.ask(&token, "/api/v1/openapi.json").await;
    let mut without = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let takes = operation["parameters"]
                .as_array()
                .is_some_and(|all| all.iter().any(|it| it["name"] == "Idempotency-Key"));
            match (takes, method.as_str()) {
                (true, _) => {}
                (false, "get" | "head") => continue,
                (false, _) => {
                    without.push(format!("{method} {path}"));
                    continue;
                }
            }
            let method: Method = method.to_uppercase().parse().unwrap();
            let request = world.http.request(method.clone(), world.url(&filled(path)));
            let request = request.header("idempotency-key", "x".repeat(256));
            let answer = request.bearer_auth(&token).send().await.unwrap();
            assert_eq!(answer.status(), 422, "{method} {path}");
            let problem = problem(answer, 422).await;
            assert_eq!(problem["errors"][0]["field"], "Idempotency-Key");
        }
    }
    assert_eq!(
        without,
        [
            "patch /api/v1/images/{image_id}/content",
            "post /api/v1/tokens",
            "delete /api/v1/tokens/current"
        ]
    );
}

/// What a schema is called, or what it is.
fn named(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        return name.rsplit('/').next().unwrap().to_owned();
    }
    match schema["oneOf"].as_array().map(Vec::as_slice) {
        Some([nothing, form]) if nothing["type"] == "null" => format!("{}?", named(form)),
        _ => schema.to_string(),
    }
}

fn bodies(content: &Value) -> String {
    let kinds = content.as_object().into_iter().flatten();
    kinds.map(|(_, kind)| named(&kind["schema"])).collect()
}

/// One operation in one line: what it takes, and what it answers beside the
/// refusals that are everywhere.
fn line(method: &str, path: &str, operation: &Value) -> String {
    let mut line = format!("{} {path}", method.to_uppercase());
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        if parameter["in"] == "query" {
            line.push_str(&format!(" ?{}", parameter["name"].as_str().unwrap()));
        }
    }
    let body = &operation["requestBody"];
    if body.is_object() {
        line.push_str(&format!(" {{{}}}", bodies(&body["content"])));
    }
    line.push_str(" →");
    for (status, answer) in operation["responses"].as_object().unwrap() {
        let content = &answer["content"];
        let refused = content.get("application/problem+json").is_some();
        match (status.as_str(), refused) {
            ("400" | "401" | "403" | "413" | "500" | "503", true) => {}
            (_, true) => line.push_str(&format!(" {status}")),
            (_, false) => line.push_str(&format!(" {status} {}", bodies(content))),
        }
    }
    line.trim_end().to_owned()
}

/// Whoever changes the interface sees it here.
#[test]
fn every_route_says_what_it_takes_and_answers() {
    let document = serde_json::to_value(vimana_server::openapi()).unwrap();
    let mut lines = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert_ne!(operation["summary"], Value::Null, "{method} {path}");
            lines.push(line(method, path, operation));
        }
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn every_route_is_closed_to_strangers() {
    let world = World::new().await;
    let document: Value = world
        .get("/api/v1/openapi.json")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let mut public = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation["security"] == serde_json::json!([{}]) {
                public.push(format!("{method} {path}"));
                continue;
            }
            let url = filled(path);
            let method: Method = method.to_uppercase().parse().unwrap();
            let answer = world.http.request(method.clone(), world.url(&url));
            let answer = answer.send().await.unwrap();
            assert_eq!(answer.status(), 401, "{method} {path}");
            // What a HEAD answers has no body.
            if method != Method::HEAD {
                problem(answer, 401).await;
            }
        }
    }
    assert_eq!(public, PUBLIC);
}

#[tokio::test]
async fn what_does_not_exist_says_so() {
    let world = World::new().await;
    let token = world.token().await;
    for path in [
        "/api",
        "/api/v1",
        "/api/v1/nothing",
        "/api/v2/vms",
        "/agent/v1/nothing",
        "/scheduler/v2/session",
        "/api/v1/vms/vm_1",
        "/assets/nothing.js",
        "/assets/..%2f..%2fdata%2flock",
        "/assets/..%2fmanifest.json",
        "/api/v1/vms/vm_00000000000000000000000000000000",
        "/api/v1/operations/vm_00000000000000000000000000000000",
    ] {
        let answer = world.get(path).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        problem(answer, 404).await;
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let world = World::new().await;
    for path in [
        "/api/v1/vms",
        "/api/v1/images/x/content",
        "/healthz",
        "/scheduler/v1/session",
    ] {
        let answer = world.http.put(world.url(path)).send().await.unwrap();
        assert!(answer.headers().contains_key("allow"), "{path}");
        problem(answer, 405).await;
    }
}

#[tokio::test]
async fn health_is_public() {
    let world = World::new().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(world.get(path).send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn unknown_parameters_and_states_are_refused() {
    let world = World::new().await;
    let token = world.token().await;
    let ask = |path: &'static str| world.get(path).bearer_auth(&token).send();
    problem(ask("/api/v1/vms?owner=x").await.unwrap(), 400).await;
    problem(ask("/api/v1/vms?limit=-1").await.unwrap(), 400).await;
    problem(ask("/api/v1/events?after=x").await.unwrap(), 400).await;
    problem(ask("/api/v1/requests?owner=x").await.unwrap(), 400).await;
    problem(ask("/api/v1/requests?state=gone").await.unwrap(), 422).await;
    let problem = problem(ask("/api/v1/vms?state=running,gone").await.unwrap(), 422).await;
    assert_eq!(problem["errors"][0]["field"], "state");
}
